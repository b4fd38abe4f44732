"""Ratios and changes: figures, intervals and verdicts worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from bench.analysis import intervals, numbers

DRIFT = [1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0]


def scaled(factor: float) -> list[float]:
    return [factor * time for time in DRIFT]


def turns(*repetitions: list[float]) -> dict[tuple[int, int], float]:
    return {(r, i): time for r, times in enumerate(repetitions, 1) for i, time in enumerate(times)}


@pytest.mark.parametrize(
    ("a", "b", "word"),
    [
        (scaled(1.2), DRIFT, "faster"), (DRIFT, scaled(1.2), "slower"), (DRIFT, DRIFT, "uncertain"),
        (scaled(1.02), DRIFT, "uncertain"), ([1.0, 1.2] * 4, [1.1, 1.1] * 4, "uncertain"),
        ([2.0] * 2, [1.0] * 2, "too few repetitions"), ([2.0] * 3, [1.0] * 3, "faster"),
    ],
)  # fmt: skip
def test_verdicts_of_pairs(a: list[float], b: list[float], word: str) -> None:
    assert intervals.ratio([(1, turns(a), turns(b))]).verdict == word


def test_a_ratio_is_taken_pair_by_pair() -> None:
    paired = intervals.ratio([(1, turns(scaled(1.2)), turns(DRIFT))])
    assert paired.value == pytest.approx(1.2)
    assert 1.08 < paired.low < 1.2 < paired.high < 1.34, "what both shared cancels; processes still differ"
    apart = intervals.change([(1, turns(DRIFT), turns(scaled(1.2)))])
    assert apart.low < 1 < apart.high, "times that have nothing in common cannot tell"
    assert numbers.cell(paired) == f"1.20 ({paired.low:.2f} to {paired.high:.2f})"
    assert paired.pairs == len(DRIFT)


def test_a_layer_is_the_median_of_its_pairs_and_a_sum_weighs_layers_by_their_time() -> None:
    a, b = turns([2.0, 4.0, 8.0, 30.0, 6.0]), turns([1.0, 2.0, 4.0, 3.0, 3.0])
    assert intervals.ratio([(5, a, b)]).value == pytest.approx(2.0), "one pair of ten times changes nothing"
    layers = [(3.0, turns([2.0] * 6), turns([1.0] * 6)), (1.0, turns([1.0] * 6), turns([4.0] * 6))]
    assert intervals.ratio(layers).value == pytest.approx((3 * 2 + 1 * 1) / (3 * 1 + 1 * 4))
    few = intervals.ratio([*layers, (1.0, turns([1.0] * 2), turns([1.0] * 9))])
    assert (few.pairs, few.verdict) == (2, "too few repetitions")


def test_the_interval_by_hand() -> None:
    """One repetition of six like pairs: Student's t of 3 degrees of freedom, 3.182, times the expected deviation."""
    got = intervals.ratio([(1.0, turns([2.0] * 6), turns([1.0] * 6))])
    width = np.exp(3.182446 * np.sqrt(0.01**2 + 0.03**2))
    assert (got.low, got.high) == pytest.approx((2 / width, 2 * width))
    # Two that differ by 0.2 around their mean: (3 * expected + 2 * 0.1^2) / 4, over two repetitions; t of 4: 2.776.
    logs = np.exp([0.1, -0.1])
    got = intervals.ratio([(1.0, turns([logs[0]] * 6, [logs[1]] * 6), turns([1.0] * 6, [1.0] * 6))])
    width = np.exp(2.776445 * np.sqrt((3 * 0.001 + 2 * 0.01) / 4 / 2))
    assert (got.low, got.high) == pytest.approx((1 / width, width), rel=0.01)


def test_a_margin_widens_what_is_uncertain() -> None:
    layers = [(1.0, turns(scaled(1.2)), turns(DRIFT))]
    assert intervals.ratio(layers, margin=0.1).verdict == "faster"
    assert intervals.ratio(layers, margin=0.25).verdict == "uncertain"


def test_rounds_pair_by_repetition_and_number_and_what_only_one_took_is_left_out() -> None:
    a, b = {(1, 0): 2.0, (1, 5): 9.0, (2, 0): 4.0}, {(1, 0): 1.0, (2, 0): 2.0, (2, 5): 7.0}
    got = intervals.ratio([(1.0, a, b)])
    assert got.value == pytest.approx(2.0)
    assert got.pairs == 2


def test_layers_without_a_common_repetition_still_have_a_ratio() -> None:
    first = {(1, i): 2.0 for i in range(6)}, {(1, i): 1.0 for i in range(6)}
    second = {(2, i): 2.0 for i in range(6)}, {(2, i): 1.0 for i in range(6)}
    assert intervals.ratio([(1, *first), (1, *second)]).value == pytest.approx(2.0)


def test_repetitions_that_disagree_make_a_wide_interval_however_many_rounds_they_have() -> None:
    rounds = [[1.2] * 20, [1.0] * 20, [0.8] * 20]
    apart = intervals.ratio([(1.0, turns(*rounds), turns(*[[1.0] * 20] * 3))])
    together = intervals.ratio([(1.0, turns(*[[1.0] * 20] * 3), turns(*[[1.0] * 20] * 3))])
    assert apart.high / apart.low > 1.3 > 1.1 > together.high / together.low


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        ([1.0] * 6, [2.0] * 6, "slower"), ([2.0] * 6, [1.0] * 6, "faster"), ([1.0] * 6, [1.04] * 6, "uncertain"),
        ([1.0] * 6, [2.0] * 2, "too few repetitions"),
    ],
)  # fmt: skip
def test_verdicts_of_a_change_want_a_margin(old: list[float], new: list[float], word: str) -> None:
    assert intervals.change([(1, turns(old), turns(new))], 0.05).verdict == word


def test_a_change_has_the_noise_of_both_runs() -> None:
    calm, wild = turns([1.0] * 8), turns([1.0, 1.6] * 4)
    widths = [(got.high / got.low) for a, b in ((calm, wild), (wild, calm)) if (got := intervals.change([(1, a, b)]))]
    assert widths[0] == pytest.approx(widths[1])
    quiet = intervals.change([(1, calm, calm)])
    assert quiet.high / quiet.low < widths[0]
