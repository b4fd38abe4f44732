"""Register tiles of few rows, as many vectors wide as the registers allow; B is not a packed panel.

Idea
    A tile of one row and two vectors is limited by latency: it has two sums, at a latency of four cycles and two
    products per cycle. With few rows, registers have room for eight vectors. `tile_by_tap` reads B from an image at the
    offsets of a table. `tile_of_row` reads B from several panels, which also keeps more loads in flight.
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
from conv_impls.kernels.tile import (
    ROWS,
    START_BY_COLUMN,
    START_BY_ROW,
    START_C,
    VECTORS,
    Product,
    Start,
    all_sizes,
    located,
    switch,
)  # fmt: skip

# Widths in vectors of a tile of few rows, which has free registers for more than `VECTORS`.
WIDTHS = 1, 2, 4, 8
# Maximum panels that one row is multiplied by at a time. Smaller counts exist too: with 48 channels the largest count
# would read twice the weights.
PANELS = 4
PANEL_COUNTS = 1, 2, PANELS
# Maximum rows of a tile whose elements of A are a step apart that is not known at compile time: each row needs an
# address in a register. Tiles of 14 rows took twice the time.
STRIDED_ROWS = min(ROWS, 8)
I64 = ir.IntType(64)


def most_vectors(rows: int) -> int:
    """The largest of `WIDTHS` whose accumulators, one side of operands and one more vector fit the registers."""
    return max(v for v in WIDTHS if v <= VECTORS or rows * v + min(rows, v) + 1 <= simd.REGISTERS)


@intrinsic
def tile_by_tap(typing_context, size, k, a, b, taps, c, columns, bias, clamp):
    """As `tile`, but B is (array, at), and B[k, j] is array[at + offset[k] + j]: an image that is read in place.

    ``size`` is (rows, vectors), vectors at most `most_vectors` of rows; ``taps`` is (offset, index of k = 0), ``bias``
    is per row. The table needs `AHEAD` more offsets at its end, for the prefetch.
    """
    i, scalar = types.int64, c[0].dtype
    kinds = map(simd.operand, (a, b, taps, c))
    signature = types.void(types.UniTuple(i, 2), i, *kinds, i, simd.operand(bias), scalar)

    def codegen(context, builder, signature, arguments):
        rows, vectors = cgutils.unpack_tuple(builder, arguments[0], 2)
        k, a, (b,), (taps,), c, columns, (bias,), clamp = located(
            context, builder, types.void(*signature.args[1:]), arguments[1:]
        )
        vector = simd.vector_ir(scalar)
        taps = llvm.to(builder, taps, vector.element)
        product = Product(k, a, (b, None), c, columns, Start(I64(START_BY_ROW), bias, clamp), (), taps)
        sizes = [(r, v) for r in range(1, ROWS + 1) for v in WIDTHS if v <= most_vectors(r)]
        switch(builder, vector, sizes, (rows, vectors), 1, product)
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def tile_of_row(typing_context, k, a, b, c, columns, bias, start, clamp):
    """As `tile` for one row and one of `PANEL_COUNTS`: B[k, j] of panel p is array[at + p*panel + k*step + j].

    B is (array, at, step, panel). It is read in whole panels; the smallest count that covers ``columns`` is used.
    """
    i, scalar = types.int64, c[0].dtype
    signature = types.void(i, *map(simd.operand, (a, b, c)), i, simd.operand(bias), i, scalar)

    def codegen(context, builder, signature, arguments):
        k, a, (b, step, panel), c, columns, (bias,), start, clamp = located(context, builder, signature, arguments)
        product = Product(k, a, (b, step), c, columns, Start(start, bias, clamp), panel=panel)
        vector = simd.vector_ir(scalar)
        vectors = I64(PANELS * VECTORS)
        for count in reversed(PANEL_COUNTS[:-1]):
            enough = builder.icmp_signed("<=", columns, I64(count * VECTORS * vector.count))
            vectors = builder.select(enough, I64(count * VECTORS), vectors)
        switch(builder, vector, [(1, count * VECTORS) for count in PANEL_COUNTS], (I64(1), vectors), 1, product)
        return context.get_dummy_value()

    return signature, codegen


def _at_taps(strided):
    """`tile_at_taps`, `tile_at_strided_taps`: if the step is known at compile time, rows need no registers for it."""

    @intrinsic
    def tile(typing_context, rows, k, a, b, taps, c, columns, bias, clamp):
        """As `conv_impls.kernels.tile.tile`, but A[k, m] is array[at + offset[k] + m*step]: an image read in place.

        A is (array, at, step), the step is 1 unless strided; ``taps`` is (offset, index of k = 0), ``bias`` is per
        column. A strided tile has at most `STRIDED_ROWS` rows.
        """
        i, scalar = types.int64, c[0].dtype
        kinds = map(simd.operand, (a, b, taps, c))
        signature = types.void(i, i, *kinds, i, simd.operand(bias), scalar)

        def codegen(context, builder, signature, arguments):
            rows, k, (a, step), b, (taps,), c, columns, (bias,), clamp = located(context, builder, signature, arguments)
            vector = simd.vector_ir(scalar)
            start, taps = Start(I64(START_BY_COLUMN), bias, clamp), llvm.to(builder, taps, vector.element)
            product = Product(k, (a, None), b, c, columns, start, (), taps, taps_of_a=True)
            all_sizes(builder, vector, rows, step if strided else 1, product, STRIDED_ROWS if strided else ROWS)
            return context.get_dummy_value()

        return signature, codegen

    # Part of the name of the kernel that uses it (`conv_impls.kernels.runtime.compile.named`).
    tile.around = "_strided" if strided else "_contiguous"
    return tile


tile_at_taps, tile_at_strided_taps = (_at_taps(strided) for strided in (False, True))


@intrinsic
def tile_of_pixels(typing_context, rows, k, a, b, places, c, columns):
    """C[m, j] += sum over k of A[k, m] * B[k, j] for m < rows, j < one or two vectors, whichever ``columns`` needs.

    A and C are (array, at, step), B is (array, at), and B[k, j] is array[at + place[k] + j]. ``places`` is (place,
    index of k = 0); the table needs `AHEAD` more places at its end, for the prefetch. C is read and written in whole
    vectors.
    """
    i, scalar = types.int64, c[0].dtype
    signature = types.void(i, i, *map(simd.operand, (a, b, places, c)), i)

    def codegen(context, builder, signature, arguments):
        rows, k, a, (b,), (places,), c, columns = located(context, builder, signature, arguments)
        vector = simd.vector_ir(scalar)
        wide = builder.icmp_signed(">", columns, I64(vector.count))
        vectors = builder.select(wide, I64(VECTORS), I64(1))
        start = Start(I64(START_C), c[0], ir.Constant(vector.element, float("-inf")))
        product = Product(k, a, (b, None), c, None, start, (), llvm.to(builder, places, vector.element))
        sizes = [(r, v) for r in range(1, ROWS + 1) for v in (1, VECTORS)]
        switch(builder, vector, sizes, (rows, vectors), 1, product)
        return context.get_dummy_value()

    return signature, codegen
