"""Two runs -> what changed beyond noise, matched by layer, label, backend and threads."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from bench.stats import median, verdict
from bench.store import Record

KEY = ("workload", "layer", "label", "backend", "threads", "direction")


def compare_runs(older: Iterable[Record], newer: Iterable[Record], margin: float) -> pd.DataFrame:
    """A row a case of the older run: medians in seconds, ratio new/old, verdict.

    Verdicts are those of `bench.stats.verdict`, "broke" or "mended" where one of the two was not ok, and "gone".
    """
    before, after = _by_case(older), _by_case(newer)
    rows = []
    for key in before:
        if key not in after:
            rows.append(dict(zip(KEY, key, strict=True)) | {"verdict": "gone"})
            continue
        a, b = before[key], after[key]
        row: dict[str, object] = dict(zip(KEY, key, strict=True))
        if a and b:
            row |= {
                "old_s": median(a),
                "new_s": median(b),
                "ratio": median(b) / median(a),
                "verdict": verdict(a, b, margin),
            }
        else:
            row |= {
                "old_s": None,
                "new_s": None,
                "ratio": None,
                "verdict": "broke" if a else "mended" if b else "not_ok",
            }
        rows.append(row)
    columns = [*KEY, "old_s", "new_s", "ratio", "verdict"]
    table = pd.DataFrame(rows, columns=columns)
    return table.sort_values(["workload", "layer", "backend", "threads"]).reset_index(drop=True)


def _by_case(records: Iterable[Record]) -> dict[tuple[object, ...], list[float]]:
    """Pooled samples of each case; none where any repetition was not ok."""
    samples: dict[tuple[object, ...], list[float]] = {}
    broken = set()
    for record in records:
        case = record.case
        key = (case.workload, case.layer, case.label, case.backend, case.threads, case.direction)
        samples.setdefault(key, []).extend(record.samples_s)
        if record.status != "ok":
            broken.add(key)
    return {key: [] if key in broken else values for key, values in samples.items()}
