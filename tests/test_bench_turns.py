"""The samples of a turn and what counts of them: how many, on which images, by whose clock, disturbed or not."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from inprocess import MS, PROBLEM, US, Machine, Race, Registered, backend_of, honest

from bench.run import subject
from bench.run.check import EXPONENT
from bench.run.contender import DRAWN, FEWEST_TURNS, PATIENCE, TURNS
from bench.run.process import Answer
from bench.run.subject import FEWEST_SAMPLES, MOST_SAMPLES, SAMPLE_S, WARM_UPS
from conv_impls import Conv2dProblem, register
from conv_impls.validation import Array


def test_a_sample_is_a_time_of_one_call(machine: Machine, tmp_path: Path) -> None:
    collecting: list[bool] = []

    def answer(x: Array, w: Array, p: Conv2dProblem) -> Array:
        collecting.append(gc.isenabled())
        return machine.timed(x, w, p)

    machine.answer = answer
    race, before = Race(tmp_path, turns=0), machine.calls
    race.contender.turn(0)
    (turn,) = race.contender.turns
    assert len(turn.samples_s) == machine.calls - before - WARM_UPS
    assert not any(collecting[-len(turn.samples_s) :]), "nothing is collected while samples are taken"
    assert turn.samples_s == [MS] * len(turn.samples_s)
    assert gc.isenabled()


def test_calls_too_short_for_the_timer_are_taken_together_on_two_images(machine: Machine, tmp_path: Path) -> None:
    machine.usual_s = 4 * US
    race = Race(tmp_path, turns=1)
    got = race.end()
    assert got.iterations == -(-SAMPLE_S // (4 * US)) > 1
    assert got.samples_s == pytest.approx([4 * US] * len(got.samples_s))
    assert len(got.samples_s) == MOST_SAMPLES


@pytest.mark.parametrize(
    ("call_s", "seconds", "samples"),
    [
        (MS, 0.0, FEWEST_SAMPLES),
        (3 * MS, 0.0, FEWEST_SAMPLES),
        (MS, 6 * 9.5 * MS, 9),
        (MS, 60.0, MOST_SAMPLES),
        (8 * MS, 0.0, 3),
        (16 * MS, 0.0, 2),
        (64 * MS, 0.0, 1),
        (256 * MS, 0.0, 1),
    ],
)
def test_a_turn_of_a_quick_call_has_five_samples_at_least_and_one_of_a_slow_call_has_fewer(
    machine: Machine, tmp_path: Path, call_s: float, seconds: float, samples: int
) -> None:
    machine.usual_s = call_s
    machine.cut_s = call_s / 12
    race = Race(tmp_path, turns=1, seconds=seconds)
    assert [len(turn.samples_s) for turn in race.contender.turns] == [samples]


@pytest.mark.parametrize("call_s", [4 * US, MS, 3 * MS, 10 * MS])
@pytest.mark.parametrize("stalled", range(WARM_UPS))
@pytest.mark.parametrize("stall_s", [16 * MS, 512 * MS])
def test_a_stalled_warm_up_call_leaves_the_number_of_samples_as_it_is(
    machine: Machine, tmp_path: Path, call_s: float, stalled: int, stall_s: float
) -> None:
    machine.usual_s = call_s
    race = Race(tmp_path, turns=1)
    machine.script.extend([(call_s, 0)] * stalled + [(stall_s, 0)])
    for number in (1, 2):
        race.contender.turn(number)
    first, second, third = race.contender.turns
    assert len(first.samples_s) > 1
    # A call of 10 ms has one warm-up: where it stalls, the turn falls back on what is known from before.
    least = len(first.samples_s) if call_s < 4 * MS else 2
    assert len(second.samples_s) >= least
    assert (len(third.samples_s), third.iterations) == (len(first.samples_s), first.iterations)


@pytest.mark.parametrize("calls", [[512 * MS], [512 * MS, MS], [MS, 512 * MS], [50 * MS, 512 * MS]])
def test_a_stalled_first_call_changes_neither_the_number_of_turns_nor_of_samples(
    machine: Machine, tmp_path: Path, calls: list[float]
) -> None:
    machine.script.extend((s, 0) for s in calls)
    race = Race(tmp_path, turns=TURNS)
    turns = race.contender.turns
    assert len(turns) >= (FEWEST_TURNS if min(calls) > MS and len(calls) > 1 and calls[1] > MS else TURNS)
    assert all(len(turn.samples_s) >= FEWEST_SAMPLES for turn in turns)


@pytest.mark.parametrize(("call_s", "turns"), [(MS, 6), (14 * MS, 4), (50 * MS, 3), (128 * MS, 1)])
def test_a_case_has_as_many_turns_as_fit_its_time(machine: Machine, tmp_path: Path, call_s: float, turns: int) -> None:
    machine.usual_s, machine.cut_s = call_s, call_s / 12
    assert len(Race(tmp_path, turns=20).contender.turns) == turns


def test_every_sample_has_an_image_that_no_turn_before_it_had(machine: Machine, tmp_path: Path) -> None:
    seen: list[float] = []

    def answer(x: Array, w: Array, p: Conv2dProblem) -> Array:
        seen.append(float(x[0, 0, 0, 0]))
        return machine.timed(x, w, p)

    machine.answer = answer
    race = Race(tmp_path, turns=0)
    del seen[:]
    for number in range(TURNS):
        race.contender.turn(number)
    assert race.contender.status == "ok"
    assert len(seen) == machine.calls - 2 >= TURNS * (FEWEST_SAMPLES + WARM_UPS)
    assert len(set(seen)) == len(seen), "each a scale of its own"
    assert DRAWN >= WARM_UPS + 2 * MOST_SAMPLES
    assert np.isfinite(seen).all()
    assert min(map(abs, seen)) > 2.0 ** -(EXPONENT + 20)


@pytest.mark.parametrize(("cache", "images", "weights"), [("warm", 1, 1), ("cold", 5, 5), ("weights", 1, 9)])
def test_a_cold_cache_is_made_by_copies_that_take_turns(
    machine: Machine, tmp_path: Path, registered: Registered, cache: str, images: int, weights: int
) -> None:
    seen: list[tuple[int, int, int]] = []
    registered.pop("evil")

    @register("evil")
    def prepare(problem: Any, weight: Any, bias: Any, threads: Any) -> Any:
        mine = weight.copy()

        def call(x: Array, out: Array) -> None:
            seen.append((x.ctypes.data, mine.ctypes.data, out.ctypes.data))
            out[...] = machine.timed(x, mine, problem)

        return call

    one = PROBLEM.min_bytes if cache == "cold" else int(np.prod(PROBLEM.weight_shape)) * 4
    copies = images if cache == "cold" else weights
    race = Race(tmp_path, turns=0, rotate_bytes=copies * one, cache=cache)
    del seen[:]
    for number in range(4):
        race.contender.turn(number)
    xs, ws, outs = zip(*seen, strict=True)
    assert (len(set(xs)), len(set(ws)), len(set(outs))) == (images, weights, copies)
    if copies > 1:
        assert all(seen[i] == seen[i + copies] for i in range(len(seen) - copies)), "each waits for all the others"
        assert len(seen) == sum(len(turn.samples_s) for turn in race.contender.turns), "nothing warms up"
    got = race.end()
    assert got.status == "ok", got.reason


def test_a_cold_cache_that_cannot_be_made_in_time_is_unreliable(
    registered: Registered, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subject, "ROTATION_S", 0.01)
    backend_of(honest)
    got = Race(tmp_path, rotate_bytes=2**40, cache="cold").end()
    assert got.status == "unreliable"
    assert "MiB of copies were made in time" in got.reason


def test_a_disturbed_turn_is_taken_again_and_does_not_count(machine: Machine, tmp_path: Path) -> None:
    race = Race(tmp_path, turns=0, seconds=0.0)
    quiet = [(MS, 0)] * 5
    machine.turn(race, 0, *quiet)
    machine.turn(race, 1, (2 * MS, 1), (3 * MS, 2), (MS, 0), (4 * MS, 1), (MS, 0))
    machine.turn(race, 2, *quiet)
    assert race.contender.wants_turn, "two of three count"
    machine.turn(race, 5, *quiet)
    assert not race.contender.wants_turn
    got = race.end({0: 10.0, 1: 99.0, 2: 30.0, 5: 20.0})
    assert (got.turns_s, got.turn_rounds, got.turn_switches) == ([MS] * 3, [0, 2, 5], [0, 0, 0])
    assert (got.disturbed_s, got.median_s, len(got.samples_s)) == ([2 * MS], MS, 20)
    assert (got.turn_peaks_gflops, got.fma_peak_gflops) == ([10.0, 30.0, 20.0], 20.0)


def test_a_turn_counts_by_its_undisturbed_samples_where_they_are_most(machine: Machine, tmp_path: Path) -> None:
    race = Race(tmp_path, turns=0, seconds=0.0)
    for number in range(3):
        machine.turn(race, number, (9 * MS, 1), (MS, 0), (1.5 * MS, 0), (9 * MS, 4), (2 * MS, 0))
    got = race.end()
    assert (got.turns_s, got.turn_switches, got.disturbed_s) == ([1.5 * MS] * 3, [5, 5, 5], [])


def test_a_context_switch_that_cost_no_time_disturbs_nothing(machine: Machine, tmp_path: Path) -> None:
    race = Race(tmp_path, turns=0, seconds=0.0)
    machine.turn(race, 0, *[(MS, 0)] * 5)
    for number in (1, 2):
        machine.turn(race, number, *[(1.0625 * MS, 1)] * 5)
    got = race.end()
    assert (got.turns_s, got.disturbed_s) == ([MS, 1.0625 * MS, 1.0625 * MS], [])
    assert got.turn_switches == [0, 5, 5]


def test_a_slower_turn_without_a_context_switch_counts_up_to_twice_the_best(machine: Machine, tmp_path: Path) -> None:
    race = Race(tmp_path, turns=0, seconds=0.0)
    for number, s in enumerate((MS, 2.25 * MS, 2 * MS)):
        machine.turn(race, number, *[(s, 0)] * 5)
    assert race.contender.wants_turn, "for the one that stalled"
    got = race.end()
    assert (got.turns_s, got.disturbed_s) == ([MS, 2 * MS], [2.25 * MS])


def test_turns_that_stall_alike_from_the_first_to_the_last_do_not_count(machine: Machine, tmp_path: Path) -> None:
    race = Race(tmp_path, turns=0, seconds=0.0)
    # Two threads on one core: two slices of 4 ms in each sample, and none that keeps its cores.
    for number in range(PATIENCE * FEWEST_TURNS):
        assert race.contender.wants_turn
        machine.turn(race, number, *[(8 * MS, 2)] * 4, (8 * MS, 0))
    got = race.end()
    assert (len(got.turns_s), len(got.disturbed_s)) == (1, PATIENCE * FEWEST_TURNS - 1)


def test_a_long_call_that_loses_a_core_now_and_then_counts(machine: Machine, tmp_path: Path) -> None:
    race = Race(tmp_path, turns=0, seconds=0.0)
    for number in range(FEWEST_TURNS):
        machine.turn(race, number, *[(64 * MS, 3)] * 5)
    assert not race.contender.wants_turn
    assert race.end().disturbed_s == []


def test_where_every_turn_is_disturbed_patience_ends_and_the_best_stands_alone(
    machine: Machine, tmp_path: Path
) -> None:
    race = Race(tmp_path, turns=0, seconds=0.0)
    medians = [4.0, 3.0, 2.0, 5.0, 6.0, 7.0]
    for number, middle in enumerate(medians):
        assert race.contender.wants_turn
        machine.turn(race, number, (MS, 1), *[(middle * MS, 1)] * 4)
    assert len(medians) == PATIENCE * FEWEST_TURNS
    assert not race.contender.wants_turn
    got = race.end({number: 10.0 * number for number in range(6)})
    assert (got.turns_s, got.turn_rounds, got.turn_peaks_gflops) == ([2 * MS], [2], [20.0])
    assert got.disturbed_s == [middle * MS for middle in medians if middle != 2]


def test_the_stalled_share_is_of_samples_beyond_twice_the_best_turn(machine: Machine, tmp_path: Path) -> None:
    race = Race(tmp_path, turns=0, seconds=0.0)
    machine.turn(race, 0, (MS, 0), (MS, 0), (2 * MS, 0), (MS, 0), (2.5 * MS, 0))
    machine.turn(race, 1, (3 * MS, 0), (MS, 0), (1.5 * MS, 0), (1.5 * MS, 0), (1.5 * MS, 0))
    machine.turn(race, 2, *[(4 * MS, 1)] * 5)
    got = race.end()
    assert (got.turns_s, got.disturbed_s) == ([MS, 1.5 * MS], [4 * MS])
    assert got.stalled_share == 7 / 15


def test_peaks_are_kept_for_all_turns_or_for_none(machine: Machine, tmp_path: Path) -> None:
    got = Race(tmp_path, turns=3, seconds=0.0).end({0: 30.0, 2: 50.0})
    assert (got.turn_rounds, got.turn_peaks_gflops, got.fma_peak_gflops) == ([0, 1, 2], [], 40.0)


def spoil_clock(answer: Answer, how: str) -> None:
    if how == "begins too early":
        answer["began"] = answer["asked"] - MS
    elif how == "ends too late":
        answer["ended"] = answer["answered"] + MS
    elif how == "runs backwards":
        answer["began"], answer["ended"] = answer["ended"], answer["began"]
    elif how == "longer than the turn":
        answer["samples_s"] = [4 * s for s in answer["samples_s"]]
    elif how == "no time at all":
        answer["samples_s"][0] = 0.0
    elif how == "not a number":
        answer["began"] = answer["samples_s"][0] = float("nan")
    else:
        answer["samples_s"] = []


@pytest.mark.parametrize(
    "how",
    [
        "begins too early", "ends too late", "runs backwards", "longer than the turn", "no time at all",
        "not a number", "no samples",
    ],
)  # fmt: skip
def test_a_clock_that_is_not_the_parents_is_caught(machine: Machine, tmp_path: Path, how: str) -> None:
    race = Race(tmp_path, turns=0)

    def change(do: str, answer: Answer) -> Answer:
        spoil_clock(answer, how)
        return answer

    race.worker.change = change
    race.contender.turn(0)
    got = race.end()
    assert got.status == "wrong_result"
    assert got.reason.startswith("its clock contradicts that of the parent, by which the turn took ")
