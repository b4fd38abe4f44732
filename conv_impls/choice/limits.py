"""What this machine can do at best, measured once: multiply-adds, reads by size of the working set, cost of a start.

A cost model divides work by these. They are measured at first need (0.2 s a number of threads, and seconds more where
the probes must be compiled), kept in ``limits.json`` of `conv_impls.choice.userdir` and measured anew for another CPU,
Numba or version of the package. Source: the roofline model, Williams, Waterman & Patterson 2009,
doi:10.1145/1498765.1498785.
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
from numpy.typing import NDArray

from conv_impls._version import __version__
from conv_impls.choice import userdir

FILE = "limits.json"
# Working sets: what each thread's own cache holds, what a shared cache holds, what no cache does.
CACHE_BYTES, L3_BYTES, MEMORY_BYTES = 256 * 2**10, 8 * 2**20, 128 * 2**20
# A thread reads this much a run at least, so that starting it (some us) does not count even in L1.
READ_BYTES = 16 * 2**20
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
    from conv_impls.kernels.runtime.launch import usable

    facts = _facts(usable(threads))
    return Limits(facts[dtype], facts["cache"], facts["l3"], facts["memory"], facts["call_s"])


def fma_flops_per_s(threads: int, dtype: str, seconds: float) -> float:
    """Best rate of vector multiply-adds, two operations each, over this many seconds."""
    from conv_impls.kernels import probe
    from conv_impls.kernels.runtime.launch import launch, usable
    from conv_impls.kernels.simd import lanes

    threads = usable(threads)
    trips, sums = 100_000, np.zeros(threads, dtype)
    flops = 2 * probe.CHAINS * lanes(sums.itemsize) * trips * threads
    return flops / _least_s(lambda: launch(probe.chains_serial, probe.chains_parallel, threads, trips, sums), seconds)


def working_set(size_bytes: int) -> NDArray[np.int64]:
    """Memory for `read_bytes_per_s`: written once, for pages never written are all one page of zeros."""
    from conv_impls.kernels.runtime.memory import aligned_zeros

    # Aligned: vectors that straddle cache lines read L1 at half its rate (94 for 210 GB/s on Zen 4).
    data = aligned_zeros((size_bytes // 8,), np.int64)
    data.fill(1)
    return data


def read_bytes_per_s(threads: int, data: NDArray[np.int64], seconds: float) -> float:
    """Best rate at which the threads together read ``data``, each its own part again and again."""
    from conv_impls.kernels import probe
    from conv_impls.kernels.runtime.launch import launch, usable

    threads = usable(threads)
    # Parts of whole cache lines: eight numbers.
    count, sums = data.size // threads // 8 * 8, np.zeros(threads, np.int64)
    operands = data, count, max(1, READ_BYTES // (8 * count)), sums
    least_s = _least_s(lambda: launch(probe.read_serial, probe.read_parallel, threads, *operands), seconds)
    return 8 * count * threads * operands[2] / least_s


def launch_s(threads: int, seconds: float) -> float:
    """Least seconds of starting a kernel on the threads and waiting for all of them."""
    from conv_impls.kernels import probe
    from conv_impls.kernels.runtime.launch import launch, usable

    sums = np.zeros(usable(threads), np.int64)
    return _least_s(lambda: launch(probe.nothing_serial, probe.nothing_parallel, threads, sums), seconds)


def stored() -> dict[str, dict[str, float]]:
    """The numbers of the file by thread count, as text; measures nothing, and skips what is not plausible.

    Returns
    -------
    dict
        Keys as in `FALLBACK`; empty where the file is missing, broken or of other versions.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = userdir.read(FILE, _stamp())
    return {threads: facts for threads, facts in found.items() if _plausible(facts)}


def _stamp() -> str:
    """The versions that the numbers depend on."""
    import numba

    return f"conv_impls {__version__} numba {numba.__version__}"


@cache
def _facts(threads: int) -> dict[str, float]:
    """All numbers for one number of threads: from the file, or measured."""
    stamp = _stamp()
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
    data = working_set(MEMORY_BYTES)
    return {
        "float32": fma_flops_per_s(threads, "float32", RATE_S),
        "float64": fma_flops_per_s(threads, "float64", RATE_S),
        "cache": read_bytes_per_s(threads, data[: CACHE_BYTES * threads // 8], RATE_S),
        "l3": read_bytes_per_s(threads, data[: L3_BYTES // 8], RATE_S),
        "memory": read_bytes_per_s(threads, data, RATE_S),
        "call_s": launch_s(threads, RATE_S),
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
