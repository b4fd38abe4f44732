"""Vectors of the compile target as a Numba type: load, store, multiply-add, transpose, written as Python calls.

Idea
    A `Vector` value is one LLVM vector register of the array's dtype: 16 float32 with AVX-512, 8 with AVX2, 4 with SSE
    or NEON. LLVM's mem2reg turns the local variables Numba makes of them into registers, so kernels written with these
    calls compile to the instructions one would write by hand. Lanes and registers are those of the *compile target*
    (``NUMBA_CPU_FEATURES`` where set), never of the CPU this happens to run on.
Source
    LLVM language reference: vector types, ``llvm.fmuladd``, ``llvm.masked.load`` and ``.store``, ``shufflevector``.
    The type itself: Numba's documentation, "Low-level extension API".
Limits
    Indices count elements of flat, C-contiguous arrays and are not checked. Vectors live inside one compiled function:
    they cannot be returned to Python nor put into arrays.
"""

from __future__ import annotations

import operator

from llvmlite import binding, ir
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic, models, overload, register_model

FEATURES = frozenset(
    (binding.get_host_cpu_features().flatten() if config.CPU_FEATURES is None else config.CPU_FEATURES).split(",")
)
# 512-bit vectors only where all of AVX-512 a tail needs is there; SSE2 and NEON have 16 bytes and are always there.
VECTOR_BYTES = 64 if {"+avx512f", "+avx512vl"} <= FEATURES else 32 if "+avx2" in FEATURES else 16
REGISTERS = 32 if VECTOR_BYTES == 64 or "+neon" in FEATURES else 16


def lanes(itemsize: int) -> int:
    """Elements of one vector."""
    return VECTOR_BYTES // itemsize


class Vector(types.Type):
    """One vector register of `dtype`."""

    def __init__(self, dtype):
        self.dtype, self.lanes = dtype, lanes(dtype.bitwidth // 8)
        super().__init__(name=f"Vector({dtype}, {self.lanes})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager, kind):
        super().__init__(manager, kind, vector_ir(kind.dtype))


def scalar_ir(dtype):
    return ir.FloatType() if dtype == types.float32 else ir.DoubleType()


def vector_ir(dtype):
    return ir.VectorType(scalar_ir(dtype), lanes(dtype.bitwidth // 8))


def itemsize(scalar):
    return 4 if isinstance(scalar, ir.FloatType) else 8


def call(builder, name, result, *arguments):
    """Call an LLVM intrinsic by its full name; llvmlite's own declare_intrinsic knows scalars only."""
    kind = ir.FunctionType(result, [a.type for a in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments)


def suffix(vector):
    """How LLVM spells a vector type in the names of its intrinsics."""
    return f"v{vector.count}f{8 * itemsize(vector.element)}"


def pointer(context, builder, kind, array, index):
    """Address of element ``index`` of a flat array."""
    return builder.gep(
        context.make_array(kind)(context, builder, array).data, [index], source_etype=scalar_ir(kind.dtype)
    )


def load_ir(builder, vector, address):
    return builder.load(address, align=itemsize(vector.element), typ=vector)


def store_ir(builder, value, address):
    builder.store(value, builder.bitcast(address, value.type.as_pointer()), align=itemsize(value.type.element))


def prefetch_ir(builder, address):
    """Ask for the cache line of an address that need not be valid."""
    i32 = ir.IntType(32)
    call(builder, "llvm.prefetch.p0", ir.VoidType(), builder.bitcast(address, ir.PointerType()), i32(0), i32(3), i32(1))


def fma_ir(builder, a, b, c):
    """a*b + c, fused where the target can: llvm.fma would call a library function where it cannot."""
    return call(builder, f"llvm.fmuladd.{suffix(a.type)}", a.type, a, b, c)


def splat_ir(builder, scalar, vector):
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), [0] * vector.count)
    return builder.shuffle_vector(first, ir.Constant(vector, ir.Undefined), zeros)


def mask_ir(builder, vector, low, high):
    """Lanes from ``low`` to ``high`` - 1; the bounds may lie outside the vector, but not beyond 32 bits."""
    i32 = ir.IntType(32)
    wide = ir.VectorType(i32, vector.count)
    index = ir.Constant(wide, list(range(vector.count)))

    def spread(bound):
        first = builder.insert_element(ir.Constant(wide, ir.Undefined), builder.trunc(bound, i32), i32(0))
        return builder.shuffle_vector(first, ir.Constant(wide, ir.Undefined), ir.Constant(wide, [0] * vector.count))

    return builder.and_(builder.icmp_signed(">=", index, spread(low)), builder.icmp_signed("<", index, spread(high)))


def store_masked_ir(builder, value, address, mask):
    call(builder, f"llvm.masked.store.{suffix(value.type)}.p0", ir.VoidType(), value, address, mask)


def load_masked_ir(builder, vector, address, mask):
    zero = ir.Constant(vector, [0.0] * vector.count)
    return call(builder, f"llvm.masked.load.{suffix(vector)}.p0", vector, address, mask, zero)


@intrinsic
def lanes_of(typing_context, array):
    """Lanes of a vector of the array's dtype: a constant, so that dividing by it is a shift."""

    def codegen(context, builder, signature, arguments):
        return ir.IntType(64)(lanes(array.dtype.bitwidth // 8))

    return types.int64(array), codegen


@intrinsic
def load(typing_context, array, index):
    """array[index : index + lanes]"""

    def codegen(context, builder, signature, arguments):
        address = pointer(context, builder, array, *arguments)
        return load_ir(builder, vector_ir(array.dtype), address)

    return Vector(array.dtype)(array, types.int64), codegen


@intrinsic
def load_lanes(typing_context, array, index, low, high):
    """As `load`, but only lanes low .. high-1 are read; the others are zero and their memory is not touched."""

    def codegen(context, builder, signature, arguments):
        vector = vector_ir(array.dtype)
        mask = mask_ir(builder, vector, *arguments[2:])
        return load_masked_ir(builder, vector, pointer(context, builder, array, *arguments[:2]), mask)

    return Vector(array.dtype)(array, types.int64, types.int64, types.int64), codegen


@intrinsic
def store(typing_context, value, array, index):
    """array[index : index + lanes] = value"""

    def codegen(context, builder, signature, arguments):
        store_ir(builder, arguments[0], pointer(context, builder, array, *arguments[1:]))
        return context.get_dummy_value()

    return types.void(value, array, types.int64), codegen


@intrinsic
def store_lanes(typing_context, value, array, index, count):
    """array[index : index + count] = value[:count]; nothing behind it is touched."""

    def codegen(context, builder, signature, arguments):
        vector = vector_ir(array.dtype)
        mask = mask_ir(builder, vector, ir.Constant(ir.IntType(64), 0), arguments[3])
        store_masked_ir(builder, arguments[0], pointer(context, builder, array, *arguments[1:3]), mask)
        return context.get_dummy_value()

    return types.void(value, array, types.int64, types.int64), codegen


@intrinsic
def splat(typing_context, array, index):
    """array[index] in every lane"""

    def codegen(context, builder, signature, arguments):
        address = pointer(context, builder, array, *arguments)
        scalar = builder.load(address, typ=scalar_ir(array.dtype))
        return splat_ir(builder, scalar, vector_ir(array.dtype))

    return Vector(array.dtype)(array, types.int64), codegen


@intrinsic
def constant(typing_context, array, value):
    """value, a Python float, in every lane of a vector of array's dtype"""

    def codegen(context, builder, signature, arguments):
        vector = vector_ir(array.dtype)
        scalar = arguments[1]
        if vector.element != scalar.type:
            scalar = builder.fptrunc(scalar, vector.element)
        return splat_ir(builder, scalar, vector)

    return Vector(array.dtype)(array, types.float64), codegen


@intrinsic
def fma(typing_context, a, b, c):
    """a*b + c"""

    def codegen(context, builder, signature, arguments):
        return fma_ir(builder, *arguments)

    return a(a, b, c), codegen


def _arithmetic(name):
    @intrinsic
    def apply(typing_context, a, b):
        def codegen(context, builder, signature, arguments):
            return getattr(builder, name)(*arguments)

        return a(a, b), codegen

    return apply


def _overload(symbol, apply):
    @overload(symbol)
    def _(a, b):
        if isinstance(a, Vector) and a == b:
            return lambda a, b: apply(a, b)


for _symbol, _name in ((operator.add, "fadd"), (operator.sub, "fsub"), (operator.mul, "fmul")):
    _overload(_symbol, _arithmetic(_name))


@intrinsic
def at_least(typing_context, value, floor):
    """The larger of the two in each lane; NaN stays NaN."""

    def codegen(context, builder, signature, arguments):
        a, b = arguments
        return builder.select(builder.fcmp_ordered("<", a, b), b, a)

    return value(value, floor), codegen


def _rows(array):
    """A square of vectors: as many rows as lanes."""
    vector = Vector(array.dtype)
    return types.UniTuple(vector, vector.lanes)


def _branch(builder, fast, whole, part):
    """Values of ``whole()`` where ``fast`` holds, of ``part()`` elsewhere: two blocks and phi nodes."""
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
    """lanes vectors, one every ``step`` elements; only ``width`` lanes of the first ``count`` rows are read."""
    rows = _rows(array)

    def codegen(context, builder, signature, arguments):
        values, first, step_v, count_v, width_v = arguments
        vector, n = vector_ir(array.dtype), rows.count
        i64 = ir.IntType(64)
        base = pointer(context, builder, array, values, first)
        scalar = vector.element
        at = [builder.gep(base, [builder.mul(step_v, i64(i))], source_etype=scalar) for i in range(n)]
        full = builder.and_(builder.icmp_signed(">=", count_v, i64(n)), builder.icmp_signed(">=", width_v, i64(n)))

        def part():
            none = i64(0)
            widths = [builder.select(builder.icmp_signed("<", i64(i), count_v), width_v, none) for i in range(n)]
            return [load_masked_ir(builder, vector, a, mask_ir(builder, vector, none, w))
                    for a, w in zip(at, widths, strict=True)]  # fmt: skip

        loaded = _branch(builder, full, lambda: [load_ir(builder, vector, a) for a in at], part)
        return context.make_tuple(builder, rows, loaded)

    return rows(array, *[types.int64] * 4), codegen


@intrinsic
def store_rows(typing_context, rows, array, index, step, count, width):
    """Row i to array[index + i*step :], only ``width`` lanes of the first ``count`` rows."""

    def codegen(context, builder, signature, arguments):
        tuple_v, values, first, step_v, count_v, width_v = arguments
        vector, n = vector_ir(array.dtype), rows.count
        i64, scalar = ir.IntType(64), vector.element
        base = pointer(context, builder, array, values, first)
        results = cgutils.unpack_tuple(builder, tuple_v, n)
        at = [builder.gep(base, [builder.mul(step_v, i64(i))], source_etype=scalar) for i in range(n)]
        full = builder.and_(builder.icmp_signed(">=", count_v, i64(n)), builder.icmp_signed(">=", width_v, i64(n)))
        with builder.if_else(full) as (whole, part):
            with whole:
                for value, address in zip(results, at, strict=True):
                    store_ir(builder, value, address)
            with part:
                mask = mask_ir(builder, vector, i64(0), width_v)
                for i in range(n):
                    with builder.if_then(builder.icmp_signed("<", i64(i), count_v)):
                        store_masked_ir(builder, results[i], at[i], mask)
        return context.get_dummy_value()

    return types.void(rows, array, *[types.int64] * 4), codegen


@intrinsic
def finish_rows(typing_context, rows, bias, index, count, floor):
    """Row i plus bias[index + i] for i < count, at least ``floor``; NaN stays NaN."""

    def codegen(context, builder, signature, arguments):
        tuple_v, values, first, count_v, floor_v = arguments
        vector, n, i64 = vector_ir(bias.dtype), rows.count, ir.IntType(64)
        base = pointer(context, builder, bias, values, first)
        offsets = load_masked_ir(builder, vector, base, mask_ir(builder, vector, i64(0), count_v))
        least = splat_ir(builder, floor_v, vector)
        results = []
        for i, row in enumerate(cgutils.unpack_tuple(builder, tuple_v, n)):
            value = builder.fadd(row, splat_ir(builder, builder.extract_element(offsets, i64(i)), vector))
            results.append(builder.select(builder.fcmp_ordered("<", value, least), least, value))
        return context.make_tuple(builder, rows, results)

    return rows(rows, bias, types.int64, types.int64, bias.dtype), codegen


@intrinsic
def transpose(typing_context, rows):
    """Row i, lane j becomes row j, lane i, in log2(lanes) rounds of two-register shuffles."""

    def codegen(context, builder, signature, arguments):
        n = rows.count
        values = cgutils.unpack_tuple(builder, arguments[0], n)
        # Interleaving row i with row i + n/2 rotates the (row, lane) bits by one; log2(n) times swaps the two.
        low = ir.Constant(ir.VectorType(ir.IntType(32), n), [i // 2 + i % 2 * n for i in range(n)])
        high = ir.Constant(ir.VectorType(ir.IntType(32), n), [n // 2 + i // 2 + i % 2 * n for i in range(n)])
        for _ in range(n.bit_length() - 1):
            pairs = [(values[i], values[i + n // 2]) for i in range(n // 2)]
            values = [builder.shuffle_vector(a, b, half) for a, b in pairs for half in (low, high)]
        return context.make_tuple(builder, rows, values)

    return rows(rows), codegen


@intrinsic
def evens(typing_context, a, b):
    """The elements with even numbers of a, then of b."""

    def codegen(context, builder, signature, arguments):
        pick = ir.Constant(ir.VectorType(ir.IntType(32), a.lanes), [2 * i for i in range(a.lanes)])
        return builder.shuffle_vector(*arguments, pick)

    return a(a, b), codegen


@intrinsic
def odds(typing_context, a, b):
    """The elements with odd numbers of a, then of b."""

    def codegen(context, builder, signature, arguments):
        pick = ir.Constant(ir.VectorType(ir.IntType(32), a.lanes), [2 * i + 1 for i in range(a.lanes)])
        return builder.shuffle_vector(*arguments, pick)

    return a(a, b), codegen


@intrinsic
def scatter_rows(typing_context, rows, array, index, table, first):
    """Row i to array[index + table[first + i] :]"""

    def codegen(context, builder, signature, arguments):
        tuple_v, values, index_v, table_v, first_v = arguments
        i64 = ir.IntType(64)
        base = pointer(context, builder, array, values, index_v)
        places = builder.gep(context.make_array(table)(context, builder, table_v).data, [first_v], source_etype=i64)
        for i, row in enumerate(cgutils.unpack_tuple(builder, tuple_v, rows.count)):
            place = builder.load(builder.gep(places, [i64(i)], source_etype=i64), typ=i64)
            store_ir(builder, row, builder.gep(base, [place], source_etype=scalar_ir(array.dtype)))
        return context.get_dummy_value()

    return types.void(rows, array, types.int64, table, types.int64), codegen
