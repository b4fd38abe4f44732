"""Winograd convolution: products of transformed tiles need fewer multiplications. Pure kernels.

    Y = A^T [ sum over c of (G w G^T) * (B^T x B) ] A        for each tile of outputs

Idea
    A block of tiles that fits the caches goes through all three steps before the next block. One vector of channels
    (for example 16) is transposed so that lanes are channels, then transformed. Register tiles compute one matrix
    product per point. The results are transformed back and transposed into y. The transformed image is never written to
    memory. The transforms, also for strides, are in `conv_impls.kernels.winograd_transform`. With dilation, a tile has
    outputs of one phase (`conv_impls.kernels.winograd_axes`). The tiles of all phases of a column range form a group
    and stay in one block, so they share the rows that are read, and their outputs are contiguous.
Source
    Lavin & Gray 2016, arXiv:1509.09308, sec. 4.
Limits
    Dilation only with stride 1. The error grows with the points of an axis; 3x3 with m = 2 is exact on small integers.
    The transformed weights need points/taps times the memory of the weights. Groups with few channels leave lanes
    empty.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from conv_impls.kernels.runtime.compile import helper, kernel
from conv_impls.kernels.runtime.operands import Floats, of_call, of_plan
from conv_impls.kernels.simd import constant, lanes_of, store
from conv_impls.kernels.stage import Staging
from conv_impls.kernels.tile import ROWS, VECTORS, tile_by_lane
from conv_impls.kernels.transpose_block import epilogue, load_rows, store_rows, transpose
from conv_impls.kernels.winograd_axes import axes, first_output, tiles_along
from conv_impls.kernels.winograd_transform import transforms

tiles_along, first_output = helper(tiles_along), helper(first_output)


class Sizes(NamedTuple):
    """Integer parameters of ``convolve``."""

    batch: int
    groups: int
    # Of one group.
    in_channels: int
    out_channels: int
    # The source image: rows, columns, elements between rows and between channels, and its padding.
    h: int
    w: int
    pitch: int
    channel: int
    top: int
    left: int
    out_h: int
    out_w: int
    dilation_h: int
    dilation_w: int
    # Elements of the workspace before the transformed tiles.
    rows: int
    # Maximum tiles of a block; number of blocks; number of parts of a group's output channels.
    block: int
    blocks: int
    o_parts: int
    # 1 if staged planes are read.
    staged: int


class Operands(NamedTuple):
    """Data that a plan prepares for ``convolve``."""

    staging: Staging
    weight: Floats
    bias: Floats
    # One value: the lower clamp of the result.
    clamp: Floats
    sizes: Sizes


class Transform(NamedTuple):
    """Integer parameters of ``transform``."""

    groups: int
    # Of one group.
    in_channels: int
    out_channels: int


class TransformOperands(NamedTuple):
    """Data that a plan prepares for ``transform``."""

    sizes: Transform


@helper
def _gather(source, base, sizes, corner, span, here, target):
    """target[at + (i*columns + j)*lanes + c] = image[c, top+i*step, left+j], zero outside, for ``here`` channels.

    ``corner`` is (top, left), ``span`` (rows, columns, step of the rows), ``target`` (array, at).
    """
    (top, left), (height, columns, step) = corner, span
    rows, at = target
    lanes, zero = lanes_of(rows), constant(rows, 0.0)
    low, high = max(0, -left), min(columns, sizes.w - left)
    for i in range(height):
        line = at + i * columns * lanes
        row = top + i * step
        inside = 0 <= row < sizes.h and low < high
        first, last = (low, high) if inside else (columns, columns)
        for j in range(first):
            store(zero, rows, line + j * lanes)
        # Up to lanes - 1 rows after the last are written too.
        for j in range(first, last, lanes):
            pixel = base + row * sizes.pitch + left + j
            block = load_rows(source, pixel, sizes.channel, here, last - j)
            store_rows(transpose(block), rows, line + j * lanes, lanes, lanes, lanes)
        for j in range(last, columns):
            store(zero, rows, line + j * lanes)


@cache
def kernels_of(tile):
    """The kernels of a `conv_impls.kernels.winograd_axes.Tile`: the convolution, the transform of its weights.

    One tile per kernel: with the transforms of several, the first call would wait for the compilation of all of them.
    """
    down_axis, across_axis = axes(tile)
    input_tile, filter_tile, output_tile = transforms(tile)
    (mh, mw), (taps_h, taps_w), (stride_h, stride_w), dilated = tile
    points_w, points = across_axis.points, down_axis.points * across_axis.points
    span_h, span_w = down_axis.span, across_axis.span

    @helper(inline="always")
    def _steps(sizes):
        """Distance of the outputs of a tile, a constant without dilation."""
        if dilated:
            return sizes.dilation_h, sizes.dilation_w
        return 1, 1

    @helper(inline="always")
    def _tiles(sizes):
        """Tiles down and across an image."""
        step_h, step_w = _steps(sizes)
        return tiles_along(sizes.out_h, mh, step_h), tiles_along(sizes.out_w, mw, step_w)

    @helper(inline="always")
    def _place(t, sizes):
        """Image, tile row and tile column of a tile, and the number of tiles from it to the end of its row."""
        down, across = _tiles(sizes)
        return t // (across * down), t // across % down, t % across, across - t % across

    @helper(inline="always")
    def _first_of_block(b, sizes):
        """First tile of a block. Blocks contain whole groups of ``step_w`` tiles; the last of a row may be shorter."""
        (down, across), (_, step_w) = _tiles(sizes), _steps(sizes)
        groups = -(-across // step_w)
        unit = b * (sizes.batch * down * groups) // sizes.blocks
        return unit // groups * across + unit % groups * step_w

    @helper
    def _image_block(source, sizes, tiles, group, work, at, v_at):
        """Transform these tiles of a group; store to v_at: (tile point, group of channels, tile, channel)."""
        (t0, t1), (step_h, step_w) = tiles, _steps(sizes)
        ic, lanes = sizes.in_channels, lanes_of(work)
        count, deep = t1 - t0, -(-ic // lanes_of(work)) * lanes_of(work)
        for c in range(0, ic, lanes):
            t = t0
            while t < t1:
                n, i, j, left_in_row = _place(t, sizes)
                run = min(t1 - t, left_in_row)
                top, left = first_output(i, mh, step_h) * stride_h, first_output(j, mw, step_w) * stride_w
                columns = first_output(j + run - 1, mw, step_w) * stride_w - left + (span_w - 1) * step_w + 1
                base = ((n * sizes.groups + group) * ic + c) * sizes.channel
                corner = top - sizes.top, left - sizes.left
                _gather(source, base, sizes, corner, (span_h, columns, step_h), ic - c, (work, at))
                for r in range(run):
                    offset = first_output(j + r, mw, step_w) * stride_w - left
                    image = work, at + offset * lanes, columns * lanes, step_w * lanes
                    to = v_at + c * count + (t - t0 + r) * lanes
                    input_tile(image, (work, to, points_w * deep * count, deep * count))
                t += run

    @helper
    def _result_block(y, sizes, tiles, channel, room, ends):
        """Transform a vector of channels of the products back, apply the epilogue and transpose into y.

        ``channel`` is (group, first channel in it), ``room`` (workspace, at, offset of the products), ``ends`` (bias,
        clamp).
        """
        (t0, t1), (group, o), (work, at, m_at), (bias, clamp) = tiles, channel, room, ends
        oc, oh, ow = sizes.out_channels, sizes.out_h, sizes.out_w
        lanes, (step_h, step_w) = lanes_of(y), _steps(sizes)
        width, count, first = VECTORS * lanes_of(y), t1 - t0, group * sizes.out_channels + o
        t = t0
        while t < t1:
            n, i, j, left_in_row = _place(t, sizes)
            run = min(t1 - t, left_in_row)
            top, left = first_output(i, mh, step_h), first_output(j, mw, step_w)
            columns = first_output(j + run - 1, mw, step_w) - left + (mw - 1) * step_w + 1
            for r in range(run):
                products = work, m_at + (t - t0 + r) * width + o % width, points_w * count * width, count * width
                offset = first_output(j + r, mw, step_w) - left
                output_tile(products, (work, at + offset * lanes, columns * lanes, step_w * lanes))
            here = min(columns, ow - left)
            for r in range(min(mh, -(-(oh - top) // step_h))):
                line = ((n * sizes.groups * oc + first) * oh + top + r * step_h) * ow + left
                for first_column in range(0, here, lanes):
                    # The last vector of a row overlaps the previous one: masked stores are slow on AVX2.
                    q = max(min(first_column, here - lanes), 0)
                    rows = transpose(load_rows(work, at + (r * columns + q) * lanes, lanes, lanes, lanes))
                    rows = epilogue(rows, bias, first, oc - o, clamp[0])
                    store_rows(rows, y, line + q, oh * ow, oc - o, here - q)
            t += run

    @kernel
    def convolve(part, parts, operands):
        """Tasks are blocks of tiles, computed from image to y."""
        x, y, work, at = of_call(operands)
        plan = of_plan(operands, Operands)
        sizes, source = plan.sizes, work if plan.sizes.staged else x
        groups, oc, blocks, o_parts = sizes.groups, sizes.out_channels, sizes.blocks, sizes.o_parts
        lanes = lanes_of(y)
        width, deep = VECTORS * lanes_of(y), -(-sizes.in_channels // lanes_of(y)) * lanes_of(y)
        panels = -(-oc // width)
        # Workspace: image rows (lanes are channels) or result rows; then transformed tiles; then products.
        v_at = at + sizes.rows
        m_at = v_at + points * sizes.block * deep
        tasks = blocks * groups * o_parts
        first_task = part * tasks // parts
        for task in range(first_task, (part + 1) * tasks // parts):
            b, group, ob = task // (groups * o_parts), task // o_parts % groups, task % o_parts
            here = _first_of_block(b, sizes), _first_of_block(b + 1, sizes)
            count = here[1] - here[0]
            shares = -(-count // ROWS)
            if ob == 0 or task == first_task:
                _image_block(source, sizes, here, group, work, at, v_at)
            for panel in range(ob * panels // o_parts, (ob + 1) * panels // o_parts):
                for point in range(points):
                    image = v_at + point * deep * count
                    kernels = plan.weight, ((group * panels + panel) * points + point) * deep * width, width
                    for share in range(shares):
                        first = share * count // shares
                        left = work, image + first * lanes, count * lanes
                        result = work, m_at + (point * count + first) * width, width
                        tile_by_lane((share + 1) * count // shares - first, deep, left, kernels, result)
                for o in range(panel * width, min((panel + 1) * width, oc), lanes):
                    _result_block(y, sizes, here, (group, o), (work, at, m_at), (plan.bias, plan.clamp))

    @kernel
    def transform(part, parts, operands):
        """x is the weights, y the packed weights: (group, panel, tile point, ic, channel of the panel)."""
        weight, packed, work, at = of_call(operands)
        groups, ic, oc = of_plan(operands, TransformOperands).sizes
        lanes, taps = lanes_of(weight), taps_h * taps_w
        width, deep = VECTORS * lanes, -(-ic // lanes) * lanes
        panels = -(-oc // width)
        tasks = groups * panels * ic
        for task in range(part * tasks // parts, (part + 1) * tasks // parts):
            group, panel, c = task // (panels * ic), task // ic % panels, task % ic
            for v in range(VECTORS):
                o = panel * width + v * lanes
                if o >= oc:
                    continue
                # A vector may be shorter than the taps of one channel pair.
                for k in range(0, taps, lanes):
                    block = load_rows(weight, ((group * oc + o) * ic + c) * taps + k, ic * taps, oc - o, taps - k)
                    store_rows(transpose(block), work, at + k * lanes, lanes, lanes, lanes)
                to = ((group * panels + panel) * points * deep + c) * width + v * lanes
                filter_tile((work, at, taps_w * lanes, lanes), (packed, to, points_w * deep * width, deep * width))

    return convolve, transform
