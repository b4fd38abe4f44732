"""Transpose blocks (as many vectors as lanes): load, transpose in registers, epilogue, store.

Idea
    These blocks turn image channels into lanes and back. A 16 x 16 block costs 76 cycles with its loads and stores, a
    third of the cost of moving single elements. Rows and lanes outside the data are masked and never accessed.
Source
    LLVM language reference, ``shufflevector``; the rotation of index bits by interleaving is the perfect shuffle of
    Stone 1971, doi:10.1109/T-C.1971.223205, sec. II.
Limits
    All rows of a block are in registers at the same time: with 16 registers and 8 lanes there is no room for more.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from conv_impls.kernels.runtime import llvm
from conv_impls.kernels.simd import (
    Vector,
    mask_ir,
    pointer,
    scalar_ir,
    splat_ir,
    vector_ir,
)  # fmt: skip


def _rows(array):
    """The type of a transpose block: as many rows (vectors) as lanes."""
    vector = Vector(array.dtype)
    return types.UniTuple(vector, vector.lanes)


def _branch(builder, fast, whole, part):
    """Values of ``whole()`` if ``fast``, else of ``part()``: two basic blocks and phi nodes."""
    blocks = [builder.append_basic_block(name) for name in ("whole", "part", "joined")]
    builder.cbranch(fast, *blocks[:2])
    results = []
    for block, emit in zip(blocks[:2], (whole, part), strict=True):
        builder.position_at_end(block)
        values = emit()
        results.append((values, builder.block))
        builder.branch(blocks[2])
    builder.position_at_end(blocks[2])
    joined = []
    for pair in zip(*(values for values, _ in results), strict=True):
        phi = builder.phi(pair[0].type)
        for value, (_, block) in zip(pair, results, strict=True):
            phi.add_incoming(value, block)
        joined.append(phi)
    return joined


@intrinsic
def load_rows(typing_context, array, index, step, count, width):
    """Load lanes vectors, one every ``step`` elements; only ``width`` lanes of the first ``count`` rows are read."""
    rows = _rows(array)

    def codegen(context, builder, signature, arguments):
        values, first, step_v, count_v, width_v = arguments
        vector, n = vector_ir(array.dtype), rows.count
        i64 = ir.IntType(64)
        base = pointer(context, builder, array, values, first)
        scalar = vector.element
        at = [llvm.at(builder, base, scalar, builder.mul(step_v, i64(i))) for i in range(n)]
        full = builder.and_(builder.icmp_signed(">=", count_v, i64(n)), builder.icmp_signed(">=", width_v, i64(n)))

        def part():
            none = i64(0)
            used = [builder.icmp_signed("<", i64(i), count_v) for i in range(n)]
            widths = [builder.select(here, width_v, none) for here in used]
            # Skipped rows use the base address: a masked load from an unmapped page takes hundreds of cycles. 5x5 with
            # 72 channels @56 took 200 us instead of 55.
            inside = [builder.select(here, a, base) for here, a in zip(used, at, strict=True)]
            return [llvm.load_masked(builder, vector, a, mask_ir(builder, vector, none, w))
                    for a, w in zip(inside, widths, strict=True)]  # fmt: skip

        loaded = _branch(builder, full, lambda: [llvm.load(builder, vector, a) for a in at], part)
        return context.make_tuple(builder, rows, loaded)

    return rows(array, *[types.int64] * 4), codegen


@intrinsic
def store_rows(typing_context, rows, array, index, step, count, width):
    """Store row i to array[index + i*step :], only ``width`` lanes of the first ``count`` rows."""

    def codegen(context, builder, signature, arguments):
        tuple_v, values, first, step_v, count_v, width_v = arguments
        vector, n = vector_ir(array.dtype), rows.count
        i64, scalar = ir.IntType(64), vector.element
        base = pointer(context, builder, array, values, first)
        results = cgutils.unpack_tuple(builder, tuple_v, n)
        at = [llvm.at(builder, base, scalar, builder.mul(step_v, i64(i))) for i in range(n)]
        full = builder.and_(builder.icmp_signed(">=", count_v, i64(n)), builder.icmp_signed(">=", width_v, i64(n)))
        with builder.if_else(full) as (whole, part):
            with whole:
                for value, address in zip(results, at, strict=True):
                    llvm.store(builder, value, address)
            with part:
                mask = mask_ir(builder, vector, i64(0), width_v)
                for i in range(n):
                    with builder.if_then(builder.icmp_signed("<", i64(i), count_v)):
                        llvm.store_masked(builder, results[i], at[i], mask)
        return context.get_dummy_value()

    return types.void(rows, array, *[types.int64] * 4), codegen


@intrinsic
def epilogue(typing_context, rows, bias, index, count, clamp):
    """Epilogue: row i plus bias[index + i] for i < count, clamped to at least ``clamp``; NaN stays NaN."""

    def codegen(context, builder, signature, arguments):
        tuple_v, values, first, count_v, floor_v = arguments
        vector, n, i64 = vector_ir(bias.dtype), rows.count, ir.IntType(64)
        base = pointer(context, builder, bias, values, first)
        offsets = llvm.load_masked(builder, vector, base, mask_ir(builder, vector, i64(0), count_v))
        least = splat_ir(builder, floor_v, vector)
        results = []
        for i, row in enumerate(cgutils.unpack_tuple(builder, tuple_v, n)):
            value = builder.fadd(row, splat_ir(builder, builder.extract_element(offsets, i64(i)), vector))
            results.append(builder.select(builder.fcmp_ordered("<", value, least), least, value))
        return context.make_tuple(builder, rows, results)

    return rows(rows, bias, types.int64, types.int64, bias.dtype), codegen


@intrinsic
def transpose(typing_context, rows):
    """Transpose (row i, lane j becomes row j, lane i) in log2(lanes) rounds of two-register shuffles."""

    def codegen(context, builder, signature, arguments):
        n = rows.count
        values = cgutils.unpack_tuple(builder, arguments[0], n)
        # Interleaving row i with row i + n/2 rotates the (row, lane) bits by one; log2(n) rounds swap row and lane.
        low = ir.Constant(ir.VectorType(ir.IntType(32), n), [i // 2 + i % 2 * n for i in range(n)])
        high = ir.Constant(ir.VectorType(ir.IntType(32), n), [n // 2 + i // 2 + i % 2 * n for i in range(n)])
        for _ in range(n.bit_length() - 1):
            pairs = [(values[i], values[i + n // 2]) for i in range(n // 2)]
            values = [builder.shuffle_vector(a, b, half) for a, b in pairs for half in (low, high)]
        return context.make_tuple(builder, rows, values)

    return rows(rows), codegen


@intrinsic
def scatter_rows(typing_context, rows, array, index, table, first):
    """Store row i to array[index + table[first + i] :]"""

    def codegen(context, builder, signature, arguments):
        tuple_v, values, index_v, table_v, first_v = arguments
        i64 = ir.IntType(64)
        base = pointer(context, builder, array, values, index_v)
        places = pointer(context, builder, table, table_v, first_v)
        for i, row in enumerate(cgutils.unpack_tuple(builder, tuple_v, rows.count)):
            place = builder.load(llvm.at(builder, places, i64, i), typ=i64)
            llvm.store(builder, row, llvm.at(builder, base, scalar_ir(array.dtype), place))
        return context.get_dummy_value()

    return types.void(rows, array, types.int64, table, types.int64), codegen


@intrinsic
def gather_rows(typing_context, array, index, table, first):
    """Load lanes vectors, row i from array[index + table[first + i] :]"""
    rows = _rows(array)

    def codegen(context, builder, signature, arguments):
        values, index_v, table_v, first_v = arguments
        vector, i64 = vector_ir(array.dtype), ir.IntType(64)
        base = pointer(context, builder, array, values, index_v)
        places = pointer(context, builder, table, table_v, first_v)
        at = [builder.load(llvm.at(builder, places, i64, i), typ=i64) for i in range(rows.count)]
        loaded = [llvm.load(builder, vector, llvm.at(builder, base, vector.element, place)) for place in at]
        return context.make_tuple(builder, rows, loaded)

    return rows(array, types.int64, table, types.int64), codegen
