"""Start a compiled kernel on some threads, safely: by a team of our own, or by Numba's threads where there is none.

Source: Numba's documentation, "The Threading Layers", section "Setting the Number of Threads".
Limits: the workqueue layer aborts when entered twice, so of several calls one has it, and the others run on one thread;
inside a user's own `prange` on that layer a call ends the process. Any forked child runs on one thread,
since the workers stay with the parent, and OpenMP would end a child whose parent had started threads.
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

# Which threads kernels run on: "team", our own, or "numba", those of Numba's layer. Read once a process.
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
    """How many threads a kernel gets where it asks for this many."""
    threads = _allowed(threads)
    return threads if threads == 1 else min(threads, affinity())


def _allowed(threads: int) -> int:
    """What is left of so many threads without the affinity, which the team looks at itself."""
    return 1 if _forked or threads == 1 else min(threads, numba.config.NUMBA_NUM_THREADS, granted())


@cache
def layer() -> str:
    """Which of `LAYERS` serves this process."""
    wanted = os.environ.get(VARIABLE, "")
    if wanted not in ("", *LAYERS):
        raise ValueError(f"{VARIABLE}: expected {' or '.join(LAYERS)}, got {wanted!r}; unset it for the usual choice")
    return "team" if atomics.SUPPORTED and wanted != "numba" else "numba"


def launch(threads: int, x: Any, y: Any, table: int) -> None:
    """Run the job of a table (`conv_impls.kernels.runtime.operands`) on at most so many threads."""
    threads, team = _allowed(threads), layer() == "team"
    if threads == 1:
        # Another function would be compiled in the middle of calls.
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
    """On Numba's threads, a part each."""
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
        # One call of C, before which Python looks at no signal; `numba.set_num_threads` could be interrupted.
        parallel._set_num_threads(before)
        if mine:
            _turn.release()
