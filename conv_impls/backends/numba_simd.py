"""Direct convolution by explicit vectors: register tiles of a matrix product that is packed panel by panel, in cache.

Any kernel size, stride, dilation, groups and padding mode; see `conv_impls.kernels.implicit` for the idea, its source and
the loops. Here: along which axis the vectors run, how large the panels are, and how the weights are packed.
Limits: groups with few output channels fill the tiles badly; depthwise layers have a backend of their own.
"""

from __future__ import annotations

import time
from functools import cache

import numpy as np

from conv_impls.kernels import implicit
from conv_impls.kernels.memory import aligned_zeros
from conv_impls.kernels.simd import lanes as vector_lanes
from conv_impls.kernels.team import Job
from conv_impls.kernels.tile import ROWS, VECTORS
from conv_impls.layout import effective, image_layout
from conv_impls.problem import Conv2dProblem
from conv_impls.registry import Prepared, register
from conv_impls.validation import Array

# Steps of the reduction between two visits of an accumulator, and bytes of a packed panel: a quarter of a 1 MiB L2.
STEPS = 384
PANEL_BYTES = 256 * 1024


@register(
    "numba_simd",
    idea="implicit GEMM by register tiles of explicit vectors, panels packed in cache",
    source="Goto & van de Geijn 2008, doi:10.1145/1356052.1356053, sec. 4-5",
    threads="argument",
)
def prepare(problem: Conv2dProblem, weight: Array, bias: Array | None, threads: int, relu: bool = False) -> Prepared:
    start = time.perf_counter()
    _compile(problem.dtype, threads > 1)
    return _prepare(problem, weight, bias, threads, relu, time.perf_counter() - start)


def _prepare(
    problem: Conv2dProblem, weight: Array, bias: Array | None, threads: int, relu: bool, compile_s: float,
    by_channel: bool | None = None, steps: int = STEPS, panel_bytes: int = PANEL_BYTES, o_parts: int | None = None,
) -> Prepared:
    dtype, problem = np.dtype(problem.dtype), effective(problem)
    lanes, g, taps = vector_lanes(dtype.itemsize), problem.groups, problem.reduction
    oc, (oh, ow) = problem.out_channels // g, problem.out_size
    positions, width = oh * ow, VECTORS * lanes
    layout = image_layout(problem)
    if by_channel is None:
        by_channel = positions < 4 * width and oc >= lanes
    in_place = problem.kernel_size == (1, 1) and not layout.staged
    steps = min(steps, taps)
    # Positions of a panel: as many as fit, evenly cut, in whole vectors.
    p_block = max(width, panel_bytes // (steps * dtype.itemsize) // width * width)
    p_parts = -(-positions // p_block)
    if not by_channel and problem.batch * g * p_parts % threads:
        p_parts = min(-(-p_parts // threads) * threads, -(-positions // width))
    p_block = _round_up(-(-positions // p_parts), width)
    p_parts = -(-positions // p_block)
    if o_parts is None:
        o_parts = 1 if problem.batch * g * p_parts % threads == 0 else min(threads, -(-oc // (width if by_channel else ROWS)))
    packed = _pack_channels(weight, g, lanes) if by_channel else _pack_positions(weight, g)
    planes = problem.batch * problem.in_channels * layout.channel if layout.staged else 0
    # Behind the planes, vectors may be loaded, though never used.
    planes = _round_up(planes + width, 64)
    area = _round_up(p_block, lanes) * steps
    if by_channel:
        area += p_block * _round_up(-(-oc // width), o_parts) // o_parts * width
    area = _round_up(area, 64) + 64
    sizes = np.array(
        [problem.batch, g, oc, positions, ow, layout.pitch, problem.in_channels // g * layout.channel, in_place, steps,
         p_block, p_parts, o_parts, taps, lanes, by_channel, layout.staged, planes, area], np.int64)  # fmt: skip
    offsets = np.zeros(problem.out_channels, dtype) if bias is None else bias
    floor = np.array([-np.inf, 0.0 if relu else -np.inf], dtype)
    job = Job(
        implicit.convolve, dtype, threads, 2 if layout.staged else 1, planes + threads * area,
        [packed, offsets, floor, layout.tap_offset, layout.stage, sizes],
    )  # fmt: skip
    return Prepared(job, packed.nbytes, job.workspace_bytes, compile_s)


def _pack_positions(weight: Array, g: int) -> Array:
    """(C_out, C_in/groups, kH, kW) -> for each group and tile of rows: (k, row)."""
    oc, taps = weight.shape[0] // g, weight[0].size
    packed = aligned_zeros((g * oc * taps,), weight.dtype)
    tiles = -(-oc // ROWS)
    rows = weight.reshape(g * oc, taps)
    for group in range(g):
        for t in range(tiles):
            first, last = group * oc + t * oc // tiles, group * oc + (t + 1) * oc // tiles
            packed[first * taps : last * taps].reshape(taps, last - first)[...] = rows[first:last].T
    return packed


def _pack_channels(weight: Array, g: int, lanes: int) -> Array:
    """(C_out, C_in/groups, kH, kW) -> for each group and panel of channels: (k, channel), zeros behind the last."""
    oc, taps, width = weight.shape[0] // g, weight[0].size, VECTORS * lanes
    panels = -(-oc // width)
    packed = aligned_zeros((g, panels, taps, width), weight.dtype)
    for panel in range(panels):
        part = weight.reshape(g, oc, taps)[:, panel * width : (panel + 1) * width]
        packed[:, panel, :, : part.shape[1]] = part.transpose(0, 2, 1)
    return packed.reshape(-1)


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


@cache
def _compile(dtype: str, parallel: bool) -> None:
    """Compile, or load from the disk cache, every kernel of this dtype by running one tiny problem."""
    problem = Conv2dProblem(1, 1, (1, 1), 1, (1, 1), padding=((1, 1), (1, 1)), dtype=dtype)
    one = np.ones((1, 1, 1, 1), dtype)
    _prepare(problem, one, None, 2 if parallel else 1, False, 0.0).call(one, np.empty(problem.output_shape, dtype))
