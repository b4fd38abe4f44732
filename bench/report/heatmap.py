"""Frame -> heat map of one workload: the speed of every backend on every layer, as percent of the layer's fastest."""

from __future__ import annotations

from math import ceil
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..analysis import tables
from ..analysis.networks import threads_of
from ..analysis.numbers import number, sign
from ..analysis.sums import depends
from .colours import INK, MUTED
from .layers import MOST_LAYERS
from .style import SMALL, NothingToDraw, corner, short, styled, titled_figure

# A backend counts as good on a layer from this share of the fastest on; smaller differences are often noise.
GOOD = 0.9
# Columns that fit side by side; more go to further panels below.
ACROSS = 12
# Text of a cell without a time, by status, and its meaning.
SHORT = {
    "unsupported": ("-", "unsupported"), "over_budget": ("slow", "over budget"), "interrupted": ("?", "not run"),
    "wrong_result": ("✗", "wrong or failed"),
}  # fmt: skip
# Text on bright and on dark cells; the same in dark figures, so none of the colours that these replace.
ON_CELLS = "#000000", "#FEFEFE"
COLOURS = mpl.colormaps["cividis"]


@styled
def heatmap(table: pd.DataFrame, environment: dict[str, Any], workload: str) -> Figure:
    """One row per layer, one column per backend; the status where there is no time."""
    part = table[table.workload == workload]
    if part.median_s.isna().all():
        raise NothingToDraw(f"no measured layers of {workload}")
    part = part[part.threads == part[part.median_s.notna()].threads.max()]
    timed = part.groupby("backend", sort=False).median_s.transform("count") > 0
    without, part = tables.order(part.backend[~timed]), part[timed]
    share, weak = speeds(part)
    if share.shape[1] < 2:
        raise NothingToDraw(f"only one backend was measured on {workload}")
    finding = title(share, weak, workload)
    seconds = (part["count"] * part.median_s).groupby(part.layer).min()
    whole = len(share)
    longest = seconds.reindex(share.index).fillna(0).nlargest(MOST_LAYERS).index
    share = share[share.index.isin(longest)]
    status = part.pivot(index="layer", columns="backend", values="status").loc[share.index, share.columns]
    panels = ceil(share.shape[1] / ACROSS)
    names = np.array_split(np.array(share.columns, dtype=object), panels)
    figure, grid = titled_figure(1.6 + panels * (1.6 + 0.25 * len(share)), finding, panels, squeeze=False)
    facts = part.sort_values("median_s").drop_duplicates("layer").set_index("layer").loc[share.index]
    for axes, shown in zip(grid[:, 0], names, strict=True):
        _cells(axes, share[shown], weak[shown], status[shown])
        axes.set_yticks(range(len(share)), [f"{short(layer, 20)}  {facts.kernel[layer]}" for layer in share.index])
        for y, rate in enumerate(facts.gflops_effective):
            text = number(rate) if np.isfinite(rate) else ""
            axes.text(len(shown) - 0.35, y, text, va="center", fontsize=SMALL, color=MUTED)
    used = {SHORT.get(one, SHORT["wrong_result"]) for one in set(status.stack()) - {"ok"}}
    words = "".join(f"; {text}: {meaning}" for text, meaning in sorted(used))
    note = f"Percent of the layer's fastest; right: its effective GFLOP/s; {threads_of(part)}{words}"
    note += f"; the {MOST_LAYERS} of {whole} layers that take the most time" * (whole > len(share))
    note += f"; without a time: {', '.join(without)}" if without else ""
    corner(figure, environment, note, weak.loc[share.index].any(axis=None))
    return figure


def speeds(part: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Layers by backends: the least time of the layer over the time of the backend, and whether that is weak."""
    names = tables.order(part.backend)
    time = part.pivot(index="layer", columns="backend", values="median_s").loc[part.layer.unique(), names]
    doubt = part.assign(weak=part.weak != "").pivot(index="layer", columns="backend", values="weak")
    doubt = doubt.loc[time.index, names].eq(True) & time.notna()
    best = time.min(axis=1)
    weak_best = (doubt & time.eq(best, axis=0)).any(axis=1)
    weak = (doubt.T | weak_best).T & time.notna()
    return (1 / time).mul(best, axis=0), weak


def title(share: pd.DataFrame, weak: pd.DataFrame, workload: str) -> str:
    """The finding: on how many layers `auto` (or the best) comes close to the fastest, and which other does most often.

    Parameters
    ----------
    share, weak : DataFrame
        From `speeds`: layers by backends.
    workload : str
    """
    counts = (share >= GOOD).sum()
    ranked = counts.sort_values(ascending=False, kind="stable")
    name = "auto" if "auto" in counts else str(ranked.index[0])
    second = str(ranked.index[ranked.index != name][0])
    mine, theirs = (
        f"{sign(depends(share[one].notna(), weak[one]))}{counts[one]} of {len(share)} layers" for one in (name, second)
    )
    text = f"{short(workload, 30)}: {name} reaches {GOOD:.0%} of the fastest on {mine}"
    if counts[second] == counts[name]:
        return f"{text}, as many as {second}"
    theirs = theirs.split(" ")[0]
    return f"{text}, {'more' if counts[name] > counts[second] else 'fewer'} than {second} ({theirs})"


def _cells(axes: Any, share: pd.DataFrame, weak: pd.DataFrame, status: pd.DataFrame) -> None:
    shade = np.ma.masked_invalid(share.to_numpy(dtype=float))
    axes.imshow(shade, aspect="auto", cmap=COLOURS, vmin=0, vmax=1)
    for i, layer in enumerate(share.index):
        for j, name in enumerate(share.columns):
            value = share.iloc[i, j]
            text = SHORT.get(status.loc[layer, name], SHORT["wrong_result"])[0]
            colour = INK
            if np.isfinite(value):
                # Never rounded to the full or to nothing.
                text = "<1" if value < 0.01 else f"{100 * value:.0f}"
                colour = ON_CELLS[0] if value > 0.5 else ON_CELLS[1]
            axes.text(j, i, sign(weak.iloc[i, j]) + text, ha="center", va="center", color=colour, fontsize=SMALL)
    axes.set_xticks(range(len(share.columns)), [short(name, 24) for name in share.columns], rotation=45, ha="right",
                    rotation_mode="anchor")  # fmt: skip
    axes.tick_params(length=0)
    axes.grid(visible=False)
