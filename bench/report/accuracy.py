"""Frame -> error of each backend as a fraction of its published bound (docs/decisions/0004-error-bounds.md)."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from ..analysis import tables
from ..analysis.numbers import number
from .colours import INK, style
from .style import SMALL, NothingToDraw, corner, label_rows, log_ticks, short, styled, titled_figure

# Exact results have no place on a log axis: they are drawn at its left end.
LEAST = 1e-4


@styled
def errors(table: pd.DataFrame, environment: dict[str, Any]) -> Figure:
    """One row per backend, one dot per layer of every workload: largest error over the bound, which is 1."""
    part = checked(table)
    if part.empty:
        raise NothingToDraw("no right result whose error was compared with a bound")
    names = tables.order(part.backend)
    figure, axes = titled_figure(1.9 + 0.27 * len(names), title(part))
    axes.axvline(1, color=INK, lw=1.8)
    axes.set(xscale="log", xlim=(max(LEAST, 0.6 * min(part.share.min(), 0.2)), 1.6))
    for y, name in enumerate(names):
        mine = part[part.backend == name]
        colour, marker = style(name)
        axes.scatter(mine.share, [y] * len(mine), color=colour, marker=marker, s=30, alpha=0.45, lw=0, clip_on=False)
        axes.text(1.02, y, number(mine.share.max()), transform=axes.get_yaxis_transform(), color=colour, va="center",
                  fontsize=SMALL)  # fmt: skip
    log_ticks(axes.xaxis)
    label_rows(axes, [short(name, 24) for name in names])
    axes.invert_yaxis()
    axes.set_xlabel("error / bound of the accuracy class (1: the bound)")
    layers, wrong = len(part[["workload", "layer"]].drop_duplicates()), int((table.status == "wrong_result").sum())
    note = f"{part.dtype.iloc[0]}; layers: {layers}, workloads: {part.workload.nunique()}; right: the largest"
    note += f"; {wrong} wrong result{'s are' if wrong > 1 else ' is'} not drawn" if wrong else ""
    corner(figure, environment, note)
    return figure


def checked(table: pd.DataFrame) -> pd.DataFrame:
    """The right results with an error and a bound; column share: error over bound, at least `LEAST`."""
    part = table[(table.status == "ok") & table.error_over_bound.notna()]
    part = part[part.threads == part.threads.max()]
    return part.assign(share=part.error_over_bound.clip(lower=LEAST))


def title(part: pd.DataFrame) -> str:
    """The finding: the largest share of its bound that a backend uses, and where.

    Parameters
    ----------
    part : DataFrame
        From `checked`.
    """
    worst = part.loc[part.error_over_bound.idxmax()]
    where = f"{worst.backend}, {short(worst.workload, 20)} {short(worst.layer, 24)}"
    most = number(worst.error_over_bound)
    if worst.error_over_bound > 1:
        count = int((part.error_over_bound > 1).sum())
        return f"{count} of {len(part)} results exceed their error bound: up to {most} times ({where})"
    all_of = f"All {len(part)} results are" if len(part) > 1 else "The only result is"
    return f"{all_of} within the error bound: at most {most} of it ({where})"
