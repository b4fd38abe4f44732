"""Convolution as a matrix product whose right-hand side is never stored whole: implicit GEMM. Pure kernels.

    y[o, p] = sum over k of weight[o, k] * planes[tap_offset[k] + place(p)],   k over (c, kh, kw), p over positions

Idea
    Panels of the patch matrix, as large as the L2 cache likes, are packed and multiplied by register tiles
    (`conv_impls.kernels.tile`). They are packed from the image itself, padding masked and strides shuffled, or, for
    other padding modes and strides, from staged planes (`conv_impls.kernels.stage`), which the formula is for. Vectors
    run along positions, the natural axis of NCHW, or, where an image is smaller than a vector can use well, along
    output channels, with one transpose of the result at the end. 1x1 kernels skip the packing: their panel is the
    image.
Source
    Implicit GEMM: Chetlur et al. 2014, cuDNN, arXiv:1410.0759, sec. 3.1. Packing and blocking: Goto & van de Geijn
    2008, doi:10.1145/1356052.1356053, sec. 4.
Limits
    Every panel is packed by the thread that uses it; groups of few output channels leave the tiles half empty.
"""

from __future__ import annotations

from numba import njit

from conv_impls.kernels.runtime.cache import kernel
from conv_impls.kernels.runtime.team import WORK, X, Y, array_at, table_at
from conv_impls.kernels.simd import evens, lanes_of, load, load_lanes, store, store_lanes
from conv_impls.kernels.square import finish_rows, load_rows, store_rows, transpose
from conv_impls.kernels.stage import stage_part
from conv_impls.kernels.tile import ROWS, START_BIAS, START_C, START_ZERO, VECTORS, multiply, multiply_by_panel

# Slots of the operands.
WEIGHT, BIAS, FLOOR, OFFSETS, STAGE, SIZES = range(3, 9)


@njit(error_model="numpy")
def _pack(source, base, offsets, first, steps, p0, count, ow, pitch, target, to, row):
    """target[to + k*row + j] = source[base + offsets[first+k] + place(p0+j)] for k < steps, j < count.

    place(p) = p//ow*pitch + p%ow: a run of positions ends where a row of the image does. Lanes behind ``count`` keep
    what they held.
    """
    lanes, j = lanes_of(source), 0
    while j < count:
        p = p0 + j
        run = min(count - j, ow - p % ow) if pitch != ow else count - j
        start = base + p // ow * pitch + p % ow
        for v in range(0, run, lanes):
            here, there = start + v, to + j + v
            if run - v >= lanes:
                for k in range(steps):
                    store(load(source, here + offsets[first + k]), target, there + k * row)
            else:
                for k in range(steps):
                    value = load_lanes(source, here + offsets[first + k], 0, run - v)
                    store_lanes(value, target, there + k * row, run - v)
        j += run


@njit(error_model="numpy")
def _pack_rows(source, base, positions, first, steps, p0, count, target, to):
    """As `_pack` for a 1x1 kernel, all panels of a block at once: each row of the image is read as far as it goes.

    Rows lie far apart: read panel by panel, every 128 bytes wait for memory (384 -> 96 at 56x56 gains 11%).
    """
    lanes = lanes_of(source)
    width, whole = VECTORS * lanes, count - count % lanes
    for k in range(steps):
        here, there = base + (first + k) * positions + p0, to + k * width
        for j in range(0, whole, lanes):
            store(load(source, here + j), target, there + j // width * (width * steps) + j % width)
        if whole < count:
            value = load_lanes(source, here + whole, 0, count - whole)
            store_lanes(value, target, there + whole // width * (width * steps) + whole % width, count - whole)


@njit(error_model="numpy")
def _pack_image(source, base, sizes, first, channels, p0, count, ow, target, to, row):
    """As `_pack`, for ``channels`` whole channels of an image that was not staged: padding is masked, strides shuffled.

    The loop over channels is the inner one, so that bounds and masks are made once for many vectors.
    """
    h, w, kh, kw, sh, sw, dh, dw, top, left = (
        sizes[17], sizes[18], sizes[19], sizes[20], sizes[21], sizes[22], sizes[23], sizes[24], sizes[25], sizes[26],
    )  # fmt: skip
    lanes, plane, step, j = lanes_of(source), h * w, kh * kw * row, 0
    while j < count:
        i, q0 = (p0 + j) // ow, (p0 + j) % ow
        run = min(count - j, ow - q0)
        for tap in range(kh * kw):
            line = i * sh + tap // kw * dh - top
            for v in range(0, run, lanes):
                here = min(lanes, run - v)
                column = (q0 + v) * sw + tap % kw * dw - left
                low, high = -column, min(w - column, (here - 1) * sw + 1)
                if line < 0 or line >= h:
                    high = 0
                at, there = base + first * plane + line * w + column, to + tap * row + j + v
                if sw == 1 and low <= 0 and high == lanes:
                    for c in range(channels):
                        store(load(source, at + c * plane), target, there + c * step)
                elif sw == 1:
                    for c in range(channels):
                        store_lanes(load_lanes(source, at + c * plane, low, high), target, there + c * step, here)
                elif sw == 2:
                    for c in range(channels):
                        store_lanes(_second(source, at + c * plane, low, high), target, there + c * step, here)
                else:
                    for c in range(channels):
                        near = _second(source, at + c * plane, low, high)
                        far = _second(source, at + c * plane + 2 * lanes, low - 2 * lanes, high - 2 * lanes)
                        store_lanes(evens(near, far), target, there + c * step, here)
        j += run


@njit(error_model="numpy")
def _second(source, at, low, high):
    """Every second of 2*lanes elements, those from ``low`` to ``high``-1; the others count as zeros."""
    lanes = lanes_of(source)
    return evens(load_lanes(source, at, low, high), load_lanes(source, at + lanes, low - lanes, high - lanes))


@njit(error_model="numpy")
def _fill(source, base, offsets, sizes, k0, depth, p0, count, ow, pitch, target, to, row):
    """Pack steps k0 to k0+depth of positions p0 to p0+count, from planes or from the image itself."""
    if sizes[14]:
        _pack(source, base, offsets, k0, depth, p0, count, ow, pitch, target, to, row)
    else:
        area = sizes[19] * sizes[20]
        _pack_image(source, base, sizes, k0 // area, depth // area, p0, count, ow, target, to, row)


@njit(error_model="numpy")
def _by_position(part, parts, source, weight, bias, y, work, at, offsets, sizes, floor):
    """Vectors along positions: weight (tile, k, row) times panels of positions, straight into y."""
    mb, groups, oc, positions, ow, pitch, image, in_place, steps, p_block, p_parts, o_parts, taps = _sizes(sizes)
    in_rows, large, lanes = sizes[27], sizes[28], lanes_of(y)
    width, tiles = VECTORS * lanes, -(-oc // ROWS)
    tasks = mb * groups * p_parts * o_parts
    for task in range(part * tasks // parts, (part + 1) * tasks // parts):
        pb, ng, ob = task % p_parts, task // p_parts % (mb * groups), task // (p_parts * mb * groups)
        base, row, p0 = ng * image, ng % groups * oc, pb * p_block
        first, last, count = ob * tiles // o_parts, (ob + 1) * tiles // o_parts, min(p_block, positions - p0)
        # The panel that ends behind the image is packed even where the image itself would serve.
        inside = count // width * width if in_place else 0
        out = ng * oc * positions + p0
        for k0 in range(0, taps, steps):
            depth = min(steps, taps - k0)
            start, least = START_C if k0 else START_BIAS, floor[1] if k0 + depth == taps else floor[0]
            # What of the image comes next is asked for meanwhile.
            soon = base + (k0 + depth) * positions + p0 if k0 + depth < taps else base + p0 + p_block
            lines = -(-count // lanes) if large else 0
            if inside:
                multiply(oc, first, last, tiles, depth, weight, row * taps, taps, 0, k0,
                         source, base + k0 * positions + p0, width, positions,
                         y, out, positions, inside, width, bias, row, start, least,
                         source, soon, positions, lines)  # fmt: skip
            if inside < count:
                if in_rows:
                    _pack_rows(source, base, positions, k0, depth, p0 + inside, count - inside, work, at)
                else:
                    for j in range(inside, count, width):
                        _fill(source, base, offsets, sizes, k0, depth, p0 + j, min(width, count - j), ow, pitch,
                              work, at + (j - inside) * depth, width)  # fmt: skip
                multiply(oc, first, last, tiles, depth, weight, row * taps, taps, 0, k0,
                         work, at, width * depth, width,
                         y, out + inside, positions, count - inside, width, bias, row, start, least,
                         source, soon, positions, 0 if inside else lines)  # fmt: skip


@njit(error_model="numpy")
def _by_channel(part, parts, source, weight, bias, y, work, at, offsets, sizes, floor):
    """Vectors along output channels: panels of positions times weight (panel, k, channel), transposed into y."""
    mb, groups, oc, positions, ow, pitch, image, in_place, steps, p_block, p_parts, o_parts, taps = _sizes(sizes)
    lanes = lanes_of(y)
    width = VECTORS * lanes
    channels, row = -(-oc // width), -(-p_block // lanes) * lanes
    scratch = at if in_place else at + row * steps
    tasks = mb * groups * p_parts * o_parts
    for task in range(part * tasks // parts, (part + 1) * tasks // parts):
        pb, n, go = task % p_parts, task // p_parts % mb, task // (p_parts * mb)
        group, ob, p0 = go // o_parts, go % o_parts, pb * p_block
        ng = n * groups + group
        first, last, count = ob * channels // o_parts, (ob + 1) * channels // o_parts, min(p_block, positions - p0)
        tiles, columns = -(-count // ROWS), (last - first) * width
        for k0 in range(0, taps, steps):
            depth, start = min(steps, taps - k0), START_C if k0 else START_ZERO
            right = ((group * channels + first) * taps + k0) * width
            left, a_row = ng * image + k0 * positions + p0, positions
            if not in_place:
                left, a_row = at, row
                _fill(source, ng * image, offsets, sizes, k0, depth, p0, count, ow, pitch, work, at, row)
            a = source if in_place else work
            if sizes[29]:
                multiply_by_panel(count, tiles, depth, a, left, 1, a_row, weight, right, taps * width, width,
                                  last - first, work, scratch, columns, bias, start, floor[0])  # fmt: skip
            else:
                multiply(count, 0, tiles, tiles, depth, a, left, 1, a_row, 0, weight, right, taps * width, width,
                         work, scratch, columns, columns, width, bias, 0, start, floor[0], weight, 0, 0, 0)  # fmt: skip
        for o in range(0, min(columns, oc - first * width), lanes):
            channel = first * width + o
            here = min(lanes, oc - channel)
            for j in range(0, count, lanes):
                rows = load_rows(work, scratch + j * columns + o, columns, count - j, lanes)
                rows = finish_rows(transpose(rows), bias, group * oc + channel, here, floor[1])
                store_rows(rows, y, (ng * oc + channel) * positions + p0 + j, positions, here, count - j)


@njit(error_model="numpy")
def _sizes(sizes):
    """Images, groups, C_out and positions of a group, W_out, row pitch, group pitch, whether 1x1 in place, steps of the
    reduction a visit, positions a block, blocks, parts of the channels, taps."""
    return (sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], sizes[5], sizes[6], sizes[7], sizes[8], sizes[9],
            sizes[10], sizes[11], sizes[12])  # fmt: skip


@njit(error_model="numpy")
def _pack_tiles(part, parts, weight, packed, groups, oc, taps):
    """weight (group, o, k) -> for each group and tile of rows: (k, row)."""
    lanes, tiles = lanes_of(weight), -(-oc // ROWS)
    for task in range(part * groups * tiles // parts, (part + 1) * groups * tiles // parts):
        t = task % tiles
        first = task // tiles * oc + t * oc // tiles
        rows = (t + 1) * oc // tiles - t * oc // tiles
        for m in range(0, rows, lanes):
            for k in range(0, taps, lanes):
                block = load_rows(weight, (first + m) * taps + k, taps, rows - m, taps - k)
                store_rows(transpose(block), packed, first * taps + k * rows + m, rows, taps - k, min(lanes, rows - m))


@njit(error_model="numpy")
def _pack_panels(part, parts, weight, packed, groups, oc, taps):
    """weight (group, o, k) -> for each group and panel of channels: (k, channel), zeros behind the last channel."""
    lanes = lanes_of(weight)
    width = VECTORS * lanes
    panels = -(-oc // width)
    for task in range(part * groups * panels // parts, (part + 1) * groups * panels // parts):
        group, first = task // panels, task % panels * width
        for o in range(first, first + width, lanes):
            for k in range(0, taps, lanes):
                block = load_rows(weight, (group * oc + o) * taps + k, taps, oc - o, taps - k)
                store_rows(transpose(block), packed, (task * taps + k) * width + o - first, width, taps - k, lanes)


@kernel(error_model="numpy")
def pack_weights(phase, part, parts, operands):
    """X holds the weights, Y gets the packed ones."""
    weight, packed, sizes = array_at(operands, X), array_at(operands, Y), table_at(operands, 3)
    if sizes[3]:
        _pack_panels(part, parts, weight, packed, sizes[0], sizes[1], sizes[2])
    else:
        _pack_tiles(part, parts, weight, packed, sizes[0], sizes[1], sizes[2])


@kernel(error_model="numpy")
def convolve(phase, part, parts, operands):
    """Phase 0 stages the image, where it must be; phase 1 multiplies."""
    work, sizes = array_at(operands, WORK), table_at(operands, SIZES)
    by_channel, staged, planes, area = sizes[13], sizes[14], sizes[15], sizes[16]
    if staged and phase == 0:
        stage_part(part, parts, array_at(operands, X), table_at(operands, STAGE), work)
        return
    source = work if staged else array_at(operands, X)
    weight, bias, floor = array_at(operands, WEIGHT), array_at(operands, BIAS), array_at(operands, FLOOR)
    offsets, y, at = table_at(operands, OFFSETS), array_at(operands, Y), planes + part * area
    if by_channel:
        _by_channel(part, parts, source, weight, bias, y, work, at, offsets, sizes, floor)
    else:
        _by_position(part, parts, source, weight, bias, y, work, at, offsets, sizes, floor)
