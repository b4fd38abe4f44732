"""Drive a run: every backend in a process of its own, taking turns at each layer in seeded random order.

    for each thread count, for each repetition, for each layer
        prepare it in every process, checks included; then in each round, in shuffled order: one turn each

A round gives each pair of backends one ratio under like conditions; `bench.stats.ratio` makes intervals of them. The
peak of the machine takes part as one more contender, so that every record knows what the machine could do at the time.
A process that dies or hangs costs its case, which gets a status, and is started again for the next layer. The budget
counts from the start of the run, or from where it is resumed; cases beyond it are left for --resume.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from bench import stats
from bench.process import Worker
from bench.store import Case, Journal, Record, Run
from bench.worker import PEAK
from conv_impls import Conv2dProblem
from conv_impls.workloads import Layer

# Turns of each backend in one repetition, and the share of its time each takes; slow ones have fewer.
TURNS = 6
PEAK_S = 0.006
# (finished cases, all cases, what is under way, seconds left or None)
Progress = Callable[[int, int, str, "float | None"], None]


def make_cases(
    layers: list[Layer], backends: list[str], threads: list[int], repetitions: int, directions: list[str],
    caches: list[str],
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
        if case.key not in finished:
            groups.setdefault(where, []).append(case)
    began, end = time.monotonic(), time.monotonic() + config["budget_s"]
    done, before = len(finished), len(finished)
    threads = 0
    with run.writing() as journal, _fleet() as fleet, _kernel_cache(config) as variables:
        for group in groups.values():
            if time.monotonic() > end:
                break
            if group[0].threads != threads:
                threads = group[0].threads
                _close(fleet)
            rate = (time.monotonic() - began) / (done - before) if done > before else None
            left = None if rate is None else rate * (len(cases) - done)

            def say(at: str, done: int = done, left: float | None = left) -> None:
                progress(done, len(cases), at, left)

            _measure(group, fleet, journal, run, variables, say)
            done += len(group)
            progress(done, len(cases), "", None)
    if done == len(cases):
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
    group: list[Case], fleet: dict[str, Worker], journal: Journal, run: Run, variables: dict[str, str],
    say: Callable[[str], None],
) -> None:  # fmt: skip
    """All backends on one layer: prepare each, then rounds of turns, then a record each."""
    config, threads = run.config, group[0].threads
    for name in [PEAK, *(case.backend for case in group)]:
        if name not in fleet:
            fleet[name] = Worker(name, threads, config["timeout_s"], variables)
    limits = {"call_s": config["timeout_s"], "rotate_bytes": config["rotate_bytes"]}
    found: dict[str, dict[str, Any]] = {}
    turns: dict[str, int] = {}
    seconds = config["seconds"] / TURNS
    for case in group:
        say(f"{case.layer}  {case.backend}")
        answer = fleet[case.backend].ask("prepare", case=asdict(case), seed=config["seed"], limits=limits)
        facts = answer.get("facts", {})
        found[case.backend] = facts | {"status": answer["status"], "reason": answer["reason"], "samples_s": []}
        found[case.backend] |= {"turns_s": []}
        if answer["status"] == "ok":
            turns[case.backend] = max(1, min(TURNS, int(config["seconds"] / max(facts["first_call_s"], 1e-9))))
    say(f"{group[0].layer}  timing")
    order = random.Random(f"{config['seed']} {group[0].key}")
    peaks = []
    for number in range(TURNS if turns else 0):
        names = [PEAK, *(name for name, count in turns.items() if number < count and found[name]["status"] == "ok")]
        for name in order.sample(names, len(names)):
            if name == PEAK:
                peaks.append(fleet[PEAK].ask("turn", seconds=PEAK_S, threads=threads).get("gflops"))
                continue
            answer = fleet[name].ask("turn", seconds=seconds)
            mine = found[name]
            mine |= {"status": answer["status"], "reason": answer["reason"]}
            if answer["status"] == "ok":
                mine["samples_s"] += answer["samples_s"]
                mine["turns_s"].append(stats.median(answer["samples_s"]))
                mine["iterations"] = answer["iterations"]
    known = [peak for peak in peaks if peak]
    for case in group:
        facts = found[case.backend]
        if facts["status"] == "ok":
            middle = stats.median(facts["samples_s"])
            flops = Conv2dProblem.from_label(case.label).flops
            facts |= {"median_s": middle, "iqr_s": stats.iqr(facts["samples_s"])}
            facts |= {"gflops_effective": flops / middle / 1e9 if middle else None}
            facts["fma_peak_gflops"] = stats.median(known) if known else None
        else:
            facts |= {"samples_s": [], "turns_s": []}
        journal.append(Record(case, environment_id=run.environment["id"], **facts))
