"""`Job`: a compiled kernel with all that it works on, called with an image and a result.

Idea
    Numba compiles the body of every ``prange`` several times over: 31 s instead of 10 for the Winograd kernels. Here a
    kernel is compiled once, for one thread and for many, and called by its address:

        kernel(part, parts, operands)        operands: a row of addresses for each seat

    A job has a kernel for each of its phases; all parts of one end before any of the next begins. A seat is a thread
    that takes part in a call; it has a workspace of its own, which serves all parts that it runs.
Source
    Numba's documentation, "Notes on the calling convention".
Limits
    Addresses carry no lengths: what a kernel may touch is settled where its `Job` is made.
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
from conv_impls.kernels.runtime.operands import KERNELS, OWN, PLAN, TOOK, WIDTH, WORK

# Workspaces that wait for the next calls, at most, in number and in bytes; one may always wait. A burst of calls leaves
# no more, and calls beyond these pay for a workspace each.
MOST_IDLE, IDLE_BYTES = 8, 64 * 2**20
# A job of which a call took less, on all threads together, is the caller's alone: to hand it out takes 2 us.
ALONE_NS = 12_000
# Parts for each thread, at most: who comes late, or loses its core, then holds up a small one.
PARTS_A_SEAT = 4
# Units of each part from which on it does not matter that parts end within one.
MANY_UNITS = 4
# Rows of the table of operands, in lines of their own; cores fetch pairs of lines.
ROW_BYTES = 128


def address_of(function: Any, dtype: np.dtype[Any]) -> int:
    """Where the machine code of a kernel starts, after compiling it for this dtype or loading it from disk."""
    scalar = types.float32 if dtype == np.float32 else types.float64
    signature = types.int64, types.int64, types.CPointer(scalar)
    if signature not in function.overloads:
        function.compile(signature)
    compiled = function.overloads[signature]
    address: int = compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)
    return address


def compiled_s(kernels: Sequence[Any], dtype: np.dtype[Any]) -> float:
    """Seconds of compiling kernels, or of loading them from disk."""
    start = time.perf_counter()
    for kernel in kernels:
        address_of(kernel, dtype)
    return time.perf_counter() - start


def parts_of(units: int, threads: int) -> int:
    """Parts of a phase: several for each thread, if all have equally many whole units, or so many that none counts.

    >>> parts_of(64, 2), parts_of(12, 2), parts_of(9, 2)
    (8, 6, 2)
    """
    most = PARTS_A_SEAT * threads
    if units >= MANY_UNITS * most:
        return most
    return next((parts for parts in range(most, threads, -threads) if units % parts == 0), threads)


class Place(NamedTuple):
    """What one call in flight works in: workspace, table of operands, its address, its first row for a quick look."""

    work: NDArray[Any]
    table: NDArray[np.int64]
    address: int
    head: memoryview


class Job:
    """Kernels with all operands but image and result: call it with those, from any number of threads.

    It is never changed, so a copy is the job itself. Its addresses mean nothing in another process.

    Parameters
    ----------
    kernels : sequence of dispatchers
        One for each phase, decorated by `conv_impls.kernels.runtime.compile.kernel`.
    dtype : dtype
    plan : NamedTuple
        What they get by `of_plan`. Arrays are kept alive; only a repack changes them.
    threads : int
        At most.
    units : int
        Pieces of work that share nothing: a part should have whole ones.
    shared, own : int
        Elements of the workspace of each call in flight: those all seats share, and those of each seat. They start as
        zeros; each begins on a cache line.
    """

    __slots__ = ("_dtype", "_head", "_idle", "_kept", "_length", "_own", "_row", "_shared", "_threads")

    def __init__(
        self, kernels: Sequence[Any], dtype: np.dtype[Any], plan: NamedTuple, *, threads: int, units: int = 1,
        shared: int = 0, own: int = 0,
    ) -> None:  # fmt: skip
        self._dtype, self._threads = dtype, threads
        self._kept = list(_leaves(plan))
        # A kernel would read anything else as if it were one of these.
        assert {array.dtype for array in self._kept} <= {self._dtype, np.dtype(np.int64)}
        line = LINE_BYTES // self._dtype.itemsize
        self._shared, self._own = (-(-length // line) * line for length in (shared, own))
        # Not rounded behind the last: a kernel that goes beyond its own is to be seen (tests/test_kernels_guard.py).
        self._length = self._shared + (threads - 1) * self._own + own
        self._row = [0] * PLAN + [array.ctypes.data for array in self._kept]
        addresses = [address_of(kernel, dtype) for kernel in kernels]
        width = -(-8 * max(len(self._row), KERNELS + len(addresses)) // ROW_BYTES) * ROW_BYTES
        self._head = [len(addresses), parts_of(units, threads), width, 0, *addresses]
        # Idle workspaces are on a stack. A call takes one and puts it back, so calls in flight never share one. The
        # deque drops the oldest one itself: two threads that first compared lengths could both append.
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
        """Bytes each call in flight needs."""
        return self._length * self._dtype.itemsize

    def forget(self) -> None:
        """Have the next call go to all threads, as the first one does, however short it is."""
        for place in tuple(self._idle):
            place.head[TOOK] = 0

    def __call__(self, x: NDArray[Any], out: NDArray[Any]) -> None:
        try:
            mine = self._idle.pop()
        except IndexError:
            mine = self._make()
        # Flat, so that one compilation serves every rank.
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
