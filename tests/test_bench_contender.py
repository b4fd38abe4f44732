"""One backend at one layer: every fault becomes its status, and what is timed is a call.

Most tests run on a `Machine` whose clock only calls move, so that nothing depends on how fast the tests run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from inprocess import MS, PROBLEM, US, InProcess, Machine, Race, Registered, backend_of, honest

from bench.peers import GRADIENTS, load
from bench.run import exchange
from bench.run.calls import OwnCalls
from bench.run.process import Answer
from bench.store.records import Case
from conv_impls import Conv2dProblem, plan, register
from conv_impls.validation import Array


def test_an_honest_backend_is_timed_and_everything_is_filled(registered: Registered, tmp_path: Path) -> None:
    backend_of(honest)
    race = Race(tmp_path)
    got = race.end({0: 40.0, 1: 60.0})
    assert got.status == "ok", got.reason
    assert all(0 < s < 1 for s in got.samples_s)
    assert len(got.turns_s) + len(got.disturbed_s) == 2
    assert (got.algorithm, got.mode, got.executed_flops) == ("evil", "eager", PROBLEM.flops)
    numbers = "error", "error_over_bound", "estimate_s", "prepare_s", "compile_s", "first_call_s", "iqr_s"
    assert all(isinstance(getattr(got, name), float) for name in numbers)
    assert got.peak_bytes is None or got.peak_bytes >= 0
    assert got.environment_id == "e"
    assert got.gflops_effective == pytest.approx(PROBLEM.flops / (got.median_s or 0) / 1e9)
    assert race.worker.orders == ["start", "probe", "ready", "turn", "turn", "last"]
    assert {"plan", "call", "check"} == set(race.worker.stages)


@pytest.mark.parametrize(
    ("answer", "status", "reason"),
    [
        (lambda x, w, p: honest(x, w, p) + 1, "wrong_result", "integer inputs: "),
        (lambda x, w, p: honest(x, w, p) * np.float32(1.00001), "wrong_result", "outputs differ|beyond the bound"),
        (lambda x, w, p: np.full(p.output_shape, np.nan, x.dtype), "wrong_result", "got nan"),
        (lambda x, w, p: honest(x, w, p)[:, :1], "error", "BackendError: backend 'evil' returned"),
        (lambda x, w, p: None, "error", "BackendError"),
        (lambda x, w, p: 1 / 0, "error", "ZeroDivisionError: division by zero"),
        (lambda x, w, p: np.empty((2**44,)), "oom", "allocate"),
        (lambda x, w, p: x.__setitem__(slice(None), 0), "error", "read-only"),
    ],
    ids=["off by one", "slightly off", "nan", "wrong shape", "none", "raises", "huge", "writes to its input"],
)
def test_what_an_evil_backend_does_becomes_a_status_without_a_time(
    registered: Registered, tmp_path: Path, answer: Any, status: str, reason: str
) -> None:
    backend_of(answer)
    race = Race(tmp_path)
    got = race.end()
    assert got.status == status
    assert (got.samples_s, got.turns_s, got.median_s) == ([], [], None)
    assert any(word in got.reason for word in reason.split("|")), got.reason
    assert race.worker.orders == ["start", "probe"], "it is asked no more"


@pytest.mark.parametrize("right", [2, 5, 12])
def test_a_backend_that_turns_wrong_after_the_check_is_caught_after_the_timing(
    registered: Registered, tmp_path: Path, right: int
) -> None:
    calls = [0]

    def answer(x: Array, w: Array, p: Conv2dProblem) -> Array:
        calls[0] += p == PROBLEM
        return honest(x, w, p) * (1 + 0.01 * (calls[0] > right))

    backend_of(answer)
    got = Race(tmp_path).end()
    assert got.status == "wrong_result"
    assert got.reason.startswith("after timing: at (0, ")


def test_one_output_that_turns_wrong_is_caught_by_the_last_check(registered: Registered, tmp_path: Path) -> None:
    calls = [0]

    def answer(x: Array, w: Array, p: Conv2dProblem) -> Array:
        calls[0] += p == PROBLEM
        y = honest(x, w, p)
        if calls[0] > 2:
            y[0, 3, 7, 7] *= 1.01
        return y

    backend_of(answer)
    race = Race(tmp_path, turns=0)
    # The few outputs that are read in turns are others.
    race.contender._rng = np.random.default_rng(1)
    race.contender.turn(0)
    assert race.contender.status == "ok", race.contender.reason
    got = race.end()
    assert got.status == "wrong_result"
    assert got.reason.startswith(
        "after timing: normal inputs: 1 of 1152 outputs beyond the bound, worst at (0, 3, 7, 7)"
    )


@pytest.mark.parametrize("writes", [0, 2, 5])
def test_an_output_left_unwritten_is_caught(registered: Registered, tmp_path: Path, writes: int) -> None:
    calls = [0]

    @register("evil")
    def prepare(problem: Any, weight: Any, bias: Any, threads: Any) -> Any:
        def call(x: Array, out: Array) -> None:
            calls[0] += problem == PROBLEM
            if problem != PROBLEM or calls[0] <= writes:
                out[...] = honest(x, weight, problem)

        return call

    got = Race(tmp_path, turns=5).end()
    assert got.status == "wrong_result"
    # The first output is full of NaN; later ones hold what is right for an earlier image.
    assert got.reason.startswith("after timing: at " if writes else "normal inputs: 1152 of 1152")
    assert ("got nan" in got.reason) == (writes == 0)


def test_an_unsupported_problem_says_why(registered: Registered, tmp_path: Path) -> None:
    backend_of(honest, supports=lambda p: "not today")
    race = Race(tmp_path)
    got = race.end()
    assert (got.status, got.reason) == ("unsupported", "not today")
    assert race.worker.orders == ["start"]


def test_a_direction_that_no_convolution_computes_is_unsupported_whatever_the_backend_takes(
    registered: Registered, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend_of(honest)
    monkeypatch.setitem(GRADIENTS, ("evil", "bwd_w"), lambda *given: None)
    problem = Conv2dProblem.from_label('mb1ic4ih8oc4kh3ph1pm"reflect"')
    got = Race(tmp_path, problem, direction="bwd_w").end()
    assert (got.status, got.reason) == ("unsupported", "bwd_w: only padding with zeros is supported")


@pytest.mark.parametrize("spoil", ["x", "weight"])
@pytest.mark.parametrize("before", [1, 10])
def test_a_backend_that_changes_its_input_is_caught(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: str, before: int
) -> None:
    loaded, load = list[tuple[Array, Array]](), exchange.load

    def remembering(stem: str) -> tuple[Array, Array]:
        loaded.append(load(stem))
        return loaded[-1]

    def answer(x: Array, w: Array, p: Conv2dProblem) -> Array:
        # Right for what it was given; only then does it write there.
        y = machine.timed(x, w, p)
        if machine.calls > before:
            array = x if spoil == "x" else loaded[-1][1]
            array.flags.writeable = True
            array[0, 0, 0, 0] *= 2
        return y

    monkeypatch.setattr(exchange, "load", remembering)
    machine.answer = answer
    race = Race(tmp_path)
    assert race.contender.status == ("ok" if before > 1 else "wrong_result"), race.contender.reason
    got = race.end()
    assert (got.status, got.reason) == ("wrong_result", "it changed its input")


@pytest.mark.parametrize("direction", ["bwd_d", "bwd_w"])
@pytest.mark.parametrize("label", ["mb2ic3ih9oc4kh3ph1sh2", "mb2ic3ih9iw8oc4kh3kw2dh1dw1", "mb1ic4ih8oc4kh1"])
def test_gradients_are_checked_and_timed_as_convolutions(
    registered: Registered, tmp_path: Path, direction: str, label: str
) -> None:
    shapes = []

    def answer(x: Array, w: Array, p: Conv2dProblem) -> Array:
        shapes.append(p)
        return honest(x, w, p)

    backend_of(answer)
    problem = Conv2dProblem.from_label(label)
    got = Race(tmp_path, problem, direction=direction).end()
    assert got.status == "ok", got.reason
    gradient = problem.input_shape if direction == "bwd_d" else problem.weight_shape
    assert sorted(shapes[-1].output_shape) == sorted(gradient)


def test_a_wrong_gradient_is_caught(registered: Registered, tmp_path: Path) -> None:
    backend_of(lambda x, w, p: honest(x, w[..., ::-1], p))
    got = Race(tmp_path, Conv2dProblem.from_label("mb2ic3ih9oc4kh3ph1sh2"), direction="bwd_d").end()
    assert got.status == "wrong_result"


@pytest.mark.parametrize(
    ("at", "changes", "words"),
    [
        ("probe", {"shape": [1, 2, 3]}, "its outputs cannot be read: "),
        ("probe", {"dtype": "colour"}, "its outputs cannot be read: "),
        ("ready", {"shape": "x"}, "its outputs cannot be read: "),
        ("last", {"shape": ["x"]}, "its outputs cannot be read: "),
        ("turn", {"samples_s": 3}, "the answer of its process has no samples: "),
        ("turn", {"samples_s": ["x"]}, "the answer of its process has no samples: "),
        ("turn", {"values": "x"}, "the answer of its process has no samples: "),
        ("turn", {"scales": []}, "the answer of its process has no samples: "),
        ("turn", {"switches": None}, "the answer of its process has no samples: "),
        ("turn", {"scales_left": "many"}, "the answer of its process has no samples: "),
    ],
)
def test_an_answer_that_makes_no_sense_is_a_crash(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str, changes: Answer, words: str
) -> None:
    def ask(self: InProcess, do: str, **order: Any) -> Answer:
        return honest_ask(self, do, **order) | (changes if do == at else {})

    honest_ask = InProcess.ask
    monkeypatch.setattr(InProcess, "ask", ask)
    got = Race(tmp_path).end()
    assert got.status == "crashed"
    assert got.reason.startswith(words)


@pytest.mark.parametrize(
    ("backend", "how"), [("numba_simd", {"backend": "numba_simd"}), ("auto_strict", {"precision": "strict"})]
)
def test_packed_bytes_of_a_record_are_those_of_the_plan(
    registered: Registered, backend: str, how: dict[str, Any]
) -> None:
    load(backend)
    problem = Conv2dProblem.from_label("mb1ic8ih9oc8oh9kh3ph1")
    x, weight = np.ones(problem.input_shape, "f4"), np.ones(problem.weight_shape, "f4")
    _, facts = OwnCalls(Case("w", "layer", problem.label, 1, backend, 1)).bound(problem, x, weight)
    assert facts["packed_bytes"] == plan(problem, weight, threads=1, **how).packed_bytes


@pytest.mark.parametrize("told", [{"packed_bytes": 1.5}, {"executed_flops": "many"}, {"peak_bytes": [1]}])
def test_a_report_that_cannot_be_stored_is_an_error(machine: Machine, tmp_path: Path, told: dict[str, Any]) -> None:
    race = Race(tmp_path)
    race.worker.change = lambda do, answer: answer | {"facts": answer["facts"] | told}
    got = race.end()
    assert got.status == "error"
    assert got.reason.startswith(f"the facts it reported cannot be stored: {next(iter(told))}: ")


# The last check calls twice on each image, new and just seen, and before either on another image.
@pytest.mark.parametrize(
    ("seen", "status", "calls"),
    [
        ([US] * 8, "wrong_result", 32), ([MS, US, MS, US, US, US, US, US], "wrong_result", 32),
        ([MS, MS, US, US, US, US, US, US], "wrong_result", 32), ([MS] * 8, "ok", 12), ([MS / 2] * 8, "ok", 12),
    ],
    ids=["remembers", "remembers, stalls now and then", "remembers, stalls at first", "honest", "warm caches"],
)  # fmt: skip
def test_a_backend_that_remembers_answers_is_caught_whatever_single_calls_take(
    machine: Machine, tmp_path: Path, seen: list[float], status: str, calls: int
) -> None:
    race = Race(tmp_path)
    before = machine.calls
    machine.script.extend((s, 0) for seen_s in seen for s in (MS, MS, MS, seen_s))
    got = race.end()
    assert (got.status, machine.calls - before) == (status, calls), got.reason
    assert ("caches results" in got.reason) == (status != "ok")
