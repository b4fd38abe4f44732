"""Plans of direct convolution by tap: which problems it serves best, and what its kernel counts by.

See `conv_impls.kernels.by_tap` for the idea and its source. `conv_impls.backends.numba_simd` asks here first: all its
ways add in the same order, so the choice changes no bit.
"""

from __future__ import annotations

from math import gcd, prod

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

# Packing a vector takes the time of so many products of it.
PACK = 8
# Weights are read again for each row of outputs. More bytes of them than this make a product so much dearer.
WEIGHT_BYTES, WEIGHT_PRICE = 64 * 2**10, 1.15
# A tile of one vector waits for its own products, so that those of rows no longer than one cost more.
NARROW = 1.4
# Staging a row of a phase, and each vector of it, takes the time of so many products: for 3x3 with stride 2 and 16
# channels to a group @28 as long as the products themselves. Rows by masked vectors, edges and all, took 10% longer.
STAGED_ROW, STAGED_VECTOR = 32, 4
# Bands have as many rows as these bytes of staged planes hold, but so many times those that the next band stages again:
# with bands of one row, 64 -> 1 channels at 128 x 128 took twice the time. With less of them where L2 holds no more:
# rows that are staged twice still cost less than taps that are packed nine times.
BAND_BYTES, OWN_ROWS, LEAST_ROWS = 128 * 2**10, 4, 1


def better(problem: Conv2dProblem, threads: int) -> bool:
    """Whether this is faster than packing panels: few output channels share one, rows are full, and the caches hold a
    band of rows and the weights of a tile.
    """
    lanes, l2 = vector_lanes(problem.itemsize), target.caches().l2
    oc, positions = problem.out_channels // problem.groups, prod(problem.out_size)
    products = oc * -(-positions // lanes)
    if oc >= lanes:
        products = min(products, positions * VECTORS * -(-oc // (VECTORS * lanes)))
    packed = problem.reduction * (products + PACK * packed_vectors(problem, lanes))
    row_bytes, shared_rows = band_rows(problem)
    # 1x1 images need no packing, but tiles of few channels are wider here: 64 to 1 channels at 112 x 112 gains 68%.
    return (
        sum(units(problem, lanes)) < packed
        and (not in_rows(problem) or most_vectors(min(oc, ROWS)) > VECTORS)
        and problem.batch * problem.groups * problem.out_size[0] >= threads
        and max(1 + shared_rows, (LEAST_ROWS + 1) * shared_rows) * row_bytes <= l2
        and min(oc, ROWS) * problem.reduction * problem.itemsize <= l2 // 2
    )


def packed_vectors(problem: Conv2dProblem, lanes: int) -> int:
    """Vectors that packing writes for each tap: every row of outputs fills its own, and panels cut them."""
    oh, ow = problem.out_size
    return oh * -(-ow // lanes) + oh * ow // (4 * lanes)


def units(problem: Conv2dProblem, lanes: int) -> tuple[float, float]:
    """Products of vectors for a group of one image, by tap, and its staging in such units."""
    (oh, ow), oc = problem.out_size, problem.out_channels // problem.groups
    vectors = -(-ow // lanes)
    products = price(problem) * (NARROW if vectors == 1 else 1) * problem.reduction * oc * oh * vectors
    if problem.padding == NO_PADDING and problem.stride == (1, 1) and ow >= lanes:
        return products, 0.0
    rows, width, shared_rows = staged_rows(problem)
    return products, rows * (oh + shared_rows) * (STAGED_ROW + STAGED_VECTOR * -(-width // lanes))


def staged_rows(problem: Conv2dProblem) -> tuple[int, int, int]:
    """Staged rows that show one row of outputs, in all phases of a group; their length; the rows that bands share."""
    extents = [(k - 1) * d // s for k, d, s in zip(problem.kernel_size, problem.dilation, problem.stride, strict=True)]
    # Phases of the stride that taps see, in Python's integers: the cost model asks about any problem.
    sizes = zip(problem.kernel_size, problem.dilation, problem.stride, strict=True)
    count = prod(min(k, s // gcd(d, s)) for k, d, s in sizes)
    return problem.in_channels // problem.groups * count, problem.out_size[1] + extents[1], extents[0]


def band_rows(problem: Conv2dProblem) -> tuple[int, int]:
    """Bytes of one staged row of a group, all phases of it, and how many rows two bands share."""
    rows, width, shared_rows = staged_rows(problem)
    return rows * width * problem.itemsize, shared_rows


def price(problem: Conv2dProblem) -> float:
    """The cost of a product, in units of one whose weights stay in the innermost cache."""
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
    # Bands of rows whose planes fit the cache, equally many for each thread.
    row_bytes, shared_rows = band_rows(problem)
    l2 = target.caches().l2
    fitting, most = (size // row_bytes - shared_rows for size in (min(l2 // 2, BAND_BYTES), l2))
    bands = min(oh, round_up(-(-oh // max(1, fitting, min(OWN_ROWS * shared_rows, most))), threads))
    plane, channel = (-(-oh // bands) + shared_rows) * layout.pitch, prod(problem.in_size)
    if staged:
        channel = spread(staging.sizes.phases_h * staging.sizes.phases_w * plane, dtype.itemsize)
    sizes = by_tap.Sizes(
        batch=problem.batch, groups=g, out_channels=oc, reduction=reduction, out_height=oh, out_width=ow, bands=bands,
        vectors=vectors, in_channels=problem.in_channels // g, pitch=layout.pitch,
        plane=plane, channel=channel, shared_rows=shared_rows, staged=staged,
    )  # fmt: skip
    offsets = tap_offsets(problem, channel, plane, layout.pitch, staging.sizes.phases_w)
    # The tile prefetches what comes some taps later.
    offsets = np.pad(offsets, (0, AHEAD), mode="edge")
    packed, bias_values = aligned_zeros((g * reduction * oc,), dtype), np.zeros(g * oc, dtype)
    floor = np.array([0.0 if relu else -np.inf], dtype)
    operands = by_tap.Operands(staging, packed, bias_values, floor, offsets, sizes)
    compile_s = compiled_s([implicit.pack_tiles, by_tap.convolve], dtype)
    # Behind the planes, vectors may be loaded, though never used.
    own = staged * (problem.in_channels // g * channel + WIDTHS[-1] * lanes)
    job = Job([by_tap.convolve], dtype, operands, threads=threads, units=problem.batch * g * bands, own=own)
    packing = Job(
        [implicit.pack_tiles], dtype, implicit.PackOperands(implicit.Packing(g, oc, reduction)), threads=threads
    )

    def repack(weight: Array, bias: Array | None) -> None:
        packing(weight.reshape(-1), packed)
        bias_values[:] = 0 if bias is None else bias

    repack(weight, bias)
    return Prepared(job, packed.nbytes, job.workspace_bytes, compile_s, repack)
