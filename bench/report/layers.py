"""Frame -> two figures of one workload, layer by layer: speed against the best library, and where the time goes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..analysis.networks import contenders, threads_of
from ..analysis.numbers import duration, percent, sign, times
from ..analysis.ratios import BEST, by_layer, with_best_peer
from ..analysis.sums import by_backend
from ..analysis.tables import CHOICES
from ..peers import PEERS
from .colours import FAINT, HUES, MUTED, PAPER
from .style import SMALL, NothingToDraw, corner, label_rows, legend_below_title, log_ticks, short, styled, titled_figure
from .words import CLOSE, FASTER, SLOWER, tally, verdicts

# Of a larger network, only the layers that take the most time have a row.
MOST_LAYERS = 60
# Layers with a colour of their own in the bars.
COLOURED = 7
# A bar is cut at this many times the shortest one.
CUT = 3.0
# Diameter of the dot of the layer that takes the most time, in points.
LARGEST = 20.0
LOOK = {FASTER: ("blue", "o"), CLOSE: ("grey", "s"), SLOWER: ("vermilion", "v")}


@styled
def layers(table: pd.DataFrame, environment: dict[str, Any], workload: str) -> Figure:
    """One dot per layer: the time of the best library over ours, with its 95% interval; area: share of our time.

    Without libraries, ours is compared with the best other backend of each layer.
    """
    part = of_workload(table, workload)
    ours = subject(part)
    rows, rival = speeds(part, ours)
    if rows.empty:
        raise NothingToDraw(f"no layer of {workload} that {ours} and another backend measured in the same rounds")
    finding = title(rows, workload, ours, rival)
    whole, largest = len(rows), rows.share.max()
    rows = rows.loc[rows.share.nlargest(MOST_LAYERS).sort_index().index].reset_index(drop=True)
    figure, axes = titled_figure(2.1 + 0.27 * len(rows), finding)
    axes.axvline(1, color=MUTED, lw=1.4)
    axes.set_xscale("log")
    right = axes.get_yaxis_transform()
    for word, (hue, marker) in LOOK.items():
        mine, colour = rows[rows.verdict == word], HUES[hue]
        if mine.empty:
            continue
        axes.hlines(mine.index, mine.low, mine.high, color=colour, lw=1.6, alpha=0.7)
        area = LARGEST**2 * mine.share / largest
        axes.scatter(mine.ratio, mine.index, s=area, color=colour, marker=marker, alpha=0.75, label=word, zorder=3)
        for y, row in mine.iterrows():
            text = times(row.ratio, row.weak)
            axes.text(1.02, y, text, transform=right, color=colour, va="center", fontsize=SMALL)
    axes.set(xlim=(min(0.8, 0.93 * rows.low.min()), max(1.25, 1.07 * rows.high.max())))
    axes.set_xlabel(f"times as fast as {rival}")
    log_ticks(axes.xaxis)
    label_rows(axes, [f"{short(row.layer, 24)}  {row.kernel}" for row in rows.itertuples()])
    axes.invert_yaxis()
    legend_below_title(figure)
    note = f"{threads_of(part)}; largest dot: {largest:.0%} of the time of {ours}; bars: 95% intervals"
    note += f"; the {MOST_LAYERS} of {whole} layers that take the most time" * (whole > MOST_LAYERS)
    corner(figure, environment, note, rows.weak.any())
    return figure


def speeds(part: pd.DataFrame, ours: str) -> tuple[pd.DataFrame, str]:
    """One row per layer that ours and a rival measured, and the words for the rival.

    Returns
    -------
    rows : DataFrame
        Columns layer, kernel, ratio (time of the rival over ours), low, high, verdict, share (of the time of ours over
        these layers, count-weighted) and weak.
    rival : str
    """
    if part.backend.isin(PEERS).any():
        everything, rival = with_best_peer(part), "the best library"
    else:
        others = part[~part.backend.isin([ours, *CHOICES])]
        best = others.loc[others.groupby("layer", sort=False).median_s.idxmin()].assign(backend=BEST)
        everything, rival = pd.concat([part, best]), "the best other backend"
    found = by_layer(everything, ours, BEST)
    if found.empty:
        return found, rival
    seconds = found["count"] * found["our ms"]
    return found[["layer", "kernel", "ratio", "low", "high"]].assign(
        verdict=verdicts(found.low, found.high), share=seconds / seconds.sum(), weak=found.weak.str.contains("ratio")
    ), rival


def title(rows: pd.DataFrame, workload: str, ours: str, rival: str) -> str:
    """The finding: on how many layers ours is faster, slower or close, and the shares of time of the first two."""
    text = tally(ours, rival, rows.verdict, rows.weak, "layers", f"layer {short(str(rows.layer.iloc[0]), 30)}")
    share = rows.groupby("verdict").share.sum()
    mark = sign(rows.share[rows.weak].sum() > 0.1)
    parts = [f"{word} for {mark}{share[word]:.0%}" for word in (FASTER, SLOWER) if word in share]
    return f"{short(workload, 30)}: {text}" + (
        f" ({' and '.join(parts)} of its time)" if len(rows) > 1 and parts else ""
    )


@styled
def shares(table: pd.DataFrame, environment: dict[str, Any], workload: str) -> Figure:
    """One bar per backend that measured all layers: its time, stacked by layer."""
    part = of_workload(table, workload)
    sums = by_backend(part).set_index("backend")
    rows = sums[sums.whole & sums.index.isin(contenders(part.backend))].sort_values("sum_s")
    if rows.empty:
        raise NothingToDraw(f"no backend measured all layers of {workload}")
    about = "auto" if "auto" in rows.index else str(rows.index[0])
    time = part.assign(time=part["count"] * part.median_s).pivot(index="layer", columns="backend", values="time")
    time = time.loc[part.layer.unique(), rows.index]
    figure, axes = titled_figure(2.9 + 0.33 * len(rows) + 0.11 * min(len(time), COLOURED + 1),
                                 shares_title(time[about], workload, about, bool(rows.weak[about])))  # fmt: skip
    edge = CUT * rows.sum_s.min()
    largest = time[about].nlargest(COLOURED).index
    pieces = [(short(str(layer), 26), time.loc[layer]) for layer in time.index if layer in largest]
    rest = time.drop(largest)
    if len(rest):
        pieces.append((f"{len(rest)} other layer{'s' * (len(rest) > 1)}", rest.sum()))
    start = np.zeros(len(rows))
    for (name, seconds), colour in zip(pieces, (*list(HUES.values())[1:], FAINT), strict=False):
        name = f"{name} {percent(seconds[about] / time[about].sum())}"
        axes.barh(range(len(rows)), seconds, left=start, color=colour, height=0.7, label=name, edgecolor=PAPER)
        start += seconds.to_numpy()
    for y, row in enumerate(rows.itertuples()):
        text = duration(row.sum_s, row.weak) + " ▸" * bool(row.sum_s > edge)
        axes.text(1.02, y, text, transform=axes.get_yaxis_transform(), va="center", fontsize=SMALL)
    axes.set_xlim(0, min(edge, 1.02 * rows.sum_s.max()))
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(lambda seconds, _: duration(seconds) if seconds else "0")
    label_rows(axes, [short(name, 24) for name in rows.index])
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    legend_below_title(figure, 2)
    note = f"{threads_of(part)}; count-weighted; shares are those of {about}"
    note += f"; ▸: bar cut at {CUT:g} times the shortest" * bool((rows.sum_s > edge).any())
    corner(figure, environment, note, rows.weak.any())
    return figure


def shares_title(time: pd.Series, workload: str, backend: str, weak: bool) -> str:
    """The finding: the layer that takes the most time of a backend, and how many layers take half of it.

    Parameters
    ----------
    time : Series
        Seconds of each layer, by name.
    """
    name, share = short(workload, 30), (time / time.sum()).sort_values(ascending=False, kind="stable")
    if len(share) == 1:
        return f"{name}: its only layer takes {duration(time.sum(), weak)} with {backend}"
    half = int((share.cumsum() < 0.5 - 1e-9).sum()) + 1
    text = f"{name}: {short(str(share.index[0]), 30)} takes {percent(share.iloc[0], weak)} of the time of {backend}"
    return f"{text}; {half} of {len(share)} layers take half of it" if half > 1 else f"{text}, at least half of it"


def of_workload(table: pd.DataFrame, workload: str) -> pd.DataFrame:
    """The measured cases of one workload with the most threads."""
    part = table[(table.workload == workload) & (table.status == "ok")]
    if part.empty:
        raise NothingToDraw(f"no measured layers of {workload}")
    return part[part.threads == part.threads.max()]


def subject(part: pd.DataFrame) -> str:
    """The backend that a figure is about: `auto`, or else the fastest of ours that measured the most layers."""
    if (part.backend == "auto").any():
        return "auto"
    sums = by_backend(part)
    own = sums[~sums.backend.isin(PEERS)]
    if own.empty:
        raise NothingToDraw("the run has only other libraries")
    return str(own.sort_values(["measured", "sum_s"], ascending=[False, True]).backend.iloc[0])
