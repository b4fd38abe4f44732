"""Depthwise convolution: each channel by itself, lanes along a row of the image or along channels. Pure kernels.

Idea
    By position: bands of rows of one channel are copied into a padded buffer that stays in L1, columns apart by stride
    phase, so that every tap of every output vector is one load. A tile of `ROWS` x `VECTORS` outputs stays in registers
    while kernel columns go by; each vector loaded serves all rows of the tile that it reaches, and a column's weights
    stay in registers.
    By channel, for images too narrow for vectors: as many channels as lanes are transposed, every load is aligned,
    every tap a vector of weights, kernel rows in the padding are left out, and results are transposed back.
Source
    Zhang, Lo & Lu 2020, "High performance depthwise and pointwise convolutions on mobile devices", arXiv:2001.02504,
    sec. 3; by channel it is the NCHWc layout of Georganas et al. 2018, arXiv:1808.05567, sec. II, made on the way.
Limits
    One input channel a group. By channel: zero padding, as many output channels as input channels. Most 3x3 layers are
    faster without the copy: `conv_impls.kernels.depthwise_slide`.
"""

from __future__ import annotations

from numba import njit

from conv_impls.kernels.depthwise_tile import COLUMNS, ROWS, VECTORS, channel_tile, position_tile
from conv_impls.kernels.runtime.cache import kernel
from conv_impls.kernels.runtime.team import WORK, X, Y, array_at, table_at
from conv_impls.kernels.simd import constant, evens, load, load_lanes, odds, store
from conv_impls.kernels.square import load_rows, scatter_rows, store_rows, transpose

# Slots of the operands.
WEIGHT, BIAS, FLOOR, SIZES, LINES, TAPS, PADS, CHUNKS = range(3, 11)


@njit(error_model="numpy")
def _stage(x, image, w, stride, first, count, lines, pads, to, row, pitch, margin, left, work, lanes):
    """Padded rows ``first`` to first + count - 1 of one channel; columns of one stride phase lie side by side.

    Zeros beside the image are there from the start and stay; ``pads`` says where other padding comes from.
    """
    zero = constant(work, 0.0)
    for r in range(first, first + count):
        if lines[r] < 0:
            for s in range(stride):
                for b in range(0, -(-w // stride), lanes):
                    store(zero, work, to + s * pitch + margin + b)
        else:
            line = image + lines[r] * w
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
            for k in range(1, 2 * pads[0], 2):
                work[to + pads[k]] = x[line + pads[k + 1]]
        to += row


@njit(error_model="numpy")
def _rows(left):
    """Of the heights of a tile, the largest that fits."""
    for rows in ROWS:
        if rows <= left:
            return rows
    return 1


@njit(error_model="numpy")
def _by_position(part, parts, x, weight, bias, y, work, at, operands, sizes, floor, lanes):
    """Lanes are columns: for each band of rows of a channel, stage it and convolve it with all its kernels."""
    images, channels, multiplier, h, w, oh, ow, kh, kw, stride_h, stride_w, dilation, bands = (
        sizes[2], sizes[3], sizes[4], sizes[5], sizes[6], sizes[7], sizes[8], sizes[9], sizes[10], sizes[11], sizes[12],
        sizes[13], sizes[14],
    )  # fmt: skip
    row, pitch, margin, left, chunk_count, apart, tile_row = (
        sizes[15], sizes[16], sizes[17], sizes[18], sizes[19], sizes[20], sizes[21],
    )  # fmt: skip
    lines, taps = table_at(operands, LINES), table_at(operands, TAPS)
    pads, chunks = table_at(operands, PADS), table_at(operands, CHUNKS)
    for task in range(part * images * bands // parts, (part + 1) * images * bands // parts):
        image, band = task // bands, task % bands
        i0, i1 = band * oh // bands, (band + 1) * oh // bands
        deep = (i1 - i0 - 1) * stride_h + (kh - 1) * dilation + 1
        _stage(
            x, image * h * w, w, stride_w, i0 * stride_h, deep, lines, pads, at, row, pitch, margin, left, work, lanes
        )
        for m in range(multiplier):
            o = image % channels * multiplier + m
            out = ((image * multiplier + m) * oh + i0) * ow
            # Rows as far apart as the taps share their loads.
            for t in range(min(apart, i1 - i0)):
                count = (i1 - i0 - t + apart - 1) // apart
                i = here = 0
                while i + here < count:
                    i += here
                    here = _rows(count - i)
                    source = at + (t + i * apart) * stride_h * row
                    target = out + (t + i * apart) * ow
                    for j in range(0, ow, VECTORS * lanes):
                        for k in range(chunk_count):
                            position_tile(chunks[3 * k], here, kw, work, source + chunks[3 * k + 1] + j, tile_row, taps,
                                          weight, o * kh * kw + chunks[3 * k + 2], y, target + j, apart * ow, ow - j,
                                          bias, o, k == 0, floor[(k + 1) // chunk_count])  # fmt: skip


@njit(error_model="numpy")
def _by_channel(part, parts, x, weight, bias, y, work, at, operands, sizes, floor, lanes):
    """Lanes are channels: transpose them into work, convolve there, transpose back."""
    batch, channels, h, w, oh, ow, kh, kw, stride_h, stride_w, dilation_h, dilation_w, top, row, out_at = (
        sizes[2], sizes[3], sizes[5], sizes[6], sizes[7], sizes[8], sizes[9], sizes[10], sizes[11], sizes[12],
        sizes[13], sizes[14], sizes[15], sizes[16], sizes[17],
    )  # fmt: skip
    places = table_at(operands, LINES)
    blocks = -(-channels // lanes)
    for task in range(part * batch * blocks // parts, (part + 1) * batch * blocks // parts):
        block = task % blocks
        first = block * lanes
        here, image = min(lanes, channels - first), task // blocks * channels + first
        for p in range(0, h * w, lanes):
            # The last vectors begin earlier rather than end behind the image: whole ones need no masks.
            p = max(0, min(p, h * w - lanes))
            rows = load_rows(x, image * h * w + p, h * w, here, h * w - p)
            scatter_rows(transpose(rows), work, at, places, p)
        kernel_at = block * (kh * kw + 1) * lanes
        for i in range(oh):
            above = i * stride_h - top
            # Kernel rows that see the image.
            low = min(kh, max(0, -(above // dilation_h)))
            high = max(low, min(kh, (h - 1 - above) // dilation_h + 1))
            source = at + (above + low * dilation_h) * row
            if low == high:  # none: a row of zeros lies before the results
                low, high, source = 0, 1, at + out_at - row
            groups = -(-ow // COLUMNS)
            for g in range(groups):
                j = g * ow // groups
                channel_tile((g + 1) * ow // groups - j, high - low, kw, stride_w, work, source + j * stride_w * lanes,
                             dilation_h * row, dilation_w * lanes, weight, kernel_at + low * kw * lanes,
                             kernel_at + kh * kw * lanes, floor[1], work,
                             at + out_at + (i * ow + j) * lanes)  # fmt: skip
        for p in range(0, oh * ow, lanes):
            p = max(0, min(p, oh * ow - lanes))
            rows = transpose(load_rows(work, at + out_at + p * lanes, lanes, lanes, lanes))
            store_rows(rows, y, image * oh * ow + p, oh * ow, here, oh * ow - p)


@kernel(error_model="numpy")
def convolve(phase, part, parts, operands):
    """All of it in one phase: each part stages what it needs."""
    sizes, work = table_at(operands, SIZES), array_at(operands, WORK)
    by_channel, lanes, at = sizes[0], sizes[1], part * sizes[22]
    x, y = array_at(operands, X), array_at(operands, Y)
    weight, bias, floor = array_at(operands, WEIGHT), array_at(operands, BIAS), array_at(operands, FLOOR)
    if by_channel:
        _by_channel(part, parts, x, weight, bias, y, work, at, operands, sizes, floor, lanes)
    else:
        _by_position(part, parts, x, weight, bias, y, work, at, operands, sizes, floor, lanes)
