"""Run one compiled kernel on a team of threads: a kernel is compiled once, for one thread and for many.

Idea
    Numba compiles the body of every ``prange`` several times over: 31 s instead of 10 for the Winograd kernels. Here
    the parallel loop is compiled once, knows nothing of any kernel, and calls one by its address:

        kernel(phase, part, parts, operands)        operands: addresses of arrays

    A kernel finds its operands with `array_at` and `table_at`; the pointer type of ``operands`` tells it the dtype.
    All parts end one phase before any begins the next.
Source
    Numba's documentation, "Explicit Parallel Loops"; its calling convention: "Notes on the calling convention".
Limits
    Addresses carry no lengths: what a kernel may touch is settled where its `Job` is made.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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
# Operands every kernel gets first: the image, the result, and a workspace of its own for each call in flight.
X, Y, WORK = 0, 1, 2


@intrinsic
def array_at(typing_context, operands, slot):
    """The flat array of the operands' dtype whose address stands in ``slot``; its length is not known."""
    kind = types.Array(operands.dtype, 1, "C")
    return kind(operands, types.int64), _array_codegen(kind)


@intrinsic
def table_at(typing_context, operands, slot):
    """As `array_at`, for a table of int64."""
    kind = types.Array(types.int64, 1, "C")
    return kind(operands, types.int64), _array_codegen(kind)


def _array_codegen(kind):
    def codegen(context, builder, signature, arguments):
        array = context.make_array(kind)(context, builder)
        slots = llvm.to(builder, arguments[0], I64)
        address = llvm.load(builder, I64, llvm.at(builder, slots, I64, arguments[1]))
        address = builder.inttoptr(address, array.data.type)
        itemsize = I64(kind.dtype.bitwidth // 8)
        context.populate_array(
            array, data=address, shape=[I64(1 << 48)], strides=[itemsize], itemsize=itemsize, meminfo=None, parent=None
        )
        return array._getvalue()

    return codegen


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
    operands[0], operands[1] = x.ctypes.data, y.ctypes.data
    for phase in range(phases):
        _call(address, phase, 0, 1, operands)


@kernel(error_model="numpy", parallel=True, nogil=True)
def together(parts, address, phases, x, y, operands):
    operands[0], operands[1] = x.ctypes.data, y.ctypes.data
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

    Parameters
    ----------
    function : dispatcher
        The kernel, decorated by `conv_impls.kernels.runtime.cache.kernel`.
    threads, phases : int
    workspace : int
        Elements of its own that each call in flight needs; they start as zeros, on a cache line.
    arrays : list of ndarray
        Slots 3, 4, ...: of the dtype, or int64 for tables. Kept alive; only a repack changes them.
    """

    __slots__ = ("_address", "_arrays", "_dtype", "_idle", "_length", "_phases", "_slots", "_threads")

    def __init__(
        self, function: Callable[..., None], dtype: np.dtype[Any], threads: int, phases: int, workspace: int,
        arrays: list[NDArray[Any]],
    ) -> None:  # fmt: skip
        self._address, self._dtype, self._threads, self._phases = address_of(function, dtype), dtype, threads, phases
        self._arrays = [np.ascontiguousarray(a) for a in arrays]
        self._length = workspace
        self._slots = [0, 0, 0, *(a.ctypes.data for a in self._arrays)]
        # Workspaces wait on a stack; a call takes one and puts it back, so calls in flight never share one.
        self._idle = [self._make()]

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
        self._idle.append(mine)
