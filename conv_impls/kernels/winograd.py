"""Winograd convolution F(m x m, 3x3): fewer multiplications, by products of transformed tiles. Pure kernels.

    Y = A^T [ sum over c of (G w G^T) * (B^T x B) ] A        for each tile of m x m outputs, a = m + 2

Idea
    Blocks of tiles small enough for the caches go through all three steps before the next block: 16 (or a vector's
    worth of) channels of the image are transposed so that lanes are channels, transformed, multiplied in a*a matrix
    products by register tiles, transformed back and transposed into y. Nothing of the transformed image ever reaches
    memory. The matrices are made here from their interpolation points, and the straight-line code of each from its
    matrix.
Source
    Lavin & Gray 2016, arXiv:1509.09308, sec. 4; Toom-Cook matrices: Barabasz et al. 2018, arXiv:1803.10986, sec. 2.
Limits
    3x3 kernels, stride 1, dilation 1, one group. The error grows with m: 2 is exact on small integers, 6 is for those
    who ask for it. The transformed weights take (m+2)^2/9 times the room of the weights.
"""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

from llvmlite import ir
from numba import int64, njit, types
from numba.extending import intrinsic

from conv_impls.kernels import simd
from conv_impls.kernels.runtime import llvm
from conv_impls.kernels.runtime.cache import kernel
from conv_impls.kernels.runtime.team import Floats, of_call, of_plan
from conv_impls.kernels.simd import constant, lanes_of, store
from conv_impls.kernels.square import finish_rows, load_rows, store_rows, transpose
from conv_impls.kernels.stage import Staging, stage_part
from conv_impls.kernels.tile import ROWS, START_ZERO, VECTORS, tile_by_lane

POINTS = {
    2: (0, 1, -1),
    4: (0, 1, -1, 2, -2),
    6: (0, 1, -1, 2, -2, Fraction(1, 2), Fraction(-1, 2)),
}
I64 = ir.IntType(64)


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


def matrices(m):
    """(B^T, G, A^T) of F(m, 3) as lists of rows of fractions; the last point is infinity."""
    points = [Fraction(p) for p in POINTS[m]]
    b, g = [], []
    for i, p in enumerate(points):
        others = points[:i] + points[i + 1 :]
        scale = Fraction(1)
        for q in others:
            scale *= p - q
        b.append([*_polynomial(others), Fraction(0)])
        g.append([p**k / scale for k in range(3)])
    b.append(_polynomial(points))
    g.append([Fraction(0), Fraction(0), Fraction(1)])
    a = [[p**k for p in points] + [Fraction(int(k == m - 1))] for k in range(m)]
    return b, g, a


def _polynomial(roots):
    """Coefficients of prod (x - root), lowest power first."""
    result = [Fraction(1)]
    for root in roots:
        shifted = [Fraction(0), *result]
        result = [s - root * r for s, r in zip(shifted, [*result, Fraction(0)], strict=True)]
    return result


def _combine(builder, row, values):
    """sum of row[i] * values[i] in as few instructions as there are terms."""
    total = None
    for factor, value in sorted(zip(row, values, strict=True), key=lambda term: abs(term[0]) != 1):
        if factor == 0:
            continue
        if total is None:
            total = value if factor == 1 else builder.fmul(value, _factor(value, factor))
        elif abs(factor) == 1:
            total = (builder.fadd if factor == 1 else builder.fsub)(total, value)
        else:
            total = simd.fma_ir(builder, value, _factor(value, factor), total)
    return total


def _factor(value, factor):
    return ir.Constant(value.type, [float(factor)] * value.type.count)


def _apply(builder, matrix, values):
    """matrix @ values. Rows of the points p and -p share their even and their odd part: e + o and e - o."""
    results, index = [], 0
    while index < len(matrix):
        row = matrix[index]
        following = matrix[index + 1] if index + 1 < len(matrix) else None
        even = [x if following and x == y else Fraction(0) for x, y in zip(row, following or row, strict=True)]
        odd = [x if following and x == -y else Fraction(0) for x, y in zip(row, following or row, strict=True)]
        if any(even) and any(odd) and [e + o for e, o in zip(even, odd, strict=True)] == row:
            e, o = _combine(builder, even, values), _combine(builder, odd, values)
            results += [builder.fadd(e, o), builder.fsub(e, o)]
            index += 2
        else:
            results.append(_combine(builder, row, values))
            index += 1
    return results


def _both_ways(builder, matrix, square):
    """matrix @ square @ matrix^T for a list of rows of vectors."""
    columns = [_apply(builder, matrix, list(column)) for column in zip(*square, strict=True)]
    return [_apply(builder, matrix, list(row)) for row in zip(*columns, strict=True)]


def _transform(which, size):
    """An intrinsic that loads a square of vectors, applies matrix ``which`` both ways and stores the result."""

    @intrinsic
    def apply(typing_context, m, source, target):
        """Element (i, j) of an operand (array, at, row, column) is array[at + i*row + j*column]; ``m`` selects the
        matrices."""

        def codegen(context, builder, signature, arguments):
            m_v, source_v, target_v = arguments
            first, row, column = simd.located(context, builder, signature.args[1], source_v)
            last, out_row, out_column = simd.located(context, builder, signature.args[2], target_v)
            vector = simd.vector_ir(source[0].dtype)

            def address(base, i, i_step, j, j_step):
                index = builder.add(builder.mul(I64(i), i_step), builder.mul(I64(j), j_step))
                return llvm.at(builder, base, vector.element, index)

            done = builder.append_basic_block("transformed")
            switch = builder.switch(m_v, done)
            for order in POINTS:
                block = builder.append_basic_block(f"f{order}")
                switch.add_case(I64(order), block)
                builder.position_at_end(block)
                n = size(order)
                square = [[llvm.load(builder, vector, address(first, i, row, j, column)) for j in range(n)]
                          for i in range(n)]  # fmt: skip
                for i, values in enumerate(_both_ways(builder, matrices(order)[which], square)):
                    for j, value in enumerate(values):
                        llvm.store(builder, value, address(last, i, out_row, j, out_column))
                builder.branch(done)
            builder.position_at_end(done)
            return context.get_dummy_value()

        return types.void(types.int64, simd.operand(source), simd.operand(target)), codegen

    return apply


_input_tile = _transform(0, lambda m: m + 2)
_filter_tile = _transform(1, lambda m: 3)
_output_tile = _transform(2, lambda m: m + 2)


@njit(error_model="numpy")
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


@njit(error_model="numpy")
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
                _input_tile(m, image, (work, to, a * deep * count, deep * count))
            t += run


@njit(error_model="numpy")
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
            _output_tile(m, products, (work, at + r * m * lanes, columns * lanes, lanes))
        here = min(columns, ow - j * m)
        for r in range(min(m, oh - i * m)):
            line = ((n * oc + o) * oh + i * m + r) * ow + j * m
            for q in range(0, here, lanes):
                rows = transpose(load_rows(work, at + (r * columns + q) * lanes, lanes, lanes, lanes))
                rows = finish_rows(rows, operands.bias, o, oc - o, operands.floor[1])
                store_rows(rows, y, line + q, oh * ow, oc - o, here - q)
        t += run


@njit(error_model="numpy")
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


@kernel(error_model="numpy")
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
            _filter_tile(m, (work, at, 3 * lanes, lanes), (packed, to, (m + 2) * deep * width, deep * width))


@kernel(error_model="numpy")
def convolve(phase, part, parts, operands):
    """Phase 0 stages the image, where it must be; phase 1 does the rest."""
    x, y, work = of_call(operands)
    plan = of_plan(operands, Operands)
    if plan.sizes.staged and phase == 0:
        stage_part(part, parts, x, plan.staging, work)
        return
    _part(part, parts, work if plan.sizes.staged else x, y, work, plan)
