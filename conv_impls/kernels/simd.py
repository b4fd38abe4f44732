"""Vectors of the compile target as a Numba type: load, store, multiply-add, transpose, written as Python calls.

Idea
    A `Vector` value is one LLVM vector register of the array's dtype: 16 float32 with AVX-512, 8 with AVX2, 4 with SSE
    or NEON. Numba stores such values in local variables; LLVM's mem2reg turns these into registers. Kernels written
    with these calls therefore compile to the same instructions as hand-written code. The number of lanes and registers
    is that of the compile target (`conv_impls.kernels.runtime.target`).
Source
    LLVM language reference: vector types, ``llvm.fmuladd``, ``llvm.masked.load`` and ``.store``, ``shufflevector``.
    The type itself: Numba's documentation, "Low-level extension API".
Limits
    Indices count elements of flat, C-contiguous arrays and are not checked. Vectors exist only in compiled functions:
    they cannot be returned to Python or put into arrays.
"""

from __future__ import annotations

import operator

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, overload, register_model

from conv_impls.kernels.runtime import llvm, target

VECTOR_BYTES, REGISTERS = target.vector_bytes(), target.registers()


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


def pointer(context, builder, kind, array, index):
    """Address of element ``index`` of a flat array."""
    return llvm.at(
        builder, context.make_array(kind)(context, builder, array).data, context.get_data_type(kind.dtype), index
    )


def operand(kind):
    """The Numba type of an operand (array, at, ...), with int64 for all its integers."""
    return types.Tuple((kind[0], *[types.int64] * (len(kind) - 1)))


def located(context, builder, kind, value):
    """The start address of an operand (array, at, ...), and its other values: steps."""
    array, at, *steps = cgutils.unpack_tuple(builder, value)
    return pointer(context, builder, kind[0], array, at), *steps


def fma_ir(builder, a, b, c):
    """a*b + c, fused if the target has FMA. Without FMA, llvm.fma would call a library function."""
    return llvm.call(builder, f"llvm.fmuladd.{llvm.suffix(a.type)}", a.type, a, b, c)


def splat_ir(builder, scalar, vector):
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), [0] * vector.count)
    return builder.shuffle_vector(first, ir.Constant(vector, ir.Undefined), zeros)


def mask_ir(builder, vector, low, high):
    """Lanes from ``low`` to ``high`` - 1; the bounds may be outside the vector."""
    i32, i64 = ir.IntType(32), ir.IntType(64)
    wide = ir.VectorType(i32, vector.count)
    index = ir.Constant(wide, list(range(vector.count)))

    def spread(bound):
        # Clamp before the truncation to 32 bits, which would drop the high bits of a large bound.
        for symbol, limit in (("<", i64(vector.count)), (">", i64(0))):
            bound = builder.select(builder.icmp_signed(symbol, bound, limit), bound, limit)
        first = builder.insert_element(ir.Constant(wide, ir.Undefined), builder.trunc(bound, i32), i32(0))
        return builder.shuffle_vector(first, ir.Constant(wide, ir.Undefined), ir.Constant(wide, [0] * vector.count))

    return builder.and_(builder.icmp_signed(">=", index, spread(low)), builder.icmp_signed("<", index, spread(high)))


@intrinsic
def lanes_of(typing_context, array):
    """Lanes of a vector of the array's dtype: a constant, so a division by it is a shift."""

    def codegen(context, builder, signature, arguments):
        return ir.IntType(64)(lanes(array.dtype.bitwidth // 8))

    return types.int64(array), codegen


@intrinsic
def load(typing_context, array, index):
    """array[index : index + lanes]"""

    def codegen(context, builder, signature, arguments):
        address = pointer(context, builder, array, *arguments)
        return llvm.load(builder, vector_ir(array.dtype), address)

    return Vector(array.dtype)(array, types.int64), codegen


@intrinsic
def load_lanes(typing_context, array, index, low, high):
    """As `load`, but only lanes low .. high-1 are read; the others are zero and their memory is not accessed."""

    def codegen(context, builder, signature, arguments):
        vector = vector_ir(array.dtype)
        mask = mask_ir(builder, vector, *arguments[2:])
        return llvm.load_masked(builder, vector, pointer(context, builder, array, *arguments[:2]), mask)

    return Vector(array.dtype)(array, types.int64, types.int64, types.int64), codegen


@intrinsic
def store(typing_context, value, array, index):
    """array[index : index + lanes] = value"""

    def codegen(context, builder, signature, arguments):
        llvm.store(builder, arguments[0], pointer(context, builder, array, *arguments[1:]))
        return context.get_dummy_value()

    return types.void(value, array, types.int64), codegen


@intrinsic
def store_lanes(typing_context, value, array, index, count):
    """array[index : index + count] = value[:count]; memory after it is not accessed."""

    def codegen(context, builder, signature, arguments):
        vector = vector_ir(array.dtype)
        mask = mask_ir(builder, vector, ir.Constant(ir.IntType(64), 0), arguments[3])
        llvm.store_masked(builder, arguments[0], pointer(context, builder, array, *arguments[1:3]), mask)
        return context.get_dummy_value()

    return types.void(value, array, types.int64, types.int64), codegen


@intrinsic
def blend_lanes(typing_context, value, array, index, count):
    """As `store_lanes`, but may read the other lanes and write them back: only for memory of a single thread.

    Masked stores are slow on AVX2. On AVX-512 they are fast, and a load would have to wait for the previous store.
    """

    def codegen(context, builder, signature, arguments):
        vector = vector_ir(array.dtype)
        mask = mask_ir(builder, vector, ir.Constant(ir.IntType(64), 0), arguments[3])
        address = pointer(context, builder, array, *arguments[1:3])
        if VECTOR_BYTES == 64:
            llvm.store_masked(builder, arguments[0], address, mask)
        else:
            llvm.store(builder, builder.select(mask, arguments[0], llvm.load(builder, vector, address)), address)
        return context.get_dummy_value()

    return types.void(value, array, types.int64, types.int64), codegen


@intrinsic
def prefetch(typing_context, array, index):
    """Prefetch the cache line of array[index]; an invalid address has no effect."""

    def codegen(context, builder, signature, arguments):
        llvm.prefetch(builder, pointer(context, builder, array, *arguments))
        return context.get_dummy_value()

    return types.void(array, types.int64), codegen


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
        if not isinstance(a, Vector) or a != b:
            return None

        def impl(a, b):
            return apply(a, b)

        # A unique name for each, as in `conv_impls.kernels.runtime.compile.named`.
        impl.__qualname__ = f"{symbol.__name__}_of_vectors"
        return impl


for _symbol, _name in ((operator.add, "fadd"), (operator.sub, "fsub"), (operator.mul, "fmul")):
    _overload(_symbol, _arithmetic(_name))


@intrinsic
def at_least(typing_context, value, clamp):
    """The larger of the two in each lane; NaN stays NaN."""

    def codegen(context, builder, signature, arguments):
        a, b = arguments
        return builder.select(builder.fcmp_ordered("<", a, b), b, a)

    return value(value, clamp), codegen


@intrinsic
def interleaved(typing_context, a, b):
    """Elements of a and b in turns: (a0, b0, a1, ...) as two vectors."""

    def codegen(context, builder, signature, arguments):
        n = a.lanes
        table = [[half + i // 2 + i % 2 * n for i in range(n)] for half in (0, n // 2)]
        kind = ir.VectorType(ir.IntType(32), n)
        halves = [builder.shuffle_vector(*arguments, ir.Constant(kind, places)) for places in table]
        return context.make_tuple(builder, signature.return_type, halves)

    return types.UniTuple(a, 2)(a, b), codegen


@intrinsic
def evens(typing_context, a, b):
    """The elements with even indices of a, then of b."""

    def codegen(context, builder, signature, arguments):
        pick = ir.Constant(ir.VectorType(ir.IntType(32), a.lanes), [2 * i for i in range(a.lanes)])
        return builder.shuffle_vector(*arguments, pick)

    return a(a, b), codegen


@intrinsic
def odds(typing_context, a, b):
    """The elements with odd indices of a, then of b."""

    def codegen(context, builder, signature, arguments):
        pick = ir.Constant(ir.VectorType(ir.IntType(32), a.lanes), [2 * i + 1 for i in range(a.lanes)])
        return builder.shuffle_vector(*arguments, pick)

    return a(a, b), codegen


@intrinsic
def following(typing_context, a, b):
    """The elements of a from the second on, then the first of b."""

    def codegen(context, builder, signature, arguments):
        pick = ir.Constant(ir.VectorType(ir.IntType(32), a.lanes), list(range(1, a.lanes + 1)))
        return builder.shuffle_vector(*arguments, pick)

    return a(a, b), codegen
