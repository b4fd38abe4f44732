"""Frame -> time of one call against image size, 3x3, `auto` and the libraries or, without any, all backends."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from ..analysis import tables
from ..analysis.networks import contenders, threads_of
from ..analysis.numbers import duration, times
from ..store.records import problem_of
from .colours import style
from .style import NothingToDraw, corner, label_ends, log_ticks, mark_points, styled, titled_figure


@styled
def time_vs_size(table: pd.DataFrame, environment: dict[str, Any]) -> Figure:
    """Median with quartiles against image size, of the largest number of channels with several sizes."""
    part, channels = series(table)
    figure, axes = titled_figure(5.4, title(part, channels))
    ends = []
    for backend in tables.order(part.backend):
        mine = part[part.backend == backend].sort_values("in_height")
        colour, marker = style(backend)
        low, high = mine.median_s - mine.q1_s, mine.q3_s - mine.median_s
        axes.errorbar(mine.in_height, mine.median_s, yerr=[low, high], color=colour, marker=marker, capsize=3, lw=1.8)
        ends.append((float(mine.in_height.iloc[-1]), float(mine.median_s.iloc[-1]), backend, colour))
    axes.set(xscale="log", yscale="log", xlabel="image height = width (pixels)", ylabel="time of one call")
    sizes = sorted(part.in_height.unique())
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.minorticks_off()
    log_ticks(axes.yaxis, duration)
    weak = mark_points(axes, part.in_height, part.median_s, part.weak)
    note = f"3x3, {channels} to {channels} channels, batch 1, {threads_of(part)}; median and quartiles"
    corner(figure, environment, note, weak)
    label_ends(axes, ends)
    return figure


def series(table: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """The measured cases of the workload sizes that differ only in image size, and their number of channels."""
    part = table[(table.workload == "sizes") & (table.status == "ok")]
    part = part[part.threads == part.threads.max()]
    problems = {label: problem_of(label) for label in part.label.unique()}
    plain = [
        label for label, problem in problems.items()
        if problem.kernel_size == (3, 3) and problem.groups == 1 and problem.in_channels == problem.out_channels
    ]  # fmt: skip
    part = part[part.label.isin(plain)]
    part = part.assign(channels=part.label.map(lambda label: problems[label].in_channels))
    part = part.drop_duplicates(["backend", "channels", "in_height"])
    several = part.groupby("channels").in_height.nunique()
    several = several[several > 1]
    if several.empty:
        raise NothingToDraw("no measured image sizes (workload sizes)")
    channels = int(several.index.max())
    part = part[part.channels == channels]
    return part[part.backend.isin(contenders(part.backend))], channels


def title(part: pd.DataFrame, channels: int) -> str:
    """The finding: the fastest at the largest size, and how many times as long the next takes.

    Parameters
    ----------
    part : DataFrame
        From `series`.
    """
    pixels = part.in_height.max()
    big = part[part.in_height == pixels].sort_values(["median_s", "backend"])
    first = big.iloc[0]
    text = f"At {pixels} pixels and {channels} channels {first.backend} takes {duration(first.median_s, first.weak)}"
    # `auto` and the backend that it selects do not compete.
    others = big[(big.backend != first.backend) & ~big.backend.isin(tables.CHOICES if first.backend == "auto" else ())]
    if others.empty:
        return text
    factor, weak = others.median_s.iloc[0] / first.median_s, first.weak or others.weak.iloc[0]
    return f"{text}; {others.backend.iloc[0]} takes {times(factor, weak)} times as long"
