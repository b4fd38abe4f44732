"""The gate and the measurement: every checker is fed a wrong answer once, every fault becomes its status."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bench.run import check
from bench.run import subject as measure
from bench.run.subject import Limits, Subject, outcome
from bench.store.records import Case
from conv_impls import Conv2dProblem, conv2d, register, registry
from conv_impls.reference import reference
from conv_impls.validation import Array

Registered = dict[str, registry.Backend]
PROBLEM = Conv2dProblem.from_label('mb1ic8ih12oc8oh12kh3ph1n"layer"')
TALL = PROBLEM.replace(in_size=(64, 4))


class Measured:
    """A backend called "evil" through preparation and some turns."""

    def __init__(
        self, problem: Conv2dProblem = PROBLEM, limits: Limits | None = None, turns: int = 2, **case: Any
    ) -> None:
        self.stages: list[str] = []
        given = Case("w", "layer", problem.label, 1, "evil", 1, **case)
        self.subject = Subject(given, limits or Limits(), 0, self.stages.append)
        self.facts, self.samples_s = self.subject.facts, list[float]()
        self.status, self.reason = outcome(lambda: self._go(turns))

    def _go(self, turns: int) -> None:
        self.subject.prepare()
        for _ in range(turns):
            self.samples_s += self.subject.turn(0.002)["samples_s"]


def honest(x: Array, weight: Array, problem: Conv2dProblem) -> Array:
    return reference(x, weight, None, problem).astype(x.dtype)


def backend_of(answer: Callable[[Array, Array, Conv2dProblem], Any], **facts: Any) -> None:
    @register("evil", **facts)
    def run(x: Any, weight: Any, bias: Any, problem: Any) -> Any:
        return answer(x, weight, problem)


def test_the_integer_check_sees_one_wrong_output() -> None:
    x, w = check.integer_inputs(PROBLEM, 0)
    y = honest(x, w, PROBLEM)
    assert check.check_integers(y, PROBLEM, 0) == check.Verdict("")
    y[0, 7, 11, 11] += 1
    wrong = check.check_integers(y, PROBLEM, 0).problem
    assert wrong.startswith("integer inputs: 1 of 1152 outputs differ, first at (0, 7, 11, 11)")
    y[0, 7, 11, 11] = np.nan
    assert check.check_integers(y, PROBLEM, 0).problem


@pytest.mark.parametrize("accuracy", ["direct", "image"])
@pytest.mark.parametrize("spoil", [1.001, np.nan, np.inf, -1.0])
def test_the_sampled_check_sees_a_wrong_output(accuracy: str, spoil: float) -> None:
    compare = check.SampledCheck(PROBLEM, accuracy, 0)
    x, w = check.normal_inputs(PROBLEM, 0)
    y = honest(x, w, PROBLEM)
    right = compare(y)
    assert right.problem == ""
    assert right.error is not None
    assert 0 <= right.error < 1e-6
    y[0, 0, 0, 0] = y[0, 0, 0, 0] * spoil if np.isfinite(spoil) else spoil
    assert "beyond the bound" in compare(y).problem


def test_the_direct_bound_is_tight_enough_to_catch_half_precision_products() -> None:
    problem = Conv2dProblem.from_label("mb1ic64ih14oc8oh14kh3ph1")
    x, w = check.normal_inputs(problem, 0)
    half = honest(x.astype(np.float16).astype(np.float32), w, problem)
    assert "beyond the bound" in check.SampledCheck(problem, "direct", 0)(half).problem


def test_integer_sums_are_exact_in_float32() -> None:
    most = max(abs(v) for v in (check.INTEGERS[0], check.INTEGERS[1] - 1)) ** 2
    assert 2**20 * most <= 2**24


def test_an_honest_backend_is_timed_and_everything_is_filled(registered: Registered) -> None:
    backend_of(honest)
    got = Measured()
    assert got.status == "ok", got.reason
    assert all(0 < s < 1 for s in got.samples_s)
    assert (got.facts["algorithm"], got.facts["mode"], got.facts["executed_flops"]) == ("evil", "eager", PROBLEM.flops)
    numbers = "error", "error_over_bound", "estimate_s", "prepare_s", "compile_s", "first_call_s"
    assert all(isinstance(got.facts[name], float) for name in numbers)
    assert got.facts["peak_bytes"] is None or got.facts["peak_bytes"] >= 0
    assert {"plan", "call", "check"} == set(got.stages)


def test_a_sample_is_a_time_of_one_call(registered: Registered) -> None:
    calls = [0]

    def answer(x: Array, w: Array, p: Conv2dProblem) -> Array:
        calls[0] += 1
        time.sleep(0.003)
        return honest(x, w, p)

    backend_of(answer)
    got = Measured(turns=0)
    calls[0] = 0
    turn = got.subject.turn(0.02)
    assert len(turn["samples_s"]) == calls[0] - 2, "two calls warm up"
    assert all(0.003 <= s < 0.1 for s in turn["samples_s"])
    assert sum(turn["samples_s"]) < 0.1
    assert gc.isenabled()


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
    registered: Registered, answer: Any, status: str, reason: str
) -> None:
    backend_of(answer)
    got = Measured()
    assert got.status == status
    assert got.samples_s == []
    assert any(word in got.reason for word in reason.split("|")), got.reason


def test_a_backend_that_turns_wrong_after_the_check_is_caught_after_the_timing(registered: Registered) -> None:
    calls = [0]

    def answer(x: Array, w: Array, p: Conv2dProblem) -> Array:
        calls[0] += p == PROBLEM
        return honest(x, w, p) + (calls[0] > 3)

    backend_of(answer)
    got = Measured()
    assert got.status == "wrong_result"
    assert got.reason.startswith("after timing: ")


@pytest.mark.parametrize("writes", [0, 2, 5])
def test_an_output_left_unwritten_is_caught(registered: Registered, writes: int) -> None:
    calls = [0]

    @register("evil")
    def prepare(problem: Any, weight: Any, bias: Any, threads: Any) -> Any:
        def call(x: Array, out: Array) -> None:
            calls[0] += problem == PROBLEM
            if calls[0] <= writes:
                out[...] = honest(x, weight, problem)

        return call

    got = Measured(turns=5)
    assert got.status == "wrong_result"
    assert "got nan" in got.reason
    assert got.reason.startswith("after timing: ") == (writes > 1)


def test_an_unsupported_problem_says_why(registered: Registered) -> None:
    backend_of(honest, supports=lambda p: "not today")
    got = Measured()
    assert (got.status, got.reason) == ("unsupported", "not today")


def test_a_slow_case_is_over_budget_with_its_estimate_and_never_runs_whole(registered: Registered) -> None:
    seen: list[int] = []

    def answer(x: Array, w: Array, p: Conv2dProblem) -> Array:
        seen.append(p.output_shape[2])
        time.sleep(0.02 * p.output_shape[2])
        return honest(x, w, p)

    backend_of(answer)
    got = Measured(TALL, Limits(call_s=0.5))
    assert got.status == "over_budget"
    assert got.facts["estimate_s"] == pytest.approx(64 * 0.02, rel=0.5)
    assert "over the 0.5 s one may take" in got.reason
    assert set(seen) == {4, 8}


def test_a_cost_that_no_height_changes_is_not_multiplied(registered: Registered) -> None:
    def answer(x: Array, w: Array, p: Conv2dProblem) -> Array:
        time.sleep(0.1)
        return honest(x, w, p)

    backend_of(answer)
    got = Measured(TALL, Limits(call_s=0.5))
    assert got.status == "ok", got.reason


def test_a_case_slower_than_its_estimate_is_over_budget_after_its_first_call(registered: Registered) -> None:
    def answer(x: Array, w: Array, p: Conv2dProblem) -> Array:
        time.sleep(0.5 * (p.output_shape[2] == 64))
        return honest(x, w, p)

    backend_of(answer)
    got = Measured(TALL, Limits(call_s=0.2))
    assert (got.status, got.samples_s) == ("over_budget", [])
    assert "the first call took" in got.reason


@pytest.mark.parametrize("spoil", ["x", "w"])
@pytest.mark.parametrize("before", [1, 4])
def test_a_backend_that_changes_its_input_is_caught(registered: Registered, spoil: str, before: int) -> None:
    calls = [0]

    @register("evil")
    def prepare(problem: Any, weight: Any, bias: Any, threads: Any) -> Any:
        def call(x: Array, out: Array) -> None:
            calls[0] += problem == PROBLEM
            if calls[0] > before:
                array = x if spoil == "x" else check.normal_inputs(problem, 0, (1, 1))[1]
                array.flags.writeable = True
                array[0, 0, 0, 0] = 1.5
            # Right for what the array holds by then.
            out[...] = honest(x, weight, problem)

        return call

    got = Measured(turns=5)
    # Other tests are not to get the spoiled data.
    check.normal_inputs.cache_clear()
    assert got.status == "wrong_result"
    assert got.reason == "after timing: " * (before > 1) + "it changed its input"


@pytest.mark.parametrize(("cache", "images", "weights"), [("warm", 1, 1), ("cold", 5, 5), ("weights", 1, 9)])
def test_a_cold_cache_is_made_by_copies_that_take_turns(
    registered: Registered, cache: str, images: int, weights: int
) -> None:
    seen: list[tuple[int, int, int]] = []

    @register("evil")
    def prepare(problem: Any, weight: Any, bias: Any, threads: Any) -> Any:
        mine = weight.copy()

        def call(x: Array, out: Array) -> None:
            seen.append((x.ctypes.data, mine.ctypes.data, out.ctypes.data))
            out[...] = honest(x, mine, problem)

        return call

    one = PROBLEM.min_bytes if cache == "cold" else int(np.prod(PROBLEM.weight_shape)) * 4
    copies = images if cache == "cold" else weights
    got = Measured(limits=Limits(rotate_bytes=copies * one), cache=cache)
    assert got.status == "ok", got.reason
    seen.clear()
    for _ in range(4):
        got.subject.turn(0.01)
    xs, ws, outs = zip(*seen, strict=True)
    assert (len(set(xs)), len(set(ws)), len(set(outs))) == (images, weights, copies)
    if copies > 1:
        assert all(seen[i] == seen[i + copies] for i in range(len(seen) - copies)), "each waits for all the others"


def test_a_cold_cache_that_cannot_be_made_in_time_is_unreliable(
    registered: Registered, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "ROTATION_S", 0.01)
    backend_of(honest)
    got = Measured(limits=Limits(rotate_bytes=2**40), cache="cold")
    assert got.status == "unreliable"
    assert "copies of only" in got.reason


@pytest.mark.parametrize("direction", ["bwd_d", "bwd_w"])
@pytest.mark.parametrize("label", ["mb2ic3ih9oc4kh3ph1sh2", "mb2ic3ih9iw8oc4kh3kw2dh1", "mb1ic4ih8oc4kh1"])
def test_gradients_are_checked_and_timed_as_convolutions(registered: Registered, direction: str, label: str) -> None:
    shapes = []

    def answer(x: Array, w: Array, p: Conv2dProblem) -> Array:
        shapes.append(p)
        return honest(x, w, p)

    backend_of(answer)
    problem = Conv2dProblem.from_label(label)
    got = Measured(problem, direction=direction)
    assert got.status == "ok", got.reason
    gradient = problem.input_shape if direction == "bwd_d" else problem.weight_shape
    assert sorted(shapes[-1].output_shape) == sorted(gradient)


@pytest.mark.parametrize("mode", ["reflect", "circular", "replicate"])
def test_a_cut_layer_is_tall_enough_for_its_padding(mode: str) -> None:
    problem = Conv2dProblem.from_label(f'mb1ic3ih20oc4oh20kh7ph3pm"{mode}"')
    assert measure.shrunk(problem, 1).out_size[1] == 20


@pytest.mark.parametrize("rows", [1, 2, 5, 99])
@pytest.mark.parametrize(
    "label", ["ic3ih20oc4kh3ph1", "ic3ih20oc4kh5sh2ph2", "ic3ih9oc4kh3ph3sh2", "ic3ih20oc4kh3dh2ph4"]
)
def test_a_cut_layer_keeps_all_but_its_height(label: str, rows: int) -> None:
    problem = Conv2dProblem.from_label(label)
    cut = measure.shrunk(problem, rows)
    assert cut.replace(in_size=problem.in_size) == problem
    assert cut.out_size[1] == problem.out_size[1]
    assert cut.out_size[0] <= problem.out_size[0]
    if rows > problem.out_size[0]:
        assert cut.out_size == problem.out_size


def test_timing_inputs_cannot_be_spoiled_for_the_next_backend() -> None:
    for make in (check.integer_inputs, check.normal_inputs):
        x, w = make(PROBLEM, 0)
        assert not x.flags.writeable
        assert not w.flags.writeable
    conv2d(x, w, padding=1)
