"""Depthwise convolution across channels: lanes are channels, for images too narrow for vectors. Pure kernels.

Idea
    One channel per lane is transposed into a buffer. Every load is then aligned, and every tap is a vector of weights.
    Kernel rows in the padding are skipped. Results are transposed back. The order of taps and the number of passes are
    those of `conv_impls.kernels.depthwise_position`. Where that order goes by kernel columns, rows and columns of the
    image are exchanged in the buffer. Values that depend only on the output row come from a table: computing them in
    the loop takes four divisions, 10 to 15% of a layer.
Source
    The NCHWc layout of Georganas et al. 2018, arXiv:1808.05567, sec. II, created during the copy.
Limits
    One input channel per group, zero padding, as many output channels as input channels, stride 1 or 2 along rows.
"""

from __future__ import annotations

from typing import NamedTuple

from conv_impls.kernels.depthwise_tile import COLUMNS, channel_tile
from conv_impls.kernels.runtime.compile import helper, kernel
from conv_impls.kernels.runtime.operands import Floats, Integers, of_call, of_plan
from conv_impls.kernels.simd import lanes_of
from conv_impls.kernels.transpose_block import gather_rows, load_rows, scatter_rows, store_rows, transpose


class Sizes(NamedTuple):
    """Integer parameters of `convolve`. Rows and columns are those of the image in the workspace."""

    batch: int
    channels: int
    h: int
    w: int
    out_h: int
    out_w: int
    kh: int
    kw: int
    stride_h: int
    stride_w: int
    dilation_h: int
    dilation_w: int
    # Number of passes over a kernel.
    passes: int
    # Elements of a padded row of the transposed image; offset of the results.
    row: int
    out_at: int


class Operands(NamedTuple):
    """Data that a plan prepares for `convolve`."""

    # For each vector of channels: all taps, then the bias.
    weight: Floats
    # Lower clamp of the sums before the last pass, and after it.
    clamp: Floats
    # For each output row: the first kernel row that is used, and the number of rows used.
    rows: Integers
    # For each pass: its first kernel column, the number of columns, and the order (1: column by column, 0: row by row).
    passes: Integers
    # Offset of each image position in the transposed image, and of each output position in the results after it.
    places: Integers
    out_places: Integers
    sizes: Sizes


@helper
def _pass(k, work, at, kernel_at, plan):
    """One pass over the kernel, for all rows of the result of one vector of channels."""
    sizes, lanes = plan.sizes, lanes_of(work)
    kh, kw, ow, row, out_at = sizes.kh, sizes.kw, sizes.out_w, sizes.row, at + sizes.out_at
    bias, tile = (plan.weight, kernel_at + kh * kw * lanes), -(-ow // -(-ow // COLUMNS))
    first, by_column, least = plan.passes[3 * k], plan.passes[3 * k + 2], plan.clamp[(k + 1) // sizes.passes]
    columns = plan.passes[3 * k + 1], sizes.dilation_w * lanes, lanes
    at, kernel_at = at + first * sizes.dilation_w * lanes, kernel_at + first * lanes
    for i in range(sizes.out_h):
        low = plan.rows[2 * i]
        rows = plan.rows[2 * i + 1], sizes.dilation_h * row, kw * lanes
        outer, inner = (columns, rows) if by_column else (rows, columns)
        source, weight = at + (i * sizes.stride_h + low * sizes.dilation_h) * row, kernel_at + low * kw * lanes
        for j in range(0, ow, tile):
            channel_tile(min(tile, ow - j), outer, inner, sizes.stride_w, (work, source + j * sizes.stride_w * lanes),
                         (plan.weight, weight), bias, (work, out_at + (i * ow + j) * lanes), k == 0, least)  # fmt: skip


@kernel
def convolve(part, parts, operands):
    """Convolve the vectors of channels of this part."""
    x, y, work, at = of_call(operands)
    plan = of_plan(operands, Operands)
    sizes, lanes = plan.sizes, lanes_of(y)
    channels, taps, size, out_size = sizes.channels, sizes.kh * sizes.kw, sizes.h * sizes.w, sizes.out_h * sizes.out_w
    blocks = -(-channels // lanes)
    for task in range(part * sizes.batch * blocks // parts, (part + 1) * sizes.batch * blocks // parts):
        block = task % blocks
        first = block * lanes
        here, image = min(lanes, channels - first), task // blocks * channels + first
        for p in range(0, size, lanes):
            # The last vectors start earlier instead of ending past the image: whole vectors need no masks.
            p = max(0, min(p, size - lanes))
            rows = load_rows(x, image * size + p, size, here, size - p)
            scatter_rows(transpose(rows), work, at, plan.places, p)
        for k in range(sizes.passes):
            _pass(k, work, at, block * (taps + 1) * lanes, plan)
        for p in range(0, out_size, lanes):
            p = max(0, min(p, out_size - lanes))
            rows = transpose(gather_rows(work, at + sizes.out_at, plan.out_places, p))
            store_rows(rows, y, image * out_size + p, out_size, here, out_size - p)
