"""One backend at one layer that is too slow or too large: its estimate, its limit, and what it costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from inprocess import MS, TALL, Machine, Race, honest

from bench.run.contender import Layer
from conv_impls import Conv2dProblem
from conv_impls.validation import Array


def test_a_reference_that_does_not_fit_into_memory_costs_its_case(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def huge(self: Layer) -> Any:
        return np.empty(2**44)

    monkeypatch.setattr(Layer, "whole", huge)
    got = Race(tmp_path).end()
    assert got.status == "oom"
    assert "allocate" in got.reason


def test_a_slow_case_is_over_budget_with_its_estimate_and_never_runs_whole(machine: Machine, tmp_path: Path) -> None:
    seen: list[int] = []

    def answer(x: Array, w: Array, p: Conv2dProblem) -> Array:
        seen.append(p.output_shape[2])
        machine.now_s += 20 * MS * p.output_shape[2]
        return honest(x, w, p)

    machine.answer = answer
    got = Race(tmp_path, TALL, timeout_s=0.5).end()
    assert got.status == "over_budget"
    assert got.estimate_s == pytest.approx(64 * 20 * MS, rel=0.01)
    assert "more than the maximum of 0.5 s" in got.reason
    assert set(seen) == {4, 8}


def test_an_estimate_far_beyond_the_limit_is_believed_at_once(machine: Machine, tmp_path: Path) -> None:
    def answer(x: Array, w: Array, p: Conv2dProblem) -> Array:
        machine.now_s += 0.1 * p.output_shape[2]
        return honest(x, w, p)

    machine.answer = answer
    race = Race(tmp_path, TALL, timeout_s=0.5)
    assert race.end().status == "over_budget"
    assert race.worker.orders == ["start", "probe"]


def test_a_cost_that_no_height_changes_is_not_multiplied(machine: Machine, tmp_path: Path) -> None:
    def answer(x: Array, w: Array, p: Conv2dProblem) -> Array:
        machine.now_s += 100 * MS
        return honest(x, w, p)

    machine.answer = answer
    got = Race(tmp_path, TALL, timeout_s=0.5).end()
    assert got.status == "ok", got.reason
    assert got.estimate_s == pytest.approx(100 * MS)


def test_a_case_slower_than_its_estimate_is_over_budget_after_its_first_calls(machine: Machine, tmp_path: Path) -> None:
    def answer(x: Array, w: Array, p: Conv2dProblem) -> Array:
        machine.now_s += 0.5 * (p.output_shape[2] == 64)
        return honest(x, w, p)

    machine.answer = answer
    got = Race(tmp_path, TALL, timeout_s=0.2).end()
    assert (got.status, got.samples_s) == ("over_budget", [])
    assert got.reason == "a call took 0.5 s, more than the maximum of 0.2 s"
