"""Panels of the patch matrix, packed when they are needed: one row per k, contiguous positions. Pure kernels.

    target[k, j] = source[base + tap_offset[k0 + k] + place(p0 + j)]        for k < depth, j < count
    place(p) = p // out_width * pitch + p % out_width

Operands are tuples: ``source`` is (array, base), where base is the start of this image and group; ``k_range`` is (k0,
depth), ``span`` is (p0, count). Their meaning is that of `conv_impls.kernels.implicit`, which calls these kernels.

Idea
    Three ways to pack the same panel: from staged planes, where every tap is one shift; from unmodified image channels,
    for 1x1 kernels; and from an image with padding and strides, by masks and shuffles.
Source
    Goto & van de Geijn 2008, doi:10.1145/1356052.1356053, sec. 4; the patches: Chetlur et al. 2014, arXiv:1410.0759.
Limits
    Images are packed only for zero padding and column strides 1, 2 and 4; others are staged. Up to lanes - 1 elements
    after the last row are read and written back unchanged.
"""

from __future__ import annotations

from typing import NamedTuple

from numba import uint64

from conv_impls.kernels.runtime.compile import helper
from conv_impls.kernels.simd import blend_lanes, evens, lanes_of, load, load_lanes, store
from conv_impls.kernels.tile import VECTORS


class Window(NamedTuple):
    """The position of the taps in an image that is not staged; ``top`` and ``left`` are its padding."""

    in_height: int
    in_width: int
    kh: int
    kw: int
    stride_h: int
    stride_w: int
    dilation_h: int
    dilation_w: int
    top: int
    left: int


@helper
def pack_planes(source, tap_offset, k_range, span, rows, target):
    """target[to + k*row_step + j] = source[base + tap_offset[k0+k] + place(p0+j)] for k < depth, j < count.

    ``rows`` is (out_width, pitch), ``target`` (array, to, row_step). Products of the elements after ``count`` are never
    stored. Source and target both need one more vector after the last element. (Unsigned indices: for signed ones Numba
    checks whether they count from the end.)
    """
    image, base = source
    k0, depth = k_range
    p0, count = span
    panel, to, row_step = target
    out_width, pitch = rows
    lanes, j = lanes_of(image), 0
    while j < count:
        p = p0 + j
        # Without gaps between rows, place(p) is p: everything is one run.
        run = min(count - j, out_width - p % out_width) if pitch != out_width else count - j
        start = base + p // out_width * pitch + p % out_width
        for v in range(0, run, lanes):
            here, there = start + v, to + j + v
            # Whole vectors need no blend if their extra lanes are overwritten later: by later columns of this row, or
            # by the next row if this vector is the first of the row.
            if run - v >= lanes or j + v + lanes <= row_step or j + v == 0:
                for k in range(depth):
                    store(load(image, here + tap_offset[uint64(k0 + k)]), panel, there + k * row_step)
            else:
                for k in range(depth):
                    value = load(image, here + tap_offset[uint64(k0 + k)])
                    blend_lanes(value, panel, there + k * row_step, run - v)
        j += run


@helper
def pack_rows(source, k_range, span, positions, target):
    """As `pack_planes` for a 1x1 kernel, all panels of a block at once: each channel is read from p0 to p0 + count.

    target[to + panel*(width*depth) + k*width + column]; ``target`` is (array, to). Channels are far apart in memory.
    Packing panel by panel reads only 128 bytes at a time (AVX-512); 384 -> 96 at 56x56 was 11% slower on Zen 4.
    """
    image, base = source
    k0, depth = k_range
    p0, count = span
    panels, to = target
    lanes = lanes_of(image)
    width, whole = VECTORS * lanes, count - count % lanes
    for k in range(depth):
        here, there = base + (k0 + k) * positions + p0, to + k * width
        for j in range(0, whole, lanes):
            store(load(image, here + j), panels, there + j // width * (width * depth) + j % width)
        if whole < count:
            value = load_lanes(image, here + whole, 0, count - whole)
            store(value, panels, there + whole // width * (width * depth) + whole % width)


@helper
def pack_tile(source, depth, positions, target):
    """target[to + k*rows + m] = source[base + k*positions + m] for k < depth, m < rows: one tile of a 1x1 kernel.

    Vectors are loaded and stored whole: masks took a tenth of a layer. Lanes beyond ``rows`` are overwritten by the
    next k, or by the vectors of a smaller m. The last loads are masked: whole vectors could read past the image.
    """
    image, base = source
    tiles, to, rows = target
    lanes = lanes_of(image)
    whole = max(depth - -(-lanes // positions), 0)
    for m in range((rows - 1) // lanes * lanes, -1, -lanes):
        here, there = base + m, to + m
        for k in range(whole):
            store(load(image, here + k * positions), tiles, there + k * rows)
        for k in range(whole, depth):
            store(load_lanes(image, here + k * positions, 0, rows - m), tiles, there + k * rows)


@helper
def pack_image(source, channels, span, window, out_width, target):
    """As `pack_planes`, for whole channels of an image that is not staged: padding is masked, strides are shuffled.

    ``channels`` is (first, count). The loop over channels is the inner one, so bounds and masks are computed once for
    many vectors.
    """
    image, base = source
    first, depth = channels
    p0, count = span
    panel, to, row_step = target
    in_height, in_width, kh, kw, sh, sw, dh, dw, top, left = window
    lanes, channel_size, channel_step, j = lanes_of(image), in_height * in_width, kh * kw * row_step, 0
    while j < count:
        out_row, out_column = (p0 + j) // out_width, (p0 + j) % out_width
        run = min(count - j, out_width - out_column)
        for tap in range(kh * kw):
            in_row = out_row * sh + tap // kw * dh - top
            for v in range(0, run, lanes):
                here = min(lanes, run - v)
                column = (out_column + v) * sw + tap % kw * dw - left
                # Range of lanes, relative to `column`, that are inside the image and not after the last used element.
                low, high = -column, min(in_width - column, (here - 1) * sw + 1)
                if in_row < 0 or in_row >= in_height:
                    high = 0  # a row of the padding: zeros
                # Clamp the row: a masked load from an unmapped page is slow.
                at = base + first * channel_size + min(max(in_row, 0), in_height - 1) * in_width + column
                there = to + tap * row_step + j + v
                if sw == 1 and low <= 0 and high == lanes:
                    for c in range(depth):
                        store(load(image, at + c * channel_size), panel, there + c * channel_step)
                elif sw == 1:
                    for c in range(depth):
                        value = load_lanes(image, at + c * channel_size, low, high)
                        blend_lanes(value, panel, there + c * channel_step, here)
                elif sw == 2:
                    for c in range(depth):
                        value = _every_second(image, at + c * channel_size, low, high)
                        blend_lanes(value, panel, there + c * channel_step, here)
                else:  # stride 4: `_every_second` twice; other strides are staged
                    for c in range(depth):
                        near = _every_second(image, at + c * channel_size, low, high)
                        far = _every_second(image, at + c * channel_size + 2 * lanes, low - 2 * lanes, high - 2 * lanes)
                        blend_lanes(evens(near, far), panel, there + c * channel_step, here)
        j += run


@helper
def _every_second(source, at, low, high):
    """Every second of 2*lanes elements; elements outside ``low`` to ``high``-1 are zeros."""
    lanes = lanes_of(source)
    return evens(load_lanes(source, at, low, high), load_lanes(source, at + lanes, low - lanes, high - lanes))
