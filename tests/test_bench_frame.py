"""Records -> rows, ratios and warnings: where numbers become claims."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace
from records import CASE, LABEL, failed, record

from bench.analysis import intervals, stats, tables
from bench.analysis.frame import NOT_RUN, frame
from bench.machine.peaks import Peaks
from conv_impls import Conv2dProblem


def test_ratios_are_of_right_results_only() -> None:
    table = frame([record(), record("fast", times=(0.1, 0.1, 0.1)), failed("wrong_result", "wrong")])
    speed = table.set_index("backend").speedup
    assert speed["python_loops"] == 1
    assert speed["fast"] == pytest.approx(10)
    assert np.isnan(speed["wrong"])
    alone = frame([failed("over_budget", "python_loops"), record("fast")])
    assert alone.speedup.isna().all(), "an estimate must never enter a ratio"


@pytest.mark.parametrize("other", [{"direction": "bwd_d"}, {"cache": "cold"}, {"threads": 2}, {"workload": "vgg16"}])
def test_like_is_divided_by_like(other: dict[str, Any]) -> None:
    table = frame([record(), record("fast", times=(0.1,) * 3, case=other)])
    assert np.isnan(table.set_index("backend").speedup["fast"])


def test_repetitions_pool_their_samples_and_keep_the_worst_status() -> None:
    twice = [record(times=(1.0, 3.0)), record(times=(2.0, 2.0, 2.0), case={"repetition": 2})]
    (row,) = frame(twice).itertuples()
    assert (row.samples, row.median_s) == (5, 2.0)
    assert row.turns == {(1, 0): 1.0, (1, 1): 3.0, (2, 0): 2.0, (2, 1): 2.0, (2, 2): 2.0}
    second = replace(failed("wrong_result", "python_loops"), case=replace(CASE, repetition=2))
    (row,) = frame([record(), second]).itertuples()
    assert row.status == "wrong_result"
    assert np.isnan(row.median_s)
    assert row.turns == {}


def test_a_case_the_run_did_not_come_to_is_a_row_that_says_so() -> None:
    other = replace(CASE, layer="l2")
    table = frame([record()], [CASE, other]).set_index("layer")
    assert list(table.status) == ["ok", "interrupted"]
    assert table.reason["l2"] == NOT_RUN
    (row,) = frame([record()], [CASE, replace(CASE, repetition=2)]).itertuples()
    assert row.status == "interrupted", "half of the repetitions is not the case that was asked for"


def test_effective_and_executed_rates_stand_side_by_side() -> None:
    flops = Conv2dProblem.from_label(LABEL).flops
    (row,) = frame([record(times=(2.0,) * 3, executed_flops=flops / 2, fma_peak_gflops=flops / 1e9)]).itertuples()
    assert row.gflops_effective == pytest.approx(flops / 2e9)
    assert row.executed_gflops == pytest.approx(flops / 4e9)
    assert row.utilisation == pytest.approx(0.25)
    (untold,) = frame([record(fma_peak_gflops=1.0)]).itertuples()
    assert np.isnan(untold.executed_gflops)
    assert np.isnan(untold.utilisation)


def test_no_records_are_no_rows() -> None:
    assert frame([]).empty


@pytest.mark.parametrize(
    ("turns", "disturbed", "words"),
    [
        ([1.0] * 5, 0, ""), ([1.0], 0, ""), ([1.0, 1.0, 2.0, 2.0], 0, "may be 33% too long"),
        ([1e-7] * 5, 0, "too short to time"), ([1.0, 1.0], 10, "disturbed in 10 of 12 turns"),
        ([1.0] * 6, 6, ""), ([1.0, 1.02, 1.05, 9.0, 9.0], 0, ""), ([1.0, 9.0], 0, "may be 80% too long"),
        # One fast turn of six is chance, two are not; of twelve four are.
        ([0.5, 1.0, 1.0, 1.0, 1.0, 1.0], 0, ""), ([0.5, 0.5, 1.0, 1.0, 1.0, 1.0], 0, "may be 50% too long"),
        ([0.5] * 3 + [1.0] * 9, 0, ""), ([0.5] * 4 + [1.0] * 8, 0, "may be 50% too long"),
    ],
)  # fmt: skip
def test_weak_numbers_say_why(turns: list[float], disturbed: int, words: str) -> None:
    weak = stats.doubt(turns, disturbed=disturbed).weak
    assert words in weak
    assert bool(words) == bool(weak)


def test_a_number_taken_while_the_machine_was_slow_is_weak() -> None:
    slow, fast = (record(name, fma_peak_gflops=peak) for name, peak in (("slow", 80.0), ("fast", 100.0)))
    weak = frame([slow, fast]).set_index("backend").weak
    assert weak["slow"] == "machine at 80% of its peak"
    assert weak["fast"] == ""
    elsewhere = record("slow", fma_peak_gflops=80.0, case={"threads": 2})
    assert list(frame([elsewhere, fast]).weak) == ["", ""], "one thread's peak is not that of two"


@pytest.mark.parametrize(
    ("environment", "weak"),
    [
        ({}, ""),
        ({"machine": {"by_threads": [{"threads": 1, "fma_float32_gflops": 100.0, "fma_float64_gflops": 90.0}]}}, "80%"),
        ({"machine": {"by_threads": [{"threads": 2, "fma_float32_gflops": 100.0, "fma_float64_gflops": 90.0}]}}, ""),
        ({"known_peaks": {"1": {"float32": 160.0}, "2": {"float32": 900.0}}}, "50%"),
        ({"machine": None, "known_peaks": None}, ""),
    ],
)  # fmt: skip
def test_a_whole_run_on_a_slow_machine_is_weak(environment: dict[str, Any], weak: str) -> None:
    (row,) = frame([record(fma_peak_gflops=80.0)], environment=environment).itertuples()
    assert row.weak == (f"machine at {weak} of its peak" if weak else "")


def test_the_best_peak_is_the_highest_of_all_that_are_known() -> None:
    machine = {"by_threads": [{"threads": 1, "fma_float32_gflops": 85.0, "fma_float64_gflops": 40.0}]}
    known = Peaks({"machine": machine, "known_peaks": {"1": {"float64": 41.0}, "4": {"float32": 300.0}}})
    known.learn(1, "float32", 90.0)
    known.learn(1, "float32", 80.0)
    found = [known.peak_gflops(threads, dtype) for threads in (1, 4, 2) for dtype in ("float32", "float64")]
    assert found == [90.0, 41.0, 300.0, 0.0, 0.0, 0.0]
    assert known.most(2, "float32") == (180e9, 0.0), "each of two threads does what one does alone"


def test_a_peak_of_less_than_half_the_best_measures_no_layer() -> None:
    busy, calm = (
        record("busy", fma_peak_gflops=40.0, executed_flops=1e6),
        record("calm", fma_peak_gflops=100.0, executed_flops=1e6),
    )
    table = frame([busy, calm]).set_index("backend")
    assert table.loc["calm", "utilisation"] > 0
    assert table.loc["busy", ["fma_peak_gflops", "utilisation"]].isna().all()
    assert table.loc["busy", "weak"] == "machine at 40% of its peak"


def test_a_case_is_weak_where_the_machine_is_below_a_peak_of_another_time() -> None:
    slow = [record("a", fma_peak_gflops=80.0)]
    assert frame(slow).weak[0] == ""
    assert "80% of its peak" in frame(slow, environment={"known_peaks": {"1": {"float32": 100.0}}}).weak[0]


def test_turns_pair_by_the_round_they_were_taken_in() -> None:
    a = record("a", times=(2.0, 2.0, 8.0), turn_rounds=[0, 2, 5])
    b = record("b", times=(1.0, 4.0, 1.0), turn_rounds=[0, 5, 7])
    turns = frame([a, b]).set_index("backend").turns
    assert turns["a"] == {(1, 0): 2.0, (1, 2): 2.0, (1, 5): 8.0}
    paired = intervals.ratio([(1.0, turns["a"], turns["b"])])
    assert (paired.value, paired.pairs) == (2.0, 2)


def test_stalls_and_disturbed_turns_are_counted_over_all_repetitions() -> None:
    first = record(times=(1.0,) * 2, stalled_share=0.5, disturbed_s=[9.0, 9.0])
    second = record(times=(1.0,) * 3, stalled_share=0.0, disturbed_s=[9.0], case={"repetition": 2})
    (row,) = frame([first, second]).itertuples()
    assert (row.stalled_share, row.disturbed) == (0.2, 3), "one stalled sample of five"
    unknown = tables.per_case(frame([record()])).iloc[0]
    assert np.isnan(unknown.stalled_share)
    assert unknown.disturbed == 0
