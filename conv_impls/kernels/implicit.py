"""Convolution as a matrix product whose right-hand side is never stored whole: implicit GEMM. Pure kernels.

    y[o, p] = sum over k of weight[o, k] * planes[tap_offset[k] + place(p)],   k over (c, kh, kw), p over positions

Idea
    Panels of the patch matrix, as large as the L2 cache likes, are packed and multiplied by register tiles
    (`conv_impls.kernels.tile`). They are packed from the image itself, padding masked and strides shuffled, or, for
    other padding modes and strides, from staged planes (`conv_impls.kernels.stage`), which the formula is for. Vectors
    run along positions, the natural axis of NCHW, or, where an image is smaller than a vector can use well, along
    output channels, with one transpose of the result at the end. 1x1 kernels skip the packing: their panel is the
    image. Along either axis a sum starts from the bias and takes the taps in order of k, so its bits are the same.
Source
    Implicit GEMM: Chetlur et al. 2014, cuDNN, arXiv:1410.0759, sec. 3.1. Packing and blocking: Goto & van de Geijn
    2008, doi:10.1145/1356052.1356053, sec. 4.
Limits
    Every panel is packed by the thread that uses it; groups of few output channels leave the tiles half empty.
"""

from __future__ import annotations

from typing import NamedTuple

from numba import int64, njit

from conv_impls.kernels.runtime.cache import kernel
from conv_impls.kernels.runtime.team import Floats, Integers, of_call, of_plan
from conv_impls.kernels.simd import evens, lanes_of, load, load_lanes, store, store_lanes
from conv_impls.kernels.square import load_rows, store_rows, transpose
from conv_impls.kernels.stage import Staging, stage_part
from conv_impls.kernels.tile import ROWS, START_BY_COLUMN, START_BY_ROW, START_C, VECTORS, multiply, multiply_by_panel


class Sizes(NamedTuple):
    """What `convolve` counts by. A group is one of ``groups``; its channels are ``out_channels``."""

    batch: int
    groups: int
    out_channels: int
    # Of one image of the result, and how far apart its rows lie in the source.
    positions: int
    out_width: int
    pitch: int
    # Elements of one group of one image of the source.
    group: int
    # Products summed for one output; how many of them a visit of the accumulators adds.
    taps: int
    steps: int
    # Positions of a block, blocks of an image, parts of the channels.
    block: int
    p_parts: int
    o_parts: int
    # Elements of work: before the first part's own, and of each part.
    planes: int
    area: int
    # Choices: vectors along channels; staged planes are read; a 1x1 panel is the image itself, or is packed by rows of
    # the image; the image is prefetched; weights are used panel by panel.
    by_channel: int
    staged: int
    in_place: int
    in_rows: int
    large_image: int
    by_panel: int


class Window(NamedTuple):
    """Where the taps of an image that is not staged lie."""

    h: int
    w: int
    kh: int
    kw: int
    stride_h: int
    stride_w: int
    dilation_h: int
    dilation_w: int
    top: int
    left: int


class Operands(NamedTuple):
    """What a plan of `convolve` made."""

    weight: Floats
    # For each group its channels and, by channel, zeros up to a whole panel.
    bias: Floats
    # What sums are raised to before the last step of the reduction, and after it.
    floor: Floats
    # Where each tap lies in the staged planes.
    offsets: Integers
    staging: Staging
    window: Window
    sizes: Sizes


class Packing(NamedTuple):
    """What `pack_weights` counts by."""

    groups: int
    out_channels: int
    taps: int
    by_channel: int


class PackOperands(NamedTuple):
    """What a plan of `pack_weights` made."""

    sizes: Packing


@njit(error_model="numpy")
def _pack(source, offsets, steps, span, sizes, target):
    """target[to + k*row + j] = source[base + offsets[first+k] + place(p0+j)] for k < steps, j < count.

    ``source`` is (array, base), ``steps`` (first, how many), ``span`` (p0, count), ``target`` (array, to, row).
    place(p) = p//out_width*pitch + p%out_width: a run of positions ends where a row of the image does. Lanes behind
    ``count`` keep what they held.
    """
    image, base = source
    first, depth = steps
    p0, count = span
    panel, to, row = target
    ow, pitch, lanes, j = sizes.out_width, sizes.pitch, lanes_of(image), 0
    while j < count:
        p = p0 + j
        run = min(count - j, ow - p % ow) if pitch != ow else count - j
        start = base + p // ow * pitch + p % ow
        for v in range(0, run, lanes):
            here, there = start + v, to + j + v
            if run - v >= lanes:
                for k in range(depth):
                    store(load(image, here + offsets[first + k]), panel, there + k * row)
            else:
                for k in range(depth):
                    value = load_lanes(image, here + offsets[first + k], 0, run - v)
                    store_lanes(value, panel, there + k * row, run - v)
        j += run


@njit(error_model="numpy")
def _pack_rows(source, steps, span, positions, target):
    """As `_pack` for a 1x1 kernel, all panels of a block at once: each row of the image is read as far as it goes.

    Rows lie far apart: read panel by panel, every 128 bytes wait for memory (384 -> 96 at 56x56 gains 11%).
    ``target`` is (array, to).
    """
    image, base = source
    first, depth = steps
    p0, count = span
    panels, to = target
    lanes = lanes_of(image)
    width, whole = VECTORS * lanes, count - count % lanes
    for k in range(depth):
        here, there = base + (first + k) * positions + p0, to + k * width
        for j in range(0, whole, lanes):
            store(load(image, here + j), panels, there + j // width * (width * depth) + j % width)
        if whole < count:
            value = load_lanes(image, here + whole, 0, count - whole)
            store_lanes(value, panels, there + whole // width * (width * depth) + whole % width, count - whole)


@njit(error_model="numpy")
def _pack_image(source, channels, span, window, out_width, target):
    """As `_pack`, for whole channels of an image that was not staged: padding is masked, strides shuffled.

    ``channels`` is (first, how many). The loop over them is the inner one, so that bounds and masks are made once for
    many vectors.
    """
    image, base = source
    first, depth = channels
    p0, count = span
    panel, to, row = target
    h, w, kh, kw, sh, sw, dh, dw, top, left = window
    lanes, plane, step, j = lanes_of(image), h * w, kh * kw * row, 0
    while j < count:
        i, q0 = (p0 + j) // out_width, (p0 + j) % out_width
        run = min(count - j, out_width - q0)
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
                    for c in range(depth):
                        store(load(image, at + c * plane), panel, there + c * step)
                elif sw == 1:
                    for c in range(depth):
                        store_lanes(load_lanes(image, at + c * plane, low, high), panel, there + c * step, here)
                elif sw == 2:
                    for c in range(depth):
                        store_lanes(_second(image, at + c * plane, low, high), panel, there + c * step, here)
                else:
                    for c in range(depth):
                        near = _second(image, at + c * plane, low, high)
                        far = _second(image, at + c * plane + 2 * lanes, low - 2 * lanes, high - 2 * lanes)
                        store_lanes(evens(near, far), panel, there + c * step, here)
        j += run


@njit(error_model="numpy")
def _second(source, at, low, high):
    """Every second of 2*lanes elements, those from ``low`` to ``high``-1; the others count as zeros."""
    lanes = lanes_of(source)
    return evens(load_lanes(source, at, low, high), load_lanes(source, at + lanes, low - lanes, high - lanes))


@njit(error_model="numpy")
def _fill(source, steps, span, plan, target):
    """Pack these steps of these positions, from planes or from the image itself. ``plan`` is what it made."""
    if plan.sizes.staged:
        _pack(source, plan.offsets, steps, span, plan.sizes, target)
    else:
        area = plan.window.kh * plan.window.kw
        _pack_image(source, (steps[0] // area, steps[1] // area), span, plan.window, plan.sizes.out_width, target)


@njit(error_model="numpy")
def _by_position(part, parts, source, y, work, plan):
    """Vectors along positions: weight (tile, k, row) times panels of positions, straight into y."""
    sizes, lanes, at = plan.sizes, lanes_of(y), plan.sizes.planes + part * plan.sizes.area
    groups, oc, positions, taps = sizes.groups, sizes.out_channels, sizes.positions, sizes.taps
    p_parts, o_parts, images = sizes.p_parts, sizes.o_parts, sizes.batch * sizes.groups
    width, tiles, packed = VECTORS * lanes, -(-oc // ROWS), int64(0)
    for task in range(part * images * p_parts * o_parts // parts, (part + 1) * images * p_parts * o_parts // parts):
        image, block, o_part = task // p_parts % images, task % p_parts, task // (p_parts * images)
        base, row, p0 = image * sizes.group, image % groups * oc, block * sizes.block
        first, last = o_part * tiles // o_parts, (o_part + 1) * tiles // o_parts
        share, count = (oc, first, last, tiles), min(sizes.block, positions - p0)
        # The panel that ends behind the image is packed even where the image itself would serve.
        inside = count // width * width if sizes.in_place else 0
        out = image * oc * positions + p0
        for k0 in range(0, taps, sizes.steps):
            depth = min(sizes.steps, taps - k0)
            start, least = START_C if k0 else START_BY_ROW, plan.floor[1] if k0 + depth == taps else plan.floor[0]
            a, bias = (plan.weight, row * taps, taps, packed, k0), (plan.bias, row)
            # What of the image comes next is prefetched meanwhile.
            soon = base + (k0 + depth) * positions + p0 if k0 + depth < taps else base + p0 + sizes.block
            lines = -(-count // lanes) if sizes.large_image else 0
            if inside:
                b = source, base + k0 * positions + p0, width, positions
                multiply(share, depth, a, b, (y, out, positions), inside, bias, start, least,
                         (source, soon, positions, lines))  # fmt: skip
            if inside < count:
                left, steps = count - inside, (k0, depth)
                if sizes.in_rows:
                    _pack_rows((source, base), steps, (p0 + inside, left), positions, (work, at))
                else:
                    for j in range(inside, count, width):
                        span, panel = (p0 + j, min(width, count - j)), (work, at + (j - inside) * depth, width)
                        _fill((source, base), steps, span, plan, panel)
                b = work, at, width * depth, width
                multiply(share, depth, a, b, (y, out + inside, positions), left, bias, start, least,
                         (source, soon, positions, 0 if inside else lines))  # fmt: skip


@njit(error_model="numpy")
def _by_channel(part, parts, source, y, work, plan):
    """Vectors along output channels: panels of positions times weight (panel, k, channel), transposed into y."""
    sizes, lanes, at = plan.sizes, lanes_of(y), plan.sizes.planes + part * plan.sizes.area
    batch, groups, oc, positions, taps = sizes.batch, sizes.groups, sizes.out_channels, sizes.positions, sizes.taps
    p_parts, o_parts, none = sizes.p_parts, sizes.o_parts, int64(0)
    width, row = VECTORS * lanes, -(-sizes.block // lanes) * lanes
    panels, scratch = -(-oc // width), at if sizes.in_place else at + row * sizes.steps
    tasks = batch * groups * p_parts * o_parts
    for task in range(part * tasks // parts, (part + 1) * tasks // parts):
        block, n, shared = task % p_parts, task // p_parts % batch, task // (p_parts * batch)
        group, o_part, p0 = shared // o_parts, shared % o_parts, block * sizes.block
        image = n * groups + group
        first, last = o_part * panels // o_parts, (o_part + 1) * panels // o_parts
        count, columns = min(sizes.block, positions - p0), (last - first) * width
        tiles = -(-count // ROWS)
        for k0 in range(0, taps, sizes.steps):
            depth, start = min(sizes.steps, taps - k0), START_C if k0 else START_BY_COLUMN
            least = plan.floor[1] if k0 + depth == taps else plan.floor[0]
            b = plan.weight, ((group * panels + first) * taps + k0) * width, taps * width, width
            c, bias = (work, scratch, columns), (plan.bias, (group * panels + first) * width)
            left, a_row = image * sizes.group + k0 * positions + p0, positions
            if not sizes.in_place:
                left, a_row = at, row
                _fill((source, image * sizes.group), (k0, depth), (p0, count), plan, (work, at, row))
            a = source if sizes.in_place else work
            if sizes.by_panel:
                share = count, tiles, last - first
                multiply_by_panel(share, depth, (a, left, none + 1, a_row), b, c, bias, start, least)
            else:
                multiply((count, none, tiles, tiles), depth, (a, left, none + 1, a_row, none), b, c, columns, bias,
                         start, least, (plan.weight, none, none, none))  # fmt: skip
        for channel in range(first * width, min(last * width, oc), lanes):
            here = min(lanes, oc - channel)
            for j in range(0, count, lanes):
                rows = load_rows(work, scratch + j * columns + channel - first * width, columns, count - j, lanes)
                store_rows(transpose(rows), y, (image * oc + channel) * positions + p0 + j, positions, here, count - j)


@njit(error_model="numpy")
def _pack_tiles(part, parts, weight, packed, sizes):
    """weight (group, o, k) -> for each group and tile of rows: (k, row)."""
    groups, oc, taps = sizes.groups, sizes.out_channels, sizes.taps
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
def _pack_panels(part, parts, weight, packed, sizes):
    """weight (group, o, k) -> for each group and panel of channels: (k, channel), zeros behind the last channel."""
    groups, oc, taps = sizes.groups, sizes.out_channels, sizes.taps
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
    """The image is the weights, the result the packed ones."""
    weight, packed, _ = of_call(operands)
    sizes = of_plan(operands, PackOperands).sizes
    if sizes.by_channel:
        _pack_panels(part, parts, weight, packed, sizes)
    else:
        _pack_tiles(part, parts, weight, packed, sizes)


@kernel(error_model="numpy")
def convolve(phase, part, parts, operands):
    """Phase 0 stages the image, where it must be; phase 1 multiplies."""
    x, y, work = of_call(operands)
    plan = of_plan(operands, Operands)
    if plan.sizes.staged and phase == 0:
        stage_part(part, parts, x, plan.staging, work)
        return
    source = work if plan.sizes.staged else x
    if plan.sizes.by_channel:
        _by_channel(part, parts, source, y, work, plan)
    else:
        _by_position(part, parts, source, y, work, plan)
