"""Run one compiled kernel on a team of threads: a kernel is compiled once, for one thread and for many.

Idea
    Numba compiles the body of every ``prange`` several times over: 31 s instead of 10 for the Winograd kernels. Here
    the parallel loop is compiled once, knows nothing of any kernel, and calls one by its address:

        kernel(phase, part, parts, operands)        operands: addresses

    A kernel gets image, result and workspace by `of_call`, and all that its plan made, with names, by `of_plan`; the
    pointer type of ``operands`` tells it the dtype. All parts end one phase before any begins the next.
Source
    Numba's documentation, "Explicit Parallel Loops"; its calling convention: "Notes on the calling convention".
Limits
    Addresses carry no lengths: what a kernel may touch is settled where its `Job` is made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Annotated, Any, NamedTuple, get_type_hints

import numpy as np
from llvmlite import ir
from numba import prange, types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from conv_impls.kernels.runtime import llvm
from conv_impls.kernels.runtime.cache import kernel
from conv_impls.kernels.runtime.launch import launch
from conv_impls.kernels.runtime.memory import aligned_zeros, read_only

I64 = ir.IntType(64)
# What the operands of a plan may be: flat arrays of the dtype, flat arrays of int64, or a NamedTuple of integers.
Floats = Annotated[NDArray[Any], "dtype"]
Integers = Annotated[NDArray[np.int64], "int64"]
# Slots of image, result and a workspace of its own for each call in flight; what the plan made follows.
X, Y, WORK, PLAN = 0, 1, 2, 3
# Workspaces that wait for the next calls, at most: a burst of calls leaves no more.
MOST_IDLE = 8


@intrinsic
def of_call(typing_context, operands):
    """(image, result, workspace), flat arrays of the operands' dtype."""
    array = types.Array(operands.dtype, 1, "C")
    kind = types.UniTuple(array, PLAN)

    def codegen(context, builder, signature, arguments):
        arrays = [_array(context, builder, array, arguments[0], slot) for slot in range(PLAN)]
        return context.make_tuple(builder, kind, arrays)

    return kind(operands), codegen


@intrinsic
def of_plan(typing_context, operands, names):
    """What the plan made, as the NamedTuple ``names``: `Floats`, `Integers`, NamedTuples of int, or of all these."""
    kind = _kind(names.instance_class, operands.dtype)

    def codegen(context, builder, signature, arguments):
        return _operand(context, builder, kind, arguments[0], count(PLAN))

    return kind(operands, names), codegen


def _kind(declared, dtype):
    """Numba's type of an operand that was declared so."""
    if declared in (Floats, Integers):
        return types.Array(dtype if declared == Floats else types.int64, 1, "C")
    fields = get_type_hints(declared, include_extras=True).values()
    if all(field is int for field in fields):
        return types.NamedUniTuple(types.int64, len(fields), declared)
    return types.NamedTuple([_kind(field, dtype) for field in fields], declared)


def _operand(context, builder, kind, operands, slots):
    """An operand, whose addresses stand in the next ``slots``."""
    if isinstance(kind, types.Array):
        return _array(context, builder, kind, operands, next(slots))
    if isinstance(kind, types.NamedUniTuple):
        return _integers(context, builder, kind, operands, next(slots))
    values = [_operand(context, builder, each, operands, slots) for each in kind.types]
    return context.make_tuple(builder, kind, values)


def _integer(builder, table, index):
    """An element of a table of int64, as operands are."""
    return llvm.load(builder, I64, llvm.at(builder, llvm.to(builder, table, I64), I64, index))


def _array(context, builder, kind, operands, slot):
    """The array whose address stands in ``slot``; its length is not known."""
    array = context.make_array(kind)(context, builder)
    data = builder.inttoptr(_integer(builder, operands, slot), array.data.type)
    itemsize = I64(kind.dtype.bitwidth // 8)
    context.populate_array(
        array, data=data, shape=[I64(1 << 48)], strides=[itemsize], itemsize=itemsize, meminfo=None, parent=None
    )
    return array._getvalue()


def _integers(context, builder, kind, operands, slot):
    """The integers whose address stands in ``slot``."""
    table = builder.inttoptr(_integer(builder, operands, slot), I64.as_pointer())
    values = [_integer(builder, table, i) for i in range(kind.count)]
    return context.make_tuple(builder, kind, values)


@intrinsic
def _call(typing_context, address, phase, part, parts, operands):
    """Call the kernel at ``address``, which takes (phase, part, parts, operands) and returns None."""

    def codegen(context, builder, signature, arguments):
        target, *numbers, array = arguments
        data = context.make_array(operands)(context, builder, array).data
        # Numba's convention wants a place for the result and one for the error; kernels return None and raise nothing.
        result, error = (cgutils.alloca_once(builder, cgutils.voidptr_t) for _ in range(2))
        kind = ir.FunctionType(ir.IntType(32), [result.type, error.type, I64, I64, I64, data.type])
        builder.call(builder.inttoptr(target, kind.as_pointer()), [result, error, *numbers, data])
        return context.get_dummy_value()

    integer = types.int64
    return types.void(integer, integer, integer, integer, operands), codegen


@kernel(error_model="numpy", nogil=True)
def alone(parts, address, phases, x, y, operands):
    operands[X], operands[Y] = x.ctypes.data, y.ctypes.data
    for phase in range(phases):
        _call(address, phase, 0, 1, operands)


@kernel(error_model="numpy", parallel=True, nogil=True)
def together(parts, address, phases, x, y, operands):
    operands[X], operands[Y] = x.ctypes.data, y.ctypes.data
    for phase in range(phases):
        for part in prange(parts):
            _call(address, phase, part, parts, operands)


def address_of(function: Any, dtype: np.dtype[Any]) -> int:
    """Where the machine code of a kernel starts, after compiling it for this dtype or loading it from disk."""
    scalar = types.float32 if dtype == np.float32 else types.float64
    signature = types.int64, types.int64, types.int64, types.CPointer(scalar)
    if signature not in function.overloads:
        function.compile(signature)
    compiled = function.overloads[signature]
    address: int = compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)
    return address


class Job:
    """A kernel with all operands but image and result: call it with those, from any number of threads.

    It is never changed, so a copy is the job itself. Its addresses mean nothing in another process.

    Parameters
    ----------
    function : dispatcher
        The kernel, decorated by `conv_impls.kernels.runtime.cache.kernel`.
    dtype : dtype
    plan : NamedTuple
        What the kernel gets by `of_plan`. Arrays are kept alive; only a repack changes them.
    threads, phases : int
    workspace : int
        Elements of its own that each call in flight needs; they start as zeros, on a cache line.
    """

    __slots__ = ("_address", "_dtype", "_idle", "_kept", "_length", "_phases", "_slots", "_threads")

    def __init__(
        self, function: Callable[..., None], dtype: np.dtype[Any], plan: NamedTuple, *, threads: int, phases: int = 1,
        workspace: int = 0,
    ) -> None:  # fmt: skip
        self._address, self._dtype, self._threads, self._phases = address_of(function, dtype), dtype, threads, phases
        self._kept = list(_leaves(plan))
        # A kernel would read anything else as if it were one of these.
        assert {array.dtype for array in self._kept} <= {self._dtype, np.dtype(np.int64)}
        self._length = workspace
        self._slots = [0, 0, 0, *(array.ctypes.data for array in self._kept)]
        # Workspaces wait on a stack; a call takes one and puts it back, so calls in flight never share one.
        self._idle = [self._make()]

    def __copy__(self) -> Job:
        return self

    def __deepcopy__(self, memo: object) -> Job:
        return self

    def __reduce__(self) -> Any:
        raise TypeError("a Job holds addresses of this process and cannot be pickled; pickle the Plan")

    def _make(self) -> tuple[NDArray[Any], NDArray[np.int64]]:
        work = aligned_zeros((self._length,), self._dtype)
        operands = np.array(self._slots, np.int64)
        operands[WORK] = work.ctypes.data
        return work, operands

    @property
    def workspace_bytes(self) -> int:
        """Bytes each call in flight needs."""
        return self._length * self._dtype.itemsize

    def __call__(self, x: NDArray[Any], out: NDArray[Any]) -> None:
        try:
            mine = self._idle.pop()
        except IndexError:
            mine = self._make()
        # Flat, so that one compilation serves every rank.
        x, out = read_only(x.reshape(-1)), out.reshape(-1)
        launch(alone, together, self._threads, self._address, self._phases, x, out, mine[1])
        if len(self._idle) < MOST_IDLE:
            self._idle.append(mine)


def _leaves(plan: NamedTuple) -> Iterator[NDArray[Any]]:
    """Operands as memory, in the order of their slots: arrays as they are, integers as arrays of int64."""
    for operand in plan:
        if not isinstance(operand, tuple):
            yield np.ascontiguousarray(operand).reshape(-1)
        elif all(isinstance(value, int | np.integer) for value in operand):
            yield np.array(operand, np.int64)
        else:
            yield from _leaves(operand)
