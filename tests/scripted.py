"""A run without processes: workers that answer by a script, and a driver that goes through a whole run with them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import asdict

from bench.run import exchange, fleet
from bench.run.directions import as_forward
from bench.run.driver import Driver, make_cases
from bench.run.subject import shrunk
from bench.run.worker import MACHINE
from bench.store.folder import Run
from bench.store.records import Case, Record
from conv_impls import workloads
from conv_impls.reference import reference

BACKENDS = ["a", "b", "c"]
CONFIG: dict[str, Any] = {
    "seed": 0, "timeout_s": 0.6, "budget_s": 60.0, "seconds": 0.06, "variables": {"SOME": "variable"},
    "fresh_cache": False, "rotate_bytes": 1000,
}  # fmt: skip
FACTS = {"first_call_s": 1e-3, "accuracy": "direct", "mode": "planned"}
Answer = dict[str, Any]
Log = list[tuple[str, int, str, Answer]]
# What a backend answers in place of, or on top of, an honest answer: (backend, threads, order, its fields).
Spoil = Callable[[str, int, str, Answer], "Answer | None"]


class Scripted:
    """Stands in for `bench.run.process.Worker`: right outputs, samples of 1, 2 and 6 ms, and no process."""

    log: Log
    spoil: Spoil

    def __init__(
        self, backend: str, threads: int, call_s: float, variables: dict[str, str], session: bool = True
    ) -> None:
        self.backend, self.threads = backend, threads
        self.log.append((backend, threads, "start up", dict(variables)))

    def ask(self, do: str, **order: Any) -> Answer:
        self.log.append((self.backend, self.threads, do, order))
        if self.backend == MACHINE:
            return {"status": "ok", "gflops": 50.0} | (self.spoil(self.backend, self.threads, do, order) or {})
        answer: Answer = {"status": "ok", "reason": "", "facts": FACTS, "asked": 0.0, "answered": 9.0}
        if do == "start":
            self._problem, self._direction = (case := Case(**order["case"])).problem, case.direction
        elif do == "turn":
            drawn = order["scales"][:3]
            answer |= {
                "began": 0.0, "ended": 9.0, "samples_s": [1e-3, 2e-3, 6e-3], "switches": [0, 0, 0], "iterations": 4,
                "read_s": [0.0, 0.0, 0.0], "scales": drawn, "scales_left": len(order["scales"]) - 3,
                "values": [(self._y.reshape(-1)[order["at"]] * scale).tolist() for scale in drawn],
            }  # fmt: skip
        else:
            answer |= {"call_s": 1e-4, "once_s": 1e-3} | self._write(do, order)
        return answer | (self.spoil(self.backend, self.threads, do, order) or {})

    def close(self) -> str:
        self.log.append((self.backend, self.threads, "close", {}))
        return ""

    def _write(self, do: str, order: Answer) -> Answer:
        scale = order["scales"][0] if do == "last" else 1.0
        if do != "last":
            given = shrunk(self._problem, order["rows"]) if do == "probe" else self._problem
            self._y = reference(*exchange.load(order["data"]), None, as_forward(given, self._direction))
        (self._y * scale).astype(np.float32).tofile(order["out"])
        times = {"fresh_s": [1e-3], "seen_s": [1e-3]} if do == "last" else {}
        return {"shape": list(self._y.shape), "dtype": "float32", "scale": scale, **times}


def nothing(name: str, threads: int, do: str, order: Answer) -> Answer | None:
    return None


class Session:
    """One start of a run: its driver measures all cases, then ``after`` may do more with it."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self._folder, self._patch = folder, patch

    def __call__(
        self, spoil: Spoil = nothing, folder: str = "run", layers: int = 2, threads: tuple[int, ...] = (1,),
        repetitions: int = 1, environment: dict[str, Any] | None = None,
        after: Callable[[Driver], object] = lambda driver: None, **changes: Any,
    ) -> tuple[Run, Log]:  # fmt: skip
        log: Log = []
        worker = type("Worker", (Scripted,), {"log": log, "spoil": staticmethod(spoil)})
        self._patch.setattr(fleet, "Worker", worker)
        path = self._folder / folder
        if not path.exists():
            few = workloads.load("smoke")[:layers]
            cases = make_cases(few, BACKENDS, list(threads), repetitions, ["fwd"], ["warm"])
            config = CONFIG | {"cases": [asdict(case) for case in cases]} | changes
            Run.create(path, config, {"id": "e"} | (environment or {}))
        run = Run.open(path)
        self.said: list[tuple[int, int]] = []
        with Driver(run, run.cases, lambda done, total, at, left: self.said.append((done, total))) as measuring:
            for case in run.cases:
                measuring.record(case)
            after(measuring)
        return run, log


def rounds(log: Log) -> list[tuple[str, ...]]:
    """The names in the order of their turns, round by round, where every backend takes part in all of them."""
    turns = [name for name, _, do, _ in log if do == "turn"]
    size = len(BACKENDS) + 1
    return [tuple(turns[i : i + size]) for i in range(0, len(turns), size)]


def asked(log: Log, what: str) -> list[str]:
    return [name for name, _, do, _ in log if do == what]


def by_backend(run: Run) -> dict[str, Record]:
    return {record.case.backend: record for record in run.records()}


@pytest.fixture
def go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    return Session(tmp_path, monkeypatch)
