"""Readable report of the data stored for this machine: limits and winners of tuning, with their files.

Limits: shows only the data for this CPU and these versions; nothing is measured.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from conv_impls.choice import limits, tuning, userdir
from conv_impls.kernels.runtime import target

# Each number: its displayed name, factor and unit.
SHOWN = {
    "float32": ("float32 multiply-adds", 1e-9, "GFLOP/s"),
    "float64": ("float64 multiply-adds", 1e-9, "GFLOP/s"),
    "cache": ("reading, private cache", 1e-9, "GB/s"),
    "l3": ("reading, shared cache", 1e-9, "GB/s"),
    "memory": ("reading, memory", 1e-9, "GB/s"),
    "call_s": ("starting the threads", 1e6, "us"),
}


def lines() -> Iterator[str]:
    """Lines of the report: the CPU, its limits by number of threads, the winners of tuning."""
    about = ", ".join(f"{name} {value}" for name, value in target.identity().items())
    yield f"CPU      {about or 'unknown'}"
    yield f"limits   {userdir.folder() / limits.FILE}"
    found = limits.stored(quiet=False)
    for threads, moments in found.items():
        yield from _of(threads, moments, found.get(1, moments))
    if not found:
        yield "  none measured yet"
    yield f"winners  {userdir.folder() / tuning.FILE}"
    winners = tuning.winners()
    for (problem, precision, threads), name in sorted(
        winners.items(), key=lambda item: (item[0][0].label, item[0][1:])
    ):
        yield f"  {problem.label}  {precision}, {_threads(threads)}: {name}"
    if not winners:
        yield "  none measured yet"


def _of(threads: int, moments: list[dict[str, Any]], single: list[dict[str, Any]]) -> Iterator[str]:
    best = limits.best(moments)
    believed = limits.believed(limits.best(single), best, threads)
    dates = [_date(datetime.fromisoformat(moment["date"])) for moment in moments]
    several = f", best of {len(dates)} measurements since {dates[-1]}" if len(dates) > 1 else ""
    due = _date(datetime.fromtimestamp(limits.due_at(moments), UTC))
    yield f"  {_threads(threads)}: measured {dates[0]}{several}; next measurement after {due}"
    for name, (words, factor, unit) in SHOWN.items():
        fits = best[name] == believed[name]
        note = "" if fits else f"  implausible, given the others; {believed[name] * factor:.4g} is used"
        yield f"    {words:24}{best[name] * factor:10.4g} {unit:8}{note}".rstrip()


def _threads(count: int) -> str:
    return f"{count} thread{'s' if count > 1 else ''}"


def _date(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
