"""The gate and the measurement: every checker is fed a wrong answer once, every fault becomes its status."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bench import check, measure
from bench.measure import Limits
from bench.store import Case, Record
from conv_impls import Conv2dProblem, conv2d, register, registry
from conv_impls.reference import reference
from conv_impls.validation import Array

Registered = dict[str, registry.Backend]
PROBLEM = Conv2dProblem.from_label('mb1ic8ih12oc8oh12kh3ph1n"layer"')


def case(backend: str, problem: Conv2dProblem = PROBLEM) -> Case:
    return Case("w", "layer", problem.label, 1, backend, 1)


def stopwatch(call: Callable[[], object], warmup: int, rounds: int, iterations: int) -> list[float]:
    for _ in range(warmup + rounds * iterations):
        call()
    return [1e-3] * rounds


def measured(backend: str, problem: Conv2dProblem = PROBLEM, limits: Limits | None = None) -> Record:
    return measure.measure(case(backend, problem), limits or Limits(), 0, "env", stopwatch)


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
    record = measured("evil")
    assert record.status == "ok", record.reason
    assert record.median_s == 1e-3
    assert record.gflops_effective == pytest.approx(PROBLEM.flops / 1e-3 / 1e9)
    assert record.algorithm == "evil"
    assert None not in (record.error, record.error_over_bound, record.estimate_s, record.prepare_s, record.first_call_s)


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
    record = measured("evil")
    assert record.status == status
    assert record.median_s is None
    assert record.samples_s == []
    assert any(word in record.reason for word in reason.split("|")), record.reason


def test_a_backend_that_turns_wrong_after_the_check_is_caught_after_the_timing(registered: Registered) -> None:
    calls = [0]

    def answer(x: Array, w: Array, p: Conv2dProblem) -> Array:
        calls[0] += p == PROBLEM
        return honest(x, w, p) + (calls[0] > 3)

    backend_of(answer)
    record = measured("evil")
    assert record.status == "wrong_result"
    assert record.reason.startswith("after timing: ")


def test_an_output_left_unwritten_is_caught(registered: Registered) -> None:
    @register("evil")
    def prepare(problem: Any, weight: Any, bias: Any, threads: Any) -> Any:
        done: list[int] = []

        def call(x: Array, out: Array) -> None:
            if len(done) < 2:
                out[...] = honest(x, weight, problem)
            done.append(1)

        return call

    assert measured("evil").status == "wrong_result"


def test_an_unsupported_problem_says_why(registered: Registered) -> None:
    backend_of(honest, supports=lambda p: "not today")
    record = measured("evil")
    assert (record.status, record.reason) == ("unsupported", "not today")


def test_a_slow_case_is_over_budget_with_its_estimate_and_never_runs_whole(registered: Registered) -> None:
    seen: list[int] = []

    def answer(x: Array, w: Array, p: Conv2dProblem) -> Array:
        seen.append(p.output_shape[2])
        time.sleep(0.02 * p.output_shape[2])
        return honest(x, w, p)

    backend_of(answer)
    tall = PROBLEM.replace(in_size=(64, 4))
    record = measured("evil", tall, Limits(case_s=1.0))
    assert record.status == "over_budget"
    assert record.estimate_s == pytest.approx(64 * 0.02, rel=0.5)
    assert "over the 1 s of a case" in record.reason
    assert set(seen) == {4, 8}
    late = measured("evil", PROBLEM, Limits(deadline=time.monotonic()))
    assert (late.status, "time budget of the run is used up" in late.reason) == ("over_budget", True)


def test_a_cost_that_no_height_changes_is_not_multiplied(registered: Registered) -> None:
    def answer(x: Array, w: Array, p: Conv2dProblem) -> Array:
        time.sleep(0.1)
        return honest(x, w, p)

    backend_of(answer)
    record = measured("evil", PROBLEM.replace(in_size=(64, 4)), Limits(case_s=1.0))
    assert record.status == "ok", record.reason


def test_a_case_slower_than_its_estimate_is_over_budget_after_its_first_call(registered: Registered) -> None:
    def answer(x: Array, w: Array, p: Conv2dProblem) -> Array:
        time.sleep(0.5 * (p.output_shape[2] == 64))
        return honest(x, w, p)

    backend_of(answer)
    record = measured("evil", PROBLEM.replace(in_size=(64, 4)), Limits(case_s=0.4))
    assert (record.status, record.median_s) == ("over_budget", None)
    assert "the first call took" in record.reason


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
