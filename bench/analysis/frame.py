"""Records -> one tidy DataFrame: one row per case, units in the column names. Input of tables and figures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from ..machine.peaks import Peaks
from ..store.folder import StoredRun
from ..store.records import Case, Record, sample_count
from .stats import HALF, doubt
from .twins import disagreements

BASELINE = "python_loops"
NUMBERS = [
    "median_s", "q1_s", "q3_s", "iqr_s", "gflops_effective", "error", "error_over_bound", "estimate_s",
    "first_call_s", "prepare_s", "executed_flops", "executed_gflops", "fma_peak_gflops", "utilisation", "packed_bytes",
    "workspace_bytes", "peak_bytes", "stalled_share",
]  # fmt: skip
NOT_RUN = "the run did not come this far; finish it with --resume"
GROUP = ["workload", "layer", "label", "threads", "direction", "cache"]


def frame_of(run: StoredRun) -> pd.DataFrame:
    """The frame of all cases of a stored run."""
    return frame(run.records(), run.cases, run.repeat, run.environment)


def frame(
    records: Iterable[Record],
    cases: Iterable[Case] = (),
    repeat: Callable[[Case], str] = lambda case: case.repro,
    environment: Mapping[str, Any] = MappingProxyType({}),
) -> pd.DataFrame:
    """One row per case and backend; repetitions are merged, their turns pooled and their worst status kept.

    Parameters
    ----------
    records : iterable of Record
    cases : iterable of Case
        All cases of the run, in the order of the rows. Cases without a record get a row with the status "interrupted",
        after the others.
    repeat : callable
        Returns the command that repeats a case.
    environment : mapping
        Its peaks (``machine``, ``known_peaks``) show whether the machine was slow during the whole run.

    Returns
    -------
    DataFrame
        The fields of `Record` (``version`` is empty for this version), and: network (the workload, how many
        convolutions of the model it covers if some are left out, and what was varied), problem (the label without the
        layer's name), kernel, in_height, batch,
        dtype, macs, flops, min_bytes, executed_gflops, utilisation (share of the peak of the same rounds), samples and
        disturbed (numbers of samples and of disturbed turns), turns (time of each, by repetition and round), repeat,
        weak (why the time may be wrong by more than 10%, empty if it is fine), speedup (the time of python_loops over
        this time, if both were measured) and speedup_weak (whether either of the two is weak).
    """
    asked = {case.key: case for case in cases}
    # Equal layers of several networks are recorded together.
    places = {key: place for place, key in enumerate(asked)}
    finished = sorted(records, key=lambda record: places.get(record.case.key, len(places)))
    keys = {record.case.key for record in finished}
    missing = [Record(case, "interrupted", NOT_RUN) for key, case in asked.items() if key not in keys]
    merged: dict[tuple[object, ...], list[Record]] = {}
    for record in finished + missing:
        case = record.case
        where = case.workload, case.layer, case.label, case.direction, case.cache, case.backend, case.threads
        merged.setdefault(where, []).append(record)
    best = Peaks(environment)
    for record in finished:
        for peak in [*record.turn_peaks_gflops, record.fma_peak_gflops or 0.0]:
            best.learn(record.case.threads, record.case.problem.dtype, peak)
    table = pd.DataFrame([_row(group, best) | {"repeat": repeat(group[0].case)} for group in merged.values()])
    if table.empty:
        return table
    table[NUMBERS] = table[NUMBERS].astype(float)
    table.insert(0, "network", _networks(table))
    for index, reason, share in disagreements(table):
        table.loc[index, "weak"] = ", ".join(filter(None, [table.weak[index], reason]))
        table.loc[index, "bias"] = max(table.bias[index], share)
    loops = table[(table.backend == BASELINE) & (table.status == "ok")].set_index(GROUP)[["median_s", "weak"]]
    table = table.join(loops.rename(columns={"median_s": "loops_s", "weak": "loops_weak"}), on=GROUP)
    table["speedup"] = table.pop("loops_s") / table.median_s
    weak = (table.weak != "") | (table.pop("loops_weak").fillna("") != "")
    table["speedup_weak"] = weak & table.speedup.notna()
    return table


def _networks(table: pd.DataFrame) -> pd.Series:
    """Names of the groups that sums over layers use: workload, covered part of the model, and what the run varied."""
    names = table.workload.astype(object)
    # Cases that were not run have no coverage text.
    share = table.groupby("workload").coverage.transform("max").str.partition(";")[0]
    names = names.where(share == "", names + " (" + share + ")")
    for axis, prefix in (("batch", "mb"), ("dtype", ""), ("direction", ""), ("cache", "")):
        varied = (
            table.groupby(["workload", "layer"])[axis].transform("nunique").groupby(table.workload).transform("max")
        )
        names = names.where(varied <= 1, names + " " + prefix + table[axis].astype(str))
    return names


def _row(group: list[Record], best: Peaks) -> dict[str, object]:
    # Only a case that is right in every repetition counts as right.
    worst = next((r for r in group if r.status != "ok"), group[0])
    case, problem = worst.case, worst.case.problem
    # A case that was not run has no version.
    version = next((r.version for r in group if r.version), "")
    row: dict[str, object] = {
        "workload": case.workload, "layer": case.layer, "label": case.label, "count": case.count,
        "backend": case.backend, "version": version, "threads": case.threads, "direction": case.direction,
        "cache": case.cache, "mode": worst.mode, "threads_seen": worst.threads_seen,
        "status": worst.status, "reason": worst.reason, "algorithm": worst.algorithm,
        "problem": case.unnamed_label, "kernel": "x".join(map(str, problem.kernel_size)),
        "in_height": problem.in_size[0], "batch": problem.batch, "dtype": problem.dtype, "macs": problem.macs,
        "flops": problem.flops, "min_bytes": problem.min_bytes,
        "error": max((r.error for r in group if r.error is not None), default=None),
        "error_over_bound": worst.error_over_bound, "estimate_s": worst.estimate_s,
        "compile_s": max((r.compile_s or 0.0 for r in group), default=0.0), "prepare_s": worst.prepare_s,
        "first_call_s": worst.first_call_s, "executed_flops": worst.executed_flops, "fma_peak_gflops": None,
        "packed_bytes": worst.packed_bytes, "workspace_bytes": worst.workspace_bytes, "peak_bytes": worst.peak_bytes,
        "median_s": None, "q1_s": None, "q3_s": None, "iqr_s": None, "samples": 0, "turns": {},
        "disturbed": sum(len(r.disturbed_s) for r in group), "stalled_share": None, "coverage": worst.coverage,
        "gflops_effective": None, "executed_gflops": None, "utilisation": None, "weak": "",
        "noise": 0.0, "bias": 0.0,
    }  # fmt: skip
    if worst.status == "ok":
        # Of turns, not of samples: a turn that was disturbed has fewer of those.
        turns = [t for r in group for t in r.turns_s or r.samples_s]
        q1, middle, q3 = (float(v) for v in np.percentile(turns, [25, 50, 75]))
        # Version 0.3.0 kept one peak a case.
        peaks = [p for r in group for p in r.turn_peaks_gflops or [r.fma_peak_gflops or 0.0] if p]
        disturbed = sum(len(r.disturbed_s) for r in group)
        found = doubt(turns, peaks, best.peak_gflops(case.threads, problem.dtype), disturbed)
        row |= {
            "median_s": middle, "q1_s": q1, "q3_s": q3, "iqr_s": q3 - q1,
            "samples": sum(sample_count(r) for r in group),
            "turns": _turns(group), "stalled_share": _stalled_share(group),
            "gflops_effective": problem.flops / middle / 1e9,
            "weak": found.weak, "noise": found.noise, "bias": found.bias,
        }  # fmt: skip
        # A library used more threads than the case has.
        counts = [int(word) for word in worst.threads_seen.replace(",", "").split() if word.isdecimal()]
        if max(counts, default=0) > case.threads:
            row["weak"] = ", ".join(filter(None, [f"threads: {worst.threads_seen}", str(row["weak"])]))
            row["bias"] = max(found.bias, HALF)
        # If another process occupies the cores, the peak of these rounds is not a valid reference for a layer.
        peak = float(np.median(peaks)) if peaks else 0.0
        peak = peak if peak >= HALF * best.peak_gflops(case.threads, problem.dtype) else 0.0
        if peak:
            row["fma_peak_gflops"] = peak
        if worst.executed_flops:
            rate = row["executed_gflops"] = worst.executed_flops / middle / 1e9
            row["utilisation"] = rate / peak if peak else None
    return row


def _turns(group: list[Record]) -> dict[tuple[int, int], float]:
    """Time of each turn by (repetition, round): turns of the same round ran one after the other."""
    rounds = [record.turn_rounds or range(len(record.turns_s)) for record in group]
    return {
        (record.case.repetition, number): time_s
        for record, numbers in zip(group, rounds, strict=True)
        for number, time_s in zip(numbers, record.turns_s, strict=True)
    }


def _stalled_share(group: list[Record]) -> float | None:
    """Share of stalled samples over all repetitions for which it is known."""
    known = [(r.stalled_share, sample_count(r)) for r in group if r.stalled_share is not None]
    samples = sum(count for _, count in known)
    return sum(share * count for share, count in known) / samples if samples else None
