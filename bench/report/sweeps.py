"""Frame -> time against one axis: number of threads, batch, kernel size. Pure functions, as in `bench.report.figures`.

The sums of a backend contain only layers that it measured at every point of the axis. The other axes have their plain
value (forward, warm, float32, all threads, the smallest batch) if the run has it.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby
from typing import Any, NamedTuple

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator

from ..analysis import tables
from ..analysis.numbers import duration, marked, percent, sign, times
from ..analysis.sums import Sum, along
from ..peers import PEERS
from .style import LABEL, STYLED, NothingToDraw, corner, label_ends, mark_points, style, titled_figure

PLAIN = {"direction": "fwd", "cache": "warm", "dtype": "float32"}
# Kernel sizes: draw only backends within this factor of the fastest. More lines hide the crossings.
NEAR = 4.0
SHADES = {"direct": "#009E73", "Winograd": "#0072B2", "FFT": "#CC79A7"}

ALT = {
    "threads": "Speed-up of each backend against the number of threads",
    "batch": "Time an image of each backend against the batch, log-log",
    "kernel_sizes": "Time of one call against kernel size, log-log, with the method that leads at each size",
}


@STYLED
def threads(table: pd.DataFrame, environment: dict[str, Any]) -> Figure:
    """Speed-up of each backend against the number of threads, on the workload with the most work."""
    rows = tables.thread_efficiency(_plain(table, "batch"))
    if rows.empty:
        raise NothingToDraw("no layer measured with more than one number of threads")
    rows, doubt = marked(rows)
    part = _largest(table, rows.assign(weak=doubt.speedup))
    counts = sorted(part.threads.unique())
    peers = part.backend.isin(PEERS)
    ours = part if peers.all() else part[~peers]
    most = ours[ours.threads == counts[-1]]
    best = most.loc[most[most.layers == most.layers.max()].sum_s.idxmin()]
    title = (
        f"{best.backend} runs {best.workload} {times(best.speedup, best.weak)} times as fast with {counts[-1]} threads "
        f"as with {counts[0]}: efficiency {percent(best.efficiency, best.weak)}"
    )
    figure, axes = titled_figure(5.2, title)
    ideal = [count / counts[0] for count in counts]
    axes.plot(counts, ideal, color="#777777", ls="--", lw=1.2)
    ends = [(counts[-1], ideal[-1], "ideal", "#555555")]
    # Other libraries are the background: all lines are drawn, only the best and the worst are labelled.
    others = part[~part.backend.isin(ours.backend)]
    for _, mine in others.groupby("backend"):
        axes.plot(mine.threads, mine.speedup, color="#BBBBBB", lw=1.2, zorder=1)
    ranked = others[others.threads == counts[-1]].sort_values("speedup")
    for last in [ranked.iloc[i] for i in sorted({0, len(ranked) - 1}) if len(ranked)]:
        ends.append((last.threads, last.speedup, _efficiency(last), "#777777"))
    for backend in tables.order(ours.backend):
        mine = ours[ours.backend == backend]
        colour, marker = style(backend)
        axes.plot(mine.threads, mine.speedup, color=colour, marker=marker, lw=1.8)
        last = mine.iloc[-1]
        ends.append((last.threads, last.speedup, _efficiency(last), colour))
    axes.set(xlabel="threads", ylabel=f"times as fast as with {counts[0]}")
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + (high - low) * LABEL * max(0, len(ends) - 6))
    axes.set_xticks(counts)
    axes.set_xlim(counts[0] - 0.04 * (counts[-1] - counts[0]), counts[0] + 1.5 * (counts[-1] - counts[0]))
    label_ends(axes, ends)
    note = "count-weighted sum of the layers a backend measured at every number of threads; % is efficiency"
    corner(figure, environment, note, mark_points(axes, part.threads, part.speedup, part.weak))
    return figure


@STYLED
def batch(table: pd.DataFrame, environment: dict[str, Any]) -> Figure:
    """Time per image against batch size, on the workload with the most work; backends that measured all its layers."""
    plain = _plain(table, "threads")
    # Remove the batch from the label, so that a layer is the same at every batch.
    plain = plain.assign(same=plain.label.str.replace(r"^(g\d+)?mb\d+", r"\1", regex=True))
    groups = plain.groupby(["workload", "backend"], sort=False)
    sums = {key: found for key, part in groups if len(found := along(part, "batch", "same")) > 1}
    if not sums:
        raise NothingToDraw("no layer measured with more than one batch")
    workload = _largest(table, pd.DataFrame(list(sums), columns=["workload", "backend"])).workload.iloc[0]
    each = {backend: _by_image(found) for (name, backend), found in sums.items() if name == workload}
    layers = max(mine.layers.max() for mine in each.values())
    images = {backend: mine for backend, mine in each.items() if mine.layers.max() == layers}
    best = min(images, key=lambda backend: images[backend].image_s.iloc[-1])
    ends_of_best = images[best].iloc[[0, -1]]
    first, last = ends_of_best.index
    gain, weak = ends_of_best.image_s[first] / ends_of_best.image_s[last], ends_of_best.weak.any()
    change = f"{times(gain, weak)} times as fast" if gain >= 1 else f"{times(1 / gain, weak)} times as slow"
    figure, axes = titled_figure(
        5.2, f"With {best} an image of {workload} is {change} in a batch of {last} as in one of {first}"
    )
    ends = []
    for backend in tables.order(list(images)):
        mine = images[backend]
        colour, marker = style(backend)
        axes.plot(mine.index, mine.image_s, color=colour, marker=marker, lw=1.8)
        ends.append((mine.index[-1], mine.image_s.iloc[-1], backend, colour))
        weak |= mark_points(axes, mine.index, mine.image_s, mine.weak)
    batches = sorted({size for mine in images.values() for size in mine.index})
    axes.set(xscale="log", yscale="log", xlabel="batch", ylabel="time an image")
    _time_axis(axes, (1, 2, 5))
    axes.set_xticks(batches, [str(size) for size in batches])
    axes.minorticks_off()
    axes.set_xlim(batches[0] * 0.9, batches[0] * 0.9 * (batches[-1] / batches[0]) ** 1.5)
    label_ends(axes, ends)
    corner(figure, environment, f"{layers} layers, count-weighted sum over the batch, {_threads(plain)}", weak)
    return figure


@STYLED
def kernel_sizes(table: pd.DataFrame, environment: dict[str, Any]) -> Figure:
    """Time against kernel size: one panel per series of the workload kernel_sizes, shaded by the fastest method."""
    part = _plain(table[table.workload == "kernel_sizes"], "threads", "batch")
    names = part.layer.str.extract(r"^(?P<channels>\S+) k(?P<size>\d+) (?P<image>@\d+)$")
    part = part.assign(series=names.channels + " " + names.image, size=names["size"].astype(float)).dropna(
        subset="size"
    )
    panels = {name: rows for name, rows in part.groupby("series", sort=False) if rows["size"].nunique() > 1}
    if not panels:
        raise NothingToDraw("no measured kernel sizes (workload kernel_sizes)")
    leads = {name: leaders(rows) for name, rows in panels.items()}
    figure, grid = titled_figure(3.0 * len(panels) + 0.9, _who_takes_over(leads), len(panels))
    weak = False
    for axes, (name, rows) in zip([grid] if len(panels) == 1 else grid, panels.items(), strict=True):
        weak |= _kernel_panel(axes, rows, leads[name])
        found = ", ".join(f"{lead.method} from {lead.size()}" for lead in leads[name])
        axes.set_title(f"{name}: {found}", loc="left", fontsize=11.5)
    axes.set_xlabel("kernel height = width")
    note = f"channels in-out/groups @image, {_threads(part)}; backends that come within {NEAR:g} times the least time"
    corner(figure, environment, note, weak)
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
    """The methods that are fastest, by kernel size."""
    fastest = rows.loc[rows.groupby("size").median_s.idxmin()].sort_values("size")
    weak = fastest.weak != ""
    points = zip(fastest.backend.map(_method), fastest["size"], weak | weak.shift(fill_value=False), strict=True)
    stretches = [list(run) for _, run in groupby(points, key=lambda point: point[0])]
    return [Lead(run[0][0], run[0][1], run[-1][1], bool(run[0][2])) for run in stretches]


FIGURES: dict[str, Callable[[pd.DataFrame, dict[str, Any]], Figure]] = {
    "threads": threads, "batch": batch, "kernel_sizes": kernel_sizes,
}  # fmt: skip


def _kernel_panel(axes: Any, rows: pd.DataFrame, leads: list[Lead]) -> bool:
    """Draw lines, shades and marks; return whether there is a mark."""
    least = rows.groupby("size").median_s.min()
    near = rows[rows.median_s <= NEAR * rows["size"].map(least)].backend
    sizes, ends, weak = sorted(rows["size"].unique()), [], False
    axes.set(xscale="log", yscale="log", ylabel="time of one call")
    _time_axis(axes, (1,))
    for backend in tables.order(near):
        mine = rows[rows.backend == backend].sort_values("size")
        colour, marker = style(backend)
        axes.plot(mine["size"], mine.median_s, color=colour, marker=marker, lw=1.8, ms=5)
        ends.append((mine["size"].iloc[-1], mine.median_s.iloc[-1], backend, colour))
        weak |= mark_points(axes, mine["size"], mine.median_s, mine.weak)
    axes.set_xticks(sizes, [f"{size:.0f}" for size in sizes])
    axes.minorticks_off()
    axes.set_xlim(sizes[0] * 0.9, sizes[-1] * 3.0)
    for i, (method, first, last, _) in enumerate(leads):
        # The change is between two measured sizes; the geometric mean is drawn.
        left = sizes[0] * 0.9 if i == 0 else (first * leads[i - 1].last) ** 0.5
        right = sizes[-1] * 1.1 if i == len(leads) - 1 else (last * leads[i + 1].first) ** 0.5
        axes.axvspan(left, right, color=SHADES[method], alpha=0.16, lw=0)
        middle = (left * right) ** 0.5
        axes.text(middle, 0.02, method, transform=axes.get_xaxis_transform(), ha="center", fontsize=9, color="#444444")
    label_ends(axes, ends)
    return weak or any(lead.weak for lead in leads)


def _efficiency(row: pd.Series) -> str:
    return f"{row.backend} {percent(row.efficiency, row.weak)}"


def _by_image(sums: dict[int, Sum]) -> pd.DataFrame:
    """A row a batch: seconds an image, layers, weak."""
    rows = {batch: (found.seconds / batch, found.layers, found.weak) for batch, found in sums.items()}
    return pd.DataFrame.from_dict(rows, orient="index", columns=["image_s", "layers", "weak"])


def _method(backend: str) -> str:
    return "Winograd" if "winograd" in backend else "FFT" if "fft" in backend else "direct"


def _who_takes_over(leads: dict[str, list[Lead]]) -> str:
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
    # "auto" selects one of the other backends, so it is left out.
    part = table[(table.status == "ok") & (table.backend != "auto")]
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


def _largest(table: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of the workload with the most work."""
    layers = table.drop_duplicates(["workload", "label"])
    work = (layers["count"] * layers.macs).groupby(layers.workload).sum()
    return rows[rows.workload == work[rows.workload.unique()].idxmax()]


def _threads(part: pd.DataFrame) -> str:
    count = part.threads.iloc[0]
    return f"{count} thread{'s' if count > 1 else ''}"


def _time_axis(axes: Any, steps: tuple[int, ...]) -> None:
    """Ticks at these multiples of the powers of ten, with units."""
    axes.yaxis.set_major_locator(LogLocator(subs=steps))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda seconds, _: duration(seconds)))
    axes.margins(y=0.12)
