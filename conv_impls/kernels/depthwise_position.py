"""Depthwise convolution of one channel at a time: lanes along a row of the image. Pure kernels.

Idea
    Bands of rows of one channel are copied into a padded buffer that stays in L1. Its columns are separated by stride
    phase, so every tap of every output vector is one load. A tile of `ROWS` x `VECTORS` outputs stays in registers
    during the loop over kernel columns. All rows of the tile that use a loaded vector share that load. The weights of a
    kernel column stay in registers.
Source
    Zhang, Lo & Lu 2020, "High performance depthwise and pointwise convolutions on mobile devices", arXiv:2001.02504,
    sec. 3.
Limits
    One input channel per group. Most 3x3 layers are faster without the copy (`conv_impls.kernels.depthwise_slide`).
    Narrow images are faster across channels (`conv_impls.kernels.depthwise_channel`).
"""

from __future__ import annotations

from typing import NamedTuple

from conv_impls.kernels.depthwise_tile import ROWS, VECTORS, position_tile
from conv_impls.kernels.runtime.compile import helper, kernel
from conv_impls.kernels.runtime.operands import Floats, Integers, of_call, of_plan
from conv_impls.kernels.simd import constant, evens, lanes_of, load, load_lanes, odds, store


class Sizes(NamedTuple):
    """Integer parameters of `convolve`."""

    # Channels of all images; channels of one image; output channels for each of them.
    images: int
    channels: int
    multiplier: int
    h: int
    w: int
    out_h: int
    out_w: int
    kh: int
    kw: int
    stride_h: int
    stride_w: int
    dilation_h: int
    # Number of bands of rows of a channel.
    bands: int
    # A staged row: its elements, the elements of one stride phase, the offset of the image, and the left padding.
    row: int
    pitch: int
    margin: int
    left: int
    # Number of padded columns that are not zero.
    pads: int
    # Number of passes over a kernel; distance of rows that share loads; elements between rows of a tile.
    passes: int
    apart: int
    tile_row: int


class Operands(NamedTuple):
    """Data that a plan prepares for `convolve`."""

    # For each output channel: its passes, each in the order (kernel column, kernel row).
    weight: Floats
    bias: Floats
    # Lower clamp of the sums before the last pass, and after it.
    clamp: Floats
    # The image row of each padded row (-1: zeros); the offset of the staged column of each kernel column.
    lines: Integers
    taps: Integers
    # Pairs (staged column, image column) of padding that is not zero.
    pads: Integers
    # For each pass: its index in PASSES, its offset in the staged rows, and its offset in the weights of a channel.
    chunks: Integers
    sizes: Sizes


@helper
def _stage(x, image, first, count, plan, work, to):
    """Stage padded rows ``first`` to first + count - 1 of one channel; columns of one stride phase are contiguous.

    The zeros left and right of the image are in the buffer from the start and are never overwritten.
    """
    sizes, lanes, zero = plan.sizes, lanes_of(work), constant(work, 0.0)
    w, stride, pitch, margin, left = sizes.w, sizes.stride_w, sizes.pitch, sizes.margin, sizes.left
    for r in range(first, first + count):
        if plan.lines[r] < 0:
            for s in range(stride):
                for b in range(0, -(-w // stride), lanes):
                    store(zero, work, to + s * pitch + margin + b)
        else:
            line = image + plan.lines[r] * w
            if stride == 1:
                for b in range(0, w, lanes):
                    seen = load(x, line + b) if b + lanes <= w else load_lanes(x, line + b, 0, w - b)
                    store(seen, work, to + margin + b)
            elif stride == 2:
                even = to + left % 2 * pitch + margin
                odd = to + (left + 1) % 2 * pitch + margin
                for b in range(0, w, 2 * lanes):
                    if b + 2 * lanes <= w:
                        one, two = load(x, line + b), load(x, line + b + lanes)
                    else:
                        one, two = load_lanes(x, line + b, 0, w - b), load_lanes(x, line + b + lanes, 0, w - b - lanes)
                    store(evens(one, two), work, even + b // 2)
                    store(odds(one, two), work, odd + b // 2)
            else:
                for s in range(stride):
                    at = to + (s + left) % stride * pitch + margin
                    for b in range(s, w, stride):
                        work[at + b // stride] = x[line + b]
            for k in range(sizes.pads):
                work[to + plan.pads[2 * k]] = x[line + plan.pads[2 * k + 1]]
        to += sizes.row


@helper
def _rows(left):
    """The largest tile height that fits."""
    for rows in ROWS:
        if rows <= left:
            return rows
    return 1


@kernel
def convolve(part, parts, operands):
    """Stage each band of rows of a channel and convolve it with all kernels of the channel."""
    x, y, work, at = of_call(operands)
    plan = of_plan(operands, Operands)
    sizes, chunks, lanes = plan.sizes, plan.chunks, lanes_of(y)
    bands, oh, ow, apart, row = sizes.bands, sizes.out_h, sizes.out_w, sizes.apart, sizes.row
    for task in range(part * sizes.images * bands // parts, (part + 1) * sizes.images * bands // parts):
        image, band = task // bands, task % bands
        i0, i1 = band * oh // bands, (band + 1) * oh // bands
        deep = (i1 - i0 - 1) * sizes.stride_h + (sizes.kh - 1) * sizes.dilation_h + 1
        _stage(x, image * sizes.h * sizes.w, i0 * sizes.stride_h, deep, plan, work, at)
        for m in range(sizes.multiplier):
            o = image % sizes.channels * sizes.multiplier + m
            out = ((image * sizes.multiplier + m) * oh + i0) * ow
            # Rows at the distance of the taps share their loads.
            for t in range(min(apart, i1 - i0)):
                count = (i1 - i0 - t + apart - 1) // apart
                i = here = 0
                while i + here < count:
                    i += here
                    here = _rows(count - i)
                    source = at + (t + i * apart) * sizes.stride_h * row
                    target = out + (t + i * apart) * ow
                    for j in range(0, ow, VECTORS * lanes):
                        for k in range(sizes.passes):
                            seen = work, source + chunks[3 * k + 1] + j, sizes.tile_row
                            weight = plan.weight, o * sizes.kh * sizes.kw + chunks[3 * k + 2]
                            result = y, target + j, apart * ow
                            position_tile(chunks[3 * k], (here, ow - j), sizes.kw, seen, plan.taps, weight, result,
                                          (plan.bias, o), k == 0, plan.clamp[(k + 1) // sizes.passes])  # fmt: skip
