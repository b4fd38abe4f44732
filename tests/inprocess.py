"""A stand-in for a backend's process that answers the same orders in this one, and a machine with a clock of its own.

The orders go to the very `Actions` of `bench.run.worker`, and through JSON, as between processes. Limits: what ends or
hangs a process would end or hang the tests; that is for tests/test_bench_process.py.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.machine.peaks import Peaks
from bench.run import subject
from bench.run.contender import Contender, Layer
from bench.run.process import Answer, Worker
from bench.run.subject import WARM_UPS
from bench.run.turn import Pace
from bench.run.worker import Actions
from bench.store.records import Case, Record
from conv_impls import Conv2dProblem, register, registry
from conv_impls.reference import reference
from conv_impls.validation import Array


class InProcess(Worker):
    """A `Worker` without a process; ``orders`` and ``stages`` are what went through it."""

    def __init__(self, backend: str) -> None:
        super().__init__(backend, 1, 1.0, {})
        self.orders: list[str] = []
        self.stages: list[str] = []
        self.change: Callable[[str, Answer], Answer] = lambda do, answer: answer
        self._actions = Actions(backend, lambda said: self.stages.append(said["stage"]))

    def ask(self, do: str, **order: Any) -> Answer:
        """The answer to one order; ``change`` may spoil it."""
        self.orders.append(do)
        # By the clock of the subject: a test may have replaced it.
        asked = vars(subject)["clock"]()
        found = getattr(self._actions, do)(**json.loads(json.dumps(order)))
        answer = json.loads(json.dumps(found, allow_nan=False)) | {"asked": asked, "answered": vars(subject)["clock"]()}
        return self.change(do, answer)


Registered = dict[str, registry.Backend]
Answering = Callable[[Array, Array, Conv2dProblem], Any]
PROBLEM = Conv2dProblem.from_label('mb1ic8ih12oc8oh12kh3ph1n"layer"')
TALL = PROBLEM.replace(in_size=(64, 4))
# Powers of two, so that sums and differences of times are exact.
MS, US = 2.0**-10, 2.0**-20


class Race:
    """A backend called "evil" through preparation, some turns and the last check."""

    def __init__(
        self, folder: Path, problem: Conv2dProblem = PROBLEM, turns: int = 2, timeout_s: float = 0.6,
        seconds: float = 0.06, rotate_bytes: int = 0, **case: Any,
    ) -> None:  # fmt: skip
        given = Case("w", "layer", problem.label, 1, "evil", 1, **case)
        self.worker = InProcess("evil")
        layer = Layer(problem, given.direction, 0, folder)
        self.contender = Contender(given, self.worker, layer, folder, timeout_s, seconds, rotate_bytes, 0)
        self.contender.prepare()
        for number in range(turns):
            if self.contender.wants_turn:
                self.contender.turn(number)

    def end(self, peaks: dict[int, float] | None = None) -> Record:
        paces = {number: Pace(gflops, 1e-3) for number, gflops in (peaks or {}).items()}
        self.contender.last()
        return self.contender.record(paces, Peaks({}), "e")


class Machine:
    """A clock that only calls of the whole layer move, and a count of context switches.

    ``script`` are (seconds, switches) of the next calls; other calls take ``usual_s``, those of a cut layer ``cut_s``.
    ``answer`` is the backend; a test may replace it.
    """

    def __init__(self) -> None:
        self.now_s, self.switches, self.usual_s, self.cut_s = 0.0, 0, MS, US
        self.script: deque[tuple[float, int]] = deque()
        self.calls = 0
        self.answer: Answering = self.timed

    def __call__(self) -> float:
        return self.now_s

    def timed(self, x: Array, weight: Array, problem: Conv2dProblem) -> Array:
        if problem.in_size[0] == PROBLEM.in_size[0]:
            self.calls += 1
            seconds, switches = self.script.popleft() if self.script else (self.usual_s, 0)
        else:
            seconds, switches = self.cut_s, 0
        self.now_s += seconds
        self.switches += switches
        return honest(x, weight, problem)

    def turn(self, race: Race, number: int, *samples: tuple[float, int]) -> None:
        """A turn whose samples are these, after quick calls that warm up."""
        self.script.extend([(self.usual_s, 0)] * WARM_UPS)
        self.script.extend(samples)
        race.contender.turn(number)
        assert not self.script


def honest(x: Array, weight: Array, problem: Conv2dProblem) -> Array:
    return reference(x, weight, None, problem).astype(x.dtype)


def backend_of(answer: Any, **facts: Any) -> None:
    @register("evil", **facts)
    def run(x: Any, weight: Any, bias: Any, problem: Any) -> Any:
        return answer(x, weight, problem)


@pytest.fixture
def machine(registered: Registered, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A machine with an honest backend."""
    made = Machine()
    monkeypatch.setattr(subject, "clock", made)
    monkeypatch.setattr(subject, "involuntary_switches", lambda: made.switches)
    backend_of(lambda *given: made.answer(*given))
    return made
