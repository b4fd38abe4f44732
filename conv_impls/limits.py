"""What this machine can do at best, measured once: multiply-adds, reads by size of the working set, cost of a start.

A cost model divides work by these. They are measured at first need (0.2 s a number of threads, and seconds more where
the probes must be compiled), kept in ``limits.json`` of `conv_impls.userdir` and measured anew for another CPU, Numba
or version of the package. Source: the roofline model, Williams, Waterman & Patterson 2009, doi:10.1145/1498765.1498785.
Limits: the best of a short while, on a machine that may be busy; bandwidth is of reading.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from math import isfinite
from typing import Any

import numpy as np

from conv_impls import userdir

FILE = "limits.json"
# Working sets: what each thread's own cache holds, what a shared cache holds, what no cache does.
CACHE_BYTES, L3_BYTES, MEMORY_BYTES = 256 * 2**10, 8 * 2**20, 128 * 2**20
# Seconds for each of the five rates; the best of these many runs, not their mean, is the limit.
RATE_S = 0.02
# A modest desktop core, for where measuring fails.
FALLBACK = {
    "float32": 50e9, "float64": 25e9, "cache": 50e9, "l3": 20e9, "memory": 10e9, "call_s": 5e-6,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Limits:
    """Best rates of all threads together, and the seconds one start of a kernel on them costs."""

    flops_per_s: float
    cache_bytes_per_s: float
    l3_bytes_per_s: float
    memory_bytes_per_s: float
    call_s: float


@cache
def limits(threads: int, dtype: str) -> Limits:
    """The limits of this machine.

    Parameters
    ----------
    threads : int, >= 1
    dtype : {"float32", "float64"}

    Returns
    -------
    Limits
    """
    from conv_impls.kernels.launch import usable

    facts = _facts(usable(threads))
    return Limits(facts[dtype], facts["cache"], facts["l3"], facts["memory"], facts["call_s"])


def fma_flops_per_s(threads: int, dtype: str, seconds: float) -> float:
    """Best rate of vector multiply-adds, two operations each, over this many seconds."""
    from conv_impls.kernels import probe
    from conv_impls.kernels.launch import launch

    trips, sums = 100_000, np.zeros(threads, dtype)
    flops = 2 * probe.CHAINS * (probe.VECTOR_BYTES // sums.itemsize) * trips * threads
    return flops / _least_s(lambda: launch(probe.chains_serial, probe.chains_parallel, threads, trips, sums), seconds)


@cache
def _facts(threads: int) -> dict[str, float]:
    """All numbers for one number of threads: from the file, or measured."""
    import numba

    import conv_impls

    stamp = f"conv_impls {conv_impls.__version__} numba {numba.__version__}"
    known: Any = userdir.read(FILE, stamp).get(str(threads))
    if known is not None:
        if _plausible(known):
            return known  # type: ignore[no-any-return]
        userdir.reject(FILE, f"has no positive numbers for {threads} threads")
    try:
        measured = _measure(threads)
    except Exception as error:
        text = f"limits of this machine: measuring failed ({type(error).__name__}: {error}); guesses are used instead"
        warnings.warn(text, RuntimeWarning, stacklevel=2)
        return FALLBACK
    userdir.add(FILE, stamp, {str(threads): measured})
    return measured


def _plausible(facts: Any) -> bool:
    numbers = [facts.get(key) for key in FALLBACK] if isinstance(facts, dict) else [None]
    return all(isinstance(number, (int, float)) and isfinite(number) and number > 0 for number in numbers)


def _measure(threads: int) -> dict[str, float]:
    from conv_impls.kernels import probe
    from conv_impls.kernels.launch import launch

    sums, data = np.zeros(threads, np.int64), np.ones(MEMORY_BYTES // 8, np.int64)

    def reads(total_bytes: int) -> float:
        count = total_bytes // 8 // threads
        # At least 2 MB a run, so that starting it does not count.
        passes = max(1, 2 * 2**20 // (8 * count))
        operands = data, count, passes, sums
        least_s = _least_s(lambda: launch(probe.read_serial, probe.read_parallel, threads, *operands), RATE_S)
        return 8 * count * threads * passes / least_s

    return {
        "float32": fma_flops_per_s(threads, "float32", RATE_S),
        "float64": fma_flops_per_s(threads, "float64", RATE_S),
        "cache": reads(min(CACHE_BYTES * threads, MEMORY_BYTES)),
        "l3": reads(L3_BYTES),
        "memory": reads(MEMORY_BYTES),
        "call_s": _least_s(lambda: launch(probe.nothing_serial, probe.nothing_parallel, threads, sums), RATE_S),
    }


def _least_s(run: Callable[[], None], seconds: float) -> float:
    """Seconds of the fastest run of those that fit ``seconds``, at least two after the one that compiles."""
    run()
    best, runs, until = float("inf"), 0, time.perf_counter() + seconds
    while runs < 2 or time.perf_counter() < until:
        start = time.perf_counter()
        run()
        best, runs = min(best, time.perf_counter() - start), runs + 1
    return best
