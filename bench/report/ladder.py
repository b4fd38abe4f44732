"""Frame -> the ladder of docs/tutorial.md: rungs 1 to 7 on one dense 3x3 layer, rung 8 on a depthwise layer.

A rung that is slower than the rung below it is drawn in another colour, with hatching. Limits: the depthwise layer
comes from another workload of the run if this one has none.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import pandas as pd
from matplotlib.figure import Figure

from ..analysis.networks import threads_of
from ..analysis.numbers import duration, number, times
from ..store.records import problem_of
from .colours import HUES, PAPER
from .style import LABEL, SMALL, NothingToDraw, corner, log_ticks, short, styled, titled_figure


class Rung(NamedTuple):
    """A rung of the tutorial: its name there, its idea, and its backends, of which the fastest is drawn."""

    number: int
    name: str
    idea: str
    backends: tuple[str, ...]


RUNGS = (
    Rung(1, "python_loops", "four loops around patch times kernel, summed", ("python_loops",)),
    Rung(2, "numpy_im2col", "one matrix product; Python copies the patches", ("numpy_im2col",)),
    Rung(3, "numpy_strided", "the same, without a loop in Python", ("numpy_strided",)),
    Rung(4, "scipy_fft", "a product in the frequency domain", ("scipy_fft",)),
    Rung(5, "numba_direct", "compiled; reads the image in place", ("numba_direct",)),
    Rung(6, "numba_simd", "sums stay in vector registers", ("numba_simd",)),
    Rung(7, "Winograd", "fewer products", ("numba_winograd_f2", "numba_winograd_f4", "numba_winograd_f6")),
    Rung(8, "numba_depthwise", "one input channel per output, no matrix product", ("numba_depthwise",)),
)
CHOICE = Rung(0, "auto", "the rung that a cost model selects", ("auto",))


@styled
def ladder(table: pd.DataFrame, environment: dict[str, Any], workload: str) -> Figure:
    """Bars: how many times as fast each rung is as the first measured one, on the two layers."""
    table = table[table.status == "ok"]
    table = table[table.threads == table.groupby(["workload", "layer"]).threads.transform("max")]
    dense = rungs(table, layer_of(table[table.workload == workload], depthwise=False))
    own = layer_of(table[table.workload == workload], depthwise=True)
    depthwise = rungs(table, own or layer_of(table, depthwise=True))
    if dense.empty and (depthwise.empty or own is None):
        raise NothingToDraw(f"no dense 3x3 or depthwise layer of {workload} that two rungs measured")
    panels = [part for part in (dense, depthwise) if len(part)]
    height = 1.5 + sum(0.75 + 0.5 * len(part) for part in panels)
    figure, grid = titled_figure(
        height, title(dense, depthwise), len(panels), squeeze=False, height_ratios=[1.2 + len(part) for part in panels]
    )
    for axes, part in zip(grid[:, 0], panels, strict=True):
        _panel(axes, part)
    grid[-1, 0].set_xlabel("times as fast as the lowest rung")
    weak = any(part.weak.any() for part in panels)
    note = f"{threads_of(panels[0])}; rungs of docs/tutorial.md; hatched: slower than the rung below"
    corner(figure, environment, note, weak)
    return figure


def layer_of(table: pd.DataFrame, depthwise: bool) -> tuple[str, str] | None:
    """Workload and layer with the most measured rungs: depthwise, or dense 3x3; of several the one with the most work.

    Stride 1 comes before larger strides. None if no such layer was measured by at least two rungs. The table has the
    right results of one number of threads.
    """
    best: tuple[tuple[int, bool, int], tuple[str, str]] | None = None
    known = table[table.backend.isin([name for rung in RUNGS for name in rung.backends])]
    for key, mine in known.groupby(["workload", "layer"], sort=False):
        problem = problem_of(mine.label.iloc[0])
        dense = problem.groups == 1 and problem.kernel_size == (3, 3)
        if not (problem.groups == problem.in_channels > 1 if depthwise else dense):
            continue
        count = sum(mine.backend.isin(rung.backends).any() for rung in RUNGS)
        rank = (count, problem.stride == (1, 1), problem.macs)
        if count > 1 and (best is None or rank > best[0]):
            best = rank, (str(key[0]), str(key[1]))
    return best[1] if best else None


def rungs(table: pd.DataFrame, where: tuple[str, str] | None) -> pd.DataFrame:
    """One row per measured rung of a layer, `auto` last, from the right results of one number of threads.

    Returns
    -------
    DataFrame
        Columns number (0 for auto), name, idea, backend, workload, layer, threads, median_s, speedup (over the lowest
        measured rung), step (over the rung below; NaN for the lowest), slower (whether it is slower than the rung
        below) and weak. Empty without a layer.
    """
    rows: list[dict[str, Any]] = []
    if where is None:
        return pd.DataFrame(rows)
    part = table[(table.workload == where[0]) & (table.layer == where[1])]
    for rung in (*RUNGS, CHOICE):
        mine = part[part.backend.isin(rung.backends)]
        if mine.empty:
            continue
        best = mine.loc[mine.median_s.idxmin()]
        below = rows[-1] if rows else None
        step = below["median_s"] / best.median_s if below else float("nan")
        rows.append({
            "number": rung.number, "name": rung.name, "idea": rung.idea, "backend": best.backend,
            "workload": where[0], "layer": where[1], "threads": best.threads, "median_s": best.median_s, "step": step,
            "slower": bool(round(step, 2) < 1) and rung is not CHOICE, "weak": best.weak != "",
        })  # fmt: skip
    made = pd.DataFrame(rows)
    return made.assign(speedup=made.median_s.iloc[0] / made.median_s)


def title(dense: pd.DataFrame, depthwise: pd.DataFrame) -> str:
    """The finding: the gain from the lowest to the fastest rung of each layer, and which rungs are slower.

    Parameters
    ----------
    dense, depthwise : DataFrame
        From `rungs`.
    """
    found = (("Dense 3x3", dense), ("Depthwise", depthwise))
    return ". ".join(f"{kind}: {_climb(part[part.number > 0])}" for kind, part in found if len(part))


def _climb(part: pd.DataFrame) -> str:
    lowest, best = part.iloc[0], part.loc[part.speedup.idxmax()]
    if best.number == lowest.number:
        text = f"no rung is faster than rung {lowest.number} ({lowest['name']})"
    else:
        gain = number(best.speedup, lowest.weak or best.weak)
        text = f"rung {best.number} ({best['name']}) is {gain} times as fast as rung {lowest.number}"
    slower = [str(n) for n in part.number[part.slower]]
    if not slower:
        return text
    *first, last = slower
    which = f"rungs {', '.join(first)} and {last} are" if first else f"rung {last} is"
    return f"{text}; {which} slower than the rung below"


def _panel(axes: Any, part: pd.DataFrame) -> None:
    """Two lines per rung: its name and idea, and below them its bar."""
    # Every bar is visible, also one of a rung that is slower than the lowest.
    start = 0.5 * float(part.speedup.min())
    for y, row in enumerate(part.itertuples(index=False)):
        hue = "vermilion" if row.slower else "grey" if row.number == 0 else "blue"
        colour = HUES[hue]
        axes.barh(y + 0.2, row.speedup - start, left=start, height=0.4, color=PAPER if row.slower else colour,
                  edgecolor=colour, hatch="///" if row.slower else None)  # fmt: skip
        name = f"{row.number}  {row.name}" if row.number else row.name
        name += f" ({row.backend})" if row.backend != row.name else ""
        axes.text(
            0.0, y - 0.2, f"{name}: {row.idea}", transform=axes.get_yaxis_transform(), va="center", fontsize=SMALL
        )
        step = "" if row.number == 0 or row.step != row.step else f", {times(row.step, row.weak)}x the rung below"
        text = f"{number(row.speedup, row.weak)}x, {duration(row.median_s)}{step if row.slower else ''}"
        axes.annotate(text, (row.speedup, y + 0.2), xytext=(5, 0), textcoords="offset points", va="center",
                      color=colour, fontsize=LABEL)  # fmt: skip
    axes.set(xscale="log", ylim=(len(part) - 0.5, -0.5), yticks=[])
    # The longest bar takes half of the width, and its text the rest.
    axes.set_xlim(start, start * max(30.0, (float(part.speedup.max()) / start) ** 1.9))
    log_ticks(axes.xaxis, number)
    axes.spines["left"].set_visible(False)
    first = part.iloc[0]
    axes.set_title(f"{short(first.workload, 24)}, {short(first.layer, 30)}", loc="left")
