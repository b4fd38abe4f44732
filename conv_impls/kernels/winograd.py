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

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from conv_impls.kernels import simd
from conv_impls.kernels.runtime import llvm
from conv_impls.kernels.runtime.cache import kernel
from conv_impls.kernels.runtime.team import WORK, X, Y, array_at, table_at
from conv_impls.kernels.simd import constant, lanes_of, store
from conv_impls.kernels.square import finish_rows, load_rows, store_rows, transpose
from conv_impls.kernels.stage import stage_part
from conv_impls.kernels.tile import ROWS, START_ZERO, VECTORS, tile_by_lane

POINTS = {
    2: (0, 1, -1),
    4: (0, 1, -1, 2, -2),
    6: (0, 1, -1, 2, -2, Fraction(1, 2), Fraction(-1, 2)),
}
I64 = ir.IntType(64)
# Slots of the operands of `convolve`.
WEIGHT, BIAS, FLOOR, STAGE, SIZES = range(3, 8)


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
    def apply(typing_context, m, source, at, row, column, target, to, out_row, out_column):
        """target[to + i*out_row + j*out_column] from source[at + i*row + j*column]; ``m`` selects the matrices."""

        def codegen(context, builder, signature, arguments):
            m_v, source_v, at_v, row_v, column_v, target_v, to_v, out_row_v, out_column_v = arguments
            vector = simd.vector_ir(source.dtype)
            scalar = vector.element
            first = simd.pointer(context, builder, source, source_v, at_v)
            last = simd.pointer(context, builder, target, target_v, to_v)

            def address(base, i, i_step, j, j_step):
                index = builder.add(builder.mul(I64(i), i_step), builder.mul(I64(j), j_step))
                return llvm.at(builder, base, scalar, index)

            done = builder.append_basic_block("transformed")
            switch = builder.switch(m_v, done)
            for order in POINTS:
                block = builder.append_basic_block(f"f{order}")
                switch.add_case(I64(order), block)
                builder.position_at_end(block)
                n = size(order)
                square = [[llvm.load(builder, vector, address(first, i, row_v, j, column_v)) for j in range(n)]
                          for i in range(n)]  # fmt: skip
                for i, values in enumerate(_both_ways(builder, matrices(order)[which], square)):
                    for j, value in enumerate(values):
                        llvm.store(builder, value, address(last, i, out_row_v, j, out_column_v))
                builder.branch(done)
            builder.position_at_end(done)
            return context.get_dummy_value()

        integer = types.int64
        kinds = integer, source, integer, integer, integer, target, integer, integer, integer
        return types.void(*kinds), codegen

    return apply


_input_tile = _transform(0, lambda m: m + 2)
_filter_tile = _transform(1, lambda m: 3)
_output_tile = _transform(2, lambda m: m + 2)


@njit(error_model="numpy")
def _gather(source, base, channel, pitch, h, w, top, left, rows, columns, here, target, at):
    """target[at + (i*columns + j)*lanes + c] = image[c, top+i, left+j], zero outside, for ``here`` channels."""
    lanes, zero = lanes_of(target), constant(target, 0.0)
    low, high = max(0, -left), min(columns, w - left)
    for i in range(rows):
        line = at + i * columns * lanes
        inside = 0 <= top + i < h and low < high
        first, last = (low, high) if inside else (columns, columns)
        for j in range(first):
            store(zero, target, line + j * lanes)
        # Up to a vector less one of rows behind the last are written too.
        for j in range(first, last, lanes):
            block = load_rows(source, base + (top + i) * pitch + left + j, channel, here, last - j)
            store_rows(transpose(block), target, line + j * lanes, lanes, lanes, lanes)
        for j in range(last, columns):
            store(zero, target, line + j * lanes)


@njit(error_model="numpy")
def _weights_part(part, parts, m, weight, ic, oc, packed, work, at):
    """packed (panel, tile point, ic, channel of the panel) = G w G^T; lanes are output channels."""
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
            _filter_tile(m, work, at, 3 * lanes, lanes, packed, to, (m + 2) * deep * width, deep * width)


@njit(error_model="numpy")
def _image_block(source, sizes, t0, t1, work, at, v_at):
    """Tiles t0 to t1 of the image, transformed, to v_at: (tile point, group of channels, tile, channel)."""
    m, _, ic, h, w, pitch, channel, top, left, _, oh, ow, _, _, _ = _sizes(sizes)
    lanes, a, across, down = lanes_of(work), m + 2, -(-ow // m), -(-oh // m)
    count, deep = t1 - t0, -(-ic // lanes_of(work)) * lanes_of(work)
    for c in range(0, ic, lanes):
        t = t0
        while t < t1:
            n, i, j = t // (across * down), t // across % down, t % across
            run = min(t1 - t, across - j)
            columns = run * m + 2
            _gather(source, (n * ic + c) * channel, channel, pitch, h, w, i * m - top, j * m - left, a, columns,
                    ic - c, work, at)  # fmt: skip
            for r in range(run):
                to = v_at + c * count + (t - t0 + r) * lanes
                _input_tile(
                    m, work, at + r * m * lanes, columns * lanes, lanes, work, to, a * deep * count, deep * count
                )
            t += run


@njit(error_model="numpy")
def _result_block(y, bias, sizes, t0, t1, o, work, at, m_at, floor):
    """A vector of channels from ``o`` on of products at m_at, transformed back, finished and transposed into y."""
    m, _, _, _, _, _, _, _, _, oc, oh, ow, _, _, _ = _sizes(sizes)
    lanes, a, across, down = lanes_of(y), m + 2, -(-ow // m), -(-oh // m)
    width, count = VECTORS * lanes_of(y), t1 - t0
    t = t0
    while t < t1:
        n, i, j = t // (across * down), t // across % down, t % across
        run = min(t1 - t, across - j)
        columns = run * m
        for r in range(run):
            _output_tile(m, work, m_at + (t - t0 + r) * width + o % width, a * count * width, count * width,
                         work, at + r * m * lanes, columns * lanes, lanes)  # fmt: skip
        here = min(columns, ow - j * m)
        for r in range(min(m, oh - i * m)):
            line = ((n * oc + o) * oh + i * m + r) * ow + j * m
            for q in range(0, here, lanes):
                rows = transpose(load_rows(work, at + (r * columns + q) * lanes, lanes, lanes, lanes))
                rows = finish_rows(rows, bias, o, oc - o, floor[1])
                store_rows(rows, y, line + q, oh * ow, oc - o, here - q)
        t += run


@njit(error_model="numpy")
def _part(part, parts, source, packed, bias, y, work, at, sizes, floor):
    """Blocks of tiles, from image to y. ``sizes`` as `conv_impls.backends._winograd` writes them."""
    m, mb, ic, _, _, _, _, _, _, oc, oh, ow, block, blocks, o_parts = _sizes(sizes)
    lanes, a, across = lanes_of(y), m + 2, -(-ow // m)
    width, points, deep = VECTORS * lanes_of(y), a * a, -(-ic // lanes_of(y)) * lanes_of(y)
    tiles, panels = mb * across * -(-oh // m), -(-oc // width)
    # Work area of this part: image rows with lanes of channels, then transformed tiles, then products.
    v_at = at + a * (across * m + 2 + lanes) * lanes
    m_at = v_at + points * block * deep
    first_task = part * blocks * o_parts // parts
    for task in range(first_task, (part + 1) * blocks * o_parts // parts):
        b, ob = task // o_parts, task % o_parts
        t0, t1 = b * tiles // blocks, (b + 1) * tiles // blocks
        count, groups = t1 - t0, -(-(t1 - t0) // ROWS)
        if ob == 0 or task == first_task:
            _image_block(source, sizes, t0, t1, work, at, v_at)
        for panel in range(ob * panels // o_parts, (ob + 1) * panels // o_parts):
            for point in range(points):
                left, right = v_at + point * deep * count, (panel * points + point) * deep * width
                for g in range(groups):
                    first = g * count // groups
                    tile_by_lane((g + 1) * count // groups - first, deep, work, left + first * lanes, count * lanes,
                                 packed, right, width, work, m_at + (point * count + first) * width, width,
                                 width, bias, 0, START_ZERO, floor[0])  # fmt: skip
            for o in range(panel * width, min((panel + 1) * width, oc), lanes):
                _result_block(y, bias, sizes, t0, t1, o, work, at, m_at, floor)


@njit(error_model="numpy")
def _sizes(sizes):
    """m, N, C_in, H, W, row and channel pitch, top, left, C_out, H_out, W_out, tiles a block, blocks, o_parts."""
    return (sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], sizes[5], sizes[6], sizes[7], sizes[8], sizes[9],
            sizes[10], sizes[11], sizes[12], sizes[13], sizes[14])  # fmt: skip


@kernel(error_model="numpy")
def transform_weights(phase, part, parts, operands):
    """X holds the weights, Y the transformed ones."""
    sizes = table_at(operands, 3)
    m, ic, oc, area = sizes[0], sizes[1], sizes[2], sizes[3]
    work = array_at(operands, WORK)
    _weights_part(part, parts, m, array_at(operands, X), ic, oc, array_at(operands, Y), work, part * area)


@kernel(error_model="numpy")
def convolve(phase, part, parts, operands):
    """Phase 0 stages the image, where it must be; phase 1 does the rest."""
    work, sizes = array_at(operands, WORK), table_at(operands, SIZES)
    staged, planes, area = sizes[15], sizes[16], sizes[17]
    if staged and phase == 0:
        stage_part(part, parts, array_at(operands, X), table_at(operands, STAGE), work)
        return
    source = work if staged else array_at(operands, X)
    weight, bias, floor = array_at(operands, WEIGHT), array_at(operands, BIAS), array_at(operands, FLOOR)
    _part(part, parts, source, weight, bias, array_at(operands, Y), work, planes + part * area, sizes, floor)
