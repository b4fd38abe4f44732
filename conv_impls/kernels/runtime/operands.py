"""Operands of a kernel, by name: a table with a row of addresses for each seat, read inside compiled code.

    kernel(part, parts, operands)        operands: the row of the seat that runs this part

`of_call` returns image, result and workspace. `of_plan` returns the operands of the plan, as the NamedTuple defined
with the kernel. The dtype is that of the pointer ``operands``.
Limits: addresses carry no lengths. The code that creates a `conv_impls.kernels.runtime.job.Job` must make its arrays
large enough.
"""

from __future__ import annotations

from itertools import count
from typing import Annotated, Any, get_type_hints

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from conv_impls.kernels.runtime import llvm

I64 = ir.IntType(64)
# Allowed operands of a plan: flat arrays of the dtype, flat arrays of int64, or a NamedTuple of integers.
Floats = Annotated[NDArray[Any], "dtype"]
Integers = Annotated[NDArray[np.int64], "int64"]
# Columns of a seat's row: image, result, workspace of the call, start of the seat's own workspace in it, second input
# (0 if there is none). The operands of the plan follow.
X, Y, WORK, OWN, SECOND, PLAN = 0, 1, 2, 3, 4, 5
# Columns of the first row, which describes the job: number of phases, maximum parts of a phase, bytes of a row, minimum
# wall time x threads of a call in ns (0 before the first call), and the addresses of the phases' kernels.
PHASES, PARTS, WIDTH, TOOK, KERNELS = 0, 1, 2, 3, 4


@intrinsic
def of_call(typing_context, operands):
    """(image, result, workspace, at): flat arrays of the operands' dtype; work[at:] belongs to this seat."""
    array = types.Array(operands.dtype, 1, "C")
    kind = types.Tuple((array, array, array, types.int64))

    def codegen(context, builder, signature, arguments):
        arrays = [_array(context, builder, array, arguments[0], slot) for slot in (X, Y, WORK)]
        return context.make_tuple(builder, kind, [*arrays, _integer(builder, arguments[0], OWN)])

    return kind(operands), codegen


@intrinsic
def second_of_call(typing_context, operands):
    """The second input of a call, a flat array of the operands' dtype."""
    array = types.Array(operands.dtype, 1, "C")

    def codegen(context, builder, signature, arguments):
        return _array(context, builder, array, arguments[0], SECOND)

    return array(operands), codegen


@intrinsic
def of_plan(typing_context, operands, names):
    """Operands of the plan, as the NamedTuple ``names``: `Floats`, `Integers`, NamedTuples of int, or of all these."""
    kind = _kind(names.instance_class, operands.dtype)

    def codegen(context, builder, signature, arguments):
        return _operand(context, builder, kind, arguments[0], count(PLAN))

    return kind(operands, names), codegen


def _kind(declared, dtype):
    """Numba's type of an operand with this declaration."""
    if declared in (Floats, Integers):
        return types.Array(dtype if declared == Floats else types.int64, 1, "C")
    fields = get_type_hints(declared, include_extras=True).values()
    if all(field is int for field in fields):
        return types.NamedUniTuple(types.int64, len(fields), declared)
    return types.NamedTuple([_kind(field, dtype) for field in fields], declared)


def _operand(context, builder, kind, operands, slots):
    """An operand, whose addresses are in the next ``slots``."""
    if isinstance(kind, types.Array):
        return _array(context, builder, kind, operands, next(slots))
    if isinstance(kind, types.NamedUniTuple):
        return _integers(context, builder, kind, operands, next(slots))
    values = [_operand(context, builder, each, operands, slots) for each in kind.types]
    return context.make_tuple(builder, kind, values)


def _integer(builder, table, index):
    """An element of an int64 table, such as a row of operands."""
    return llvm.load(builder, I64, llvm.at(builder, llvm.to(builder, table, I64), I64, index))


def _array(context, builder, kind, operands, slot):
    """The array whose address is in ``slot``; its length is not known."""
    array = context.make_array(kind)(context, builder)
    data = builder.inttoptr(_integer(builder, operands, slot), array.data.type)
    itemsize = I64(kind.dtype.bitwidth // 8)
    context.populate_array(
        array, data=data, shape=[I64(1 << 48)], strides=[itemsize], itemsize=itemsize, meminfo=None, parent=None
    )
    return array._getvalue()


def _integers(context, builder, kind, operands, slot):
    """The integers whose address is in ``slot``."""
    table = builder.inttoptr(_integer(builder, operands, slot), I64.as_pointer())
    values = [_integer(builder, table, i) for i in range(kind.count)]
    return context.make_tuple(builder, kind, values)
