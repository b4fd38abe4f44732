"""Run a compiled kernel on several threads, safely: on our own `Team`, or on Numba's threads where it is not supported.

Source: Numba's documentation, "The Threading Layers", section "Setting the Number of Threads".
Limits: the workqueue layer aborts when entered twice. Of several calls one uses it, and the others run on one thread.
Inside a user's own `prange` on that layer, a call ends the process. Any forked child runs on one thread: the workers
exist only in the parent, and OpenMP would end a child whose parent had started threads.
"""

from __future__ import annotations

import os
import threading
from functools import cache
from typing import Any

import numba
from numba import prange
from numba.np.ufunc import parallel

from conv_impls.kernels.runtime import atomics
from conv_impls.kernels.runtime.atomics import load
from conv_impls.kernels.runtime.compile import PURE, entry
from conv_impls.kernels.runtime.cores import affinity, granted
from conv_impls.kernels.runtime.operands import KERNELS, PHASES
from conv_impls.kernels.runtime.table import address, fill, row_of, run_alone, run_part, word
from conv_impls.kernels.runtime.team import Team

# Selects the threads: "team" (our own) or "numba" (Numba's threading layer). Read once a process.
VARIABLE = "CONV_IMPLS_THREADING_LAYER"
LAYERS = ("team", "numba")
_turn = threading.Lock()
_forked = False
_team = Team()


def _after_fork() -> None:
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def usable(threads: int) -> int:
    """Number of threads that a kernel really gets for this request."""
    threads = _allowed(threads)
    return threads if threads == 1 else min(threads, affinity())


def _allowed(threads: int) -> int:
    """The request, limited by everything except the affinity, which the team checks itself."""
    return 1 if _forked or threads == 1 else min(threads, numba.config.NUMBA_NUM_THREADS, granted())


@cache
def layer() -> str:
    """The one of `LAYERS` that this process uses."""
    wanted = os.environ.get(VARIABLE, "")
    if wanted not in ("", *LAYERS):
        raise ValueError(f"{VARIABLE}: expected {' or '.join(LAYERS)}, got {wanted!r}; unset it for the usual choice")
    return "team" if atomics.SUPPORTED and wanted != "numba" else "numba"


def launch(threads: int, x: Any, y: Any, table: int) -> None:
    """Run the job of a table (`conv_impls.kernels.runtime.operands`) on at most this many threads."""
    threads, team = _allowed(threads), layer() == "team"
    if threads == 1:
        # With a team, not `_alone`: it would be compiled in the middle of calls.
        (_team.alone if team else _alone)(x, y, table)
    elif team:
        _team.call(threads, x, y, table)
    else:
        _by_numba(threads, x, y, table)


@entry(nogil=True, **PURE)
def _alone(x, y, table):
    run_alone(table, address(x), address(y))


@entry(parallel=True, nogil=True)
def _together(threads, x, y, table):
    fill(table, threads, address(x), address(y))
    for phase in range(load(word(table, PHASES))):
        for part in prange(threads):
            run_part(load(word(table, KERNELS + phase)), part, threads, row_of(table, part))


def _by_numba(threads: int, x: Any, y: Any, table: int) -> None:
    """Run on Numba's threads, with one part for each."""
    before, threads = numba.get_num_threads(), min(threads, affinity())
    queue, mine = numba.threading_layer() == "workqueue", False
    try:
        mine = queue and _turn.acquire(blocking=False)
        if queue and not mine:
            _alone(x, y, table)
            return
        numba.set_num_threads(threads)
        _together(threads, x, y, table)
    finally:
        # One C call, before which Python handles no signal; `numba.set_num_threads` could be interrupted.
        parallel._set_num_threads(before)
        if mine:
            _turn.release()
