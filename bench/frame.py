"""Records -> one tidy DataFrame: a row a case, units in the column names. Tables and figures start from it."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from bench.stats import weakness
from bench.store import Case, Record
from conv_impls import Conv2dProblem

BASELINE = "python_loops"
NUMBERS = [
    "median_s",
    "q1_s",
    "q3_s",
    "iqr_s",
    "gflops_effective",
    "error",
    "error_over_bound",
    "estimate_s",
    "first_call_s",
]
NOT_RUN = "the run did not come this far; finish it with --resume"
GROUP = ["workload", "layer", "threads", "direction"]


def frame(records: Iterable[Record], cases: Iterable[Case] = ()) -> pd.DataFrame:
    """One row a case and backend; repetitions are merged, their samples pooled and their worst status kept.

    Of the ``cases`` those without a record get one as well, with the status "interrupted".

    Columns beside those of `Record`: kernel, in_height, macs, samples, weak (why a number is weak) and speedup, the
    time of python_loops over this one, where both were measured.
    """
    finished = list(records)
    keys = {record.case.key for record in finished}
    missing = [Record(case, "interrupted", NOT_RUN) for case in cases if case.key not in keys]
    merged: dict[tuple[object, ...], list[Record]] = {}
    for record in finished + missing:
        case = record.case
        merged.setdefault((case.workload, case.layer, case.backend, case.threads, case.direction), []).append(record)
    table = pd.DataFrame([_row(group) for group in merged.values()])
    if table.empty:
        return table
    table[NUMBERS] = table[NUMBERS].astype(float)
    loops = table[(table.backend == BASELINE) & (table.status == "ok")].set_index(GROUP)["median_s"]
    table = table.join(loops.rename("loops_s"), on=GROUP)
    table["speedup"] = table.pop("loops_s") / table.median_s
    return table


def _row(group: list[Record]) -> dict[str, object]:
    # Only a case that is right in every repetition counts as right.
    worst = next((r for r in group if r.status != "ok"), group[0])
    case, problem = worst.case, Conv2dProblem.from_label(worst.case.label)
    row: dict[str, object] = {
        "workload": case.workload, "layer": case.layer, "label": case.label, "count": case.count,
        "backend": case.backend, "threads": case.threads, "direction": case.direction,
        "status": worst.status, "reason": worst.reason, "algorithm": worst.algorithm,
        "kernel": "x".join(map(str, problem.kernel_size)), "in_height": problem.in_size[0], "macs": problem.macs,
        "error": max((r.error for r in group if r.error is not None), default=None),
        "error_over_bound": worst.error_over_bound, "estimate_s": worst.estimate_s,
        "compile_s": max((r.compile_s or 0.0 for r in group), default=0.0), "prepare_s": worst.prepare_s,
        "first_call_s": worst.first_call_s,
        "packed_bytes": worst.packed_bytes, "workspace_bytes": worst.workspace_bytes,
        "median_s": None, "q1_s": None, "q3_s": None, "iqr_s": None, "samples": 0, "gflops_effective": None, "weak": "",
    }  # fmt: skip
    if worst.status == "ok":
        pooled = pd.Series([s for r in group for s in r.samples_s])
        q1, middle, q3 = (float(v) for v in pooled.quantile([0.25, 0.5, 0.75]))
        row |= {
            "median_s": middle, "q1_s": q1, "q3_s": q3, "iqr_s": q3 - q1, "samples": len(pooled),
            "gflops_effective": problem.flops / middle / 1e9, "weak": weakness(list(pooled)),
        }  # fmt: skip
    return row
