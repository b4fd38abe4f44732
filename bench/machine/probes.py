"""Measure the peaks of the machine: multiply-adds, read bandwidth of each cache, thread start-up, the timer.

The probes are those of `conv_impls.choice.probes`. Source: the roofline model, Williams, Waterman & Patterson 2009,
doi:10.1145/1498765.1498785. Limits: other programs on the cores lower the measured rates.
"""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any

from conv_impls import UnsupportedError
from conv_impls.kernels.runtime.target import caches_of, compiles, size_bytes

from .cpu import cores, cpus

if TYPE_CHECKING:
    import pandas as pd

# Rounds over all probes: a disturbance of one second affects only one repetition of a probe, not the result.
# If more threads seem slower than fewer, there are more rounds, up to a limit.
ROUNDS, MOST_ROUNDS, SLOWER = 3, 9, 0.95
RATES = ("fma_float32_gflops", "fma_float64_gflops")
# Used if the caches are unknown: large for a private cache, small for a shared one.
SOME_CACHE_BYTES = 16 * 2**20
# The working set for memory is four times the last cache, within these limits: it must be filled as well.
MEMORY_BYTES = 128 * 2**20, 2**30


def measure_machine(seconds: float = 3.0) -> dict[str, Any]:
    """Measure the peaks of this machine.

    Parameters
    ----------
    seconds : float, > 0
        For all probes together. Compiling them takes 3 s more if they are not cached.

    Returns
    -------
    dict
        Plain JSON values; no rate is below that of fewer threads. ``by_threads``: one row per thread count, with the
        peak of float32 and float64 multiply-adds and the minimum time to start a parallel kernel. ``by_level``: one row
        per cache level and thread count (one and all), with the read bandwidth. Then the timer, and ``took_s``, the
        total time of measuring.

    Raises
    ------
    ValueError
        If ``seconds`` is not a positive number.
    UnsupportedError
        If ``NUMBA_DISABLE_JIT`` is set.

    Examples
    --------
    >>> measured = measure_machine(0.01)
    >>> measured["by_threads"][0]["threads"], measured["by_level"][-1]["level"]
    (1, 'memory')
    """
    if not 0 < seconds < float("inf"):
        raise ValueError(f"measure_machine: seconds: expected a number above 0, got {seconds}; 3 are enough")
    if not compiles():
        raise UnsupportedError("measuring the machine needs compiled probes, but NUMBA_DISABLE_JIT is set; unset it")
    from conv_impls.choice import probes as choice
    from conv_impls.kernels.runtime.launch import usable

    start, most = time.perf_counter(), usable(cores())
    by_threads: list[dict[str, Any]] = [{"threads": threads} for threads in thread_counts(most)]
    by_level: list[dict[str, Any]] = [
        {"level": level, "threads": threads, "working_set_bytes": size}
        for threads in sorted({1, most})
        for level, size in working_sets(threads).items()
    ]
    data = choice.working_set(max(row["working_set_bytes"] for row in by_level))
    # Row and key of a result, and the probe that measures it, given a time in seconds.
    probes: list[tuple[dict[str, Any], str, Any]] = []
    for row in by_threads:
        for dtype in ("float32", "float64"):
            probes.append((row, f"fma_{dtype}_gflops", partial(choice.fma_flops_per_s, row["threads"], dtype)))
        probes.append((row, "launch_us", partial(choice.launch_s, row["threads"])))
    for row in by_level:
        part = data[: row["working_set_bytes"] // 8]
        probes.append((row, "read_gb_per_s", partial(choice.read_bytes_per_s, row["threads"], part)))
    for turn in range(MOST_ROUNDS):
        for row, key, probe in probes:
            found = probe(seconds / ROUNDS / len(probes))
            if key == "launch_us":
                row[key] = min(row.get(key, inf), _four_digits(1e6 * found))
            else:
                row[key] = max(row.get(key, 0.0), _four_digits(found / 1e9))
        if turn + 1 >= ROUNDS and not slower_together(by_threads, by_level):
            break
    raise_to_fewer(by_threads, by_level)
    return {
        "by_threads": by_threads, "by_level": by_level, **_timer(),
        "took_s": _four_digits(time.perf_counter() - start),
    }  # fmt: skip


def slower_together(by_threads: list[dict[str, Any]], by_level: list[dict[str, Any]]) -> bool:
    """Whether more threads seem slower than fewer: another program uses a core."""
    return any(row[key] < SLOWER * fewer for row, key, fewer in _with_fewer(by_threads, by_level))


def raise_to_fewer(by_threads: list[dict[str, Any]], by_level: list[dict[str, Any]]) -> None:
    """Raise each rate at least to that of fewer threads."""
    for row, key, fewer in _with_fewer(by_threads, by_level):
        row[key] = max(row[key], fewer)


def _with_fewer(
    by_threads: list[dict[str, Any]], by_level: list[dict[str, Any]]
) -> Iterator[tuple[dict[str, Any], str, float]]:
    """Yield each row, the key of a rate, and the highest such rate of the rows with fewer threads."""
    levels = {row["level"]: [each for each in by_level if each["level"] == row["level"]] for row in by_level}
    for rows, keys in [(by_threads, RATES), *((rows, ("read_gb_per_s",)) for rows in levels.values())]:
        for key in keys:
            for row in rows:
                fewer = [each[key] for each in rows if each["threads"] < row["threads"]]
                yield row, key, max(fewer, default=0.0)


def known_peaks() -> dict[str, dict[str, float]]:
    """The highest FMA peaks known for this machine without measuring: stored by the cost model of `auto`.

    Returns
    -------
    dict
        Thread count, as text, to dtype to GFLOP/s: ``{"1": {"float32": 120.0, "float64": 60.0}}``. Empty if nothing
        is stored for this CPU and these versions, or if the file cannot be read.
    """
    from conv_impls.choice import limits

    return {
        str(threads): {dtype: _four_digits(limits.best(moments)[dtype] / 1e9) for dtype in ("float32", "float64")}
        for threads, moments in limits.stored().items()
    }


def thread_counts(most: int) -> list[int]:
    """All counts up to 4, then the powers of two, and ``most``.

    Examples
    --------
    >>> thread_counts(12)
    [1, 2, 3, 4, 8, 12]
    """
    return sorted({*range(1, min(most, 4) + 1), *(2**k for k in range(most.bit_length())), most})


def working_sets(threads: int) -> dict[str, int]:
    """Working-set size in bytes for each cache level and for memory, for one thread or for all.

    For a cache, it is the mean of its size and the next smaller one's. This works for caches that also hold the
    content of the smaller ones (inclusive), and for caches that do not (exclusive).
    """
    caches = {(level, shared): size_bytes(size) for cpu in cpus() for level, size, shared in caches_of(cpu)}
    caches = caches or {("cache", ""): SOME_CACHE_BYTES}
    one, total = {level: size for (level, _), size in caches.items()}, Counter[str]()
    for (level, _), size in caches.items():
        total[level] += size
    sizes = one if threads == 1 else total
    sets, below = dict[str, int](), 0
    for level, size in sizes.items():
        sets[level], below = (below + size) // 2, size
    least, most = MEMORY_BYTES
    return sets | {"memory": min(max(4 * max(total.values()), least), most)}


def tables(measured: dict[str, Any]) -> dict[str, pd.DataFrame]:
    """The result of `measure_machine` as readable tables: title -> table, with units in the column names."""
    import pandas as pd

    threads, levels = pd.DataFrame(measured["by_threads"]), pd.DataFrame(measured["by_level"])
    each = threads.fma_float32_gflops / threads.threads
    peaks = {
        "threads": threads.threads,
        "float32 (GFLOP/s)": threads.fma_float32_gflops.map("{:.1f}".format),
        "float64 (GFLOP/s)": threads.fma_float64_gflops.map("{:.1f}".format),
        "per thread, of 1 thread (%)": (100 * each / each[0]).map("{:.0f}".format),
        "start (us)": threads.launch_us.map("{:.2f}".format),
    }
    reads = {
        "level": levels.level,
        "threads": levels.threads,
        "working set (KiB)": (levels.working_set_bytes // 1024).map("{:,}".format),
        "read (GB/s)": levels.read_gb_per_s.map("{:.1f}".format),
    }
    timer = {"resolution (ns)": [measured["timer_ns"]], "cost of a call (ns)": [measured["timer_call_ns"]]}
    titles = (
        "Fused multiply-adds, and starting a parallel kernel",
        "Read bandwidth, by the place of the data",
        "time.perf_counter",
    )
    return {title: pd.DataFrame(columns) for title, columns in zip(titles, (peaks, reads, timer), strict=True)}


def _timer() -> dict[str, float]:
    """Smallest step of the clock that times the samples, and the cost of a call of it."""
    steps: set[float] = set()
    call_s = float("inf")
    for _ in range(5):
        times = [time.perf_counter() for _ in range(5000)]
        steps.update(after - before for before, after in itertools.pairwise(times))
        call_s = min(call_s, (times[-1] - times[0]) / (len(times) - 1))
    return {"timer_ns": _four_digits(1e9 * min(steps - {0.0})), "timer_call_ns": _four_digits(1e9 * call_s)}


def _four_digits(value: float) -> float:
    return float(f"{value:.4g}")
