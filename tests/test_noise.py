"""How often intervals and verdicts are right about comparisons with the noise of a stored run."""

from __future__ import annotations

from functools import cache

import noise
import numpy as np
import pytest
from committed import committed

from bench.analysis import intervals
from bench.analysis.intervals import Turns

REFERENCE = committed("reference")


@cache
def comparisons(paired: bool = True) -> list[list[noise.Layer]]:
    return list(noise.comparisons(REFERENCE, paired))


@cache
def stored() -> tuple[list[noise.Noise], list[list[noise.Layer]]]:
    """The noise of all layers in order of scatter, and the comparisons that have most layers of the network."""
    pool = sorted((one for layers in comparisons() for layer in layers for one in layer.noise), key=noise.expected)
    return pool, [layers for layers in comparisons() if len(layers) >= 15]


def simulated(truth: float, comparisons: int, rng: np.random.Generator) -> list[list[tuple[float, Turns, Turns]]]:
    """Layers of one, two and three repetitions and whole networks, in turn."""
    pool, networks = stored()
    made: list[list[tuple[float, Turns, Turns]]] = []
    for number in range(comparisons):
        if repetitions := number % 4:
            made.append([(1.0, *noise.layer_comparison(pool, truth, repetitions, rng))])
        else:
            made.append(noise.network_comparison(networks[rng.integers(len(networks))], truth, rng))
    return made


def test_of_two_thousand_intervals_93_percent_hold_the_truth_and_equal_backends_get_no_verdict_in_95() -> None:
    rng, held, verdicts, each = np.random.default_rng(0), 0, 0, 500
    for truth in (1.0, 1.05, 1.1, 1.2):
        for layers in simulated(truth, each, rng):
            got = intervals.ratio(layers)
            held += got.low <= truth <= got.high
            verdicts += truth == 1 and got.verdict != "uncertain"
    assert held >= 0.93 * 4 * each
    assert verdicts <= 0.05 * each


def test_intervals_that_know_turns_alone_would_not_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check above can fail: without what is known of repetitions fewer intervals hold the truth."""
    monkeypatch.setattr(intervals, "PAIRED", intervals.Spread(0.0, 0.0, 1e6))
    got = [intervals.ratio(layers) for layers in simulated(1.0, 500, np.random.default_rng(0))]
    assert sum(one.low <= 1 <= one.high for one in got) < 0.93 * 500


def test_the_constants_are_those_fitted_to_the_stored_run() -> None:
    for paired, spread in ((True, intervals.PAIRED), (False, intervals.ALONE)):
        place, factor, freedom = noise.fitted(comparisons(paired))
        assert place == pytest.approx(spread.place, abs=0.012)
        assert factor == pytest.approx(1.0, abs=0.25)
        assert freedom == pytest.approx(spread.freedom, abs=0.6)
