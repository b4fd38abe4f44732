"""3x3 depthwise convolution directly from the image: each row is read once, from top to bottom.

Idea
    A vector of columns moves down the image with the nine weights and three sums in registers. Each image row finishes
    the sum of one output row, continues that of the next and starts a third. Rows in the padding are skipped; columns
    in the padding are masked. Stride 2 selects every second element in registers. If padding is not zeros, or
    if it is zeros and a weight is not finite, each part first copies bands of rows with padding into its own buffer.
Source
    Zhang, Lo & Lu 2020, arXiv:2001.02504, sec. 3. There the tile is fixed and the loop runs over the image.
Limits
    3x3, dilation 1, stride 1 or 2, the same along rows and columns.
"""

from __future__ import annotations

from typing import NamedTuple

from numba import int64

from conv_impls.kernels.runtime.compile import helper, kernel
from conv_impls.kernels.runtime.operands import Floats, Integers, of_call, of_plan
from conv_impls.kernels.simd import (
    REGISTERS,
    at_least,
    constant,
    evens,
    fma,
    following,
    lanes_of,
    load,
    load_lanes,
    odds,
    prefetch,
    splat,
    store,
    store_lanes,
)
from conv_impls.kernels.stage import Staging, stage_rows


class Sizes(NamedTuple):
    """Integer parameters of `convolve`."""

    # Channels of all images; channels of one image; output channels for each of them.
    images: int
    channels: int
    multiplier: int
    h: int
    w: int
    top: int
    left: int
    # The image with its padding.
    padded_h: int
    padded_w: int
    out_h: int
    out_w: int
    stride: int
    # Number of bands of rows of a channel.
    bands: int


# Two vectors of columns at a time need registers for 9 weights, 12 other vectors and two constants. With 32 registers
# this takes a quarter less time (Zen 5, 192 channels @28, 144 @56); with 16 it loses 13% or gains 4%.
SIDE_BY_SIDE = REGISTERS == 32
# Prefetch distance in rows, for stride 2 and for two vectors at a time: 4 to 13% of a layer; 4 and 16 gained as much.
AHEAD = 8


class Operands(NamedTuple):
    """Data that a plan prepares for `convolve`."""

    weight: Floats
    bias: Floats
    clamp: Floats
    # 1 if bands are copied with padding.
    staged: Integers
    staging: Staging
    sizes: Sizes


class Column(NamedTuple):
    """One vector of columns of one channel: the state of the loop over rows."""

    # The source image: its size and the padding above it.
    h: int
    w: int
    top: int
    # Start offset in the image and in the result; number of remaining result columns.
    image: int
    out: int
    count: int
    # Range of image columns, relative to the first tap.
    low: int
    high: int
    # Range of result rows.
    i0: int
    i1: int


@kernel
def convolve(part, parts, operands):
    """Convolve the bands of rows of this part."""
    x, y, work, at = of_call(operands)
    weight, bias, clamp, staged, staging, sizes = of_plan(operands, Operands)
    bands, oh, ow = sizes.bands, sizes.out_h, sizes.out_w
    least = constant(y, clamp[1])
    for task in range(part * sizes.images * bands // parts, (part + 1) * sizes.images * bands // parts):
        image, band = task // bands, task % bands
        i0, i1 = band * oh // bands, (band + 1) * oh // bands
        source, h, w, top, beside = x, sizes.h, sizes.w, sizes.top, sizes.left
        start_at = image * h * w
        if staged[0]:
            first = i0 * sizes.stride
            stage_rows(x, image, (first, (i1 - i0 - 1) * sizes.stride + 3), int64(0), staging, work, at)
            source, h, w, top, beside = work, sizes.padded_h, sizes.padded_w, int64(0), int64(0)
            start_at = at - first * w
        for m in range(sizes.multiplier):
            o = image % sizes.channels * sizes.multiplier + m
            out = (image * sizes.multiplier + m) * oh * ow
            weights = (
                splat(weight, 9 * o), splat(weight, 9 * o + 1), splat(weight, 9 * o + 2),
                splat(weight, 9 * o + 3), splat(weight, 9 * o + 4), splat(weight, 9 * o + 5),
                splat(weight, 9 * o + 6), splat(weight, 9 * o + 7), splat(weight, 9 * o + 8),
            )  # fmt: skip
            start = splat(bias, o)
            j, lanes = 0, lanes_of(x)
            while j < ow:
                left = j * sizes.stride - beside
                column = Column(h, w, top, start_at + left, out + j, ow - j, -left, w - left, i0, i1)
                if sizes.stride == 2:
                    _down_by_two(source, y, sizes, column, weights, start, least)
                elif ow - j <= lanes or not SIDE_BY_SIDE:
                    _down(source, y, sizes, column, weights, start, least)
                else:
                    _down_side_by_side(source, y, sizes, column, weights, start, least)
                    j += lanes
                j += lanes


@helper
def _down(x, y, sizes, column, weights, start, least):
    """Compute this column of the result. Every row of the image is read once."""
    lanes, low, high = lanes_of(x), column.low, column.high
    inside = low <= 0 and high >= lanes + 2
    ending = going = start
    for i in range(column.i0 - 2, column.i1):
        begun, line = start, i + 2 - column.top
        if 0 <= line < column.h:
            here = column.image + line * column.w
            if inside:
                a, b, c = load(x, here), load(x, here + 1), load(x, here + 2)
            else:
                a = load_lanes(x, here, low, high)
                b = load_lanes(x, here + 1, low - 1, high - 1)
                c = load_lanes(x, here + 2, low - 2, high - 2)
            ending = _add(a, b, c, weights[6], weights[7], weights[8], ending)
            going = _add(a, b, c, weights[3], weights[4], weights[5], going)
            begun = _add(a, b, c, weights[0], weights[1], weights[2], begun)
        if i >= column.i0:
            _put(at_least(ending, least), y, column.out + i * sizes.out_w, column.count)
        ending, going = going, begun


@helper
def _down_side_by_side(x, y, sizes, column, weights, start, least):
    """`_down` for two vectors of columns in one loop."""
    lanes, low, high = lanes_of(x), column.low, column.high
    inside = low <= 0 and high >= 2 * lanes + 2
    ending = going = ending_right = going_right = start
    for i in range(column.i0 - 2, column.i1):
        begun = begun_right = start
        line = i + 2 - column.top
        _prefetch_row(x, column.image + (line + AHEAD) * column.w)
        if 0 <= line < column.h:
            here = column.image + line * column.w
            there = here + lanes
            if inside:
                a, b, c = load(x, here), load(x, here + 1), load(x, here + 2)
                d, e, f = load(x, there), load(x, there + 1), load(x, there + 2)
            else:
                a = load_lanes(x, here, low, high)
                b = load_lanes(x, here + 1, low - 1, high - 1)
                c = load_lanes(x, here + 2, low - 2, high - 2)
                d = load_lanes(x, there, low - lanes, high - lanes)
                e = load_lanes(x, there + 1, low - 1 - lanes, high - 1 - lanes)
                f = load_lanes(x, there + 2, low - 2 - lanes, high - 2 - lanes)
            ending = _add(a, b, c, weights[6], weights[7], weights[8], ending)
            going = _add(a, b, c, weights[3], weights[4], weights[5], going)
            begun = _add(a, b, c, weights[0], weights[1], weights[2], begun)
            ending_right = _add(d, e, f, weights[6], weights[7], weights[8], ending_right)
            going_right = _add(d, e, f, weights[3], weights[4], weights[5], going_right)
            begun_right = _add(d, e, f, weights[0], weights[1], weights[2], begun_right)
        if i >= column.i0:
            at = column.out + i * sizes.out_w
            store(at_least(ending, least), y, at)
            _put(at_least(ending_right, least), y, at + lanes, column.count - lanes)
        ending, going, ending_right, going_right = going, begun, going_right, begun_right


@helper
def _down_by_two(x, y, sizes, column, weights, start, least):
    """As `_down`, at stride 2: the third input row of an output is also the first input row of the next output."""
    ending = start
    for i in range(column.i0 - 1, column.i1):
        begun, line = start, 2 * i + 1 - column.top
        _prefetch_row(x, column.image + (line + AHEAD) * column.w)
        _prefetch_row(x, column.image + (line + 1 + AHEAD) * column.w)
        if i >= column.i0 and 0 <= line < column.h:
            a, b, c = _apart(x, column.image + line * column.w, column.low, column.high)
            ending = _add(a, b, c, weights[3], weights[4], weights[5], ending)
        line += 1
        if 0 <= line < column.h:
            a, b, c = _apart(x, column.image + line * column.w, column.low, column.high)
            ending = _add(a, b, c, weights[6], weights[7], weights[8], ending)
            begun = _add(a, b, c, weights[0], weights[1], weights[2], begun)
        if i >= column.i0:
            _put(at_least(ending, least), y, column.out + i * sizes.out_w, column.count)
        ending = begun


@helper
def _apart(x, at, low, high):
    """The input vectors of the three taps of a row at stride 2."""
    lanes = lanes_of(x)
    if low <= 0 and high >= 2 * lanes + 1:
        near, far, last = load(x, at), load(x, at + lanes), splat(x, at + 2 * lanes)
    else:
        near, far = load_lanes(x, at, low, high), load_lanes(x, at + lanes, low - lanes, high - lanes)
        last = load_lanes(x, at + 2 * lanes, low - 2 * lanes, min(1, high - 2 * lanes))
    first = evens(near, far)
    # Two loads fewer than `evens` of the vectors two elements later: saves 10% of a layer.
    return first, odds(near, far), following(first, last)


@helper
def _prefetch_row(x, at):
    """Prefetch two vectors of a later row. The address may be past the end of the image."""
    prefetch(x, at)
    prefetch(x, at + lanes_of(x))


@helper
def _add(a, b, c, one, two, three, value):
    """Add the products of one kernel row."""
    return fma(c, three, fma(b, two, fma(a, one, value)))


@helper
def _put(value, y, at, count):
    if count >= lanes_of(y):
        store(value, y, at)
    else:
        store_lanes(value, y, at, count)
