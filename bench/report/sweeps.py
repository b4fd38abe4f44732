"""Frame -> time against one axis: number of threads, batch, kernel size.

The sums of a backend contain only layers that it measured at every point of the axis. The other axes have their plain
value (forward, warm, float32, all threads, the smallest batch) if the run has it.
"""

from __future__ import annotations

from itertools import groupby
from typing import Any, NamedTuple

import pandas as pd
from matplotlib.figure import Figure

from ..analysis import tables
from ..analysis.networks import threads_of
from ..analysis.numbers import duration, marked, percent, sign, times
from ..analysis.sums import Sum, along
from ..peers import PEERS
from .colours import HUES, MUTED, style
from .style import SMALL, NothingToDraw, corner, label_ends, log_ticks, mark_points, short, styled, titled_figure

PLAIN = {"direction": "fwd", "cache": "warm", "dtype": "float32"}
# Kernel sizes: draw only backends within this factor of the fastest. More lines hide the crossings.
NEAR = 4.0
SHADES = {"direct": "green", "Winograd": "blue", "FFT": "purple"}


@styled
def threads(table: pd.DataFrame, environment: dict[str, Any], workload: str) -> Figure:
    """Speed-up of each backend against the number of threads."""
    rows = tables.thread_efficiency(_plain(table[table.workload == workload], "batch"))
    if rows.empty:
        raise NothingToDraw(f"no layer of {workload} measured with more than one number of threads")
    rows, doubt = marked(rows)
    part = rows.assign(weak=doubt.speedup)
    counts = sorted(part.threads.unique())
    figure, axes = titled_figure(5.2, threads_title(part))
    ideal = [count / counts[0] for count in counts]
    axes.plot(counts, ideal, color=MUTED, ls="--", lw=1.2)
    ends = [(counts[-1], ideal[-1], "ideal", MUTED)]
    for backend in tables.order(part.backend):
        mine = part[part.backend == backend]
        colour, marker = style(backend)
        axes.plot(mine.threads, mine.speedup, color=colour, marker=marker, lw=1.8)
        last = mine.iloc[-1]
        ends.append((last.threads, last.speedup, f"{backend} {percent(last.efficiency, last.weak)}", colour))
    axes.set(xlabel="threads", ylabel=f"times as fast as with {counts[0]}")
    axes.set_xticks(counts)
    note = "count-weighted sum of the layers a backend measured at every number of threads; % is efficiency"
    corner(figure, environment, note, mark_points(axes, part.threads, part.speedup, part.weak))
    label_ends(axes, ends)
    return figure


def threads_title(part: pd.DataFrame) -> str:
    """The finding: the gain of `auto`, or of the fastest of ours that measured the most layers.

    Parameters
    ----------
    part : DataFrame
        From `bench.analysis.tables.thread_efficiency`, one workload; ``weak`` is whether the speed-up is weak.
    """
    counts = sorted(part.threads.unique())
    ours = part[~part.backend.isin(PEERS)]
    ours = part if ours.empty else ours
    most = ours[ours.threads == counts[-1]]
    auto = most[most.backend == "auto"]
    most = most[most.layers == most.layers.max()] if auto.empty else auto
    best = most.loc[most.sum_s.idxmin()]
    return (
        f"{best.backend} runs {short(best.workload, 30)} {times(best.speedup, best.weak)} times as fast with "
        f"{counts[-1]} threads as with {counts[0]}: efficiency {percent(best.efficiency, best.weak)}"
    )


@styled
def batch(table: pd.DataFrame, environment: dict[str, Any], workload: str) -> Figure:
    """Time per image against batch size; backends that measured all layers."""
    plain = _plain(table[table.workload == workload], "threads")
    # Remove the batch from the label, so that a layer is the same at every batch.
    plain = plain.assign(same=plain.label.str.replace(r"^(g\d+)?mb\d+", r"\1", regex=True))
    groups = plain.groupby("backend", sort=False)
    each = {str(name): _by_image(sums) for name, part in groups if len(sums := along(part, "batch", "same")) > 1}
    if not each:
        raise NothingToDraw(f"no layer of {workload} measured with more than one batch")
    layers = max(mine.layers.max() for mine in each.values())
    images = {backend: mine for backend, mine in each.items() if mine.layers.max() == layers}
    finding, weak = batch_title(images, workload)
    figure, axes = titled_figure(5.2, finding)
    ends = []
    for backend in tables.order(list(images)):
        mine = images[backend]
        colour, marker = style(backend)
        axes.plot(mine.index, mine.image_s, color=colour, marker=marker, lw=1.8)
        ends.append((mine.index[-1], mine.image_s.iloc[-1], backend, colour))
        weak |= mark_points(axes, mine.index, mine.image_s, mine.weak)
    batches = sorted({size for mine in images.values() for size in mine.index})
    axes.set(xscale="log", yscale="log", xlabel="batch", ylabel="time per image")
    axes.margins(y=0.12)
    log_ticks(axes.yaxis, duration)
    axes.set_xticks(batches, [str(size) for size in batches])
    axes.minorticks_off()
    corner(figure, environment, f"{layers} layers, count-weighted sum over the batch, {threads_of(plain)}", weak)
    label_ends(axes, ends)
    return figure


def batch_title(images: dict[str, pd.DataFrame], workload: str) -> tuple[str, bool]:
    """The finding: the gain per image of `auto`, or of the fastest, in the largest batch; and whether it is weak.

    Parameters
    ----------
    images : dict of str to DataFrame
        By backend, one row per batch: image_s and weak.
    """
    best = "auto" if "auto" in images else min(images, key=lambda name: images[name].image_s.iloc[-1])
    ends = images[best].iloc[[0, -1]]
    first, last = ends.index
    gain, weak = ends.image_s[first] / ends.image_s[last], bool(ends.weak.any())
    change = f"{times(gain, weak)} times as fast" if gain >= 1 else f"{times(1 / gain, weak)} times as slow"
    text = f"With {best} an image of {short(workload, 30)} is {change} in a batch of {last} as in one of {first}"
    return text, weak


@styled
def kernel_sizes(table: pd.DataFrame, environment: dict[str, Any]) -> Figure:
    """Time against kernel size: one panel per series of the workload kernel_sizes, shaded by the fastest method."""
    part = _plain(table[table.workload == "kernel_sizes"], "threads", "batch")
    names = part.layer.str.extract(r"^(?P<channels>\S+) k(?P<size>\d+) (?P<image>@\d+)$")
    part = part.assign(series=names.channels + " " + names.image, size=names["size"].astype(float)).dropna(
        subset="size"
    )
    panels = {name: rows for name, rows in part.groupby("series", sort=False) if rows["size"].nunique() > 1}
    leads = {name: runs for name, rows in panels.items() if (runs := leaders(rows))}
    panels = {name: rows for name, rows in panels.items() if name in leads}
    if not panels:
        raise NothingToDraw("no measured kernel sizes (workload kernel_sizes)")
    figure, grid = titled_figure(3.2 * len(panels) + 1.2, kernel_title(leads), len(panels), squeeze=False)
    weak, ends = False, {}
    for axes, (name, rows) in zip(grid[:, 0], panels.items(), strict=True):
        ends[axes], mark = _kernel_panel(axes, rows, leads[name])
        weak |= mark
        found = ", ".join(f"{lead.method} from {lead.size()}" for lead in leads[name])
        axes.set_title(f"{name}: {found}", loc="left", fontsize=12)
    axes.set_xlabel("kernel height = width")
    note = f"channels in-out/groups @image, {threads_of(part)}; backends that come within {NEAR:g} times the least time"
    corner(figure, environment, note, weak)
    for axes, lines in ends.items():
        label_ends(axes, lines)
    return figure


class Lead(NamedTuple):
    """A range of kernel sizes in which one method is fastest.

    ``weak`` is true if the fastest time at the first size, or at the size before it, is weak.
    """

    method: str
    first: float
    last: float
    weak: bool

    def size(self) -> str:
        """The first size, marked if it is weak."""
        return f"{sign(self.weak)}{self.first:.0f}"


def leaders(rows: pd.DataFrame) -> list[Lead]:
    """The methods that are fastest, by kernel size: those of our backends, or those that `auto` selected without them.

    Libraries are left out, because their methods are unknown.
    """
    ours = rows[~rows.backend.isin([*tables.CHOICES, *PEERS])]
    ours = rows[rows.backend == "auto"] if ours.empty else ours
    fastest = ours.loc[ours.groupby("size").median_s.idxmin()].sort_values("size")
    weak = fastest.weak != ""
    names = fastest.backend.where(fastest.backend != "auto", fastest.algorithm)
    points = zip(names.map(_method), fastest["size"], weak | weak.shift(fill_value=False), strict=True)
    stretches = [list(run) for _, run in groupby(points, key=lambda point: point[0])]
    return [Lead(run[0][0], run[0][1], run[-1][1], bool(run[0][2])) for run in stretches]


def _kernel_panel(axes: Any, rows: pd.DataFrame, leads: list[Lead]) -> tuple[list[tuple[float, float, str, str]], bool]:
    """Draw lines, shades and marks; return the ends of the lines, and whether there is a mark."""
    own = rows[~rows.backend.isin(tables.CHOICES)]
    near = own[own.median_s <= NEAR * own["size"].map(own.groupby("size").median_s.min())].backend
    near = [*near, *rows.backend[rows.backend == "auto"]]
    sizes, ends, weak = sorted(rows["size"].unique()), [], False
    axes.set(xscale="log", yscale="log", ylabel="time of one call")
    axes.margins(y=0.12)
    for backend in tables.order(near):
        mine = rows[rows.backend == backend].sort_values("size")
        colour, marker = style(backend)
        axes.plot(mine["size"], mine.median_s, color=colour, marker=marker, lw=1.8, ms=5)
        ends.append((mine["size"].iloc[-1], mine.median_s.iloc[-1], backend, colour))
        weak |= mark_points(axes, mine["size"], mine.median_s, mine.weak)
    axes.set_xticks(sizes, [f"{size:.0f}" for size in sizes])
    axes.minorticks_off()
    axes.set_xlim(sizes[0] * 0.9, sizes[-1] * 1.1)
    log_ticks(axes.yaxis, duration)
    for i, (method, first, last, _) in enumerate(leads):
        # The change is between two measured sizes; the geometric mean is drawn.
        left = sizes[0] * 0.9 if i == 0 else (first * leads[i - 1].last) ** 0.5
        right = sizes[-1] * 1.1 if i == len(leads) - 1 else (last * leads[i + 1].first) ** 0.5
        axes.axvspan(left, right, color=HUES[SHADES[method]], alpha=0.16, lw=0)
        middle = (left * right) ** 0.5
        axes.text(middle, 0.02, method, transform=axes.get_xaxis_transform(), ha="center", fontsize=SMALL, color=MUTED)
    return ends, weak or any(lead.weak for lead in leads)


def _by_image(sums: dict[int, Sum]) -> pd.DataFrame:
    """A row a batch: seconds an image, layers, weak."""
    rows = {batch: (found.seconds / batch, found.layers, found.weak) for batch, found in sums.items()}
    return pd.DataFrame.from_dict(rows, orient="index", columns=["image_s", "layers", "weak"])


def _method(backend: str) -> str:
    return "Winograd" if "winograd" in backend else "FFT" if "fft" in backend else "direct"


def kernel_title(leads: dict[str, list[Lead]]) -> str:
    """The finding: from which kernel size FFT stays ahead, and where Winograd leads."""
    fft = [f"{runs[-1].size()} ({name})" for name, runs in leads.items() if runs[-1].method == "FFT"]
    winograd = {
        lead.size() if lead.first == lead.last else f"{lead.size()} to {lead.last:.0f}"
        for runs in leads.values()
        for lead in runs
        if lead.method == "Winograd"
    }
    title = f"FFT takes over for good at kernel {', '.join(fft)}" if fft else "FFT never takes over for good"
    return title + (f"; Winograd leads at {', '.join(sorted(winograd))}" if winograd else "; Winograd never leads")


def _plain(table: pd.DataFrame, *fixed: str) -> pd.DataFrame:
    """Measured cases with each axis at its plain value; threads and batch only if they are in ``fixed``."""
    part = table[table.status == "ok"]
    if part.empty:
        raise NothingToDraw("nothing was measured")
    wanted: dict[str, Any] = dict(PLAIN)
    if "threads" in fixed:
        wanted["threads"] = part.threads.max()
    if "batch" in fixed:
        wanted["batch"] = part.batch.min()
    for column, value in wanted.items():
        part = part[part[column] == (value if (part[column] == value).any() else part[column].iloc[0])]
    return part
