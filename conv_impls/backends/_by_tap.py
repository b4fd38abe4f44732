"""Plans of direct convolution by tap: which problems it serves best, and what its kernel counts by.

See `conv_impls.kernels.by_tap` for the idea and its source. `conv_impls.backends.numba_simd` asks here first: all its
ways add in the same order, so the choice changes no bit.
"""

from __future__ import annotations

from math import prod

import numpy as np

from conv_impls.backends._layout import image_layout, round_up, spread, tap_offsets
from conv_impls.kernels import by_tap, implicit
from conv_impls.kernels.runtime import target
from conv_impls.kernels.runtime.job import Job, compiled_s
from conv_impls.kernels.runtime.memory import aligned_zeros
from conv_impls.kernels.simd import lanes as vector_lanes
from conv_impls.kernels.tile import AHEAD, ROWS, VECTORS
from conv_impls.kernels.tile_few import WIDTHS, most_vectors
from conv_impls.padding import NO_PADDING
from conv_impls.problem import Conv2dProblem
from conv_impls.registry import Prepared
from conv_impls.validation import Array

# Products of a vector that packing one takes the time of.
PACK = 8
# Weights beyond so many bytes, read again for each row of outputs, cost so much.
WEIGHT_BYTES, WEIGHT_PRICE = 64 * 2**10, 1.15
# Staged planes of a band of rows; but its own rows are so many times those staged twice, which cost 64 -> 1 channels at
# 128 x 128 half of the speed.
BAND_BYTES, ROWS_TWICE = 128 * 2**10, 4


def better(problem: Conv2dProblem) -> bool:
    """Whether this is faster than packing panels of positions: few output channels share a panel, and rows are full."""
    lanes, (oh, ow) = vector_lanes(problem.itemsize), problem.out_size
    oc = problem.out_channels // problem.groups
    by_tap, packed = price(problem) * oc * oh * -(-ow // lanes), (oc + PACK) * -(-oh * ow // lanes)
    # 1x1 images need no packing, but tiles of few channels are wider here: 64 to 1 channels at 112 x 112 gains 68%.
    return by_tap < packed and (not in_rows(problem) or most_vectors(min(oc, ROWS)) > VECTORS)


def price(problem: Conv2dProblem) -> float:
    """What a product costs, beside one whose weights stay in the innermost cache."""
    weight_bytes = problem.out_channels // problem.groups * problem.reduction * problem.itemsize
    return WEIGHT_PRICE if weight_bytes > WEIGHT_BYTES else 1.0


def in_rows(problem: Conv2dProblem) -> bool:
    """Whether rows of the image are the patch matrix as they are."""
    return problem.kernel_size == problem.stride == (1, 1) and problem.padding == NO_PADDING


def prepare(problem: Conv2dProblem, weight: Array, bias: Array | None, threads: int, relu: bool) -> Prepared:
    """One `effective` problem."""
    dtype, g, reduction = np.dtype(problem.dtype), problem.groups, problem.reduction
    oc, (oh, ow) = problem.out_channels // g, problem.out_size
    layout = image_layout(problem)
    staging, lanes = layout.staging, vector_lanes(dtype.itemsize)
    vectors = most_vectors(-(-oc // -(-oc // ROWS)))
    # The caller's image is read in whole vectors, none of which may reach behind its last row.
    staged = layout.staged or ow < lanes
    while not staged and vectors * lanes > ow:
        vectors //= 2
    phases, more_rows = staging.sizes.phases_h * staging.sizes.phases_w, staging.sizes.plane_h - oh
    # Bands of rows whose planes fit the cache, equally many for each thread.
    row_bytes = problem.in_channels // g * phases * layout.pitch * dtype.itemsize
    fitting = min(target.caches().l2 // 2, BAND_BYTES) // row_bytes - more_rows
    bands = min(oh, round_up(-(-oh // max(1, fitting, ROWS_TWICE * more_rows)), threads))
    plane, channel = (-(-oh // bands) + more_rows) * layout.pitch, prod(problem.in_size)
    if staged:
        channel = spread(phases * plane, dtype.itemsize)
    sizes = by_tap.Sizes(
        batch=problem.batch, groups=g, out_channels=oc, reduction=reduction, out_height=oh, out_width=ow, bands=bands,
        vectors=vectors, in_channels=problem.in_channels // g, pitch=layout.pitch,
        plane=plane, channel=channel, more_rows=more_rows, staged=staged,
    )  # fmt: skip
    offsets = tap_offsets(problem, channel, plane, layout.pitch, staging.sizes.phases_w)
    # The tile prefetches what comes some taps later.
    offsets = np.pad(offsets, (0, AHEAD), mode="edge")
    packed, bias_values = aligned_zeros((g * reduction * oc,), dtype), np.zeros(g * oc, dtype)
    floor = np.array([0.0 if relu else -np.inf], dtype)
    operands = by_tap.Operands(staging, packed, bias_values, floor, offsets, sizes)
    kernels = [by_tap.convolve]
    compile_s = compiled_s([implicit.pack_tiles, *kernels], dtype)
    # Behind the planes, vectors may be loaded, though never used.
    own = staged * (problem.in_channels // g * channel + WIDTHS[-1] * lanes)
    job = Job(kernels, dtype, operands, threads=threads, units=problem.batch * g * bands, own=own)
    packing = Job(
        [implicit.pack_tiles], dtype, implicit.PackOperands(implicit.Packing(g, oc, reduction)), threads=threads
    )

    def repack(weight: Array, bias: Array | None) -> None:
        packing(weight.reshape(-1), packed)
        bias_values[:] = 0 if bias is None else bias

    repack(weight, bias)
    return Prepared(job, packed.nbytes, job.workspace_bytes, compile_s, repack)
