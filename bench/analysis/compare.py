"""Two runs -> what changed beyond noise, case by case and network by network.

A case is identified by label without its name, direction, cache, backend and threads. A renamed layer is still the same
case, and layers of one shape are one case. Times are the medians of turns, or samples if there are no turns.

    slower, faster, machine, uncertain, too few repetitions
                          ok in both runs: see `bench.analysis.changes`
    broke, mended         ok only in the older run, or only in the newer run; the reason is the status that is not ok
    gone, new             requested in the newer run but without a result, or no result in the older run
    not asked for         a result in the older run, and the newer run does not include the case
    not ok                ok in neither run

The level of an interval is 1 - 0.05/n for n judged cases (or n networks): Bonferroni. A slower network is a regression.
So is a case whose whole interval is beyond `ALONE` margins.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pandas as pd

from ..machine.environment import VOLATILE
from ..store.folder import StoredRun
from ..store.records import Record
from . import stats
from .changes import Measured, changed
from .frame import NOT_RUN
from .numbers import cell, interval

# A single case is a regression by itself beyond this number of margins.
ALONE = 3.0
BROKEN = ("broke", "gone")
CHANGES = ("slower", *BROKEN, "faster", "mended", "machine")
# Options to report if they differ.
SETTINGS = ("isa", "seconds")
# Digests in an environment of the data that `auto` selects by.
REMEMBERED = ("tuning", "limits")
Key = tuple[str, str, str, str, int]


def results(run: StoredRun) -> list[Record]:
    """Every record of a run, and one with the status "interrupted" for each case that was not run."""
    records = run.records()
    finished = {record.case.key for record in records}
    return records + [Record(case, "interrupted", NOT_RUN) for case in run.cases if case.key not in finished]


def compare_runs(older: Iterable[Record], newer: Iterable[Record], margin: float | None = None) -> pd.DataFrame:
    """One row per case of either run, with times in seconds.

    Parameters
    ----------
    older, newer : iterable of Record
        As returned by `results`.
    margin : float, >= 0, optional
        Smallest relevant change of the median, as a fraction; see `bench.analysis.changes`.

    Returns
    -------
    DataFrame
        Columns layer, label, direction, cache, backend, threads, old_s, new_s, ratio (new/old, corrected for the
        machine), low and high (its interval, 95% for all rows together), yardstick and peak (new/old), margin, verdict
        and reason. Regressions come first, the largest at the top.
    """
    newer = list(newer)
    before, after = _by_case(older), _by_case(newer)
    asked = {_key(record) for record in newer}
    judged = sum(key in before and before[key].status == after[key].status == "ok" for key in after)
    level = _level(judged)
    rows = [_row(key, before.get(key), after.get(key), key in asked, margin, level) for key in before | after]
    return _sorted(rows, ["layer", "label", "direction", "cache", "backend", "threads"])


def regressed(cases: pd.DataFrame, networks: pd.DataFrame) -> bool:
    """Whether something broke, is gone, or is slower beyond noise: see above for a network and for a single case."""
    alone = (cases.verdict == "slower") & (cases.low > 1 + ALONE * cases.margin)
    return bool(cases.verdict.isin(BROKEN).any() or alone.any() or (networks.verdict == "slower").any())


def compare_networks(older: Iterable[Record], newer: Iterable[Record], margin: float | None = None) -> pd.DataFrame:
    """One row per workload and backend whose layers and counts are the same in both runs, all ok in both.

    Columns as in `compare_runs`, with network and layers (their number); times are count-weighted sums.
    """
    older, newer = list(older), list(newer)
    before, after = _by_case(older), _by_case(newer)
    then, now = _networks(older), _networks(newer)
    common = {
        where: weights for where, weights in then.items()
        if now.get(where) == weights and all(_times(before, key) and _times(after, key) for key in weights)
    }  # fmt: skip
    rows = []
    for where, weights in common.items():
        network, direction, cache, backend, threads = where
        layers = [(count, before[key], after[key]) for key, count in weights.items()]
        rows.append({
            "network": network, "layers": len(weights), "direction": direction, "cache": cache, "backend": backend,
            "threads": threads, "reason": "", **changed(layers, margin, _level(len(common))),
        })  # fmt: skip
    return _sorted(rows, ["network", "layers", "direction", "cache", "backend", "threads"])


def differences(older: dict[str, Any], newer: dict[str, Any]) -> list[str]:
    """Facts that differ between two environments, so that times may not be comparable; each with old and new value."""
    then, now = dict(_flat(older)), dict(_flat(newer))
    return [f"{k}: {then.get(k)} -> {now.get(k)}" for k in then | now if then.get(k) != now.get(k)]


def remembered(older: dict[str, Any], newer: dict[str, Any]) -> list[str]:
    """Data that `auto` selects by, if both environments have it and it differs: winners, limits of the machine."""
    both = [k for k in REMEMBERED if k in older and k in newer]
    return [f"{k}: {older[k]} -> {newer[k]}" for k in both if older[k] != newer[k]]


def settings(older: dict[str, Any], newer: dict[str, Any]) -> list[str]:
    """Options that differ between two runs, from their configurations; an imported run has none."""
    then, now = older.get("options"), newer.get("options")
    if not (then and now):
        return []
    return [f"--{k}: {then.get(k)!r} -> {now.get(k)!r}" for k in SETTINGS if then.get(k) != now.get(k)]


def shown(changes: pd.DataFrame) -> str:
    """The same rows as a readable table: few columns, times in milliseconds, one line per row at any terminal width."""
    if changes.empty:
        return "none"
    what = changes["network"] if "network" in changes else changes["layer"]
    for column, usual in (("direction", "fwd"), ("cache", "warm")):
        what = what + changes[column].map(lambda word, usual=usual: "" if word == usual else f" {word}")
    ratios = [
        "" if pd.isna(value) else interval(value, low, high)
        for value, low, high in zip(changes.ratio, changes.low, changes.high, strict=True)
    ]
    words = [f"{word}: {why}" if why else word for word, why in zip(changes.verdict, changes.reason, strict=True)]
    table = pd.DataFrame({
        "verdict": words, "network" if "network" in changes else "layer": what,
        "backend": changes.backend + " t" + changes.threads.astype(str), "old (ms)": (changes.old_s * 1e3).map(cell),
        "new (ms)": (changes.new_s * 1e3).map(cell), "new/old": ratios, "yardstick": changes.yardstick.map(cell),
        "peak": changes.peak.map(cell),
    })  # fmt: skip
    return str(table.to_markdown(index=False, disable_numparse=True))


def _row(
    key: Key, old: Measured | None, new: Measured | None, asked: bool, margin: float | None, level: float
) -> dict[str, object]:
    label, direction, cache, backend, threads = key
    known = new or old
    assert known is not None
    row: dict[str, object] = {
        "layer": ", ".join(known.layers), "label": label, "direction": direction, "cache": cache, "backend": backend,
        "threads": threads, "reason": "",
    }  # fmt: skip
    was, now = (old and old.status) or "", (new and new.status) or ""
    if old and new and was == now == "ok":
        return row | changed([(1, old, new)], margin, level)
    if was == "ok":
        row |= {"verdict": "broke" if now else "gone" if asked else "not asked for", "reason": now}
    elif now == "ok":
        row |= {"verdict": "mended" if was else "new", "reason": was}
    else:
        row |= {"verdict": "not ok", "reason": now or was}
    medians = {"old_s": was == "ok" and old, "new_s": now == "ok" and new}
    return row | {name: stats.median(side.times_s) for name, side in medians.items() if side}


def _level(judged: int) -> float:
    """Of each interval, so that all of so many hold with 95% (Bonferroni)."""
    return 1 - 0.05 / max(judged, 1)


def _sorted(rows: list[dict[str, object]], names: list[str]) -> pd.DataFrame:
    numbers = ["old_s", "new_s", "ratio", "low", "high", "yardstick", "peak", "margin"]
    table = pd.DataFrame(rows, columns=[*names, *numbers, "verdict", "reason"])
    table[numbers] = table[numbers].astype(float)
    order = table.verdict.map({word: place for place, word in enumerate(CHANGES)}).fillna(len(CHANGES))
    table = table.assign(order=order).sort_values(["order", "ratio", *names[-2:]], ascending=[True, False, True, True])
    return table.drop(columns="order").reset_index(drop=True)


def _by_case(records: Iterable[Record]) -> dict[Key, Measured]:
    """All measurements of each case; a case is not ok if any of its repetitions is not ok."""
    found: dict[Key, Measured] = {}
    for record in records:
        if record.status == "interrupted":
            continue
        case, mine = record.case, found.setdefault(_key(record), Measured())
        mine.layers[f"{case.workload}/{case.layer}"] = None
        # Several layers of one shape are one case: round numbers continue from layer to layer.
        first = len(mine.turns)
        times_s = record.turns_s or record.samples_s
        for number, time_s in enumerate(times_s, first):
            mine.turns[case.repetition, number] = time_s
        for number, time_s in enumerate(record.turn_yardsticks_s if record.turns_s else [], first):
            mine.yardsticks[case.repetition, number] = time_s
        mine.disturbed += len(record.disturbed_s)
        if record.fma_peak_gflops:
            mine.peaks_gflops.append(record.fma_peak_gflops)
        if mine.status == "ok":
            mine.status = record.status
    return found


def _networks(records: list[Record]) -> dict[tuple[str, str, str, str, int], dict[Key, int]]:
    """For each workload and backend: its cases, and the count of each case in the network."""
    layers: dict[tuple[str, str, str, str, int], dict[tuple[str, str], tuple[Key, int]]] = {}
    for record in records:
        case = record.case
        where: Key = case.workload, case.direction, case.cache, case.backend, case.threads
        layers.setdefault(where, {})[case.layer, case.label] = _key(record), case.count
    weights: dict[tuple[str, str, str, str, int], dict[Key, int]] = {}
    for where, members in layers.items():
        mine = weights.setdefault(where, {})
        for key, count in members.values():
            mine[key] = mine.get(key, 0) + count
    return weights


def _times(found: dict[Key, Measured], key: Key) -> list[float]:
    """Times of a case that is ok in all repetitions, else an empty list."""
    return found[key].times_s if key in found and found[key].status == "ok" else []


def _key(record: Record) -> Key:
    case = record.case
    return case.unnamed_label, case.direction, case.cache, case.backend, case.threads


def _flat(facts: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in facts.items():
        # The machine is measured again in each run; the id follows from the other facts.
        if prefix or key not in (*VOLATILE, "machine"):
            yield from _flat(value, f"{prefix}{key} ") if isinstance(value, dict) else [(prefix + key, value)]
