"""Records of one case as an older and a newer run have them."""

from __future__ import annotations

from typing import Any

from bench.analysis import stats
from bench.store.records import Case, Record, Status

LABEL = 'mb1ic3ih8oc4oh8kh3ph1n"layer"'
SIX = [1.0, 1.01, 0.99, 1.0, 1.02, 0.98]
FACTS: dict[str, Any] = {"id": "one", "cpu": "a", "packages": {"numba": "1", "numpy": "2"}, "date": "monday"}


def record(
    times: list[float] | None = None,
    status: Status = "ok",
    peak: float | None = 100.0,
    samples: bool = False,
    yardsticks: list[float] | None = None,
    disturbed: int = 0,
    **case: Any,
) -> Record:
    """A record of one turn for each time; without times, one that is not ok."""
    known: dict[str, Any] = {
        "workload": "w",
        "layer": "layer",
        "label": LABEL,
        "count": 1,
        "backend": "b",
        "threads": 1,
    }
    where = Case(**(known | case))
    if times is None:
        return Record(where, status, "for a reason")
    turns: dict[str, Any] = {"samples_s": times} if samples else {"samples_s": [min(times)], "turns_s": times}
    turns |= {"turn_yardsticks_s": yardsticks or [], "disturbed_s": [max(times)] * disturbed}
    return Record(where, "ok", median_s=stats.median(times), fma_peak_gflops=peak, **turns)


def scaled(factor: float, times: list[float] = SIX) -> list[float]:
    return [factor * t for t in times]
