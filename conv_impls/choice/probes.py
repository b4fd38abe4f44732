"""Measured limits of this machine: multiply-add rate, read bandwidth by size of the working set, cost of a start.

`measure` runs every probe in several short rounds with all others in between. A disturbance of some hundredths of a
second then affects one round, not the result. Source: the roofline model, Williams, Waterman & Patterson 2009,
doi:10.1145/1498765.1498785.
Limits: the best of a short time, on a machine that may be busy (`conv_impls.choice.limits` checks the numbers and
repeats the measurement later); bandwidth is of reading.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conv_impls.kernels.runtime import target

# Working sets: fits each thread's own cache; maximum for a shared cache; fits no cache.
CACHE_BYTES, L3_BYTES, MEMORY_BYTES = 256 * 2**10, 8 * 2**20, 128 * 2**20
# A thread reads at least this much a run, so that its start (some us) is negligible even in L1.
READ_BYTES = 16 * 2**20
# Rounds, and seconds of each of the six numbers in each; the best run, not the mean, is the limit.
ROUNDS, PROBE_S = 3, 0.007


def measure(threads: int, rounds: int = ROUNDS) -> dict[str, float]:
    """Measure all limits for one number of threads; 0.1 s or more a round, and seconds if probes must be compiled.

    Parameters
    ----------
    threads : int, >= 1
    rounds : int, >= 1

    Returns
    -------
    dict
        ``float32`` and ``float64`` operations, ``cache``, ``l3`` and ``memory`` bytes, all a second and of all threads
        together; ``call_s``, the seconds of starting a kernel on them.
    """
    data = working_set(MEMORY_BYTES)
    rates = {
        "float32": partial(fma_flops_per_s, threads, "float32"),
        "float64": partial(fma_flops_per_s, threads, "float64"),
        "cache": partial(read_bytes_per_s, threads, data[: CACHE_BYTES * threads // 8]),
        "l3": partial(read_bytes_per_s, threads, data[: l3_bytes() // 8]),
        "memory": partial(read_bytes_per_s, threads, data),
    }
    return best([
        {name: rate(PROBE_S) for name, rate in rates.items()} | {"call_s": launch_s(threads, PROBE_S)}
        for _ in range(rounds)
    ])  # fmt: skip


def l3_bytes() -> int:
    """Size of the working set that represents the shared cache of this machine."""
    return min(target.caches().l3, L3_BYTES)


def best(found: list[dict[str, float]]) -> dict[str, float]:
    """The highest rates and the minimum seconds of several measurements."""
    return {name: (min if name == "call_s" else max)(one[name] for one in found) for name in found[0]}


def fma_flops_per_s(threads: int, dtype: str, seconds: float) -> float:
    """Best rate of vector multiply-adds, two operations each, over this many seconds."""
    from conv_impls.kernels import probe
    from conv_impls.kernels.simd import lanes

    trips = 100_000
    least_s = _least_s(probe.chains, dtype, probe.ChainsOperands(probe.Chains(trips)), threads, seconds)
    return 2 * probe.CHAINS * lanes(np.dtype(dtype).itemsize) * trips * _usable(threads) / least_s


def working_set(size_bytes: int) -> NDArray[np.int64]:
    """Memory for `read_bytes_per_s`; written once, because all unwritten pages map to one page of zeros."""
    from conv_impls.kernels.runtime.memory import aligned_zeros

    # Aligned: vectors that straddle cache lines read L1 at half its rate (94 for 210 GB/s on Zen 4).
    data = aligned_zeros((size_bytes // 8,), np.int64)
    data.fill(1)
    return data


def read_bytes_per_s(threads: int, data: NDArray[np.int64], seconds: float) -> float:
    """Best read rate of all threads together; each reads its own part of ``data`` repeatedly."""
    from conv_impls.kernels import probe

    # Parts of whole cache lines: eight numbers.
    parts = _usable(threads)
    count = data.size // parts // 8 * 8
    passes = max(1, READ_BYTES // (8 * count))
    operands = probe.ReadOperands(data, probe.Reads(count, passes))
    return 8 * count * parts * passes / _least_s(probe.read, "float64", operands, threads, seconds)


def launch_s(threads: int, seconds: float) -> float:
    """Minimum seconds to start a kernel on the threads and wait for all of them."""
    from conv_impls.kernels import probe

    return _least_s(probe.nothing, "float64", probe.ChainsOperands(probe.Chains(0)), threads, seconds)


def _usable(threads: int) -> int:
    # Imported here: importing Numba takes half a second.
    from conv_impls.kernels.runtime.launch import usable

    return usable(threads)


def _least_s(kernel: Any, dtype: str, operands: Any, threads: int, seconds: float) -> float:
    """Seconds of the fastest call; repeats for ``seconds``, at least two calls after the first."""
    from conv_impls.kernels.runtime.job import Job

    # One part for each thread: more parts would move data between the caches of cores.
    threads = _usable(threads)
    job = Job([kernel], np.dtype(dtype), operands, threads=threads)
    # float32 for every dtype: a second dtype would compile the launch code again.
    y = np.zeros(threads, dtype).view(np.float32)
    job(y, y)
    best_s, runs, until = float("inf"), 0, time.perf_counter() + seconds
    while runs < 2 or time.perf_counter() < until:
        # Otherwise a very short job would run on one thread.
        job.forget()
        start = time.perf_counter()
        job(y, y)
        best_s, runs = min(best_s, time.perf_counter() - start), runs + 1
    return best_s
