"""Measure the cases of a run: every backend in its own process; the backends take turns in seeded random order.

    for each thread count, for each repetition, with new processes; for each layer
        prepare every backend, check all outputs; then in each round, in shuffled order: one turn each; check again

A round gives each pair of backends one ratio under equal conditions; `intervals.ratio` makes intervals of them. The
machine takes part as one more contender: its peak and a yardstick are measured in each round and stored in the records.
Rounds continue, up to twice as many, while a backend has too few undisturbed turns. If a process dies or hangs, its
case gets a status, and the process is started again for the next layer, up to a limit. The budget counts from the start
of the run, or from its resumption; cases beyond it are left for --resume.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable
from contextlib import ExitStack
from pathlib import Path

from conv_impls.workloads import Layer as WorkloadLayer

from ..analysis import stats
from ..machine.peaks import Peaks
from ..store.folder import Journal, Run
from ..store.records import FAILED, Cache, Case, Direction, Record, split_version
from .contender import PATIENCE, TURNS, Contender, Layer
from .equal import Group, finished_elsewhere, group_of, measured, shared, unfinished
from .fleet import NONE, Fleet, Versions, commit_of
from .pool import pooled
from .turn import Pace
from .worker import MACHINE

PEAK_S = 0.006
# Maximum tries, while the result stays below the highest known peak.
PEAK_TRIES = 3
# Before a result is marked too fast, the peak is measured again: number of times, seconds each.
DOUBTS, DOUBT_S = 10, 0.05
# A backend that hung in this many cases is not tried again.
GIVEN_UP = 2
# Maximum number of times that a layer with weak results is measured again.
AGAIN = 2
# (finished cases, all cases, current step, seconds left or None)
Progress = Callable[[int, int, str, "float | None"], None]


def make_cases(
    layers: list[WorkloadLayer], backends: list[str], threads: list[int], repetitions: int, directions: list[Direction],
    caches: list[Cache],
) -> list[Case]:  # fmt: skip
    """All cases, in the order of measurement."""
    return [
        Case(layer.workload, layer.name, layer.problem.label, layer.count, backend, count, direction, repetition, cache)
        for count in threads
        for repetition in range(1, repetitions + 1)
        for direction in directions
        for cache in caches
        for layer in layers
        for backend in backends
    ]


class Driver:
    """The only class that measures records. A context manager: its exit ends all processes and unlocks the run.

    Parameters
    ----------
    run : Run
    cases : iterable of Case
        The cases of the run to measure now. An incomplete layer is measured again as a whole.
    progress : callable
    versions : mapping of str to Version
        Versions of the backends that are of another version.
    """

    def __init__(
        self,
        run: Run,
        cases: Iterable[Case],
        progress: Progress = lambda done, total, at, left: None,
        versions: Versions = NONE,
    ) -> None:
        self.run, self.config, self._progress, self._versions = run, run.config, progress, versions
        self._groups: dict[Group, list[Case]] = {}
        for case in cases:
            self._groups.setdefault(group_of(case), []).append(case)
        self._known: dict[str, Record] = {}
        self._measured: set[Group] = set()
        self._hung, self._tries = Counter[str](), Counter[Group]()
        self._peaks = Peaks(run.environment)
        self.seconds = 0.0

    def __enter__(self) -> Driver:
        with ExitStack() as stack:
            self._journal: Journal = stack.enter_context(self.run.writing())
            self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
            variables = self.config["variables"]
            if self.config["fresh_cache"]:
                variables = variables | {"NUMBA_CACHE_DIR": stack.enter_context(tempfile.TemporaryDirectory())}
            self._fleet = stack.enter_context(Fleet(self.config["timeout_s"], variables, self._versions))
            for record in self.run.records():
                self._known[record.case.key] = record
                for peak in record.turn_peaks_gflops:
                    self._peaks.learn(record.case.threads, record.case.problem.dtype, peak)
            finished = {key for key, record in self._known.items() if record.status != "interrupted"}
            self._adopt(finished)
            self._total = sum(map(len, self._groups.values()))
            self._done = self._before = sum(case.key in self._known for g in self._groups.values() for case in g)
            self._began = time.monotonic()
            self._end = self._began + self.config["budget_s"]
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self.seconds = time.monotonic() - self._began
        self._stack.close()

    def _adopt(self, finished: set[str]) -> None:
        """For incomplete groups: copy the records of an equal layer, or drop their records, to measure them again."""
        groups: dict[Group, list[Record]] = {}
        for record in [record for key, record in self._known.items() if key in finished]:
            groups.setdefault(group_of(record.case), []).append(record)
        for where, group in self._groups.items():
            partial = unfinished(group, finished)
            if found := finished_elsewhere(partial, groups.get(where, [])):
                self._store(records := shared(found, partial, self.config))
                self._known |= {record.case.key: record for record in records}
            elif partial:
                for case in group:
                    self._known.pop(case.key, None)

    def record(self, case: Case) -> Record | None:
        """The record of a case. Measures its whole group first if needed; None if the budget is spent."""
        if case.key not in self._known:
            self._measure(self._groups[group_of(case)])
        return self._known.get(case.key)

    def weak(self, case: Case) -> bool:
        """Whether to measure the case's group again: a result of this session is weak, and time is left."""
        group = group_of(case)
        left = group in self._measured and self._tries[group] < AGAIN and time.monotonic() < self._end
        return left and self._weak(self._groups[group]) > 0

    def again(self, case: Case) -> None:
        """Measure the case's group once more, with new processes.

        The turns of both measurements are pooled, unless the first one is biased; then the one with fewer weak results
        is used. A failure in either measurement stays.
        """
        where = group_of(case)
        group = self._groups[where]
        self._tries[where] += 1
        before = {case.key: self._known[case.key] for case in group}
        weak, biased = self._weak(group), any(self._doubt(record).bias for record in before.values())
        self._fleet.close()
        self._progress(self._done, self._total, f"{case.layer}  again", self._left())
        found = self._records(group)
        if found is None:
            return
        records, fails = [], False
        for new in found:
            old = before[new.case.key]
            fails |= new.status in FAILED
            if old.status in FAILED:
                new = old
            elif old.status == new.status == "ok" and not biased:
                new = pooled(old, new, self._tries[where] * PATIENCE * TURNS)
            records.append(new)
        self._known |= {record.case.key: record for record in records}
        if fails or not biased or self._weak(group) < weak:
            self._store(records)
        else:
            self._known |= before

    def _measure(self, group: list[Case]) -> None:
        if time.monotonic() > self._end:
            return
        records = self._records(group)
        if records is None:
            return
        self._known |= {record.case.key: record for record in records}
        self._store(records)
        self._measured.add(group_of(group[0]))
        self._done += len(group)
        self._progress(self._done, self._total, "", self._left())

    def _store(self, records: list[Record]) -> None:
        for record in records:
            self._journal.append(record)

    def _records(self, group: list[Case]) -> list[Record] | None:
        """All backends on one layer: prepare each, then rounds of turns, then one record each; None if time is up."""
        config, first = self.config, group[0]
        self._fleet.use(first.threads, first.repetition)
        layer = Layer(first.problem, first.direction, config["seed"], self._folder)
        versions = self._versions
        # A version has no plan of the convolution that computes a gradient: ours is then called by public names, too.
        alike = versions.keys() | (split_version(name)[0] for name in versions if first.direction != "fwd")
        contenders = [
            Contender(
                case, self._fleet.worker(case.backend), layer, self._folder, config["timeout_s"], config["seconds"],
                config["rotate_bytes"], config["seed"], commit_of(versions, case.backend), case.backend in alike,
            )
            for case in measured(group)
        ]  # fmt: skip
        for contender in contenders:
            if time.monotonic() > self._end:
                return None
            name = contender.case.backend
            self._progress(self._done, self._total, f"{first.layer}  {name}", self._left())
            if self._hung[name] >= GIVEN_UP:
                contender.status, contender.reason = "timeout", f"not tried: it hung in {GIVEN_UP} cases before"
                continue
            contender.prepare()
            self._hung[name] += contender.status == "timeout"
        self._progress(self._done, self._total, f"{first.layer}  timing", self._left())
        paces = self._rounds(first, contenders)
        for pace in paces.values():
            self._peaks.learn(first.threads, first.problem.dtype, pace.gflops)
        known = self._known_peaks(first, contenders)
        records = [contender.record(paces, known, self.run.environment["id"]) for contender in contenders]
        return shared(records, group, config)

    def _rounds(self, first: Case, contenders: list[Contender]) -> dict[int, Pace]:
        """Turns of all ready contenders, and the checks after them; returns the machine's pace of each round."""
        order = random.Random(f"{self.config['seed']} {first.key}")
        paces: dict[int, Pace] = {}
        for number in range(PATIENCE * TURNS):
            ready = [contender for contender in contenders if contender.wants_turn]
            if not ready:
                break
            for contender in order.sample([None, *ready], len(ready) + 1):
                if contender is None:
                    paces[number] = Pace(self._peak(first), self._yardstick_s(first))
                else:
                    contender.turn(number)
        for contender in contenders:
            contender.last()
        return paces

    def _yardstick_s(self, first: Case) -> float:
        """Seconds of a fixed piece of work of the layer's size; 0 if it cannot be measured."""
        answer = self._fleet.worker(MACHINE).ask("yardstick", label=first.label).get("yardstick_s")
        return float(answer) if isinstance(answer, (int, float)) else 0.0

    def _peak(self, first: Case, seconds: float = PEAK_S) -> float:
        """The FMA peak now, in GFLOP/s: the best of some tries, because threads may stall just after wake-up."""
        threads, dtype, found = first.threads, first.problem.dtype, 0.0
        for _ in range(PEAK_TRIES):
            answer = (
                self._fleet.worker(MACHINE).ask("turn", seconds=seconds, threads=threads, dtype=dtype).get("gflops")
            )
            found = max(found, float(answer) if isinstance(answer, (int, float)) else 0.0)
            if found > (1 - stats.TOLERANCE) * self._peaks.peak_gflops(threads, dtype):
                break
        return found

    def _known_peaks(self, first: Case, contenders: list[Contender]) -> Peaks:
        """The highest known peaks of this machine; measured again before any result is marked too fast."""
        threads, dtype = first.threads, first.problem.dtype
        if any(contender.too_fast(self._peaks) for contender in contenders):
            # The machine may have been busy at every measurement of its peak.
            for _ in range(DOUBTS):
                self._peaks.learn(threads, dtype, self._peak(first, DOUBT_S))
        return self._peaks

    def _weak(self, group: list[Case]) -> int:
        """Number of weak results in a group."""
        return sum(bool(self._doubt(self._known[case.key]).weak) for case in group if case.key in self._known)

    def _doubt(self, record: Record) -> stats.Doubt:
        if record.status != "ok":
            return stats.Doubt()
        best = self._peaks.peak_gflops(record.case.threads, record.case.problem.dtype)
        return stats.doubt(record.turns_s, record.turn_peaks_gflops, best, len(record.disturbed_s))

    def _left(self) -> float | None:
        done = self._done - self._before
        return (time.monotonic() - self._began) / done * (self._total - self._done) if done > 0 else None


def check_cases(
    cases: list[Case], call_s: float, variables: dict[str, str], seed: int, versions: Versions = NONE
) -> Generator[tuple[Case, str, str]]:
    """The checks of a run without its timing: each case with its status and reason. Equal layers are checked once."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name, Fleet(call_s, variables, versions) as fleet:
        folder, layers, known = Path(name), dict[Group, Layer](), dict[tuple[Group, str], tuple[str, str]]()
        for case in cases:
            if (group_of(case), case.backend) in known:
                yield case, *known[group_of(case), case.backend]
                continue
            fleet.use(case.threads)
            if (group := group_of(case)) not in layers:
                layers = {group: Layer(case.problem, case.direction, seed, folder)}
            worker, public = fleet.worker(case.backend), case.backend in versions
            contender = Contender(case, worker, layers[group], folder, call_s, 0.0, 0, seed, public=public)
            contender.prepare()
            known[group, case.backend] = contender.status, contender.reason
            yield case, contender.status, contender.reason
