"""`Job`: a compiled kernel with all its operands, called with an image and a result.

Idea
    Numba compiles the body of every ``prange`` several times: 31 s instead of 10 for the Winograd kernels. Here a
    kernel is compiled once, for one thread and for many, and called by its address:

        kernel(part, parts, operands)        operands: a row of addresses for each seat

    A job has one kernel for each phase. All parts of a phase end before the next phase begins. A seat is a thread that
    takes part in a call. It has its own workspace, which it reuses for all parts that it runs.
Source
    Numba's documentation, "Notes on the calling convention".
Limits
    Addresses carry no lengths. The code that creates a `Job` must make its arrays large enough.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numba import types
from numpy.typing import NDArray

from conv_impls.kernels.runtime.launch import launch
from conv_impls.kernels.runtime.memory import LINE_BYTES, aligned_zeros, read_only
from conv_impls.kernels.runtime.operands import KERNELS, OWN, PLAN, SECOND, TOOK, WIDTH, WORK

# Idle workspaces kept for the next calls: at most this number and these bytes, but always one. This bounds the memory
# after a burst of calls. A call that finds no idle workspace allocates one.
MOST_IDLE, IDLE_BYTES = 8, 64 * 2**20
# A job whose call took less than this (wall time x threads) runs on the caller alone: starting threads takes 2 us.
ALONE_NS = 12_000
# At most this many parts for each thread. Small parts limit the delay by a thread that starts late or loses its core.
PARTS_A_SEAT = 4
# With at least this many units in each part, it does not matter that parts end inside a unit.
MANY_UNITS = 4
# Rows of the operand table are multiples of this: no shared cache lines, and cores fetch lines in pairs.
ROW_BYTES = 128


def address_of(function: Any, dtype: np.dtype[Any]) -> int:
    """Address of the machine code of a kernel, compiled for this dtype or loaded from disk if necessary."""
    scalar = types.float32 if dtype == np.float32 else types.float64
    signature = types.int64, types.int64, types.CPointer(scalar)
    if signature not in function.overloads:
        function.compile(signature)
    compiled = function.overloads[signature]
    address: int = compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)
    return address


def compiled_s(kernels: Sequence[Any], dtype: np.dtype[Any]) -> float:
    """Compile kernels or load them from disk; returns the seconds."""
    start = time.perf_counter()
    for kernel in kernels:
        address_of(kernel, dtype)
    return time.perf_counter() - start


def parts_of(units: int, threads: int) -> int:
    """Parts of a phase: several for each thread, if all have equally many whole units, or many units.

    >>> parts_of(64, 2), parts_of(12, 2), parts_of(9, 2)
    (8, 6, 2)
    """
    most = PARTS_A_SEAT * threads
    if units >= MANY_UNITS * most:
        return most
    return next((parts for parts in range(most, threads, -threads) if units % parts == 0), threads)


class Place(NamedTuple):
    """Memory of one call in flight: workspace, operand table, the table's address, its first row for fast access."""

    work: NDArray[Any]
    table: NDArray[np.int64]
    address: int
    head: memoryview


class Job:
    """Kernels with all operands except inputs and result. Call it with these, from any number of threads.

    A job is immutable, so a copy is the job itself. Its addresses are not valid in another process.

    Parameters
    ----------
    kernels : sequence of dispatchers
        One for each phase, decorated by `conv_impls.kernels.runtime.compile.kernel`.
    dtype : dtype
    plan : NamedTuple
        Operands that kernels read by `of_plan`. Arrays are kept alive; only a repack changes them.
    threads : int
        Maximum number of threads.
    units : int
        Independent units of work. A part should have whole units.
    shared, own : int
        Workspace of each call in flight, in elements: shared by all seats, and for each seat. It starts as zeros; each
        area begins on a cache line.
    """

    __slots__ = ("_dtype", "_head", "_idle", "_kept", "_length", "_own", "_row", "_shared", "_threads")

    def __init__(
        self, kernels: Sequence[Any], dtype: np.dtype[Any], plan: NamedTuple, *, threads: int, units: int = 1,
        shared: int = 0, own: int = 0,
    ) -> None:  # fmt: skip
        self._dtype, self._threads = dtype, threads
        self._kept = list(_leaves(plan))
        # A kernel would read any other dtype as one of these two.
        assert {array.dtype for array in self._kept} <= {self._dtype, np.dtype(np.int64)}
        line = LINE_BYTES // self._dtype.itemsize
        self._shared, self._own = (-(-length // line) * line for length in (shared, own))
        # The last area is not rounded up, so that an overrun of a kernel is detected (tests/test_kernels_guard.py).
        self._length = self._shared + (threads - 1) * self._own + own
        self._row = [0] * PLAN + [array.ctypes.data for array in self._kept]
        addresses = [address_of(kernel, dtype) for kernel in kernels]
        width = -(-8 * max(len(self._row), KERNELS + len(addresses)) // ROW_BYTES) * ROW_BYTES
        self._head = [len(addresses), parts_of(units, threads), width, 0, *addresses]
        # Stack of idle workspaces. A call takes one and puts it back, so calls in flight never share one. `maxlen`
        # drops the oldest one atomically: with a length check in Python, two threads could both append.
        most = min(MOST_IDLE, IDLE_BYTES // max(1, self.workspace_bytes))
        self._idle = deque([self._make()], maxlen=max(1, most))

    def __copy__(self) -> Job:
        return self

    def __deepcopy__(self, memo: object) -> Job:
        return self

    def __reduce__(self) -> Any:
        raise TypeError("a Job holds addresses of this process and cannot be pickled; pickle the Plan")

    def _make(self) -> Place:
        work = aligned_zeros((self._length,), self._dtype)
        table = aligned_zeros((1 + self._threads, self._head[WIDTH] // 8), np.int64)
        table[0, : len(self._head)] = self._head
        table[1:, : len(self._row)] = self._row
        table[1:, WORK] = work.ctypes.data
        table[1:, OWN] = self._shared + np.arange(self._threads) * self._own
        return Place(work, table, int(table.ctypes.data), table[0].data)

    @property
    def workspace_bytes(self) -> int:
        """Workspace of each call in flight, in bytes."""
        return self._length * self._dtype.itemsize

    def forget(self) -> None:
        """Forget the measured time: the next call uses all threads, as the first one does, however short it is."""
        for place in tuple(self._idle):
            place.head[TOOK] = 0

    def __call__(self, x: NDArray[Any], out: NDArray[Any], second: NDArray[Any] | None = None) -> None:
        try:
            mine = self._idle.pop()
        except IndexError:
            mine = self._make()
        if second is not None:
            mine.table[1:, SECOND] = second.ctypes.data
        # Flat, so that one compilation is enough for every rank.
        x, out = read_only(x.reshape(-1)), out.reshape(-1)
        launch(1 if 0 < mine.head[TOOK] < ALONE_NS else self._threads, x, out, mine.address)
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
