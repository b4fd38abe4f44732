"""Frame -> roofline plot: the rate of each layer against the limits of the machine.

Attainable rate = min(FMA peak, bandwidth x arithmetic intensity). Points show the rate of the operations in the
definition, so an algorithm that does fewer may be above the roof; `bench.analysis.tables.utilisation` counts the
operations that are executed. A "~" marks weak points.
Source: Williams, Waterman & Patterson 2009, doi:10.1145/1498765.1498785.
Limits: the data of one image may stay in caches between calls, so the memory line does not limit small layers. The
line of the last cache is its read bandwidth. The peak is for the first layer's dtype.
"""

from __future__ import annotations

from math import ceil
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..analysis.networks import networks, threads_of
from ..analysis.numbers import number, percent, sign
from ..analysis.sums import depends
from ..peers import PEERS
from ..store.records import problem_of
from .colours import FAINT, HUES, MUTED
from .style import (
    SMALL,
    NothingToDraw,
    corner,
    legend_below_title,
    log_ticks,
    mark_points,
    short,
    styled,
    titled_figure,
)

# A layer reaches the roof from this fraction of it.
REACHED = 0.85
COLUMNS = 2
# Algorithms that do fewer operations than the definition.
FEWER_OPERATIONS = "winograd", "fft"


@styled
def roofline(table: pd.DataFrame, environment: dict[str, Any]) -> Figure:
    """One panel per workload, one point per layer for ours (auto, or the fastest) and for the best library.

    All panels have the same axes: layers that the memory limits are left of the ridge.

    Parameters
    ----------
    table : DataFrame
        From `bench.analysis.frame.frame`.
    environment : dict
        With ``machine``, the result of `bench.machine.environment.measure_machine`.

    Raises
    ------
    NothingToDraw
        If no layer was measured, or the machine was not measured.
    """
    measured = {str(name): points(table, str(name)) for name in table.workload.unique()}
    measured = {name: rows for name, rows in measured.items() if len(rows)}
    if not measured:
        raise NothingToDraw("no measured layers")
    found = {name: measured[name] for name in order(measured, list(networks(table).workload.unique()))}
    ceilings = {name: _ceilings(environment, rows) for name, rows in found.items()}
    for name, (peak_gflops, bandwidth) in ceilings.items():
        roof = np.minimum(peak_gflops, max(bandwidth.values()) * found[name].intensity)
        found[name]["of_roof"] = found[name].ours / roof
    columns = min(COLUMNS, len(found))
    lines = ceil(len(found) / columns)
    figure, grid = titled_figure(
        1.9 + (4.2 if columns == 1 else 3.1) * lines, title(found), lines, columns, sharex=True, sharey=True,
        squeeze=False,
    )  # fmt: skip
    everything = pd.concat(found.values())
    peaks = [peak for peak, _ in ceilings.values()]
    ridge = min(peak / max(bandwidth.values()) for peak, bandwidth in ceilings.values())
    _limits(grid, everything, ridge, max(peaks))
    weak = False
    for axes, (name, rows) in zip(grid.flat, found.items(), strict=False):
        peak_gflops, bandwidth = ceilings[name]
        _draw_roof(axes, peak_gflops, bandwidth, labels=len(found) == 1)
        weak |= _draw_points(axes, rows, peak_gflops)
        axes.set_title(f"{short(name, 24)}: {_reached(rows)}" if len(found) > 1 else "", loc="left")
    for axes in grid.flat[len(found) :]:
        axes.set_axis_off()
    # The last panel of each column.
    for axes in grid.flat[max(0, len(found) - columns) : len(found)]:
        axes.set_xlabel("operations per byte (FLOP/byte)")
        axes.tick_params(labelbottom=True)
    legend_below_title(figure)
    peak_gflops, bandwidth = ceilings[next(iter(found))]
    lines_of = ", ".join(f"{level} {number(rate)} GB/s" for level, rate in bandwidth.items())
    note = f"{threads_of(everything)}; operations and bytes of the definition; "
    note += f"roof: FMA peak {number(peak_gflops)} GFLOP/s, dashed: {lines_of}."
    if everything.fewer.any():
        note += " Winograd and FFT do fewer operations than counted here: they may be above the roof."
    corner(figure, environment, note, weak)
    return figure


def order(found: dict[str, pd.DataFrame], first: list[str]) -> list[str]:
    """Networks before other workloads; the one with the fewest operations per byte is next to the first.

    So a workload that the memory limits, if there is one, is next to one that the arithmetic units limit.
    """
    names = sorted(found, key=lambda name: name not in first)
    rest = sorted(names[1:], key=lambda name: float(found[name].intensity.min()))
    return [names[0], *rest[:1], *(name for name in names[1:] if name not in rest[:1])]


def title(found: dict[str, pd.DataFrame]) -> str:
    """The finding: how many layers reach the roof.

    Parameters
    ----------
    found : dict of str to DataFrame
        By workload, the layers: columns of_roof (rate over the machine's roof), fewer (whether ours does fewer
        operations than the definition) and weak.
    """
    rows = pd.concat(found.values())
    fewer = int(((rows.of_roof >= REACHED) & rows.fewer).sum())
    by = f", {fewer} of them by doing fewer operations" if fewer else ""
    of = (
        f"{short(next(iter(found)), 30)}: {_reached(rows)}" if len(found) == 1 else f"{_reached(rows)} of all workloads"
    )
    return f"{of} layers reach {REACHED:.0%} of the machine's roof{by}".replace(
        "of all workloads layers", f"layers of {len(found)} workloads"
    )


def _reached(rows: pd.DataFrame) -> str:
    """How many layers reach the roof."""
    reach = rows.of_roof >= REACHED
    return f"{sign(depends(reach.notna(), rows.weak != ''))}{reach.sum()} of {len(rows)}"


def points(table: pd.DataFrame, workload: str) -> pd.DataFrame:
    """One row per layer: intensity (FLOP/byte), rates in GFLOP/s, whether ours does fewer operations than nominal."""
    part = table[(table.workload == workload) & (table.direction == "fwd") & (table.status == "ok")]
    part = part[part.threads == part.threads.max()]
    foreign = part.backend.isin(PEERS)
    peers = part[foreign].sort_values("median_s").drop_duplicates("layer").set_index("layer")
    rows = []
    for layer, mine in part[~foreign].groupby("layer", sort=False):
        auto = mine[mine.backend == "auto"]
        best = (mine if auto.empty else auto).sort_values("median_s").iloc[0]
        problem = problem_of(best.label)
        rows.append(
            {
                "layer": layer,
                "threads": best.threads,
                "dtype": problem.dtype,
                "intensity": problem.flops / problem.min_bytes,
                "ours": best.gflops_effective,
                "fewer": any(word in f"{best.backend} {best.algorithm}" for word in FEWER_OPERATIONS),
                "weak": best.weak,
                "peer": peers.gflops_effective.get(layer, np.nan),
                "peer_weak": peers.weak.get(layer, ""),
            }
        )
    return pd.DataFrame(rows)


def _ceilings(environment: dict[str, Any], points: pd.DataFrame) -> tuple[float, dict[str, float]]:
    """FMA peak in GFLOP/s; bandwidth of the last cache and of memory in GB/s.

    Taken at the points' thread count, or at the next higher measured count, which is still an upper bound.
    """
    machine, threads = environment.get("machine"), points.threads.iloc[0]
    if not machine:
        raise NothingToDraw("the run holds no measurement of the machine")

    def at(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        counts = [row["threads"] for row in rows]
        count = min((count for count in counts if count >= threads), default=max(counts))
        return [row for row in rows if row["threads"] == count]

    peak = at(machine["by_threads"])[0]
    last_two = at(machine["by_level"])[-2:]
    return peak[f"fma_{points.dtype.iloc[0]}_gflops"], {row["level"]: row["read_gb_per_s"] for row in last_two}


def _limits(grid: Any, rows: pd.DataFrame, ridge: float, peak_gflops: float) -> None:
    """Set axis limits with room for all points, the slope left of the ridge and the labels."""
    rates = pd.concat([rows.ours, rows.peer.dropna(), pd.Series([peak_gflops])])
    left, right = min(ridge / 2.5, rows.intensity.min() / 2), rows.intensity.max() * 1.7
    first = grid[0, 0]
    first.set(xscale="log", yscale="log", xlim=(left, right), ylim=(rates.min() / 2, rates.max() * 2))
    log_ticks(first.xaxis, panels=len(grid[0]))
    log_ticks(first.yaxis)
    for axes in grid[:, 0]:
        axes.set_ylabel("effective GFLOP/s")


def _draw_roof(axes: Any, peak_gflops: float, bandwidth: dict[str, float], labels: bool) -> None:
    (left, right), (bottom, _), roof = axes.get_xlim(), axes.get_ylim(), MUTED
    for level, rate in bandwidth.items():
        start, ridge = max(left, bottom / rate), peak_gflops / rate
        axes.plot([start, ridge], [rate * start, peak_gflops], color=roof, lw=1.5, ls="--")
        middle = np.sqrt(start * ridge)
        if labels:
            axes.text(
                middle, 1.05 * rate * middle, f"{level} {number(rate)} GB/s", color=roof, fontsize=SMALL, ha="center",
                rotation=np.degrees(np.arctan(rate)), rotation_mode="anchor", transform_rotates_text=True,
            )  # fmt: skip
    ridge = peak_gflops / max(bandwidth.values())
    axes.plot([ridge, right], [peak_gflops] * 2, color=roof, lw=2)
    if labels:
        text = f"FMA peak {number(peak_gflops)} GFLOP/s"
        axes.annotate(text, (right, peak_gflops), xytext=(0, 5), textcoords="offset points", color=roof,
                      fontsize=SMALL, ha="right")  # fmt: skip


def _draw_points(axes: Any, rows: pd.DataFrame, peak_gflops: float) -> bool:
    """Draw both series and their marks; return whether there is a mark."""
    x, rates = rows.intensity, rows[["ours", "peer"]]
    for fewer, marker, name in ((False, "o", "ours"), (True, "D", "ours, fewer operations")):
        mine = rows[rows.fewer == fewer]
        if len(mine):
            axes.scatter(mine.intensity, mine.ours, s=42, color=_colour(fewer), marker=marker, label=name, zorder=3)
    if rows.peer.notna().any():
        axes.vlines(x, rates.min(axis=1), rates.max(axis=1), color=FAINT, lw=1, zorder=1)
        axes.scatter(x, rows.peer, s=42, marker="s", facecolors="none", edgecolors=MUTED, label="best library")
    _label(axes, rows, rows.of_roof.idxmax(), peak_gflops)
    if len(rows) > 1:
        _label(axes, rows, rows.of_roof.idxmin(), None)
    ours = mark_points(axes, rows.intensity, rows.ours, rows.weak)
    return mark_points(axes, rows.intensity, rows.peer, rows.peer_weak) or ours


def _colour(fewer: bool) -> str:
    return HUES["vermilion" if fewer else "blue"]


def _label(axes: Any, rows: pd.DataFrame, index: int, above_gflops: float | None) -> None:
    """Label one point. The text is above all near points and the roof, or below all near rows."""
    row, away = rows.loc[index], np.log(rows.intensity / rows.intensity[index]).abs()
    near = rows.loc[away < np.log(2.5), ["ours", "peer"]]
    (left, right), (bottom, top) = np.log(axes.get_xlim()), np.log(axes.get_ylim())
    # A twelfth of the axes is two lines of text: room for the roof's own label.
    step = np.exp((top - bottom) / 12)
    y = near.min().min() / step if above_gflops is None else max(near.max().max(), above_gflops) * step
    across = (np.log(row.intensity) - left) / (right - left)
    colour = _colour(row.fewer)
    text = f"{short(row.layer, 16)}: {percent(row.of_roof, row.weak)}"
    axes.annotate(
        text, (row.intensity, row.ours), xytext=(row.intensity, y), color=colour,
        ha="right" if across > 0.65 else "left" if across < 0.35 else "center", fontsize=SMALL,
        va="center", arrowprops={"arrowstyle": "-", "color": colour, "lw": 0.8, "shrinkB": 4},
    )  # fmt: skip
