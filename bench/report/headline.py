"""Frame -> the headline: time of each network, ours and every library, relative to the best library."""

from __future__ import annotations

from collections import Counter
from math import ceil
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..analysis.networks import batches, networks, relative, threads_of
from ..analysis.numbers import duration, sign, times
from ..analysis.sums import depends
from ..peers import PEERS
from .colours import MUTED, style
from .style import SMALL, NothingToDraw, corner, label_rows, log_ticks, short, styled, titled_figure
from .words import tally, verdicts

# Longer times are drawn at the edge: a library that is 20 times slower would hide all differences.
MOST = 3.0
COLUMNS = 2


@styled
def headline(table: pd.DataFrame, environment: dict[str, Any], threads: int | None = None) -> Figure:
    """One panel per network, one row per backend: time with its 95% interval; the best library is 1.

    Parameters
    ----------
    table : DataFrame
        Plain cases, from `bench.analysis.tables.plain`.
    environment : dict
    threads : int, optional
        By default the largest number of threads.

    Raises
    ------
    NothingToDraw
        If no backend measured all layers of a network.
    """
    table = table[table.threads == (table.threads.max() if threads is None else threads)]
    part = networks(table)
    rows = relative(part)
    if rows.empty or rows.relative.isna().all():
        raise NothingToDraw("no backend measured all layers of a network")
    names = _order(rows[rows.relative.notna()])
    dropped = [name for name in rows.backend.unique() if name not in names]
    rows = rows[(rows.reference != "") & rows.backend.isin(names)]
    panels = list(rows.groupby("network", sort=False))
    columns = min(COLUMNS, len(panels))
    lines = ceil(len(panels) / columns)
    # With no-break spaces: a number stays with its word.
    setting = ", ".join(
        each.replace(" ", "\N{NO-BREAK SPACE}") for each in [*_mode(rows), batches(part), threads_of(part)]
    )
    figure, grid = titled_figure(
        1.7 + lines * (0.85 + 0.215 * len(names)), f"{title(rows)} ({setting})", lines, columns, sharex=True,
        sharey=True, squeeze=False,
    )  # fmt: skip
    own = _ours(rows)
    doubtful = set((rows[rows.relative == 1] if own.empty else own).query("weak").network)
    for axes, (network, mine) in zip(grid.flat, panels, strict=False):
        _panel(axes, sign(network in doubtful) + short(str(network), 26), mine.set_index("backend").reindex(names))
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    first = grid[0, 0]
    ends = rows[["relative", "low", "high"]]
    first.set_xlim(min(0.8, 0.9 * ends.min(axis=None)), min(MOST, max(1.2, 1.15 * ends.max(axis=None))))
    log_ticks(first.xaxis, panels=columns)
    eager = dict(zip(rows.backend, rows["mode"] == "eager", strict=True))
    for axes in grid[:, 0]:
        label_rows(axes, [f"{short(name, 24)}{' (eager)' * eager[name]}" for name in names])
    first.invert_yaxis()
    note = "Time of all convolutions of a network, 95% intervals."
    if any(eager.values()):
        note += " Eager: the weights come with each call."
    if (rows.relative > MOST).any():
        note += f" Times above {MOST:g} are at the edge."
    if dropped:
        note += f" All layers of no network: {', '.join(dropped)}."
    corner(figure, environment, note, rows.weak.any())
    return figure


def title(rows: pd.DataFrame) -> str:
    """The finding: ours against the best library of each network, or the fastest backend if no library was measured.

    Parameters
    ----------
    rows : DataFrame
        From `bench.analysis.networks.relative`.
    """
    known = rows[rows.relative.notna()]
    mine = _ours(known[known.library])
    return _against_library(mine) if len(mine) else _fastest(known)


def _ours(known: pd.DataFrame) -> pd.DataFrame:
    """One row per network: `auto`, or the fastest of ours if the run has no `auto`."""
    own = known[known.backend == "auto"]
    own = known[~known.backend.isin(PEERS)] if own.empty else own
    return own.sort_values("relative").drop_duplicates("network").sort_index()


def _against_library(mine: pd.DataFrame) -> str:
    """How often ours is faster than the best library, by its interval, and by how much."""
    name = mine.backend.iloc[0] if mine.backend.nunique() == 1 else "The fastest of ours"
    text = tally(
        name, "the best library", verdicts(1 / mine.high, 1 / mine.low), mine.weak, "networks",
        short(str(mine.network.iloc[0]), 40),
    )  # fmt: skip
    speed = (1 / mine.relative).sort_values()
    ends = [times(speed[i], mine.weak[i]) for i in (speed.index[0], speed.index[-1])]
    return f"{text}: {' to '.join(dict.fromkeys(ends))} times as fast"


def _fastest(known: pd.DataFrame) -> str:
    """Who takes the least time on most networks, and on how many of them no other backend is about as fast."""
    best = known.loc[known.groupby("network", sort=False).sum_s.idxmin()]
    others = known.drop(best.index)
    rivals = set(others.network[others.low <= 1])
    if known.backend.nunique() == 1:
        where = short(str(known.network.iloc[0]), 40) if len(known) == 1 else f"{len(known)} networks"
        takes = f": {duration(known.sum_s.iloc[0], known.weak.iloc[0])}" * (len(known) == 1)
        return f"{best.backend.iloc[0]} is the only backend that measured all of {where}{takes}"
    # Equal counts go to the first name, so that equal data give an equal title.
    name, count = min(Counter(best.backend).items(), key=lambda item: (-item[1], item[0]))
    mark = sign(depends(best.relative.notna(), best.weak))
    where = f"{mark}{count} of {len(best)} networks" if len(best) > 1 else short(str(best.network.iloc[0]), 40)
    close = len(rivals & set(best.network[best.backend == name]))
    text = f"{name} takes the least time on {where}"
    return text + (f"; another is about as fast{f' on {close} of them' * (len(best) > 1)}" if close else "")


def _order(rows: pd.DataFrame) -> list[str]:
    """Backends by the number of networks they measured, then by the geometric mean of their times."""
    logs = np.log(rows.set_index("backend").relative).groupby(level=0)
    means, counts = logs.mean(), logs.size()
    return sorted(means.index, key=lambda name: (-counts[name], means[name], name))


def _mode(rows: pd.DataFrame) -> list[str]:
    """The mode of ours, or of all backends if none is ours; nothing if there are several."""
    own = _ours(rows)
    modes = (rows if own.empty else own)["mode"].unique()
    return [mode for mode in modes if mode] if len(modes) == 1 else []


def _panel(axes: Any, title: str, mine: pd.DataFrame) -> None:
    """Draw one network; its rows are in the order of the axis."""
    axes.set_xscale("log")
    axes.axvline(1, color=MUTED, lw=1.2)
    for y, (name, row) in enumerate(mine.iterrows()):
        colour, marker = style(str(name))
        if np.isnan(row.relative):
            what = "not measured" if np.isnan(row.layers) else f"{row.measured:.0f} of {row.layers:.0f} layers"
            axes.text(0.5, y, what, transform=axes.get_yaxis_transform(), color=MUTED, ha="center",
                      va="center", fontsize=SMALL)  # fmt: skip
            continue
        inside = row.relative <= MOST
        axes.plot([row.low, min(row.high, MOST)] if inside else [], [y, y] if inside else [], color=colour, lw=2)
        axes.plot(min(row.relative, MOST), y, color=colour, marker=marker if inside else ">", ms=6.5, clip_on=False)
        axes.text(1.05, y, times(row.relative, row.weak), transform=axes.get_yaxis_transform(), color=colour,
                  va="center", fontsize=SMALL)  # fmt: skip
    axes.set_title(title, loc="left")
    axes.set_xlabel(f"time; 1 is {duration(mine.reference_s.dropna().iloc[0])}", fontsize=SMALL)
    axes.xaxis.set_tick_params(labelbottom=True)
    axes.grid(axis="y", visible=False)
