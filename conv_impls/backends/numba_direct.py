"""Direct convolution compiled by Numba: threads over images and output channels, unit-stride inner loops, LLVM SIMD.

The padded image is staged once, without strides, and every tap becomes a shifted multiply-add over it; see
`conv_impls.kernels.direct` for the idea, its source and the loops. Here: which axis the vectors run along, how the work
is cut, and what is packed once.
Limits: plain Numba keeps its accumulators in L1, not in registers: about a third to a half of the FMA peak on dense
layers (`results/`).
"""

from __future__ import annotations

import time
from functools import cache

import numpy as np

from conv_impls.backends._layout import effective, inner_columns, round_up, sources, tap_offsets
from conv_impls.kernels import direct
from conv_impls.kernels.runtime.launch import launch
from conv_impls.kernels.runtime.memory import aligned_zeros, read_only
from conv_impls.padding import NO_PADDING
from conv_impls.problem import Conv2dProblem
from conv_impls.registry import Prepared, register
from conv_impls.validation import Array

# Vectors run along channels where an image is this small: at 7x7 the rows are too short (66 -> 128 GFLOP/s), at 14x14
# both are level, at 28x28 the strided stores of the other orientation cost more than they gain.
CHANNEL_POSITIONS = 256
CHANNEL_MINIMUM = 64


@register(
    "numba_direct",
    idea="direct convolution, parallel over images and output channels, unit-stride loops LLVM vectorises",
    source="Zhang, Franchetti & Low 2018, arXiv:1809.10170, sec. 3",
    deterministic="output",
    threads="argument",
)
def prepare(problem: Conv2dProblem, weight: Array, bias: Array | None, threads: int) -> Prepared:
    start = time.perf_counter()
    _compile(problem.dtype, threads > 1)
    compile_s = time.perf_counter() - start
    return _prepare(problem, weight, bias, threads, compile_s)


def _prepare(problem: Conv2dProblem, weight: Array, bias: Array | None, threads: int, compile_s: float) -> Prepared:
    dtype, problem = np.dtype(problem.dtype), effective(problem)
    g, taps, (oh, ow) = problem.groups, problem.reduction, problem.out_size
    oc = problem.out_channels // g
    by_channel = oh * ow <= CHANNEL_POSITIONS and oc >= CHANNEL_MINIMUM
    row_source, col_source = (sources(problem, axis) for axis in (0, 1))
    plane = row_source.shape[1] * col_source.shape[1]
    channel = row_source.shape[0] * col_source.shape[0] * plane
    pitch = col_source.shape[1]
    tap_offset = tap_offsets(problem, channel, plane, pitch, col_source.shape[0])
    span = (oh - 1) * pitch + ow
    if by_channel:
        lanes = min(direct.BLOCK, round_up(-(-oc // threads), direct.LANES))
        rows = _rows(direct.ROWS, oh * ow, problem.batch * g * -(-oc // lanes), threads)
        row_base = (np.arange(oh)[:, None] * pitch + np.arange(ow)).ravel()
        packed = aligned_zeros((g, taps, round_up(oc, direct.LANES)), dtype)
        packed[:, :, :oc] = weight.reshape(g, oc, taps).transpose(0, 2, 1)
    else:
        blocks = -(-span // direct.BLOCK)
        lanes = round_up(-(-span // blocks), direct.LANES)
        # Half of what ROWS allows: a 56x56 image of 64 channels then gives 26 tasks, which two threads can share.
        rows = _rows(direct.ROWS // 2, oc, problem.batch * g * blocks, threads)
        row_base = np.arange(problem.out_channels) * taps
        packed = weight
    tap_step = np.arange(taps) * (packed.shape[2] if by_channel else 1)
    # The image itself will do where it needs no staging and its last group of lanes ends where it ends.
    staged = problem.padding != NO_PADDING or problem.stride != (1, 1) or (not by_channel and span % direct.LANES != 0)
    scratch_length = problem.batch * problem.in_channels * channel + direct.BLOCK if staged else 0
    constants = tuple(
        map(read_only, (packed.reshape(-1), np.zeros(problem.out_channels, dtype) if bias is None else bias))
    )
    tables = tuple(map(read_only, (tap_offset, tap_step, row_base)))
    shown = *map(read_only, (row_source, col_source, inner_columns(problem, *col_source.shape))), problem.stride[1]
    # Workspaces wait on a stack; a call takes one and puts it back, so calls in flight never share one.
    idle: list[tuple[Array, Array]] = []

    def workspace() -> tuple[Array, Array]:
        return aligned_zeros((scratch_length,), dtype), aligned_zeros((threads, direct.ROWS * direct.BLOCK), dtype)

    def call(x: Array, out: Array) -> None:
        scratch, acc = idle.pop() if idle else workspace()
        image = read_only(x)
        if staged:
            launch(direct.stage_serial, direct.stage_parallel, threads, image, *shown, scratch)
        planes = read_only(scratch if staged else x.reshape(-1))
        launch(
            direct.convolve_serial, direct.convolve_parallel, threads,
            by_channel, planes, problem.in_channels // g * channel, pitch, *constants, out, acc, *tables,
            g, lanes, rows,
        )  # fmt: skip
        idle.append((scratch, acc))

    idle.append(workspace())
    return Prepared(call, packed.nbytes if by_channel else 0, sum(a.nbytes for a in idle[0]), compile_s)


def _rows(most: int, count: int, others: int, threads: int) -> int:
    """Rows of a task: as many as allowed, but few enough that every thread gets a task."""
    rows = most
    while rows > 4 and others * -(-count // rows) < threads:
        rows //= 2
    return rows


@cache
def _compile(dtype: str, parallel: bool) -> None:
    """Compile, or load from the disk cache, every kernel of this dtype by running one tiny problem."""
    problem = Conv2dProblem(1, 1, (1, 1), 1, (1, 1), padding=((1, 1), (1, 1)), dtype=dtype)
    one = np.ones((1, 1, 1, 1), dtype)
    _prepare(problem, one, None, 2 if parallel else 1, 0.0).call(one, np.empty(problem.output_shape, dtype))
