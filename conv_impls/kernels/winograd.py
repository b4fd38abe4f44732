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

from numba import int64, njit

from conv_impls.kernels.runtime.cache import PURE, kernel
from conv_impls.kernels.runtime.team import Floats, of_call, of_plan
from conv_impls.kernels.simd import constant, lanes_of, store
from conv_impls.kernels.square import finish_rows, load_rows, store_rows, transpose
from conv_impls.kernels.stage import Staging, stage_part
from conv_impls.kernels.tile import ROWS, START_ZERO, VECTORS, tile_by_lane
from conv_impls.kernels.winograd_transform import filter_tile, input_tile, output_tile


class Sizes(NamedTuple):
    """What `convolve` counts by; ``m`` is that of F(m x m, 3x3)."""

    m: int
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
    # Whether staged planes are read; elements of work before the first part's own, and of each part.
    staged: int
    planes: int
    area: int


class Operands(NamedTuple):
    """What a plan of `convolve` made."""

    weight: Floats
    bias: Floats
    # What products are raised to, and the result.
    floor: Floats
    staging: Staging
    sizes: Sizes


class Transform(NamedTuple):
    """What `transform_weights` counts by; ``area`` are elements of work of each part."""

    m: int
    in_channels: int
    out_channels: int
    area: int


class TransformOperands(NamedTuple):
    """What a plan of `transform_weights` made."""

    sizes: Transform


@njit(**PURE)
def _gather(source, base, sizes, corner, columns, here, target):
    """target[at + (i*columns + j)*lanes + c] = image[c, top+i, left+j], zero outside, for ``here`` channels.

    ``corner`` is (top, left), ``target`` (array, at).
    """
    top, left = corner
    rows, at = target
    lanes, zero = lanes_of(rows), constant(rows, 0.0)
    low, high = max(0, -left), min(columns, sizes.w - left)
    for i in range(sizes.m + 2):
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


@njit(**PURE)
def _image_block(source, sizes, tiles, work, at, v_at):
    """These tiles of the image, transformed, to v_at: (tile point, group of channels, tile, channel)."""
    t0, t1 = tiles
    m, ic = sizes.m, sizes.in_channels
    lanes, a, across, down = lanes_of(work), m + 2, -(-sizes.out_w // m), -(-sizes.out_h // m)
    count, deep = t1 - t0, -(-ic // lanes_of(work)) * lanes_of(work)
    for c in range(0, ic, lanes):
        t = t0
        while t < t1:
            n, i, j = t // (across * down), t // across % down, t % across
            run = min(t1 - t, across - j)
            columns, corner = run * m + 2, (i * m - sizes.top, j * m - sizes.left)
            _gather(source, (n * ic + c) * sizes.channel, sizes, corner, columns, ic - c, (work, at))
            for r in range(run):
                image = work, at + r * m * lanes, columns * lanes, lanes
                to = v_at + c * count + (t - t0 + r) * lanes
                input_tile(m, image, (work, to, a * deep * count, deep * count))
            t += run


@njit(**PURE)
def _result_block(y, sizes, tiles, o, work, at, m_at, operands):
    """A vector of channels from ``o`` on of products at m_at, transformed back, finished and transposed into y."""
    t0, t1 = tiles
    m, oc, oh, ow = sizes.m, sizes.out_channels, sizes.out_h, sizes.out_w
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
                rows = finish_rows(rows, operands.bias, o, oc - o, operands.floor[1])
                store_rows(rows, y, line + q, oh * ow, oc - o, here - q)
        t += run


@njit(**PURE)
def _part(part, parts, source, y, work, operands):
    """Blocks of tiles, from image to y."""
    sizes, at, floor = operands.sizes, operands.sizes.planes + part * operands.sizes.area, operands.floor
    m, oc, blocks, o_parts = sizes.m, sizes.out_channels, sizes.blocks, sizes.o_parts
    lanes, a, across = lanes_of(y), m + 2, -(-sizes.out_w // m)
    width, points, deep = VECTORS * lanes_of(y), a * a, -(-sizes.in_channels // lanes_of(y)) * lanes_of(y)
    tiles, panels, none = sizes.batch * across * -(-sizes.out_h // m), -(-oc // width), int64(0)
    # Work area of this part: image rows with lanes of channels, then transformed tiles, then products.
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
                kernels = operands.weight, (panel * points + point) * deep * width, width
                for g in range(groups):
                    first = g * count // groups
                    left = work, image + first * lanes, count * lanes
                    result = work, m_at + (point * count + first) * width, width
                    tile_by_lane((g + 1) * count // groups - first, deep, left, kernels, result, width,
                                 (operands.bias, none), START_ZERO, floor[0])  # fmt: skip
            for o in range(panel * width, min((panel + 1) * width, oc), lanes):
                _result_block(y, sizes, here, o, work, at, m_at, operands)


@kernel(**PURE)
def transform_weights(phase, part, parts, operands):
    """The image is the weights, the result packed: (panel, tile point, ic, channel of the panel) = G w G^T."""
    weight, packed, work = of_call(operands)
    m, ic, oc, area = of_plan(operands, TransformOperands).sizes
    lanes, at = lanes_of(weight), part * area
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


@kernel(**PURE)
def convolve(phase, part, parts, operands):
    """Phase 0 stages the image, where it must be; phase 1 does the rest."""
    x, y, work = of_call(operands)
    plan = of_plan(operands, Operands)
    if plan.sizes.staged and phase == 0:
        stage_part(part, parts, x, plan.staging, work)
        return
    _part(part, parts, work if plan.sizes.staged else x, y, work, plan)
