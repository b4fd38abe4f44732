"""The transforms of Winograd convolution: straight-line code generated from the matrices of both axes.

Idea
    Each transform of a block of vectors is generated from the matrices of `conv_impls.kernels.winograd_axes`. Rows of
    the points p and -p share their even and their odd part.
Source
    Lavin & Gray 2016, arXiv:1509.09308, sec. 4.
Limits
    All values of a block are live at the same time. Those that do not fit the registers are spilled.
"""

from __future__ import annotations

from fractions import Fraction

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from conv_impls.kernels import simd
from conv_impls.kernels.runtime import llvm
from conv_impls.kernels.winograd_axes import axes

I64 = ir.IntType(64)


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


def _both_ways(builder, down, across, block):
    """down @ block @ across^T for a list of rows of vectors."""
    columns = [_apply(builder, down, list(column)) for column in zip(*block, strict=True)]
    return [_apply(builder, across, list(row)) for row in zip(*columns, strict=True)]


def _transform(tile, which):
    """An intrinsic that loads a block of vectors, applies matrix ``which`` of both axes and stores the result."""
    down, across = (one[which] for one in axes(tile))

    @intrinsic
    def apply(typing_context, source, target):
        """Element (i, j) of an operand (array, at, row, column) is array[at + i*row + j*column]."""

        def codegen(context, builder, signature, arguments):
            first, row, column = simd.located(context, builder, signature.args[0], arguments[0])
            last, out_row, out_column = simd.located(context, builder, signature.args[1], arguments[1])
            vector = simd.vector_ir(source[0].dtype)

            def address(base, i, i_step, j, j_step):
                index = builder.add(builder.mul(I64(i), i_step), builder.mul(I64(j), j_step))
                return llvm.at(builder, base, vector.element, index)

            block = [[llvm.load(builder, vector, address(first, i, row, j, column)) for j in range(len(across[0]))]
                     for i in range(len(down[0]))]  # fmt: skip
            for i, values in enumerate(_both_ways(builder, down, across, block)):
                for j, value in enumerate(values):
                    llvm.store(builder, value, address(last, i, out_row, j, out_column))
            return context.get_dummy_value()

        return types.void(simd.operand(source), simd.operand(target)), codegen

    # Part of the name of every kernel that uses it (`conv_impls.kernels.runtime.compile.named`).
    apply.around = f"_{tile.name}"
    return apply


def transforms(tile):
    """Intrinsics (source, target): of the image, of the weights, and back to the result."""
    return tuple(_transform(tile, which) for which in range(3))
