"""Frame -> roofline plot: the rate of each layer against the limits of the machine. Pure functions, as in `figures`.

Attainable rate = min(FMA peak, bandwidth x arithmetic intensity). Points show the rate of the operations in the
definition, so an algorithm that does fewer may be above the roof; `bench.analysis.tables.utilisation` counts the
operations that are executed. A "~" marks weak points.
Source: Williams, Waterman & Patterson 2009, doi:10.1145/1498765.1498785.
Limits: the data of one image may stay in caches between calls, so the memory line does not limit small layers. The
line of the last cache is its read bandwidth. The peak is for the first layer's dtype.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..analysis.numbers import number, percent, sign
from ..analysis.sums import depends
from ..peers import PEERS
from ..store.records import problem_of
from .style import STYLED, NothingToDraw, corner, log_ticks, mark_points, titled_figure

# A layer reaches the roof from this fraction of it.
REACHED = 0.85
TITLES = {"resnet50": "ResNet-50", "vgg16": "VGG-16", "mobilenet_v2": "MobileNetV2", "convnext_tiny": "ConvNeXt-T"}
ALT = {
    "roofline": "Effective GFLOP/s of each ResNet-50 layer against its operations per byte, under the machine's roof"
}
DIRECT, FEWER, PEER, ROOF = "#0072B2", "#D55E00", "#333333", "#555555"
# Algorithms that do fewer operations than the definition.
FEWER_OPERATIONS = "winograd", "fft"


@STYLED
def roofline(table: pd.DataFrame, environment: dict[str, Any], workload: str = "resnet50") -> Figure:
    """One point per layer for ours (auto, or the fastest) and for the best peer, under the measured ceilings.

    Parameters
    ----------
    table : DataFrame
        From `bench.analysis.frame.frame`.
    environment : dict
        With ``machine``, the result of `bench.machine.environment.measure_machine`.
    workload : str

    Raises
    ------
    NothingToDraw
        If no layer of the workload was measured, or the machine was not measured.
    """
    points = _points(table, workload)
    peak_gflops, bandwidth = _ceilings(environment, points)
    points["of_roof"] = points.ours / np.minimum(peak_gflops, max(bandwidth.values()) * points.intensity)
    figure, axes = titled_figure(5.8, _finding(points, TITLES.get(workload, workload)))
    _limits(axes, points, peak_gflops / max(bandwidth.values()), peak_gflops)
    _draw_roof(axes, peak_gflops, bandwidth)
    _draw_points(axes, points, peak_gflops)
    threads = points.threads.iloc[0]
    note = f"{threads} thread{'s' if threads > 1 else ''}; operations and bytes of the definition."
    if points.fewer.any():
        note += " Winograd and FFT do fewer operations than counted here: they may be above the roof."
    corner(figure, environment, note, _mark_weak(axes, points))
    return figure


def _points(table: pd.DataFrame, workload: str) -> pd.DataFrame:
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
    if not rows:
        raise NothingToDraw(f"no measured layers of {workload}")
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


def _finding(points: pd.DataFrame, name: str) -> str:
    reach = points.of_roof >= REACHED
    fewer = int((reach & points.fewer).sum())
    by = f", {fewer} of them by doing fewer operations" if fewer else ""
    count = f"{sign(depends(reach.notna(), points.weak != ''))}{reach.sum()}"
    return f"{name}: {count} of {len(points)} layers reach {REACHED:.0%} of the machine's roof{by}"


def _limits(axes: Any, points: pd.DataFrame, ridge: float, peak_gflops: float) -> None:
    """Set axis limits with room for all points, the slope left of the ridge and the labels."""
    rates = pd.concat([points.ours, points.peer.dropna(), pd.Series([peak_gflops])])
    left, right = min(ridge / 2.5, points.intensity.min() / 2), points.intensity.max() * 1.7
    axes.set(xscale="log", yscale="log", xlim=(left, right), ylim=(rates.min() / 1.8, rates.max() * 1.7))
    axes.set(xlabel="operations per byte (FLOP/byte)", ylabel="effective GFLOP/s")
    log_ticks(axes.xaxis)
    log_ticks(axes.yaxis)


def _draw_roof(axes: Any, peak_gflops: float, bandwidth: dict[str, float]) -> None:
    (left, right), (bottom, _) = axes.get_xlim(), axes.get_ylim()
    for level, rate in bandwidth.items():
        start, ridge = max(left, bottom / rate), peak_gflops / rate
        axes.plot([start, ridge], [rate * start, peak_gflops], color=ROOF, lw=1.5, ls="--")
        middle = np.sqrt(start * ridge)
        axes.text(
            middle, 1.05 * rate * middle, f"{level} {number(rate)} GB/s", color=ROOF, fontsize=10.5, ha="center",
            rotation=np.degrees(np.arctan(rate)), rotation_mode="anchor", transform_rotates_text=True,
        )  # fmt: skip
    ridge = peak_gflops / max(bandwidth.values())
    axes.plot([ridge, right], [peak_gflops] * 2, color=ROOF, lw=2)
    text = f"FMA peak {number(peak_gflops)} GFLOP/s"
    axes.annotate(text, (ridge, peak_gflops), xytext=(0, 5), textcoords="offset points", color=ROOF, fontsize=10.5)


def _draw_points(axes: Any, points: pd.DataFrame, peak_gflops: float) -> None:
    x, rates = points.intensity, points[["ours", "peer"]]
    for fewer, colour, marker, name in ((False, DIRECT, "o", "ours"), (True, FEWER, "D", "ours, fewer operations")):
        mine = points[points.fewer == fewer]
        if len(mine):
            axes.scatter(mine.intensity, mine.ours, s=42, color=colour, marker=marker, label=name, zorder=3)
    if points.peer.notna().any():
        axes.vlines(x, rates.min(axis=1), rates.max(axis=1), color="#BBBBBB", lw=1, zorder=1)
        axes.scatter(x, points.peer, s=42, marker="s", facecolors="none", edgecolors=PEER, label="best peer")
    axes.legend(
        frameon=False, fontsize=10.5, loc="lower left", bbox_to_anchor=(0, 1), ncols=3, handletextpad=0.2,
        columnspacing=1.2, borderaxespad=0.2,
    )  # fmt: skip
    _label(axes, points, points.of_roof.idxmax(), peak_gflops)
    _label(axes, points, points.of_roof.idxmin(), None)


def _mark_weak(axes: Any, points: pd.DataFrame) -> bool:
    """Mark the weak points of both series; return whether there is one."""
    ours = mark_points(axes, points.intensity, points.ours, points.weak)
    return mark_points(axes, points.intensity, points.peer, points.peer_weak) or ours


def _label(axes: Any, points: pd.DataFrame, index: int, above_gflops: float | None) -> None:
    """Label one point. The text is above all near points and the roof, or below all near points."""
    row, away = points.loc[index], np.log(points.intensity / points.intensity[index]).abs()
    near = points.loc[away < np.log(2.5), ["ours", "peer"]]
    (left, right), (bottom, top) = np.log(axes.get_xlim()), np.log(axes.get_ylim())
    # A twelfth of the axes is two lines of text: room for the roof's own label.
    step = np.exp((top - bottom) / 12)
    y = near.min().min() / step if above_gflops is None else max(near.max().max(), above_gflops) * step
    across = (np.log(row.intensity) - left) / (right - left)
    colour = FEWER if row.fewer else DIRECT
    text = f"{row.layer}: {percent(row.of_roof, row.weak)}"
    axes.annotate(
        text, (row.intensity, row.ours), xytext=(row.intensity, y), color=colour,
        ha="right" if across > 0.8 else "left" if across < 0.2 else "center", fontsize=10.5,
        va="center", arrowprops={"arrowstyle": "-", "color": colour, "lw": 0.8, "shrinkB": 4},
    )  # fmt: skip
