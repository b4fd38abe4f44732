"""The highest known peaks of a machine: measured for a run, stored for the machine, or measured during the run.

If the machine is busy at each measurement of a run, the measured peak is too low and must not count as the machine's
peak. Limits: a peak that was never measured on a quiet machine stays unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DTYPES = ("float32", "float64")


class Peaks:
    """The highest multiply-add peaks, by threads and dtype, of an environment and of later calls of `learn`."""

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
        """Add a measured peak; the highest one counts."""
        self._gflops[threads, dtype] = max(gflops, self._gflops.get((threads, dtype), 0.0))

    def peak_gflops(self, threads: int, dtype: str) -> float:
        """The highest peak for this many threads; 0 if unknown."""
        return self._gflops.get((threads, dtype), 0.0)

    def most(self, threads: int, dtype: str) -> tuple[float, float]:
        """Upper bounds of operations and bytes per second for this many threads; 0 if unknown.

        The bound is the best rate per thread times the threads. If one core is busy, the one-thread peak stays right.
        """
        each = [gflops / count for (count, kind), gflops in self._gflops.items() if kind == dtype]
        reads = [row["read_gb_per_s"] / row["threads"] for row in self._l1]
        return 1e9 * threads * max(each, default=0.0), 1e9 * threads * max(reads, default=0.0)
