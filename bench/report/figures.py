"""Frame -> figures. Pure functions: input is a DataFrame and the environment, output is a Figure.

Titles state the finding, computed from the data. A "~" marks weak numbers and weak points.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.cbook import get_sample_data
from matplotlib.figure import Figure

from conv_impls import KERNELS, apply_kernel

from ..analysis import tables
from ..analysis.numbers import duration, marked, number, sign, times
from ..analysis.sums import depends
from ..peers import PEERS
from .style import (
    STYLED,
    WIDTH,
    NothingToDraw,
    corner,
    label_ends,
    log_ticks,
    mark_points,
    style,
    titled_figure,
    wrap,
)

# Text of a heat-map cell without a time, by status.
SHORT = {"unsupported": "-", "over_budget": "slow", "interrupted": "?", "wrong_result": "wrong"}
ALT = {
    "time_vs_size": "Time of one call against image size, log-log, with quartiles",
    "ladder": "Speed-up of each backend over python_loops on ResNet-50",
    "resnet50_heatmap": "Effective GFLOP/s of each backend on each ResNet-50 layer",
    "error_vs_speed": "Relative error against effective GFLOP/s",
    "filters": "The filter bank applied to a photograph",
}


@STYLED
def time_vs_size(table: pd.DataFrame, environment: dict[str, Any]) -> Figure:
    """Median with quartiles against image size: 3x3, 8 channels."""
    part = table[(table.workload == "sizes") & table.layer.str.startswith("image ") & (table.status == "ok")]
    part = part[(part.threads == part.threads.max()) & ~part.backend.isin(tables.CHOICES)]
    if part.empty:
        raise NothingToDraw("no measured image sizes (workload sizes)")
    big = part[part.in_height == part.in_height.max()].sort_values("median_s")
    pixels = part.in_height.max()
    title = f"At {pixels} pixels {big.backend.iloc[0]} takes {duration(big.median_s.iloc[0], big.weak.iloc[0])}"
    if len(big) > 1:
        factor = times(big.median_s.iloc[1] / big.median_s.iloc[0], (big.weak.head(2) != "").any())
        title += f"; {big.backend.iloc[1]} takes {factor} times as long"
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
    log_ticks(axes.yaxis, duration)
    label_ends(axes, ends)
    weak = mark_points(axes, part.in_height, part.median_s, part.weak)
    corner(figure, environment, "3x3, 8 to 8 channels, batch 1, median and quartiles", weak)
    return figure


@STYLED
def ladder(table: pd.DataFrame, environment: dict[str, Any]) -> Figure:
    """Bar chart of the geometric-mean speed-up over python_loops, with the range over layers."""
    rungs = tables.ladder(table, "resnet50")
    if rungs.empty:
        raise NothingToDraw("no ResNet-50 layers that every backend measured")
    rungs, doubt = marked(rungs)
    best = rungs.loc[rungs.speedup.idxmax()]
    where = f"On {rungs.layers.iloc[0]} ResNet-50 layers that all of these finish,"
    title = f"{where} {best.backend} is {number(best.speedup, doubt.speedup[best.name])} times as fast as Python loops"
    figure, axes = titled_figure(4.4, title)
    at = np.arange(len(rungs))
    colours = [style(name)[0] for name in rungs.backend]
    # A mean of equal numbers may miss them by a rounding error, and bars want no negative spread.
    spread = [(rungs.speedup - rungs.slowest_layer).clip(0), (rungs.fastest_layer - rungs.speedup).clip(0)]
    axes.barh(at, rungs.speedup, color=colours, height=0.62, xerr=spread, ecolor="#555555", capsize=3)
    for y, row, weak in zip(at, rungs.itertuples(), doubt.speedup, strict=True):
        text = f" {number(row.speedup, weak)}x"
        axes.annotate(text, (row.fastest_layer, y), va="center", xytext=(4, 0), textcoords="offset points")
    # Mark weak ends of the ranges. The text of the bar already marks a weak mean.
    ends = {name: mark_points(axes, rungs[name], at, doubt[name]) for name in ("slowest_layer", "fastest_layer")}
    axes.set(xscale="log", xlabel="times as fast as python_loops (log scale)", yticks=at)
    axes.set_yticklabels(list(rungs.backend))
    axes.invert_yaxis()
    axes.set_xlim(0.7 * float(rungs.slowest_layer.min()), float(rungs.fastest_layer.max()) * 4)
    log_ticks(axes.xaxis, "{:,g}".format)
    axes.grid(axis="y", visible=False)
    everything = table[table.workload == "resnet50"].layer.nunique()
    note = f"geometric mean and range over {rungs.layers.iloc[0]} of {everything} layers"
    corner(figure, environment, note, any(ends.values()) or doubt.speedup.any())
    return figure


@STYLED
def resnet50_heatmap(table: pd.DataFrame, environment: dict[str, Any]) -> Figure:
    """Effective GFLOP/s: one row per layer, one column per backend; the status where there is no time."""
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
    weak = part.assign(weak=part.weak != "").pivot(index="layer", columns="backend", values="weak").loc[layers, names]
    weak = weak.eq(True) & rate.notna()
    best = rate.max().idxmax()
    leaders = rate.dropna(how="all").idxmax(axis=1)
    doubt = pd.Series([weak[best][layer] or weak[leader][layer] for layer, leader in leaders.items()], leaders.index)
    wins = f"{sign(depends(leaders.notna(), doubt))}{(leaders == best).sum()}"
    top = number(rate[best].max(), weak[best][rate[best].idxmax()])
    title = f"{best} leads on {wins} of {len(layers)} ResNet-50 layers, up to {top} GFLOP/s"
    figure, axes = titled_figure(3.5 + 0.28 * len(layers), title)
    with np.errstate(divide="ignore", invalid="ignore"):
        shade = np.log10(rate.to_numpy(dtype=float))
    high = max(float(np.nanmax(shade)), -1.0)
    low = min(max(-2.0, np.floor(np.nanmin(shade))), high - 1)
    image = axes.imshow(shade, aspect="auto", cmap="cividis", vmin=low, vmax=high)
    small = 10.5 if len(names) < 9 else 8.0
    labels = part.drop_duplicates("layer").set_index("layer")
    for i, layer in enumerate(layers):
        for j, name in enumerate(names):
            value = rate.iloc[i, j]
            timed = np.isfinite(value)
            text = number(value, weak.iloc[i, j]) if timed else SHORT.get(status.loc[layer, name], "failed")
            bright = not timed or shade[i, j] > (low + high) / 2
            axes.text(j, i, text, ha="center", va="center", color="black" if bright else "white", fontsize=small)
    axes.set_xticks(range(len(names)), names, rotation=50, ha="right", rotation_mode="anchor", fontsize=10.5)
    axes.set_yticks(range(len(layers)), [f"{layer}  {labels.kernel[layer]}" for layer in layers], fontsize=9.5)
    axes.grid(visible=False)
    bar = figure.colorbar(image, ax=axes, pad=0.02, fraction=0.04)
    ticks = np.arange(np.ceil(low), np.floor(high) + 1)
    bar.set_ticks(list(ticks), labels=[f"{10.0**t:g}" for t in ticks])
    bar.set_label("effective GFLOP/s")
    count = int(part.threads.iloc[0])
    note = f"operations of the definition over the median time, {count} thread{'s' * (count > 1)}; "
    note += f"measured FMA peak {number(part.fma_peak_gflops.median())}; -: unsupported, slow: over budget"
    corner(figure, environment, note, weak.any(axis=None))
    return figure


@STYLED
def error_vs_speed(table: pd.DataFrame, environment: dict[str, Any]) -> Figure:
    """Relative error against rate: one point per right result, on the networks and the sizes."""
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
    weak = mark_points(axes, part.gflops_effective, part.error, part.weak)
    corner(figure, environment, f"float32, normal data, {len(part)} layers x backends, {CHECKED}", weak)
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
        # Kernels that sum to 0 give values of both signs at edges: their grey is 0.
        signed = abs(float(KERNELS[name].sum())) < 1e-6
        limit = float(np.percentile(np.abs(answer), 99))
        low, high = (-limit, limit) if signed else (0.0, 1.0)
        axes.imshow(answer, cmap="gray", vmin=low, vmax=high)
        axes.set_title(name, fontsize=12)
        axes.set_axis_off()
    title = "One convolution, twelve kernels: smoothing keeps flat areas, edge filters turn them to 0"
    figure.suptitle(wrap(title), fontweight="bold", fontsize=13.5, x=0.02, ha="left")
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
CHECKED = "largest error of all outputs (of 256 in runs of version 0.3.0)"


def grey_photo() -> np.ndarray[Any, np.dtype[np.float32]]:
    """Matplotlib's sample photograph as (H, W) float32 in 0..1."""
    from PIL import Image

    file: Any = get_sample_data("grace_hopper.jpg")
    with file:
        return np.asarray(Image.open(file).convert("L"), np.float32) / np.float32(255)


def _power(value: float) -> str:
    return f"{value:.1e}".replace("e-0", "e-")
