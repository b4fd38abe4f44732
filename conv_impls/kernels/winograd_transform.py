"""The transforms of Winograd convolution F(m x m, 3x3): straight-line code made from matrices.

Idea
    The matrices B^T, G and A^T follow from interpolation points; the instructions of each transform, both ways over a
    square of vectors, follow from its matrix. Rows of the points p and -p share their even and their odd part.
Source
    Lavin & Gray 2016, arXiv:1509.09308, sec. 4; Toom-Cook matrices: Barabasz et al. 2018, arXiv:1803.10986, sec. 2.
Limits
    m of 2, 4 and 6. All of a square is in registers, or spilled, at once.
"""

from __future__ import annotations

from fractions import Fraction

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from conv_impls.kernels import simd
from conv_impls.kernels.runtime import llvm

POINTS = {
    2: (0, 1, -1),
    4: (0, 1, -1, 2, -2),
    6: (0, 1, -1, 2, -2, Fraction(1, 2), Fraction(-1, 2)),
}
I64 = ir.IntType(64)


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

    @intrinsic(prefer_literal=True)
    def apply(typing_context, m, source, target):
        """Element (i, j) of an operand (array, at, row, column) is array[at + i*row + j*column]; ``m`` is constant."""
        order = m.literal_value

        def codegen(context, builder, signature, arguments):
            _, source_v, target_v = arguments
            first, row, column = simd.located(context, builder, signature.args[1], source_v)
            last, out_row, out_column = simd.located(context, builder, signature.args[2], target_v)
            vector = simd.vector_ir(source[0].dtype)

            def address(base, i, i_step, j, j_step):
                index = builder.add(builder.mul(I64(i), i_step), builder.mul(I64(j), j_step))
                return llvm.at(builder, base, vector.element, index)

            n = size(order)
            square = [[llvm.load(builder, vector, address(first, i, row, j, column)) for j in range(n)]
                      for i in range(n)]  # fmt: skip
            for i, values in enumerate(_both_ways(builder, matrices(order)[which], square)):
                for j, value in enumerate(values):
                    llvm.store(builder, value, address(last, i, out_row, j, out_column))
            return context.get_dummy_value()

        return types.void(m, simd.operand(source), simd.operand(target)), codegen

    return apply


input_tile = _transform(0, lambda m: m + 2)
filter_tile = _transform(1, lambda m: 3)
output_tile = _transform(2, lambda m: m + 2)
