"""The limits of this machine for the cost model: measured, stored, and checked for plausibility.

They are measured (`conv_impls.choice.probes`) when first needed and stored in ``limits.json`` of
`conv_impls.choice.userdir`, for one CPU, Numba version and package version. A measurement may run on a busy machine,
and a file may contain anything. Therefore
    a file holds the last `KEPT` measurements with their dates, and the best of them counts. The next process that needs
    a number measures again if the last one is older than `CHECKED_S`: after a minute, an hour, then once a day;
    numbers must fit each other (`believed`): a number outside its bounds is clamped to the bound. Ratios of rates
    differ little between machines, and only ratios decide between backends. So a file that is wrong by any factor
    changes the choice only a little (tests/test_claims_limits.py).
Source: the roofline model, Williams, Waterman & Patterson 2009, doi:10.1145/1498765.1498785.
Limits: a process keeps the numbers it started with. Ratios of a machine outside the bounds are clamped to the bounds.
"""

from __future__ import annotations

import os
import threading
import time
import warnings
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from math import inf, isfinite
from typing import Any

from conv_impls._version import __version__
from conv_impls.choice import probes, userdir

FILE = "limits.json"
# A modest desktop core, used if measuring fails.
FALLBACK = {
    "float32": 50e9, "float64": 25e9, "cache": 50e9, "l3": 20e9, "memory": 10e9, "call_s": 5e-6,
}  # fmt: skip
# Maximum number of stored measurements, and the age of the last one at which to measure again, by their number.
KEPT = 4
CHECKED_S = 0, 60, 3600, 24 * 3600
# Bounds of float32 operations a second of each thread, and of seconds of a start: no CPU with an FPU is outside.
CORE_FLOPS, START_S = (1e9, 1e12), (1e-8, 1e-4)
# n threads are at least as fast as n / SHARED single ones: hardware threads share a core, and many cores clock lower.
SHARED = 4
# float32 operations in the time of one float64 operation: two on all vector units, a little more or less if measured.
DOUBLES = 1.6, 2.5
# float32 operations in the time of reading one byte. From memory, one core reads a byte in 2 to 12 operations; cores
# that share a memory channel or two need more. MEMORY: maximum number of threads -> bounds. With wider bounds, a wrong
# number could select a backend that takes twice the time; these bounds cost a machine outside of them less.
CACHE, L3 = (0.25, 4), (0.25, 12)
MEMORY = {4: (4, 13), 8: (15, 20), inf: (40, 45)}

Numbers = dict[str, float]


@dataclass(frozen=True, slots=True)
class Limits:
    """Best rates of all threads together, and the seconds to start a kernel on them."""

    flops_per_s: float
    cache_bytes_per_s: float
    l3_bytes_per_s: float
    memory_bytes_per_s: float
    call_s: float


@cache
def limits(threads: int, dtype: str) -> Limits:
    """The limits of this machine, within plausible bounds.

    Parameters
    ----------
    threads : int, >= 1
    dtype : {"float32", "float64"}

    Returns
    -------
    Limits
    """
    from conv_impls.kernels.runtime.launch import usable

    threads = usable(threads)
    single = _measured(1)
    return of(believed(single, single if threads == 1 else _measured(threads), threads), dtype)


def of(numbers: Numbers, dtype: str) -> Limits:
    """The numbers of one dtype."""
    return Limits(numbers[dtype], numbers["cache"], numbers["l3"], numbers["memory"], numbers["call_s"])


def believed(single: Numbers, several: Numbers, threads: int) -> Numbers:
    """Clamp the numbers of several threads to plausible bounds, derived from the other numbers.

    Parameters
    ----------
    single, several : dict
        Keys as in `FALLBACK`; for one thread, pass the same dict twice.
    threads : int

    Returns
    -------
    dict
        Numbers for ``threads``. Rates of multiply-adds come first, since a busy machine disturbs them least.
    """
    # Each of several threads is no faster than one alone, and all of them no slower.
    alone = _within(max(single["float32"], several["float32"] / threads), CORE_FLOPS)
    flops = _within(several["float32"], (alone * max(1.0, threads / SHARED), alone * threads))
    memory = _within(several["memory"], _per(flops, next(MEMORY[most] for most in MEMORY if threads <= most)))
    # No cache is slower than what is behind it.
    l3 = max(memory, _within(several["l3"], _per(flops, L3)))
    cache = max(l3, _within(several["cache"], _per(flops, CACHE)))
    float64, call_s = _within(several["float64"], _per(flops, DOUBLES)), _within(several["call_s"], START_S)
    return {"float32": flops, "float64": float64, "cache": cache, "l3": l3, "memory": memory, "call_s": call_s}


def stored(quiet: bool = True) -> dict[int, list[dict[str, Any]]]:
    """The stored measurements by number of threads, the newest first; measures nothing.

    Parameters
    ----------
    quiet : bool
        No warning if the file is broken.

    Returns
    -------
    dict
        Measurements have the keys of `FALLBACK`, and a ``date``. Empty if the file is missing, broken or of other
        versions.
    """
    found = userdir.read(FILE, _stamp(), quiet)
    counts = sorted(int(key) for key in found if key.isdecimal() and len(key) < 6)
    return {threads: moments for threads in counts if (moments := _moments(found.get(str(threads))))}


def renew(threads: int) -> None:
    """Measure now, and delete earlier measurements for this number of threads."""
    with _turn, userdir.locked(FILE):
        _measure_into([], threads)
        _known.pop(threads, None)
    limits.cache_clear()


# Best numbers by number of threads, as first read or measured by this process.
_known: dict[int, Numbers] = {}
_turn = threading.RLock()


def _measured(threads: int) -> Numbers:
    """The best stored measurement, after measuring again if due; only one thread of one process measures."""
    with _turn:
        if threads not in _known:
            _known[threads] = _best_of(threads)
        return _known[threads]


def _best_of(threads: int) -> Numbers:
    facts = userdir.read(FILE, _stamp())
    moments = _moments(facts.get(str(threads), []))
    if str(threads) in facts and not moments:
        userdir.reject(FILE, f"contains no positive numbers for {threads} threads")
    if _due(moments):
        with userdir.locked(FILE):
            # Another process may have measured while this one waited for the lock.
            moments = stored().get(threads, [])
            if _due(moments):
                moments = _measure_into(moments, threads)
    return best(moments) if moments else FALLBACK


def _measure_into(moments: list[dict[str, Any]], threads: int) -> list[dict[str, Any]]:
    """Measure now, store the result before the earlier ``moments``, return all; a repeated measurement is short."""
    try:
        numbers = probes.measure(threads, 1 if moments else probes.ROUNDS)
    except Exception as error:
        text = f"measuring the limits of this machine failed ({type(error).__name__}: {error}); estimates are used"
        warnings.warn(text, RuntimeWarning, stacklevel=2)
        return moments
    moments = [{"date": datetime.now(UTC).isoformat(timespec="seconds"), **numbers}, *moments][:KEPT]
    userdir.add(FILE, _stamp(), {str(threads): moments})
    return moments


def best(moments: list[dict[str, Any]]) -> Numbers:
    """The best of several measurements: any disturbance makes a measurement slower."""
    return probes.best([{name: moment[name] for name in FALLBACK} for moment in moments])


def _moments(found: Any) -> list[dict[str, Any]]:
    """The valid measurements of a list, in the order of the file: the newest first."""
    return [one for one in found if _whole(one)][:KEPT] if isinstance(found, list) else []


def _whole(moment: Any) -> bool:
    try:
        numbers = [moment[name] for name in FALLBACK]
        datetime.fromisoformat(moment["date"]).timestamp()
        return all(type(n) in (int, float) and n > 0 and isfinite(n) for n in numbers)
    except (TypeError, KeyError, ValueError, OverflowError):
        return False


def due_at(moments: list[dict[str, Any]]) -> float:
    """Time of the next measurement, in seconds since 1970."""
    if not moments:
        return 0.0
    date = datetime.fromisoformat(moments[0]["date"]).timestamp()
    # A date in the future is invalid: measure now.
    return date + CHECKED_S[min(len(moments), len(CHECKED_S) - 1)] if date <= time.time() else 0.0


def _due(moments: list[dict[str, Any]]) -> bool:
    return due_at(moments) <= time.time()


def _stamp() -> str:
    """The versions that the numbers depend on."""
    import numba

    return f"conv_impls {__version__} numba {numba.__version__}"


def _within(number: float, bounds: tuple[float, float]) -> float:
    return min(max(number, bounds[0]), bounds[1])


def _per(flops: float, bounds: tuple[float, float]) -> tuple[float, float]:
    """Rates at which so many operations fall on each byte or number, the most operations first."""
    return flops / bounds[1], flops / bounds[0]


def _forked() -> None:
    """New lock in the child: at the fork, a thread that the child does not have may hold the old one."""
    global _turn
    _turn = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
