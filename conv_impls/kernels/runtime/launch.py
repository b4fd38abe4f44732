"""Start a compiled kernel on some threads, safely: the one place that knows Numba's threading layers.

Source: Numba's documentation, "The Threading Layers", section "Setting the Number of Threads".
Limits: the workqueue layer aborts when entered twice, so calls take turns there; any forked child runs the serial
kernels, since OpenMP would end one whose parent had started threads.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

import numba

_turn = threading.Lock()
_forked = False


def _after_fork() -> None:
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def usable(threads: int) -> int:
    """How many threads a kernel gets where it asks for this many."""
    return 1 if _forked else min(threads, numba.config.NUMBA_NUM_THREADS)


def launch(serial: Callable[..., None], parallel: Callable[..., None], threads: int, *operands: Any) -> None:
    """Call ``parallel(threads, *operands)`` on that many threads, or ``serial(1, *operands)`` for one."""
    threads = usable(threads)
    if threads == 1:
        serial(1, *operands)
        return
    before = numba.get_num_threads()
    # Numba takes a lock shared between processes for each question: one is asked, and nothing set that is set already.
    if before != threads:
        numba.set_num_threads(threads)
    try:
        if numba.threading_layer() == "workqueue":
            with _turn:
                parallel(threads, *operands)
        else:
            parallel(threads, *operands)
    finally:
        if before != threads:
            numba.set_num_threads(before)
