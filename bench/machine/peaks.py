"""The most that a machine is known to do: measured for a run, stored for the machine, or seen while the run went on.

A run that finds the machine busy whenever it measures must not take that for the machine's peak. Limits: a peak that
nobody ever measured on a quiet machine stays unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DTYPES = ("float32", "float64")


class Peaks:
    """The highest multiply-add peaks, by threads and dtype, of an environment and of what is learnt later."""

    def __init__(self, environment: Mapping[str, Any]) -> None:
        self._gflops: dict[tuple[int, str], float] = {}
        machine = environment.get("machine") or {}
        for row in machine.get("by_threads", []):
            for dtype in DTYPES:
                self.learn(row["threads"], dtype, row[f"fma_{dtype}_gflops"])
        for threads, peaks in (environment.get("known_peaks") or {}).items():
            for dtype, gflops in peaks.items():
                self.learn(int(threads), dtype, gflops)
        self._l1 = [row for row in machine.get("by_level", []) if row["level"] in ("L1", "cache")]

    def learn(self, threads: int, dtype: str, gflops: float) -> None:
        """Another peak of the machine."""
        self._gflops[threads, dtype] = max(gflops, self._gflops.get((threads, dtype), 0.0))

    def peak_gflops(self, threads: int, dtype: str) -> float:
        """The highest peak on this many threads; 0 where none is known."""
        return self._gflops.get((threads, dtype), 0.0)

    def most(self, threads: int, dtype: str) -> tuple[float, float]:
        """Operations and bytes a second that so many threads cannot exceed; 0 where nothing is known.

        Threads do no more together than each alone: with one core busy, the peak of one thread is still right.
        """
        each = [gflops / count for (count, kind), gflops in self._gflops.items() if kind == dtype]
        reads = [row["read_gb_per_s"] / row["threads"] for row in self._l1]
        return 1e9 * threads * max(each, default=0.0), 1e9 * threads * max(reads, default=0.0)
