"""Two runs: what is matched, what is called a change, what the machine explains."""

from __future__ import annotations

import json
from typing import Any

import pytest
from two_runs import FACTS, LABEL, SIX, record, scaled

from bench.analysis import changes, compare
from bench.store.records import Record


def judged(older: Record, newer: Record, margin: float | None = None) -> str:
    (word,) = compare.compare_runs([older], [newer], margin).verdict
    return str(word)


def test_each_verdict_points_the_right_way() -> None:
    assert judged(record(SIX), record(scaled(1.5))) == "slower"
    assert judged(record(scaled(1.5)), record(SIX)) == "faster"
    assert judged(record(SIX), record(scaled(1.2))) == "uncertain"
    assert judged(record(SIX), record(scaled(1.3)), margin=0.05) == "slower"
    assert judged(record(SIX), record(scaled(1.3)), margin=0.35) == "uncertain"
    assert judged(record(SIX), record(status="crashed")) == "broke"
    assert judged(record(SIX), record(status="over_budget")) == "broke"
    assert judged(record(status="timeout"), record(SIX)) == "mended"
    assert judged(record(SIX), record(status="interrupted")) == "gone"
    assert judged(record(status="interrupted"), record(SIX)) == "new"
    assert judged(record(status="unsupported"), record(status="unsupported")) == "not ok"


def test_a_case_of_one_run_alone_is_gone_or_new_or_not_asked_for() -> None:
    found = compare.compare_runs(
        [record(SIX, backend="a"), record(SIX, backend="c")],
        [record(status="interrupted", backend="a"), record(SIX, backend="b")],
    )
    assert dict(zip(found.backend, found.verdict, strict=True)) == {"a": "gone", "b": "new", "c": "not asked for"}
    assert not set(found.verdict[found.backend == "c"]) & set(compare.CHANGES)


def test_a_wide_spread_is_uncertain_whatever_the_median() -> None:
    assert judged(record(SIX), record([0.9, 1.0, 1.1, 3.0, 3.1, 3.2])) == "uncertain"


def test_what_the_fastest_turns_do_not_show_is_the_machine() -> None:
    slow, but_one = [1.5, 1.51, 1.49, 1.5, 1.52, 1.48], [1.0, 1.51, 1.49, 1.5, 1.52, 1.48]
    assert judged(record(SIX), record(slow)) == "slower"
    assert judged(record(SIX), record(but_one)) == "machine"
    assert judged(record(slow), record(SIX)) == "faster"
    assert judged(record(but_one), record(SIX)) == "machine"
    # Its yardstick was fast in that round, too: the turn took as long as the others on a machine that was the same.
    quick = [ONE[0] / 1.5, *ONE[1:]]
    assert judged(record(SIX, yardsticks=ONE), record(but_one, yardsticks=quick)) == "slower"


def test_a_time_that_stands_on_few_undisturbed_turns_is_the_machine() -> None:
    assert judged(record(SIX), record([1.6] * 6)) == "slower"
    assert judged(record(SIX), record([1.6] * 6, disturbed=20)) == "slower", "there are turns enough besides"
    many = [record([1.6, 1.61], repetition=n, disturbed=10) for n in (1, 2)]
    (word,) = compare.compare_runs([record(SIX)], many).verdict
    assert word == "slower", "four turns that nothing disturbed"
    layers = [(record([1.0] * 3), record([1.6] * 3)), (record([1.0] * 3), record([1.6] * 2, disturbed=10))]
    assert [judged(old, new) for old, new in layers] == ["slower", "too few repetitions"]


@pytest.mark.parametrize(("factor", "word"), [(2.0, "too few repetitions"), (5.0, "slower"), (0.1, "faster")])
def test_few_turns_tell_only_what_is_far_beyond_all_of_them(factor: float, word: str) -> None:
    assert judged(record([1.0, 1.1]), record([factor])) == word
    assert judged(record(SIX), record([factor])) == word


def test_samples_stand_in_for_turns() -> None:
    assert judged(record(SIX, samples=True), record(scaled(1.5), samples=True)) == "slower"


def test_a_peak_that_fell_takes_the_blame_and_one_that_rose_the_praise() -> None:
    assert judged(record(SIX), record(scaled(1.5), peak=70.0)) == "machine"
    assert judged(record(SIX), record(scaled(3.0), peak=70.0)) == "slower"
    assert judged(record(scaled(1.5)), record(SIX, peak=140.0)) == "machine"
    # Not every case runs at the speed of the multiply-adds: a peak alone makes no verdict.
    assert judged(record(SIX), record(SIX, peak=200.0)) == "uncertain"
    assert judged(record(SIX, peak=None), record(scaled(1.5), peak=50.0)) == "slower"


ONE = [0.01] * 6


def test_times_are_compared_in_units_of_the_yardstick_of_their_own_run() -> None:
    old = record(SIX, yardsticks=ONE)
    assert judged(old, record(scaled(1.3), yardsticks=ONE)) == "slower"
    assert judged(old, record(scaled(1.3), yardsticks=scaled(1.3, ONE))) == "machine", "only seconds changed"
    assert judged(old, record(scaled(0.7), yardsticks=scaled(0.7, ONE))) == "machine"
    assert judged(old, record(SIX, yardsticks=scaled(0.7, ONE))) == "slower", "it should have become faster"
    assert judged(old, record(SIX, yardsticks=scaled(1.4, ONE))) == "faster"
    assert judged(old, record(SIX, yardsticks=ONE)) == "uncertain"
    (row,) = compare.compare_runs([old], [record(scaled(1.3), yardsticks=scaled(2.0, ONE))]).itertuples()
    assert (row.ratio, row.yardstick) == pytest.approx((1.3 / 2.0, 2.0))
    assert row.margin == changes.MARGIN


def test_each_turn_is_divided_by_the_yardstick_of_its_own_round() -> None:
    drift = [1.0, 1.4, 0.8, 2.0, 1.0, 1.2]
    moved = [a * b for a, b in zip(SIX, drift, strict=True)]
    older, newer = (
        record(SIX, yardsticks=ONE),
        record(moved, yardsticks=[a * b for a, b in zip(ONE, drift, strict=True)]),
    )
    (row,) = compare.compare_runs([older], [newer]).itertuples()
    (even,) = compare.compare_runs([older], [record(SIX, yardsticks=ONE)]).itertuples()
    assert (row.ratio, row.low, row.high) == pytest.approx((even.ratio, even.low, even.high))


def test_a_peak_says_nothing_where_there_are_yardsticks() -> None:
    older, newer = record(SIX, yardsticks=ONE), record(scaled(1.5), peak=66.0, yardsticks=ONE)
    assert judged(older, newer) == "slower"


def test_without_a_yardstick_in_both_the_margin_is_wide() -> None:
    older = record([1.0] * 12)
    assert judged(older, record([1.22] * 12), margin=0.05) == "slower"
    assert judged(older, record([1.22] * 12)) == "uncertain"
    assert judged(older, record([1.22] * 12, yardsticks=ONE * 2)) == "uncertain"
    assert judged(record([1.0] * 12, yardsticks=ONE * 2), record([1.22] * 12, yardsticks=ONE * 2)) == "slower"


def test_a_layer_and_a_workload_may_be_renamed() -> None:
    renamed = record(scaled(2.0), workload="v", layer="other", label=LABEL.replace("layer", "other"))
    found = compare.compare_runs([record(SIX)], [renamed])
    assert list(found.verdict) == ["slower"]
    assert list(found.layer) == ["v/other"]


@pytest.mark.parametrize("other", [{"direction": "bwd_d"}, {"cache": "cold"}, {"threads": 2}, {"backend": "c"}])
def test_what_is_measured_another_way_is_another_case(other: dict[str, Any]) -> None:
    found = compare.compare_runs([record(SIX)], [record(SIX, **other)])
    assert sorted(found.verdict) == ["new", "not asked for"]


def test_repetitions_are_pooled_and_the_worst_counts() -> None:
    older = [record([1.0, 1.01, 0.99], repetition=n) for n in (1, 2)]
    newer = [record([2.0, 2.01, 1.99], repetition=n) for n in (1, 2)]
    assert list(compare.compare_runs(older, newer).verdict) == ["slower"]
    newer[1] = record(status="wrong_result", repetition=2)
    (row,) = compare.compare_runs(older, newer).itertuples()
    assert (row.verdict, row.reason) == ("broke", "wrong_result")


def layers(first: list[float], second: list[float] | None) -> list[Record]:
    two = LABEL.replace("ih8oc4oh8", "ih16oc4oh16").replace("layer", "second")
    return [record(first, count=3), record(second, "timeout", layer="second", label=two)]


def test_networks_are_sums_weighted_by_count_and_complete_or_absent() -> None:
    (row,) = compare.compare_networks(layers(SIX, SIX), layers(scaled(2.0), SIX)).itertuples()
    assert (row.network, row.layers, row.verdict) == ("w", 2, "slower")
    assert row.old_s == pytest.approx(4.0)
    assert row.new_s == pytest.approx(7.0)
    assert row.ratio == pytest.approx(1.75)
    assert row.low <= row.ratio <= row.high
    assert compare.compare_networks(layers(SIX, SIX), layers(SIX, None)).empty
    assert compare.compare_networks(layers(SIX, SIX), layers(SIX, SIX)[:1]).empty


def test_a_single_case_is_a_regression_only_far_beyond_its_margin() -> None:
    def regressed(factor: float) -> tuple[str, bool]:
        cases = compare.compare_runs([record([1.0] * 12)], [record([factor] * 12)], 0.1)
        return str(cases.verdict[0]), compare.regressed(cases, cases.iloc[:0])

    assert regressed(1.3) == ("slower", False)
    assert regressed(1.7) == ("slower", True)
    assert regressed(0.5) == ("faster", False)


def test_what_broke_and_a_network_that_is_slower_are_regressions() -> None:
    broke = compare.compare_runs([record(SIX)], [record(status="crashed")])
    assert compare.regressed(broke, broke.iloc[:0])
    older, newer = layers(SIX, SIX), layers(scaled(2.0), scaled(2.0))
    cases, networks = (make(older, newer) for make in (compare.compare_runs, compare.compare_networks))
    assert compare.regressed(cases.iloc[:0], networks)
    same = compare.compare_networks(older, older)
    assert not compare.regressed(cases.iloc[:0], same)


def test_intervals_are_wider_the_more_cases_are_judged() -> None:
    turns = [1.3, 1.31, 1.29, 1.32, 1.28, 1.2]

    def cases(times: list[float], count: int) -> list[Record]:
        return [record(times, layer=f"l{i}", label=LABEL.replace("oc4", f"oc{i + 1}")) for i in range(count)]

    (one,) = compare.compare_runs(cases(SIX, 1), cases(turns, 1)).itertuples()
    many = compare.compare_runs(cases(SIX, 300), cases(turns, 300))
    assert (many.low < one.low).all()
    assert (many.high > one.high).all()


def test_the_state_of_auto_is_listed_where_it_differs() -> None:
    assert compare.remembered({"tuning": "none", "limits": "a"}, {"tuning": "b", "limits": "a"}) == [
        "tuning: none -> b"
    ]
    assert compare.differences({"tuning": "none"}, {"tuning": "b"}) == []


def test_differences_name_every_fact_and_nothing_that_drifts() -> None:
    newer = {"id": "two", "cpu": "b", "packages": {"numba": "1"}, "load_1min": 3}
    assert compare.differences(FACTS, newer) == ["cpu: a -> b", "packages numpy: 2 -> None"]
    assert compare.differences(FACTS, json.loads(json.dumps(FACTS))) == []
