"""Results that nobody would believe: weak ones are measured again, and one too fast is none."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from scripted import BACKENDS, Answer, Session, Spoil, asked, by_backend

from bench.machine.peaks import Peaks
from bench.run.contender import PATIENCE, TURNS
from bench.run.driver import AGAIN, DOUBT_S, DOUBTS, PEAK_S, Driver
from bench.run.floor import SLACK, fewest_flops, least_s, seen
from bench.run.worker import MACHINE
from conv_impls import Conv2dProblem

# Medians of a backend's turns in ms: two of the six weak ones are much faster than their median.
WEAK, LESS_WEAK, STEADY = (1, 1, 2, 2, 2, 2), (2, 2, 2, 2, 2, 2), (3, 3, 3, 3, 3, 3)


def medians(**script: list[tuple[int, ...]]) -> Spoil:
    """Turns of each backend, one list of medians for each time that its layer is measured."""
    turns: Counter[str] = Counter()

    def spoil(name: str, threads: int, do: str, order: Answer) -> Answer | None:
        if do != "turn" or name not in script:
            return None
        measured, turn = divmod(turns[name], TURNS)
        turns[name] += 1
        return {"samples_s": [script[name][measured][turn] / 1e3] * 3, "iterations": 1}

    return spoil


def measure_again(measuring: Driver) -> None:
    first = measuring.run.cases[0]
    while measuring.weak(first):
        measuring.again(first)


def seconds(*turns: tuple[int, ...]) -> list[float]:
    return [ms / 1e3 for turn in turns for ms in turn]


def test_a_weak_layer_is_measured_again_and_the_turns_of_both_times_count(go: Session) -> None:
    run, log = go(medians(a=[WEAK, LESS_WEAK]), layers=1, after=measure_again)
    found = by_backend(run)["a"]
    assert found.turns_s == seconds(WEAK, LESS_WEAK)
    assert (found.median_s, len(found.samples_s), len(found.turn_peaks_gflops)) == (2e-3, 36, 12)
    assert found.turn_rounds == [*range(TURNS), *range(PATIENCE * TURNS, (PATIENCE + 1) * TURNS)], "no round twice"
    lines = (run.folder / "records.jsonl").read_text().splitlines()
    assert len(lines) == 6, "the whole group, after the records of before"
    assert asked(log, "start") == 2 * BACKENDS
    assert Counter(asked(log, "start up")) == dict.fromkeys([*BACKENDS, MACHINE], 2), "by new processes"


def test_a_layer_that_stays_weak_is_given_up(go: Session) -> None:
    other = (4, 4, 8, 8, 8, 8)
    run, log = go(medians(a=[WEAK, other, other]), layers=1, after=measure_again)
    assert by_backend(run)["a"].turns_s == seconds(WEAK, other, other)
    assert asked(log, "start") == (1 + AGAIN) * BACKENDS


def test_turns_with_which_all_was_wrong_are_replaced_by_better_ones_only(go: Session) -> None:
    peaks = Counter[str]()

    def spoil(low: int) -> Spoil:
        honest = medians(a=[STEADY, LESS_WEAK, LESS_WEAK])

        def answer(name: str, threads: int, do: str, order: Answer) -> Answer | None:
            if (name, do) != (MACHINE, "turn"):
                return honest(name, threads, do, order)
            peaks[str(low)] += 1
            return {"gflops": 50.0 if peaks[str(low)] <= low else 80.0}

        return answer

    environment = {"known_peaks": {"1": {"float32": 80.0}}}
    # Three tries a round, at most, while the machine is below the highest peak known.
    run, _ = go(spoil(3 * TURNS), layers=1, environment=environment, after=measure_again)
    assert by_backend(run)["a"].turns_s == seconds(LESS_WEAK)
    run, _ = go(spoil(10**6), folder="low", layers=1, environment=environment, after=measure_again)
    assert by_backend(run)["a"].turns_s == seconds(STEADY)


def test_a_layer_that_is_not_weak_is_left_alone(go: Session) -> None:
    _, log = go(layers=1, after=measure_again)
    assert asked(log, "start") == BACKENDS


def test_a_resumed_run_leaves_the_layers_of_before_alone(go: Session) -> None:
    go(medians(a=[WEAK]), layers=1)
    _, log = go(medians(a=[WEAK] * 9), layers=1, after=measure_again)
    assert asked(log, "start") == []


def test_without_time_left_nothing_is_measured_again(go: Session) -> None:
    def late(measuring: Driver) -> None:
        assert measuring.weak(measuring.run.cases[0])
        measuring._end = 0.0
        measure_again(measuring)
        measuring.again(measuring.run.cases[0])

    run, log = go(medians(a=[WEAK]), layers=1, after=late)
    assert len(asked(log, "turn")) == 4 * TURNS
    assert by_backend(run)["a"].turns_s == seconds(WEAK)


def test_a_case_with_a_low_peak_beside_it_is_weak(go: Session) -> None:
    environment = {"known_peaks": {"1": {"float32": 80.0}}}
    _, log = go(layers=1, environment=environment, after=measure_again)
    assert asked(log, "start") == (1 + AGAIN) * BACKENDS
    _, log = go(folder="quiet", layers=1, environment={"known_peaks": {"1": {"float32": 52.0}}}, after=measure_again)
    assert asked(log, "start") == BACKENDS


@pytest.mark.parametrize("others", [LESS_WEAK, WEAK])
@pytest.mark.parametrize("wrong_at", [1, 2])
def test_a_wrong_result_is_kept_whichever_time_it_comes(go: Session, others: tuple[int, ...], wrong_at: int) -> None:
    honest, times = medians(a=[WEAK, others, LESS_WEAK]), Counter[str]()

    def spoil(name: str, threads: int, do: str, order: Answer) -> Answer | None:
        times[name] += do == "start"
        if (name, do, times[name]) == ("b", "ready", wrong_at):
            return {"status": "wrong_result", "reason": "because"}
        return honest(name, threads, do, order)

    found = by_backend(go(spoil, layers=1, after=measure_again)[0])
    assert found["b"].status == "wrong_result"
    assert found["a"].turns_s[: 2 * TURNS] == seconds(WEAK, others)


def quick(name: str, threads: int, do: str, order: Answer) -> Answer | None:
    """Backend a is quicker than 50 GFLOP/s allow; more is known only when the machine is asked for longer."""
    if (name, do) == ("a", "turn"):
        return {"samples_s": [5e-7] * 3}
    return None


def test_too_fast_a_result_is_none_after_the_peak_was_asked_again(go: Session) -> None:
    run, log = go(quick, layers=1)
    found = by_backend(run)
    assert {name: record.status for name, record in found.items()} == {"a": "too_fast", "b": "ok", "c": "ok"}
    assert found["a"].reason.startswith("5e-07 s per call; this machine needs at least ")
    assert (found["a"].samples_s, found["a"].median_s) == ([], None)
    peaks = [order["seconds"] for name, _, do, order in log if name == MACHINE and do == "turn"]
    assert peaks == [PEAK_S] * TURNS + [DOUBT_S] * DOUBTS


def test_a_peak_that_was_low_each_time_accuses_nobody(go: Session) -> None:
    def spoil(name: str, threads: int, do: str, order: Answer) -> Answer | None:
        if name == MACHINE and do == "turn":
            return {"gflops": 5000.0} if order["seconds"] == DOUBT_S else {"gflops": 50.0}
        return quick(name, threads, do, order)

    run, log = go(spoil, layers=1)
    assert {record.status for record in run.records()} == {"ok"}
    assert asked(log, "turn").count(MACHINE) == TURNS + DOUBTS


def test_the_peak_of_the_machine_and_of_earlier_rounds_counts_as_well(go: Session) -> None:
    known = {"known_peaks": {"2": {"float32": 10000.0}}}
    run, log = go(quick, layers=1, environment=known)
    assert {record.status for record in run.records()} == {"ok"}
    assert asked(log, "turn").count(MACHINE) == TURNS, "nobody is in doubt"


def test_where_no_peak_is_known_nobody_is_too_fast(go: Session) -> None:
    def spoil(name: str, threads: int, do: str, order: Answer) -> Answer | None:
        return {"status": "crashed", "gflops": None} if name == MACHINE else quick(name, threads, do, order)

    assert {record.status for record in go(spoil, layers=1)[0].records()} == {"ok"}


def test_the_most_a_machine_can_do_is_that_of_its_best_thread_times_their_number() -> None:
    environment = {
        "machine": {
            "by_threads": [
                {"threads": 1, "fma_float32_gflops": 60.0, "fma_float64_gflops": 30.0},
                {"threads": 2, "fma_float32_gflops": 90.0, "fma_float64_gflops": 70.0},
            ],
            "by_level": [
                {"level": "L1", "threads": 2, "read_gb_per_s": 300.0},
                {"level": "DRAM", "threads": 1, "read_gb_per_s": 900.0},
            ],
        },
        "known_peaks": {"2": {"float32": 100.0}},
    }  # fmt: skip
    peaks = Peaks(environment)
    # One thread of two was busy when both were measured: twice 60 is possible.
    assert peaks.most(2, "float32") == (120e9, 300e9)
    assert peaks.most(1, "float32") == (60e9, 150e9)
    assert peaks.most(1, "float64") == (35e9, 150e9)
    assert (peaks.peak_gflops(2, "float32"), peaks.peak_gflops(4, "float32")) == (100.0, 0.0)
    peaks.learn(4, "float32", 400.0)
    peaks.learn(4, "float32", 200.0)
    assert peaks.most(2, "float32") == (200e9, 300e9)
    assert Peaks({}).most(2, "float32") == (0.0, 0.0)


def test_the_least_time_of_a_call_by_hand() -> None:
    problem = Conv2dProblem.from_label("mb1ic64ih56oc64oh56kh3ph1")
    # Three taps of each row and column see the image, at both ends two.
    flops = 2 * (3 * 56 - 2) ** 2 * 64 * 64
    assert least_s(problem, problem.flops, 100e9, 0.0) == pytest.approx(flops / 100e9 / SLACK)
    assert least_s(problem, None, 100e9, 0.0) == pytest.approx(flops / 4 / 100e9 / SLACK), "a quarter by Winograd"
    data = 4 * (64 * 56 * 56 * 2 + 64 * 64 * 9)
    assert least_s(problem, None, 0.0, 200e9) == pytest.approx(data / 200e9 / SLACK)
    assert least_s(problem, None, 100e9, 1e9) == pytest.approx(data / 1e9 / SLACK), "the longer of both"
    assert least_s(problem, None, 0.0, 0.0) == 0.0


def test_products_with_the_padding_may_be_left_out() -> None:
    # Of nine taps, 12 pixels apart, the middle one alone sees an image of 10 x 10: libraries leave out the others, and
    # were once accused.
    problem = Conv2dProblem.from_label("mb1ic672ih10oc128oh10kh3ph12dh11")
    middle = 2 * 100 * 672 * 128
    assert least_s(problem, None, 100e9, 0.0) == pytest.approx(middle / 4 / 100e9 / SLACK)
    assert least_s(problem, problem.flops, 100e9, 0.0) == pytest.approx(middle / 100e9 / SLACK)
    # Of rows and columns, with stride and unlike sides: counted one by one.
    uneven = problem.replace(in_size=(11, 8), stride=(3, 2), dilation=(2, 1), padding=((3, 0), (1, 4)))
    rows = [0 <= 3 * i + 2 * tap - 3 < 11 for i in range(uneven.out_size[0]) for tap in range(3)]
    columns = [0 <= 2 * j + tap - 1 < 8 for j in range(uneven.out_size[1]) for tap in range(3)]
    assert seen(uneven) == pytest.approx(np.mean(rows) * np.mean(columns))
    # Other padding shows the image.
    assert seen(uneven.replace(padding_mode="replicate")) == 1.0


def test_large_kernels_may_be_as_quick_as_an_fft() -> None:
    problem = Conv2dProblem.from_label("mb2ic4ih64oc8oh64kh31ph15")
    points = 94 * 94
    transforms = 2.5 * points * np.log2(points) * 2 * (4 + 8)
    products = 4 * points * 2 * 4 * 8
    assert fewest_flops(problem) == pytest.approx(transforms + products)
    assert fewest_flops(problem) < problem.flops / 4
    deep = Conv2dProblem.from_label("mb1ic1ih8oc1oh8kh9ph4")
    assert fewest_flops(deep) == deep.flops / 4, "where an FFT needs more it sets no limit"
