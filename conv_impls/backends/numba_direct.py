"""Direct convolution compiled by Numba: threads over images and output channels, unit-stride inner loops, LLVM SIMD.

The padded image is staged once, without strides, and every tap becomes a shifted multiply-add over it. See
`conv_impls.kernels.direct` for the idea, its source and the loops. This file chooses the axis of the vectors, the tasks
and the layout of the weights.
Limits: plain Numba keeps its sums in L1, not in registers. It reaches about a third to a half of the FMA peak on dense
layers (`results/`).
"""

from __future__ import annotations

import numpy as np

from conv_impls.backends._layout import effective, image_layout, round_up
from conv_impls.kernels import direct
from conv_impls.kernels.runtime.job import Job, compiled_s
from conv_impls.kernels.runtime.memory import aligned_zeros
from conv_impls.kernels.stage import stage
from conv_impls.problem import Conv2dProblem
from conv_impls.registry import Prepared, register
from conv_impls.validation import Array

# Vectors run along channels if an image is this small. At 7x7 rows are too short for vectors (66 -> 128 GFLOP/s along
# channels), at 14x14 both are equal, at 28x28 the strided stores cost more than vectors along channels gain.
CHANNEL_POSITIONS = 256
CHANNEL_MINIMUM = 64


@register(
    "numba_direct",
    idea="direct convolution, parallel over images and output channels, unit-stride loops LLVM vectorises",
    source="Zhang, Franchetti & Low 2018, arXiv:1809.10170, sec. 3",
    deterministic="output",
    threads="argument",
    compiled=True,
)
def prepare(problem: Conv2dProblem, weight: Array, bias: Array | None, threads: int, relu: bool) -> Prepared:
    return _prepare(problem, weight, bias, threads, relu)


def _prepare(
    problem: Conv2dProblem, weight: Array, bias: Array | None, threads: int, relu: bool,
    by_channel: bool | None = None,
) -> Prepared:  # fmt: skip
    """`prepare`, with the choice it makes open to tests."""
    dtype, problem = np.dtype(problem.dtype), effective(problem)

    g, taps, (oh, ow) = problem.groups, problem.reduction, problem.out_size
    images, oc, positions = problem.batch * g, problem.out_channels // g, oh * ow
    if by_channel is None:
        by_channel = positions <= CHANNEL_POSITIONS and oc >= CHANNEL_MINIMUM
    layout = image_layout(problem)
    # Positions in the layout of the source: with gaps if its rows are longer.
    span = (oh - 1) * layout.pitch + ow
    if by_channel:
        across, down, wide = oc, positions, round_up(oc, direct.LANES)
        block = min(direct.BLOCK, round_up(-(-oc // threads), direct.LANES))
        rows = _rows(direct.ROWS, down, images * -(-across // block), threads)
        places, steps = (np.arange(oh)[:, None] * layout.pitch + np.arange(ow)).ravel(), np.arange(taps) * wide
        packed = aligned_zeros((g, taps, wide), dtype)
        unpacked = packed[:, :, :oc].transpose(0, 2, 1)
    else:
        across, down = span, oc
        blocks = -(-across // direct.BLOCK)
        block = round_up(-(-across // blocks), direct.LANES)
        # Half of ROWS: a 56x56 image of 64 channels then gives 26 tasks, which two threads can share.
        rows = _rows(direct.ROWS // 2, down, images * blocks, threads)
        places, steps = np.arange(oc) * taps, np.arange(taps)
        unpacked = packed = aligned_zeros((g, oc, taps), dtype)
    # The image is read in place if it needs no staging and its last chunk of lanes ends exactly at its end.
    staged = layout.staged or (not by_channel and span % direct.LANES != 0)
    # A last chunk may be loaded past the end of the planes, but is never used.
    planes = round_up(problem.batch * problem.in_channels * layout.channel + direct.LANES, 64) if staged else 0
    kernels = [stage, direct.convolve][not staged :]
    compile_s = compiled_s(kernels, dtype)
    offsets = np.zeros(problem.out_channels, dtype)
    # An image without gaps between its rows is treated as one long row.
    out_width, pitch = (positions, positions) if layout.pitch == ow else (ow, layout.pitch)
    sizes = direct.Sizes(
        images=images, groups=g, out_channels=oc, taps=taps, positions=positions, out_width=out_width, pitch=pitch,
        image=problem.in_channels // g * layout.channel, weight=packed[0].size, by_channel=by_channel, across=across,
        down=down, block=block, rows=rows, staged=staged,
    )  # fmt: skip
    operands = direct.Operands(
        weight=packed, bias=offsets, clamp=np.array([0.0 if relu else -np.inf], dtype), offsets=layout.tap_offset,
        steps=steps, places=places, staging=layout.staging, sizes=sizes,
    )  # fmt: skip
    job = Job(
        kernels, dtype, operands, threads=threads,
        units=images * -(-across // block) * -(-down // rows), shared=planes, own=rows * direct.BLOCK,
    )  # fmt: skip

    def repack(weight: Array, bias: Array | None) -> None:
        unpacked[...] = weight.reshape(g, oc, taps)
        offsets[:] = 0 if bias is None else bias

    repack(weight, bias)
    return Prepared(job, packed.nbytes, job.workspace_bytes, compile_s, repack)


def _rows(most: int, count: int, others: int, threads: int) -> int:
    """Rows of a task: as many as allowed, but few enough that every thread gets a task."""
    rows = most
    while rows > 4 and others * -(-count // rows) < threads:
        rows //= 2
    return rows
