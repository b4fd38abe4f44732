"""Access of compiled code to the table of a job (kernels and operands), and running a job on one thread.

The first row describes the job, each other row a seat. `conv_impls.kernels.runtime.operands` defines the columns, and
`conv_impls.kernels.runtime.job.Job` creates the table. Here it is an address, so that no thread holds a reference to an
array of another thread.
Source: Numba's documentation, "Notes on the calling convention".
"""

from __future__ import annotations

from llvmlite import ir
from numba import int64, types
from numba.core import cgutils
from numba.extending import intrinsic

from conv_impls.kernels.runtime.atomics import load, store
from conv_impls.kernels.runtime.compile import helper
from conv_impls.kernels.runtime.operands import KERNELS, PHASES, WIDTH, X, Y

I32, I64 = ir.IntType(32), ir.IntType(64)


@intrinsic
def run_part(typing_context, kernel_at, part, parts, operands):
    """Call the kernel at an address, which takes (part, parts, operands) and returns None."""

    def codegen(context, builder, signature, arguments):
        target, *numbers, table = arguments
        # Numba's convention requires pointers for the result and the error; kernels return None and raise nothing.
        result, error = (cgutils.alloca_once(builder, cgutils.voidptr_t) for _ in range(2))
        pointer = builder.inttoptr(table, I64.as_pointer())
        kind = ir.FunctionType(I32, [result.type, error.type, I64, I64, pointer.type])
        builder.call(builder.inttoptr(target, kind.as_pointer()), [result, error, *numbers, pointer])
        return context.get_dummy_value()

    integer = types.int64
    return types.void(integer, integer, integer, integer), codegen


@intrinsic
def word(typing_context, table, column):
    """Address of a word in a table's first row."""

    def codegen(context, builder, signature, arguments):
        table_v, column_v = arguments
        return builder.add(table_v, builder.mul(column_v, I64(8)))

    return types.int64(types.int64, types.int64), codegen


@helper
def row_of(table, seat):
    """Address of a seat's row."""
    return table + (seat + 1) * load(word(table, WIDTH))


@intrinsic
def address(typing_context, array):
    """Address of an array's elements; ``array.ctypes.data`` takes 0.3 s more to compile."""

    def codegen(context, builder, signature, arguments):
        return builder.ptrtoint(context.make_array(array)(context, builder, arguments[0]).data, I64)

    return types.int64(array), codegen


@helper
def fill(table, seats, x, y):
    """Store the addresses of image and result in the rows of ``seats`` seats."""
    for seat in range(seats):
        store(word(row_of(table, seat), X), x)
        store(word(row_of(table, seat), Y), y)


@helper
def run_alone(table, x, y):
    """Run the whole job on the calling thread, one part a phase."""
    # int64 variables, not constants: Numba compiles a helper again for each constant argument.
    fill(table, int64(1), x, y)
    for phase in range(load(word(table, PHASES))):
        run_part(load(word(table, KERNELS + phase)), 0, 1, row_of(table, int64(0)))
