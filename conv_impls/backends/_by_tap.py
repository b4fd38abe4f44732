"""Plans of direct convolution by tap: which problems it is fastest for, and the sizes for its kernel.

See `conv_impls.kernels.by_tap` for the idea and its source. `conv_impls.backends.numba_simd` checks this way first. All
its ways add in the same order, so the choice changes no bit.
"""

from __future__ import annotations

from math import gcd, prod
from typing import Literal

import numpy as np

from conv_impls.backends._layout import image_layout, round_up, spread, tap_offsets, together
from conv_impls.kernels import by_tap, implicit
from conv_impls.kernels.runtime import target
from conv_impls.kernels.runtime.job import Job, compiled_s
from conv_impls.kernels.runtime.memory import aligned_zeros
from conv_impls.kernels.simd import lanes as vector_lanes
from conv_impls.kernels.tile import AHEAD, ROWS, VECTORS
from conv_impls.kernels.tile_few import STRIDED_ROWS, WIDTHS, most_vectors
from conv_impls.padding import NO_PADDING
from conv_impls.problem import Conv2dProblem
from conv_impls.registry import Prepared
from conv_impls.validation import Array

# Cost of packing a vector, in vector products, with column strides 1 and 2, and with others: 4x4 stride 4 takes 20.
PACK, PACK_STRIDED = 8, 16
# Cost of storing a transposed vector of results, in vector products.
TRANSPOSE = 8
# By channel, rows of outputs are rows of a tile: 5x5 outputs of 80 channels took 20% longer than packed panels.
LEAST_WIDTH = 6
# Weights are read again for each row of outputs. With more bytes of weights than this, a product costs WEIGHT_PRICE.
WEIGHT_BYTES, WEIGHT_PRICE = 64 * 2**10, 1.15
# Cost of a product if a row fits one vector: a tile of one vector waits for the latency of its own products.
NARROW = 1.4
# Cost of staging a row of a phase, and each vector of it, in vector products.
STAGED_ROW, STAGED_VECTOR = 4, 6
# Rows of a band: as many as fit BAND_BYTES of staged planes, but at least OWN_ROWS times the rows that the next band
# stages again (with bands of one row, 64 -> 1 channels at 128 x 128 took twice the time). LEAST_ROWS times is enough if
# L2 holds no more: rows that are staged twice still cost less than taps that are packed nine times.
BAND_BYTES, OWN_ROWS, LEAST_ROWS = 128 * 2**10, 4, 1
# By channel, the results of at least so many positions are transposed together.
RESULT_POSITIONS = 128


def better(problem: Conv2dProblem, threads: int) -> Literal["", "rows", "channels"]:
    """The axis of the vectors if this is faster than packing panels, else an empty text.

    It is faster if few output channels share a panel. The caches must hold a band of rows and the weights of a tile.
    """
    lanes, l2 = vector_lanes(problem.itemsize), target.caches().l2
    oc, positions = problem.out_channels // problem.groups, prod(problem.out_size)
    row_bytes, shared_rows = band_rows(problem)
    if problem.batch * problem.groups * problem.out_size[0] < threads or (
        max(1 + shared_rows, (LEAST_ROWS + 1) * shared_rows) * row_bytes > l2
    ):
        return ""
    products = oc * -(-positions // lanes)
    if oc >= lanes:
        products = min(products, positions * VECTORS * -(-oc // (VECTORS * lanes)))
    packed = problem.reduction * products + pack_units(problem, lanes)
    by_rows, by_channels = sum(units(problem, lanes)), sum(channel_units(problem, lanes))
    # 1x1 images need no packing, but tiles of few channels are wider here: 64 to 1 channels at 112 x 112 gains 68%.
    few = not in_rows(problem) or most_vectors(min(oc, ROWS)) > VECTORS
    if few and by_rows < min(packed, by_channels) and min(oc, ROWS) * problem.reduction * problem.itemsize <= l2 // 2:
        return "rows"
    # 1x1 kernels have too few products for each position to read the weights again for each row: they lose 10 to 50%.
    held = VECTORS * lanes * problem.reduction * problem.itemsize <= l2 // 2
    wide = prod(problem.kernel_size) > 1 and problem.out_size[1] >= LEAST_WIDTH
    if held and wide and by_channels < packed:
        return "channels"
    return ""


def pack_units(problem: Conv2dProblem, lanes: int) -> float:
    """Cost of packing the patches of a group of one image, in vector products.

    Each row of outputs starts a new vector, and panels cut vectors.
    """
    (oh, ow), cost = problem.out_size, PACK if problem.stride[1] <= 2 else PACK_STRIDED
    return cost * problem.reduction * (oh * -(-ow // lanes) + oh * ow // (4 * lanes))


def units(problem: Conv2dProblem, lanes: int) -> tuple[float, float]:
    """Cost for a group of one image with vectors along rows, in vector products: the products, and the staging."""
    (oh, ow), oc = problem.out_size, problem.out_channels // problem.groups
    vectors = -(-ow // lanes)
    products = price(problem) * (NARROW if vectors == 1 else 1) * problem.reduction * oc * oh * vectors
    if problem.padding == NO_PADDING and problem.stride == (1, 1) and ow >= lanes:
        return products, 0.0
    return products, stage_units(problem, lanes)


def channel_units(problem: Conv2dProblem, lanes: int) -> tuple[float, float]:
    """As `units` with vectors along channels; the products include the transpose of the results."""
    oc, positions = problem.out_channels // problem.groups, prod(problem.out_size)
    vectors = -(-oc // lanes)
    products = vectors * (problem.reduction * positions + TRANSPOSE * lanes * -(-positions // lanes))
    return products, 0.0 if problem.padding == NO_PADDING else stage_units(problem, lanes)


def stage_units(problem: Conv2dProblem, lanes: int) -> float:
    """Cost of staging a group of one image, in vector products."""
    rows, width, shared_rows = staged_rows(problem)
    return rows * (problem.out_size[0] + shared_rows) * (STAGED_ROW + STAGED_VECTOR * -(-width // lanes))


def staged_rows(problem: Conv2dProblem) -> tuple[int, int, int]:
    """Staged rows for one row of outputs, in all phases of a group; their length; the rows that two bands share."""
    extents = [(k - 1) * d // s for k, d, s in zip(problem.kernel_size, problem.dilation, problem.stride, strict=True)]
    # Stride phases that taps read, in Python's integers: the cost model calls this for any problem.
    sizes = zip(problem.kernel_size, problem.dilation, problem.stride, strict=True)
    count = prod(min(k, s // gcd(d, s)) for k, d, s in sizes)
    return problem.in_channels // problem.groups * count, problem.out_size[1] + extents[1], extents[0]


def band_rows(problem: Conv2dProblem) -> tuple[int, int]:
    """Bytes of one staged row of a group, in all its phases, and the number of rows that two bands share."""
    rows, width, shared_rows = staged_rows(problem)
    return rows * width * problem.itemsize, shared_rows


def price(problem: Conv2dProblem) -> float:
    """The cost of a product, in units of one whose weights stay in the innermost cache."""
    weight_bytes = problem.out_channels // problem.groups * problem.reduction * problem.itemsize
    return WEIGHT_PRICE if weight_bytes > WEIGHT_BYTES else 1.0


def in_rows(problem: Conv2dProblem) -> bool:
    """Whether the image is already the patch matrix: 1x1 kernel, stride 1, no padding."""
    return problem.kernel_size == problem.stride == (1, 1) and problem.padding == NO_PADDING


def prepare(
    problem: Conv2dProblem,
    weight: Array,
    bias: Array | None,
    threads: int,
    relu: bool,
    by_channel: bool = False,
) -> Prepared:
    """Plan of one `effective` problem, with vectors along rows, or along output channels."""
    dtype, g, reduction = np.dtype(problem.dtype), problem.groups, problem.reduction
    oc, (oh, ow) = problem.out_channels // g, problem.out_size
    layout = image_layout(problem)
    staging, lanes = layout.staging, vector_lanes(dtype.itemsize)
    vectors = most_vectors(-(-oc // -(-oc // ROWS)))
    # Vectors along rows: the caller's image is read in whole vectors, which must not pass the end of its last row.
    # Vectors along channels: it is read element by element, with any stride.
    staged = problem.padding != NO_PADDING if by_channel else layout.staged or ow < lanes
    # Channels that map to the same cache set are staged with other distances: 1x3, 48 to 12 @512x384 gains 20%.
    staged = staged or problem.in_channels // g > together(prod(problem.in_size) * dtype.itemsize)
    while not staged and vectors * lanes > ow:
        vectors //= 2
    # Bands of rows whose planes fit the cache, the same number for each thread.
    row_bytes, shared_rows = band_rows(problem)
    l2 = target.caches().l2
    fitting, most = (size // row_bytes - shared_rows for size in (min(l2 // 2, BAND_BYTES), l2))
    bands = min(oh, round_up(-(-oh // max(1, fitting, min(OWN_ROWS * shared_rows, most))), threads))
    plane, channel = (-(-oh // bands) + shared_rows) * layout.pitch, prod(problem.in_size)
    if staged:
        channel = spread(staging.sizes.phases_h * staging.sizes.phases_w * plane, dtype.itemsize)
    if staged or not by_channel:
        offsets = tap_offsets(problem, channel, plane, layout.pitch, staging.sizes.phases_w)
        row_step, column_step = layout.pitch, 1
    else:
        offsets = tap_offsets(problem.replace(stride=(1, 1)), channel, 0, problem.in_size[1], 1)
        row_step, column_step = problem.stride[0] * problem.in_size[1], problem.stride[1]
    # Vectors may be loaded past the end of the planes, but are never used.
    planes = staged * round_up(problem.in_channels // g * channel + WIDTHS[-1] * lanes, lanes)
    channels = round_up(oc, VECTORS * lanes) if by_channel else oc
    result_rows = max(1, RESULT_POSITIONS // ow)
    sizes = by_tap.Sizes(
        batch=problem.batch, groups=g, out_channels=oc, reduction=reduction, out_height=oh, out_width=ow, bands=bands,
        vectors=vectors, in_channels=problem.in_channels // g, pitch=layout.pitch,
        plane=plane, channel=channel, shared_rows=shared_rows, staged=staged, row_step=row_step,
        column_step=column_step, tile_rows=ROWS if column_step == 1 else STRIDED_ROWS, result_rows=result_rows,
        planes=planes,
    )  # fmt: skip
    # The tile prefetches AHEAD taps ahead.
    offsets = np.pad(offsets, (0, AHEAD), mode="edge")
    packed, bias_values = aligned_zeros((g * reduction * channels,), dtype), np.zeros((g, channels), dtype)
    clamp = np.array([0.0 if relu else -np.inf], dtype)
    operands = by_tap.Operands(staging, packed, bias_values, clamp, offsets, sizes)
    pack, convolve = (
        (implicit.pack_tiles, implicit.pack_panels)[by_channel],
        by_tap.by_channel_of(column_step > 1) if by_channel else by_tap.convolve,
    )
    compile_s = compiled_s([pack, convolve], dtype)
    own = planes + by_channel * (result_rows * ow + lanes) * VECTORS * lanes
    job = Job([convolve], dtype, operands, threads=threads, units=problem.batch * g * bands, own=own)
    packing = Job([pack], dtype, implicit.PackOperands(implicit.Packing(g, oc, reduction)), threads=threads)

    def repack(weight: Array, bias: Array | None) -> None:
        packing(weight.reshape(-1), packed)
        bias_values[:, :oc] = 0 if bias is None else bias.reshape(g, oc)

    repack(weight, bias)
    return Prepared(job, packed.nbytes, job.workspace_bytes, compile_s, repack)
