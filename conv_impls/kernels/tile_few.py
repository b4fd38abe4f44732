"""Register tiles of few rows, as many vectors wide as registers have room for, whose B is no packed panel.

Idea
    A tile of one row and two vectors waits for its own products: two sums for a latency of four cycles and two products
    a cycle. Few rows leave registers for eight. `tile_by_tap` reads B from an image, where a table says; `tile_of_row`
    from several panels, which also keeps more loads in flight.
Source
    As `conv_impls.kernels.tile`, which emits them.
Limits
    Those of `conv_impls.kernels.tile`.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from conv_impls.kernels import simd
from conv_impls.kernels.runtime import llvm
from conv_impls.kernels.tile import ROWS, START_BY_ROW, VECTORS, Product, Start, located, switch

# Vectors of a tile of few rows, which has registers left for more than `VECTORS`.
WIDTHS = 1, 2, 4, 8
# Panels that one row meets at a time, at most. Fewer where there are no more: 48 channels would read twice the weights.
PANELS = 4
PANEL_COUNTS = 1, 2, PANELS
I64 = ir.IntType(64)


def most_vectors(rows: int) -> int:
    """The widest of `WIDTHS` whose accumulators, with one side of operands and a vector, fit the registers."""
    return max(v for v in WIDTHS if v <= VECTORS or rows * v + min(rows, v) + 1 <= simd.REGISTERS)


@intrinsic
def tile_by_tap(typing_context, size, k, a, b, taps, c, columns, bias, floor):
    """As `tile`, but B is (array, at), and B[k, j] is array[at + offset[k] + j]: an image, read where it is.

    ``size`` is (rows, vectors), vectors at most `most_vectors` of rows; ``taps`` is (offset, where k = 0 is), ``bias``
    of rows. The table goes on for `AHEAD` more offsets, which are prefetched.
    """
    i, scalar = types.int64, c[0].dtype
    kinds = map(simd.operand, (a, b, taps, c))
    signature = types.void(types.UniTuple(i, 2), i, *kinds, i, simd.operand(bias), scalar)

    def codegen(context, builder, signature, arguments):
        rows, vectors = cgutils.unpack_tuple(builder, arguments[0], 2)
        k, a, (b,), (taps,), c, columns, (bias,), floor = located(
            context, builder, types.void(*signature.args[1:]), arguments[1:]
        )
        vector = simd.vector_ir(scalar)
        taps = llvm.to(builder, taps, vector.element)
        product = Product(k, a, (b, None), c, columns, Start(I64(START_BY_ROW), bias, floor), (), taps)
        sizes = [(r, v) for r in range(1, ROWS + 1) for v in WIDTHS if v <= most_vectors(r)]
        switch(builder, vector, sizes, (rows, vectors), 1, product)
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def tile_of_row(typing_context, k, a, b, c, columns, bias, start, floor):
    """As `tile` for one row and one of `PANEL_COUNTS`: B[k, j] of panel p is array[at + p*panel + k*step + j].

    B is (array, at, step, panel), and is read for whole panels, the fewest that hold ``columns``.
    """
    i, scalar = types.int64, c[0].dtype
    signature = types.void(i, *map(simd.operand, (a, b, c)), i, simd.operand(bias), i, scalar)

    def codegen(context, builder, signature, arguments):
        k, a, (b, step, panel), c, columns, (bias,), start, floor = located(context, builder, signature, arguments)
        product = Product(k, a, (b, step), c, columns, Start(start, bias, floor), panel=panel)
        vector = simd.vector_ir(scalar)
        vectors = I64(PANELS * VECTORS)
        for count in reversed(PANEL_COUNTS[:-1]):
            enough = builder.icmp_signed("<=", columns, I64(count * VECTORS * vector.count))
            vectors = builder.select(enough, I64(count * VECTORS), vectors)
        switch(builder, vector, [(1, count * VECTORS) for count in PANEL_COUNTS], (I64(1), vectors), 1, product)
        return context.get_dummy_value()

    return signature, codegen
