"""Winograd convolution F(m x m, 3x3): fewer multiplications, by products of transformed tiles. Pure kernels.

    Y = A^T [ sum over c of (G w G^T) * (B^T x B) ] A        for each tile of m x m outputs, a = m + 2

Idea
    Blocks of tiles small enough for the caches go through all three steps before the next block: 16 (or a vector's
    worth of) channels of the image are transposed so that lanes are channels, transformed, multiplied in a*a matrix
    products by register tiles, transformed back and transposed into y. Nothing of the transformed image ever reaches
    memory. `conv_impls.kernels.winograd_transform` has the transforms.
Source
    Lavin & Gray 2016, arXiv:1509.09308, sec. 4.
Limits
    3x3 kernels, stride 1, dilation 1, one group. The error grows with m: 2 is exact on small integers, 6 is for those
    who ask for it. The transformed weights take (m+2)^2/9 times the room of the weights.
"""

from __future__ import annotations

from typing import NamedTuple

from conv_impls.kernels.runtime.compile import helper, kernel
from conv_impls.kernels.runtime.operands import Floats, of_call, of_plan
from conv_impls.kernels.simd import constant, lanes_of, store
from conv_impls.kernels.square import finish_rows, load_rows, store_rows, transpose
from conv_impls.kernels.stage import Staging
from conv_impls.kernels.tile import ROWS, VECTORS, tile_by_lane
from conv_impls.kernels.winograd_transform import POINTS, filter_tile, input_tile, output_tile


class Sizes(NamedTuple):
    """What ``convolve`` counts by."""

    batch: int
    in_channels: int
    out_channels: int
    # The image as it is read: rows, columns, elements between rows and between channels, and its padding.
    h: int
    w: int
    pitch: int
    channel: int
    top: int
    left: int
    out_h: int
    out_w: int
    # Tiles of a block at most, blocks, and parts of the output channels.
    block: int
    blocks: int
    o_parts: int
    # Whether staged planes are read.
    staged: int


class Operands(NamedTuple):
    """What a plan of ``convolve`` made."""

    staging: Staging
    weight: Floats
    bias: Floats
    # One value, which the result is raised to.
    floor: Floats
    sizes: Sizes


class Transform(NamedTuple):
    """What ``transform`` counts by."""

    in_channels: int
    out_channels: int


class TransformOperands(NamedTuple):
    """What a plan of ``transform`` made."""

    sizes: Transform


@helper
def _gather(source, base, sizes, corner, span, here, target):
    """target[at + (i*columns + j)*lanes + c] = image[c, top+i, left+j], zero outside, for ``here`` channels.

    ``corner`` is (top, left), ``span`` (rows, columns), ``target`` (array, at).
    """
    (top, left), (height, columns) = corner, span
    rows, at = target
    lanes, zero = lanes_of(rows), constant(rows, 0.0)
    low, high = max(0, -left), min(columns, sizes.w - left)
    for i in range(height):
        line = at + i * columns * lanes
        inside = 0 <= top + i < sizes.h and low < high
        first, last = (low, high) if inside else (columns, columns)
        for j in range(first):
            store(zero, rows, line + j * lanes)
        # Up to a vector less one of rows behind the last are written too.
        for j in range(first, last, lanes):
            pixel = base + (top + i) * sizes.pitch + left + j
            block = load_rows(source, pixel, sizes.channel, here, last - j)
            store_rows(transpose(block), rows, line + j * lanes, lanes, lanes, lanes)
        for j in range(last, columns):
            store(zero, rows, line + j * lanes)


def _kernels(m):
    """The kernels of F(m x m, 3x3): the convolution, and the transform of the weights.

    Of one m, because with the transforms of all in one kernel the first call would wait for them.
    """

    @helper
    def _image_block(source, sizes, tiles, work, at, v_at):
        """These tiles of the image, transformed, to v_at: (tile point, group of channels, tile, channel)."""
        t0, t1 = tiles
        ic = sizes.in_channels
        lanes, a, across, down = lanes_of(work), m + 2, -(-sizes.out_w // m), -(-sizes.out_h // m)
        count, deep = t1 - t0, -(-ic // lanes_of(work)) * lanes_of(work)
        for c in range(0, ic, lanes):
            t = t0
            while t < t1:
                n, i, j = t // (across * down), t // across % down, t % across
                run = min(t1 - t, across - j)
                columns, corner = run * m + 2, (i * m - sizes.top, j * m - sizes.left)
                _gather(source, (n * ic + c) * sizes.channel, sizes, corner, (m + 2, columns), ic - c, (work, at))
                for r in range(run):
                    image = work, at + r * m * lanes, columns * lanes, lanes
                    to = v_at + c * count + (t - t0 + r) * lanes
                    input_tile(m, image, (work, to, a * deep * count, deep * count))
                t += run

    @helper
    def _result_block(y, sizes, tiles, o, room, ends):
        """A vector of channels from ``o`` on of the products, transformed back, finished and transposed into y.

        ``room`` is (workspace, at, where the products are), ``ends`` (bias, floor).
        """
        (t0, t1), (work, at, m_at), (bias, floor) = tiles, room, ends
        oc, oh, ow = sizes.out_channels, sizes.out_h, sizes.out_w
        lanes, a, across, down = lanes_of(y), m + 2, -(-ow // m), -(-oh // m)
        width, count = VECTORS * lanes_of(y), t1 - t0
        t = t0
        while t < t1:
            n, i, j = t // (across * down), t // across % down, t % across
            run = min(t1 - t, across - j)
            columns = run * m
            for r in range(run):
                products = work, m_at + (t - t0 + r) * width + o % width, a * count * width, count * width
                output_tile(m, products, (work, at + r * m * lanes, columns * lanes, lanes))
            here = min(columns, ow - j * m)
            for r in range(min(m, oh - i * m)):
                line = ((n * oc + o) * oh + i * m + r) * ow + j * m
                for q in range(0, here, lanes):
                    rows = transpose(load_rows(work, at + (r * columns + q) * lanes, lanes, lanes, lanes))
                    rows = finish_rows(rows, bias, o, oc - o, floor[0])
                    store_rows(rows, y, line + q, oh * ow, oc - o, here - q)
            t += run

    @kernel
    def convolve(part, parts, operands):
        """Blocks of tiles, from image to y."""
        x, y, work, at = of_call(operands)
        plan = of_plan(operands, Operands)
        sizes, source = plan.sizes, work if plan.sizes.staged else x
        oc, blocks, o_parts = sizes.out_channels, sizes.blocks, sizes.o_parts
        lanes, a, across = lanes_of(y), m + 2, -(-sizes.out_w // m)
        width, points, deep = VECTORS * lanes_of(y), a * a, -(-sizes.in_channels // lanes_of(y)) * lanes_of(y)
        tiles, panels = sizes.batch * across * -(-sizes.out_h // m), -(-oc // width)
        # The workspace: image rows with lanes of channels, then transformed tiles, then products.
        v_at = at + a * (across * m + 2 + lanes) * lanes
        m_at = v_at + points * sizes.block * deep
        first_task = part * blocks * o_parts // parts
        for task in range(first_task, (part + 1) * blocks * o_parts // parts):
            b, ob = task // o_parts, task % o_parts
            here = b * tiles // blocks, (b + 1) * tiles // blocks
            count = here[1] - here[0]
            groups = -(-count // ROWS)
            if ob == 0 or task == first_task:
                _image_block(source, sizes, here, work, at, v_at)
            for panel in range(ob * panels // o_parts, (ob + 1) * panels // o_parts):
                for point in range(points):
                    image = v_at + point * deep * count
                    kernels = plan.weight, (panel * points + point) * deep * width, width
                    for g in range(groups):
                        first = g * count // groups
                        left = work, image + first * lanes, count * lanes
                        result = work, m_at + (point * count + first) * width, width
                        tile_by_lane((g + 1) * count // groups - first, deep, left, kernels, result)
                for o in range(panel * width, min((panel + 1) * width, oc), lanes):
                    _result_block(y, sizes, here, o, (work, at, m_at), (plan.bias, plan.floor))

    @kernel
    def transform(part, parts, operands):
        """The image is the weights, the result packed: (panel, tile point, ic, channel of the panel) = G w G^T."""
        weight, packed, work, at = of_call(operands)
        ic, oc = of_plan(operands, TransformOperands).sizes
        lanes = lanes_of(weight)
        width, points, deep = VECTORS * lanes, (m + 2) * (m + 2), -(-ic // lanes) * lanes
        panels = -(-oc // width)
        for task in range(part * panels * ic // parts, (part + 1) * panels * ic // parts):
            panel, c = task // ic, task % ic
            for v in range(VECTORS):
                o = panel * width + v * lanes
                if o >= oc:
                    continue
                # A vector may be shorter than the nine weights of one channel pair.
                for k in range(0, 9, lanes):
                    block = load_rows(weight, (o * ic + c) * 9 + k, ic * 9, oc - o, 9 - k)
                    store_rows(transpose(block), work, at + k * lanes, lanes, lanes, lanes)
                to = ((panel * points) * deep + c) * width + v * lanes
                filter_tile(m, (work, at, 3 * lanes, lanes), (packed, to, (m + 2) * deep * width, deep * width))

    return convolve, transform


# By m. The image of a transform are the weights, its result are the packed ones.
KERNELS = {m: _kernels(m) for m in POINTS}
