"""Gradient of the weights by direct summation: a matrix product over output pixels. Pure kernel.

    dw[o, c, kh, kw] = sum over images n and output pixels p of dy[n, o, p] * x[n, c, place(p) + (kh, kw)]

Idea
    The sum over pixels is the reduction of a matrix product: rows are output channels, columns are (kw, c). Blocks of
    pixels go through the caches one by one. For each block
        the padded rows of the image are transposed, so that the channels of a pixel are contiguous: (row, column, c)
        the rows of dy of a tile are transposed to (pixel, o), the order in which `conv_impls.kernels.tile` reads A
        each tap row kh is the same block of the image, a constant distance further
    Without dilation along rows, the elements of a tap row for all kw and c are contiguous, so vectors run over both and
    few channels fill them. With dilation each kw is a tap of its own. A table has the place of each pixel of a block.
    The sums stay in a buffer in the order (o, tap, kw, c), which the last step transposes.
    A sum starts at zero and adds its products in the order of the pixels, whatever the blocks and threads are.
Source
    Goto & van de Geijn 2008, doi:10.1145/1356052.1356053, sec. 4-5, for the blocks of the product. The layout of the
    image is that of Zhang, Franchetti & Low 2018, arXiv:1809.10170, sec. 3.
Limits
    Threads share the tiles of output channels, and each of them transposes the image itself. Depthwise layers would
    leave most lanes empty; they have a kernel of their own.
"""

from __future__ import annotations

from typing import NamedTuple

from conv_impls.kernels.runtime.compile import helper, kernel
from conv_impls.kernels.runtime.operands import Integers, of_call, of_plan, second_of_call
from conv_impls.kernels.simd import constant, lanes_of, store
from conv_impls.kernels.tile import ROWS, VECTORS
from conv_impls.kernels.tile_few import tile_of_pixels
from conv_impls.kernels.transpose_block import load_rows, store_rows, transpose


class Sizes(NamedTuple):
    """Integer parameters of `convolve`. Channels are those of one group."""

    batch: int
    groups: int
    in_channels: int
    out_channels: int
    h: int
    w: int
    top: int
    left: int
    out_h: int
    out_w: int
    stride_h: int
    # Padded columns of a row; kernel rows; taps, and contiguous elements of each; kernel columns.
    columns: int
    kh: int
    taps: int
    run: int
    kw: int
    # Of a block: images, rows of outputs; rows of the padded image that an image of a block has.
    images: int
    rows: int
    in_rows: int
    # Blocks of tiles that tasks share; elements of the image and of a tile of dy in the workspace.
    o_blocks: int
    image_room: int
    dy_room: int


class Operands(NamedTuple):
    """Data that a plan prepares for `convolve`."""

    # For each pixel of a block its place in the transposed image, and `conv_impls.kernels.tile.AHEAD` more.
    places: Integers
    # For each tap its distance from the place of its pixel.
    taps: Integers
    sizes: Sizes


@helper
def _transpose_image(x, image, group, first_row, sizes, work, at):
    """work[at + (row*columns + column)*channels + c] = padded image, for the rows of a block of one image."""
    lanes, channels = lanes_of(work), sizes.in_channels
    plane, zero = sizes.h * sizes.w, constant(work, 0.0)
    base = (image * sizes.groups + group) * channels * plane
    low, high = sizes.left, min(sizes.columns, sizes.left + sizes.w)
    for i in range(sizes.in_rows):
        row, line = first_row + i - sizes.top, at + i * sizes.columns * channels
        inside = 0 <= row < sizes.h
        for k in range(0, (low if inside else sizes.columns) * channels, lanes):
            # Whole vectors: what is too much is written again later.
            store(zero, work, line + k)
        if inside:
            for c in range(0, channels, lanes):
                for j in range(low, high, lanes):
                    block = load_rows(x, base + c * plane + row * sizes.w + j - low, plane, channels - c, high - j)
                    store_rows(transpose(block), work, line + j * channels + c, channels, high - j, channels - c)
            for k in range(high * channels, sizes.columns * channels):
                work[line + k] = 0


@helper
def _transpose_rows(dy, source, count, rows, positions, work, at):
    """work[at + p*rows + m] = dy[source + m*positions + p] for ``count`` pixels: the rows of a tile."""
    lanes = lanes_of(work)
    for m in range(0, rows, lanes):
        for p in range(0, count, lanes):
            block = load_rows(dy, source + m * positions + p, positions, rows - m, count - p)
            store_rows(transpose(block), work, at + p * rows + m, rows, count - p, min(lanes, rows - m))


@helper
def _store_sums(work, sums, row, dw, target, o, sizes):
    """dw[c, kh, kw] of one output channel from the sums in the order (tap, kw, c)."""
    lanes, channels, kw = lanes_of(work), sizes.in_channels, sizes.kw
    area = sizes.kh * kw
    for i in range(sizes.kh):
        for c in range(0, channels, lanes):
            for j in range(0, kw, lanes):
                # Element (kw, c) of a tap row; with dilation each kw has a row of its own.
                step = channels if sizes.taps == sizes.kh else row
                first = sums + i * (row if sizes.taps == sizes.kh else kw * row) + j * step + c
                block = load_rows(work, first, step, kw - j, channels - c)
                to = target + (o * channels + c) * area + i * kw + j
                store_rows(transpose(block), dw, to, area, channels - c, kw - j)


@kernel
def convolve(part, parts, operands):
    """Tasks are shares of the tiles of output channels of a group; each adds up all pixels of all images."""
    x, dw, work, at = of_call(operands)
    dy, plan = second_of_call(operands), of_plan(operands, Operands)
    sizes = plan.sizes
    oc, taps, run, lanes = sizes.out_channels, sizes.taps, sizes.run, lanes_of(dw)
    width, positions = VECTORS * lanes, sizes.out_h * sizes.out_w
    # Each tap's sums are whole vectors, but panels of one vector have a tile of their own.
    row = -(-run // lanes) * lanes
    tiles, o_blocks = -(-oc // ROWS), sizes.o_blocks
    dy_at = at + sizes.image_room
    sums_at, zero = dy_at + sizes.dy_room, constant(dw, 0.0)
    tasks = sizes.groups * o_blocks
    for task in range(part * tasks // parts, (part + 1) * tasks // parts):
        group, o_block = task // o_blocks, task % o_blocks
        t0, t1 = o_block * tiles // o_blocks, (o_block + 1) * tiles // o_blocks
        o0, o1 = t0 * oc // tiles, t1 * oc // tiles
        for k in range(0, (o1 - o0) * taps * row, lanes):
            store(zero, work, sums_at + k)
        for n0 in range(0, sizes.batch, sizes.images):
            images = min(sizes.images, sizes.batch - n0)
            for i0 in range(0, sizes.out_h, sizes.rows):
                pixels = min(sizes.rows, sizes.out_h - i0) * sizes.out_w
                for n in range(images):
                    place = at + n * sizes.in_rows * sizes.columns * sizes.in_channels
                    _transpose_image(x, n0 + n, group, i0 * sizes.stride_h, sizes, work, place)
                for t in range(t0, t1):
                    o = t * oc // tiles
                    rows = (t + 1) * oc // tiles - o
                    for n in range(images):
                        source = ((n0 + n) * sizes.groups + group) * oc + o
                        _transpose_rows(dy, source * positions + i0 * sizes.out_w, pixels, rows, positions, work,
                                        dy_at + n * pixels * rows)  # fmt: skip
                    for j in range(0, run, width):
                        for tap in range(taps):
                            b = work, at + plan.taps[tap] + j
                            c = work, sums_at + ((o - o0) * taps + tap) * row + j, taps * row
                            tile_of_pixels(rows, images * pixels, (work, dy_at, rows), b, (plan.places, 0), c, run - j)
        for o in range(o0, o1):
            _store_sums(work, sums_at + (o - o0) * taps * row, row, dw, group * oc * sizes.in_channels * sizes.kh
                        * sizes.kw, o, sizes)  # fmt: skip
