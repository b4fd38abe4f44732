"""Drive a run: every backend in a process of its own, taking turns at each layer in seeded random order.

    for each thread count, for each repetition, for each layer
        prepare it in every process, checks included; then in each round, in shuffled order: one turn each

A round gives each pair of backends one ratio under like conditions; `stats.ratio` makes intervals of them. The
peak of the machine takes part as one more contender, so that every record knows what the machine could do at the time.
A process that dies or hangs costs its case, which gets a status, and is started again for the next layer, though not
for ever. The budget
counts from the start of the run, or from where it is resumed; cases beyond it are left for --resume.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from msgspec.structs import asdict

from conv_impls import Conv2dProblem
from conv_impls.workloads import Layer

from ..analysis import stats
from ..store.folder import Journal, Run, checked
from ..store.records import Cache, Case, Direction, Record, StoreError
from .process import Worker
from .subject import SLOW_S
from .worker import PEAK

# Turns of each backend in one repetition, and the share of its time each takes; slow ones have fewer.
TURNS = 6
PEAK_S = 0.006
# So many at least, but for slow calls: with two repetitions they make the six pairs that a verdict needs.
FEWEST_TURNS = 3
# A backend that hung in so many cases on one number of threads is not tried again.
GIVEN_UP = 2
# (finished cases, all cases, what is under way, seconds left or None)
Progress = Callable[[int, int, str, "float | None"], None]


def make_cases(
    layers: list[Layer], backends: list[str], threads: list[int], repetitions: int, directions: list[Direction],
    caches: list[Cache],
) -> list[Case]:  # fmt: skip
    """All cases, in the order they are measured."""
    return [
        Case(layer.workload, layer.name, layer.problem.label, layer.count, backend, count, direction, repetition, cache)
        for count in threads
        for repetition in range(1, repetitions + 1)
        for direction in directions
        for cache in caches
        for layer in layers
        for backend in backends
    ]


def drive(run: Run, progress: Progress = lambda done, total, at, left: None) -> None:
    """Measure every unfinished case of the run."""
    config, cases = run.config, run.cases
    finished = run.done()
    groups: dict[tuple[Any, ...], list[Case]] = {}
    for case in cases:
        where = case.threads, case.repetition, case.direction, case.cache, case.workload, case.layer, case.label
        groups.setdefault(where, []).append(case)
    # Turns are compared in pairs, so a layer that was left half-way is taken whole again.
    todo = [group for group in groups.values() if any(case.key not in finished for case in group)]
    total = len(cases)
    done = before = total - sum(map(len, todo))
    began, end = time.monotonic(), time.monotonic() + config["budget_s"]
    threads, hung = 0, Counter[str]()
    with run.writing() as journal, _fleet() as fleet, _kernel_cache(config) as variables:
        for group in todo:
            if time.monotonic() > end:
                break
            if group[0].threads != threads:
                threads = group[0].threads
                _close(fleet)
            rate = (time.monotonic() - began) / (done - before) if done > before else None
            left = None if rate is None else rate * (total - done)

            def say(at: str, done: int = done, left: float | None = left) -> None:
                progress(done, total, at, left)

            if not _measure(group, fleet, journal, run, variables, end, hung, say):
                break
            done += len(group)
            progress(done, total, "", None)
    if done == total:
        run.finish({"seconds": round(time.monotonic() - began, 1)})


def check_cases(
    cases: list[Case], call_s: float, variables: dict[str, str], seed: int
) -> Iterator[tuple[Case, str, str]]:
    """The checks of a run without its timing: each case with its status and reason."""
    with _fleet() as fleet:
        for case in cases:
            # One process at a time: the backends take no turns here.
            worker = fleet.get(case.backend)
            if worker is not None and worker.threads != case.threads:
                worker.close()
                worker = None
            if worker is None:
                worker = fleet[case.backend] = Worker(case.backend, case.threads, call_s, variables)
            limits = {"call_s": call_s, "rotate_bytes": 0}
            answer = worker.ask("prepare", case=asdict(case), seed=seed, limits=limits)
            yield case, answer["status"], answer["reason"]


@contextmanager
def _fleet() -> Iterator[dict[str, Worker]]:
    fleet: dict[str, Worker] = {}
    try:
        yield fleet
    finally:
        _close(fleet)


@contextmanager
def _kernel_cache(config: dict[str, Any]) -> Iterator[dict[str, str]]:
    """The variables of the run, and of an empty folder for compiled kernels where they are to be compiled anew."""
    if not config["fresh_cache"]:
        yield config["variables"]
        return
    with tempfile.TemporaryDirectory() as folder:
        yield config["variables"] | {"NUMBA_CACHE_DIR": folder}


def _close(fleet: dict[str, Worker]) -> None:
    for worker in fleet.values():
        worker.close()
    fleet.clear()


def _measure(
    group: list[Case], fleet: dict[str, Worker], journal: Journal, run: Run, variables: dict[str, str], end: float,
    hung: Counter[str], say: Callable[[str], None],
) -> bool:  # fmt: skip
    """All backends on one layer: prepare each, then rounds of turns, then a record each; False where time is up."""
    config, threads = run.config, group[0].threads
    for name in [PEAK, *(case.backend for case in group)]:
        if name not in fleet:
            fleet[name] = Worker(name, threads, config["timeout_s"], variables)
    limits = {"call_s": config["timeout_s"], "rotate_bytes": config["rotate_bytes"]}
    found: dict[str, dict[str, Any]] = {}
    turns: dict[str, int] = {}
    for case in group:
        if time.monotonic() > end:
            return False
        name = case.backend
        say(f"{case.layer}  {name}")
        if hung[name] >= GIVEN_UP:
            found[name] = {"status": "timeout", "reason": f"not tried: it hung in {GIVEN_UP} cases before"}
            continue
        answer = fleet[name].ask("prepare", case=asdict(case), seed=config["seed"], limits=limits)
        hung[name] += answer["status"] == "timeout"
        found[name] = _dict(answer.get("facts")) | {"status": answer["status"], "reason": answer.get("reason", "")}
        if answer["status"] == "ok":
            once_s = max(_number(answer.get("once_s")), 1e-9)
            fewest = FEWEST_TURNS if once_s < SLOW_S else 1
            turns[name] = max(fewest, min(TURNS, int(config["seconds"] / once_s)))
    say(f"{group[0].layer}  timing")
    peaks = _rounds(group[0], fleet, found, turns, config)
    for case in group:
        journal.append(_record(case, found[case.backend], peaks, run.environment["id"]))
    return True


def _rounds(
    first: Case, fleet: dict[str, Worker], found: dict[str, dict[str, Any]], turns: dict[str, int],
    config: dict[str, Any],
) -> list[float]:  # fmt: skip
    """Turns of all that are ready, added to what was found of each; the machine's peaks meanwhile, in GFLOP/s."""
    order = random.Random(f"{config['seed']} {first.key}")
    dtype, peaks = Conv2dProblem.from_label(first.label).dtype, []
    for number in range(TURNS if turns else 0):
        names = [PEAK, *(name for name, count in turns.items() if number < count and found[name]["status"] == "ok")]
        for name in order.sample(names, len(names)):
            if name == PEAK:
                peak = fleet[PEAK].ask("turn", seconds=PEAK_S, threads=first.threads, dtype=dtype)
                peaks.append(_number(peak.get("gflops")))
                continue
            answer, mine = fleet[name].ask("turn", seconds=config["seconds"] / TURNS), found[name]
            samples: Any = answer.get("samples_s")
            told = isinstance(samples, list) and samples and all(isinstance(s, float) for s in samples)
            if answer["status"] == "ok" and not told:
                answer = {"status": "crashed", "reason": "its process answered without samples"}
            mine |= {"status": answer["status"], "reason": answer.get("reason", "")}
            if answer["status"] == "ok":
                mine.setdefault("samples_s", []).extend(samples)
                mine.setdefault("turns_s", []).append(stats.median(samples))
                mine["iterations"] = answer.get("iterations", 1)
    return [peak for peak in peaks if peak]


def _record(case: Case, facts: dict[str, Any], peaks: list[float], where: str) -> Record:
    """The record of a case; one that cannot be stored becomes an error that says so."""
    if facts["status"] == "ok":
        middle = stats.median(facts["turns_s"])
        flops = Conv2dProblem.from_label(case.label).flops
        facts |= {"median_s": middle, "iqr_s": stats.iqr(facts["turns_s"])}
        facts |= {"gflops_effective": flops / middle / 1e9 if middle else None}
        facts["fma_peak_gflops"] = stats.median(peaks) if peaks else None
    else:
        facts |= {"samples_s": [], "turns_s": []}
    try:
        return checked({"case": asdict(case), "environment_id": where, **facts})
    except StoreError as error:
        return Record(case, "error", f"what it told of itself cannot be stored: {error}", where)


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _number(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) else 0.0
