"""Frame -> figures. Pure: a DataFrame and the environment come in, a Figure goes out; `save` writes PNG and SVG.

Colours are Okabe & Ito 2008 ("Color Universal Design"), told apart by every common kind of colour vision; lines have
markers and direct labels as well, so that none depends on colour. Titles state the finding, computed from the data.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.cbook import get_sample_data
from matplotlib.figure import Figure

from conv_impls import KERNELS, apply_kernel

from ..analysis import tables
from ..peers import PEERS
from ..store.files import write_whole

STYLE = {
    "python_loops": ("#000000", "o"), "numpy_im2col": ("#E69F00", "s"), "numpy_strided": ("#56B4E9", "^"),
    "scipy_fft": ("#CC79A7", "D"), "numba_direct": ("#009E73", "v"), "auto": ("#0072B2", "x"),
    "numba_simd": ("#D55E00", "o"), "numba_winograd": ("#0072B2", "D"), "numba_winograd_f2": ("#56B4E9", "s"),
    "numba_winograd_f4": ("#0072B2", "^"), "numba_winograd_f6": ("#CC79A7", "v"), "numba_depthwise": ("#E69F00", "D"),
}  # fmt: skip
SPARE = [(colour, marker) for marker in "P*<>hp" for colour in ("#D55E00", "#F0E442")]
# What a cell without a time says.
SHORT = {"unsupported": "-", "over_budget": "slow", "interrupted": "?", "wrong_result": "wrong"}
# Width in inches at which 11-point text is still readable on a phone, where a figure is about 3.5 inches wide.
WIDTH = 7.2
# Ratio of a log axis's limits from which on only powers of ten have ticks.
MANY = 2e3
RC: Any = {
    "font.size": 12, "axes.titlesize": 13.5, "axes.titleweight": "bold", "axes.spines.top": False,
    "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25, "svg.hashsalt": "conv-impls", "figure.dpi": 100,
    # A name may hold a $; without mathematics, log axes need `log_ticks`.
    "text.parse_math": False,
}  # fmt: skip
# Every drawing function runs under these settings, and so does `save`.
STYLED = mpl.rc_context(RC)

ALT = {
    "time_vs_size": "Time of one call against image size, log-log, with quartiles",
    "ladder": "Speed-up of each backend over python_loops on ResNet-50",
    "resnet50_heatmap": "Effective GFLOP/s of each backend on each ResNet-50 layer",
    "error_vs_speed": "Relative error against effective GFLOP/s",
    "filters": "The filter bank applied to a photograph",
}


# Height of a label in heights of the axes, for axes of 3 inches.
LABEL = 0.062


class NothingToDraw(Exception):
    """The run lacks the cases a figure needs."""


@STYLED
def time_vs_size(table: pd.DataFrame, environment: dict[str, Any]) -> Figure:
    """Median with quartiles against image size: 3x3, 8 channels."""
    part = table[(table.workload == "sizes") & table.layer.str.startswith("image ") & (table.status == "ok")]
    part = part[(part.threads == part.threads.max()) & ~part.backend.isin(tables.CHOICES)]
    if part.empty:
        raise NothingToDraw("no measured image sizes (workload sizes)")
    big = part[part.in_height == part.in_height.max()].sort_values("median_s")
    pixels = part.in_height.max()
    title = f"At {pixels} pixels {big.backend.iloc[0]} takes {time_text(big.median_s.iloc[0])}"
    if len(big) > 1:
        title += f"; {big.backend.iloc[1]} takes {big.median_s.iloc[1] / big.median_s.iloc[0]:.1f} times as long"
    figure, axes = titled_figure(5.2, title)
    ends = []
    for backend in tables.order(part.backend):
        mine = part[part.backend == backend].sort_values("in_height")
        colour, marker = style(backend)
        low, high = mine.median_s - mine.q1_s, mine.q3_s - mine.median_s
        axes.errorbar(mine.in_height, mine.median_s, yerr=[low, high], color=colour, marker=marker, capsize=3, lw=1.8)
        ends.append((float(mine.in_height.iloc[-1]), float(mine.median_s.iloc[-1]), backend, colour))
    axes.set(xscale="log", yscale="log", xlabel="image height = width (pixels)", ylabel="time of one call")
    sizes = sorted(part.in_height.unique())
    axes.set_xticks(sizes, [str(s) for s in sizes])
    axes.minorticks_off()
    axes.set_xlim(min(sizes) * 0.85, max(sizes) * 3.2)
    low, high = axes.get_ylim()
    axes.set_ylim(low, 3 * high)
    log_ticks(axes.yaxis, time_text)
    label_ends(axes, ends)
    corner(figure, environment, "3x3, 8 to 8 channels, batch 1, median and quartiles")
    return figure


@STYLED
def ladder(table: pd.DataFrame, environment: dict[str, Any]) -> Figure:
    """Bars of the geometric-mean speed-up over python_loops, with the range over layers."""
    rungs = tables.ladder(table, "resnet50")
    if rungs.empty:
        raise NothingToDraw("no ResNet-50 layers that every backend measured")
    best = rungs.loc[rungs.speedup.idxmax()]
    where = f"On {rungs.layers.iloc[0]} ResNet-50 layers that all of these finish,"
    title = f"{where} {best.backend} is {best.speedup:,.0f} times as fast as Python loops"
    figure, axes = titled_figure(4.4, title)
    at = np.arange(len(rungs))
    colours = [style(name)[0] for name in rungs.backend]
    # A mean of equal numbers may miss them by a rounding error, and bars want no negative spread.
    spread = [(rungs.speedup - rungs.slowest_layer).clip(0), (rungs.fastest_layer - rungs.speedup).clip(0)]
    axes.barh(at, rungs.speedup, color=colours, height=0.62, xerr=spread, ecolor="#555555", capsize=3)
    for y, row in zip(at, rungs.itertuples(), strict=True):
        axes.annotate(
            f" {row.speedup:,.3g}x", (row.fastest_layer, y), va="center", xytext=(4, 0), textcoords="offset points"
        )
    axes.set(xscale="log", xlabel="times as fast as python_loops (log scale)", yticks=at)
    axes.set_yticklabels(list(rungs.backend))
    axes.invert_yaxis()
    axes.set_xlim(0.7 * float(rungs.slowest_layer.min()), float(rungs.fastest_layer.max()) * 4)
    log_ticks(axes.xaxis, "{:,g}".format)
    axes.grid(axis="y", visible=False)
    everything = table[table.workload == "resnet50"].layer.nunique()
    corner(figure, environment, f"geometric mean and range over {rungs.layers.iloc[0]} of {everything} layers")
    return figure


@STYLED
def resnet50_heatmap(table: pd.DataFrame, environment: dict[str, Any]) -> Figure:
    """Effective GFLOP/s, a row a layer, a column a backend; statuses where there is no time."""
    part = table[(table.workload == "resnet50") & (table.threads == table.threads.max())]
    part = part[~part.backend.isin(tables.CHOICES)]
    if part.empty:
        raise NothingToDraw("no ResNet-50 layers")
    if part.median_s.isna().all():
        raise NothingToDraw("no ResNet-50 layer that was timed")
    names = tables.order(part.backend)
    layers = list(dict.fromkeys(part.layer))
    rate = part.pivot(index="layer", columns="backend", values="gflops_effective").loc[layers, names]
    status = part.pivot(index="layer", columns="backend", values="status").loc[layers, names]
    best = rate.max().idxmax()
    wins = int((rate.dropna(how="all").idxmax(axis=1) == best).sum())
    title = f"{best} leads on {wins} of {len(layers)} ResNet-50 layers, up to {rate.max().max():.0f} GFLOP/s"
    figure, axes = titled_figure(3.5 + 0.28 * len(layers), title)
    with np.errstate(divide="ignore", invalid="ignore"):
        shade = np.log10(rate.to_numpy(dtype=float))
    top = max(float(np.nanmax(shade)), -1.0)
    bottom = min(max(-2.0, np.floor(np.nanmin(shade))), top - 1)
    image = axes.imshow(shade, aspect="auto", cmap="cividis", vmin=bottom, vmax=top)
    small = 10.5 if len(names) < 9 else 8.0
    labels = part.drop_duplicates("layer").set_index("layer")
    for i, layer in enumerate(layers):
        for j, name in enumerate(names):
            value = rate.iloc[i, j]
            text = _short_rate(value) if np.isfinite(value) else SHORT.get(status.loc[layer, name], "failed")
            bright = not np.isfinite(value) or shade[i, j] > (bottom + top) / 2
            axes.text(j, i, text, ha="center", va="center", color="black" if bright else "white", fontsize=small)
    axes.set_xticks(range(len(names)), names, rotation=50, ha="right", rotation_mode="anchor", fontsize=10.5)
    axes.set_yticks(range(len(layers)), [f"{layer}  {labels.kernel[layer]}" for layer in layers], fontsize=9.5)
    axes.grid(visible=False)
    bar = figure.colorbar(image, ax=axes, pad=0.02, fraction=0.04)
    ticks = np.arange(np.ceil(bottom), np.floor(top) + 1)
    bar.set_ticks(list(ticks), labels=[f"{10.0**t:g}" for t in ticks])
    bar.set_label("effective GFLOP/s")
    count = int(part.threads.iloc[0])
    note = f"operations of the definition over the median time, {count} thread{'s' * (count > 1)}; "
    note += f"measured FMA peak {part.fma_peak_gflops.median():.0f}; -: unsupported, slow: over budget"
    corner(figure, environment, note)
    return figure


@STYLED
def error_vs_speed(table: pd.DataFrame, environment: dict[str, Any]) -> Figure:
    """Relative error against rate, a point a right result, on the networks and the sizes."""
    part = table[(table.status == "ok") & ~table.workload.isin(["basic", "smoke"]) & (table.error > 0)]
    part = part[(part.threads == part.threads.max()) & ~part.backend.isin(tables.CHOICES)]
    if part.empty:
        raise NothingToDraw("no measured layers beyond basic")
    worst = part.loc[part.error.idxmax()]
    figure, axes = titled_figure(5.4, f"Right results stay within {_power(worst.error)} of the float64 reference")
    peers = part[part.backend.isin(PEERS)]
    if not peers.empty:
        axes.scatter(peers.gflops_effective, peers.error, color="#AAAAAA", marker=".", s=24, label="other libraries")
    for backend in tables.order(part.backend[~part.backend.isin(PEERS)]):
        mine = part[part.backend == backend]
        colour, marker = style(backend)
        axes.scatter(mine.gflops_effective, mine.error, color=colour, marker=marker, alpha=0.65, s=34, label=backend)
    axes.set(xscale="log", yscale="log", xlabel="effective GFLOP/s", ylabel="max |error| / max |reference|")
    axes.legend(frameon=False, fontsize=10.5, handletextpad=0.2, ncols=2, loc="upper left")
    low, high = axes.get_ylim()
    axes.set_ylim(low, high * 6)
    log_ticks(axes.xaxis)
    log_ticks(axes.yaxis)
    corner(figure, environment, f"float32, normal data, {len(part)} layers x backends, {SAMPLED}")
    return figure


@STYLED
def filters(table: pd.DataFrame, environment: dict[str, Any]) -> Figure:
    """The kernels of the filter bank on matplotlib's sample photograph (Grace Hopper, U.S. Navy, public domain)."""
    photo = grey_photo()
    names = list(KERNELS)
    figure = Figure(figsize=(WIDTH, 9.4), layout="constrained")
    grid = figure.subplots(4, 3)
    for axes, name in zip(grid.flat, names, strict=True):
        answer = apply_kernel(photo, KERNELS[name], padding_mode="reflect")
        # Kernels that sum to 0 answer to edges with both signs: grey is 0 there.
        signed = abs(float(KERNELS[name].sum())) < 1e-6
        limit = float(np.percentile(np.abs(answer), 99))
        low, high = (-limit, limit) if signed else (0.0, 1.0)
        axes.imshow(answer, cmap="gray", vmin=low, vmax=high)
        axes.set_title(name, fontsize=12)
        axes.set_axis_off()
    title = "One convolution, twelve kernels: smoothing keeps flat areas, edge filters turn them to 0"
    figure.suptitle(_wrap(title), fontweight="bold", fontsize=13.5, x=0.02, ha="left")
    corner(
        figure,
        environment,
        f"{photo.shape[1]}x{photo.shape[0]} pixels, padding reflect; grey is 0 where a kernel sums to 0",
    )
    return figure


FIGURES: dict[str, Callable[[pd.DataFrame, dict[str, Any]], Figure]] = {
    "time_vs_size": time_vs_size, "ladder": ladder, "resnet50_heatmap": resnet50_heatmap,
    "error_vs_speed": error_vs_speed, "filters": filters,
}  # fmt: skip
SAMPLED = "error at 256 sampled outputs"


def grey_photo() -> np.ndarray[Any, np.dtype[np.float32]]:
    """Matplotlib's sample photograph as (H, W) float32 in 0..1."""
    from PIL import Image

    file: Any = get_sample_data("grace_hopper.jpg")
    with file:
        return np.asarray(Image.open(file).convert("L"), np.float32) / np.float32(255)


@STYLED
def save(figure: Figure, stem: Path) -> None:
    """PNG for pages, SVG for print; no dates inside, so that equal data gives equal files."""
    for kind, settings in (("png", {"dpi": 140}), ("svg", {"metadata": {"Date": None}})):
        drawn = BytesIO()
        figure.savefig(drawn, format=kind, **settings)
        write_whole(stem.with_suffix(f".{kind}"), drawn.getvalue())


def titled_figure(height: float, title: str, rows: int = 1) -> tuple[Figure, Any]:
    """A figure under its finding, and so many axes below each other."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots(rows)
    figure.suptitle(_wrap(title), fontweight="bold", fontsize=13.5, x=0.02, ha="left")
    return figure, axes


def _wrap(title: str, width: int = 62) -> str:
    return "\n".join(textwrap.wrap(title, width))


def corner(figure: Figure, environment: dict[str, Any], note: str) -> None:
    """Machine and date, small, below the axes."""
    where = known(environment, cpu="{}", cores="{} cores", date="{}")
    figure.supxlabel(_wrap(note, 95) + "\n" + where, fontsize=8.5, color="#444444", x=0.99, ha="right")


def known(environment: dict[str, Any], **texts: str) -> str:
    """Those of the texts whose fact the environment tells, with the fact in it: an imported run may lack any."""
    line = ", ".join(text.format(environment[name]) for name, text in texts.items() if environment.get(name))
    return "".join(letter if letter.isprintable() else "?" for letter in line)


def log_ticks(axis: Any, words: Callable[[float], str] = "{:g}".format) -> None:
    """Ticks inside the limits of a log axis at 1, 2 and 5 times the powers of ten, or at these alone if many."""
    low, high = sorted(axis.get_view_interval())
    steps = (1, 2, 5) if high / low < MANY else (1,)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [tick for power in powers for step in steps if low <= (tick := float(f"{step}e{power}")) <= high]
    axis.set_ticks(ticks, [words(tick) for tick in ticks])
    axis.set_ticks([], minor=True)


def style(backend: str) -> tuple[str, str]:
    """Colour and marker."""
    # A backend of the user's own gets one of the spare colours, the same one every time.
    return STYLE.get(backend) or SPARE[sum(map(ord, backend)) % len(SPARE)]


def label_end(axes: Any, x: float, y: float, text: str, colour: str) -> None:
    """Text just right of the end of a line."""
    axes.annotate(text, (x, y), xytext=(7, 0), textcoords="offset points", color=colour, va="center", fontsize=11)


def label_ends(axes: Any, ends: list[tuple[float, float, str, str]]) -> None:
    """Labels (x, y, text, colour) behind the ends of lines, moved apart where they would cover each other."""
    to_axes = axes.transData - axes.transAxes
    lowest: dict[float, float] = {}
    for x, y, text, colour in sorted(ends, key=lambda end: end[1]):
        at_x, at_y = to_axes.transform((x, y))
        lowest[x] = max(at_y, lowest.get(x, -1.0) + LABEL)
        label_end(axes, x, float(to_axes.inverted().transform((at_x, lowest[x]))[1]), text, colour)


def time_text(seconds: float) -> str:
    """Seconds with a unit, three significant figures."""
    for unit, scale in (("s", 1.0), ("ms", 1e3), ("us", 1e6)):
        if seconds * scale >= 1:
            return f"{seconds * scale:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def _short_rate(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"


def _power(value: float) -> str:
    return f"{value:.1e}".replace("e-0", "e-")
