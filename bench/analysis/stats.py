"""Small statistics over samples in seconds: medians, spreads, ratios, and why a number is weak."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import comb
from typing import Any

import numpy as np

# A median that may be wrong by more than this share is weak, and so is a sum of such.
TOLERANCE = 0.10
# Chance that the true median is below the limit that `doubt` takes for the lowest likely one.
CHANCE = 0.125
# Fewer turns than this that nothing disturbed stand for themselves alone: the true time may be half of theirs.
FEW_TURNS, HALF = 3, 0.5
# Below this time the clock itself is felt.
SHORT_S = 2e-6
# Seconds of a backend's turns at one layer, by (repetition, round).
Turns = Mapping[tuple[int, int], float]
# Draws of a bootstrap; and pairs without which no verdict is given: six of one sign come by chance once in 32.
RESAMPLES = 2000
MIN_PAIRS = 6
# Change of a median between two runs that counts: see bench/compare.py.
MARGIN = 0.25


def median(samples: Sequence[float]) -> float:
    """Median of at least one sample."""
    return float(np.median(np.asarray(samples)))


def iqr(samples: Sequence[float]) -> float:
    """Interquartile range, linear interpolation; 0 for one sample.

    Examples
    --------
    >>> iqr([1.0, 2.0, 3.0, 4.0, 5.0])
    2.0
    """
    low, high = np.percentile(np.asarray(samples), [25, 75])
    return float(high - low)


def geometric_mean(ratios: Sequence[float]) -> float:
    """Geometric mean: the one mean for ratios.

    Examples
    --------
    >>> round(geometric_mean([0.5, 2.0]), 6)
    1.0
    """
    return float(np.exp(np.mean(np.log(np.asarray(ratios)))))


@dataclass(frozen=True)
class Doubt:
    """How much too long a median may be, as shares of it, and why it is weak, or nothing.

    ``noise`` is what chance may have added, which averages out over the layers of a network; ``bias`` is what may have
    been wrong with all turns alike, which does not.
    """

    noise: float = 0.0
    bias: float = 0.0
    weak: str = ""


def doubt(turns_s: Sequence[float], peaks: Sequence[float] = (), best_peak: float = 0.0, disturbed: int = 0) -> Doubt:
    """What may be wrong with the median of these turns.

    Disturbances make turns longer, hardly ever shorter, so a median is doubted on that side alone: down to the turn
    below which the true median lies with a chance of one in eight at most (the binomial limits of order statistics:
    Conover 1999, "Practical nonparametric statistics", sec. 3.2).

    Parameters
    ----------
    turns_s : sequence of float
        The turns that count.
    peaks : sequence of float
        What the machine could do in the same rounds.
    best_peak : float
        The most that the machine is known to do; 0 where nothing is known.
    disturbed : int
        Turns that were disturbed and do not count.

    Examples
    --------
    >>> doubt([1.0, 1.5, 2.0, 2.0, 2.0, 9.0])
    Doubt(noise=0.25, bias=0.0, weak='may be 25% too long')
    >>> doubt([1.0, 1.01, 1.0, 5.0]).weak
    ''
    >>> doubt([1.0], disturbed=11)
    Doubt(noise=0.0, bias=0.5, weak='disturbed in 11 of 12 turns')
    >>> doubt([1.0, 1.0, 1.0], [70.0, 72.0], 100.0).weak
    'machine at 71% of its peak'
    """
    middle, low = median(turns_s), sorted(turns_s)[_lowest_rank(len(turns_s))]
    noise, bias, reasons = 1 - low / middle, 0.0, []
    if disturbed and len(turns_s) < FEW_TURNS:
        bias = HALF
        reasons.append(f"disturbed in {disturbed} of {disturbed + len(turns_s)} turns")
    elif noise > TOLERANCE:
        reasons.append(f"may be {noise:.0%} too long")
    if middle < SHORT_S:
        bias = max(bias, HALF)
        reasons.append("too short to time")
    level = median(peaks) / best_peak if peaks and best_peak else 1.0
    if level < 1 - TOLERANCE:
        bias = max(bias, 1 - level)
        reasons.append(f"machine at {level:.0%} of its peak")
    return Doubt(noise, bias, ", ".join(reasons))


def _lowest_rank(turns: int) -> int:
    """The place in order of the highest turn that the true median is below with a chance of `CHANCE` at most."""
    below, chance = 0, 0.5**turns
    while chance + comb(turns, below + 1) * 0.5**turns <= CHANCE:
        below += 1
        chance += comb(turns, below) * 0.5**turns
    return below


@dataclass(frozen=True)
class Ratio:
    """Time of ``a`` over time of ``b``, its interval, and what may be said of it."""

    value: float
    low: float
    high: float
    pairs: int
    verdict: str


def ratio(
    layers: Sequence[tuple[float, Turns, Turns]], seed: int = 0, margin: float = 0.0, level: float = 0.95
) -> Ratio:
    """How many times as long a takes as b, from turns taken pair by pair under like conditions.

    Each layer is (weight, turns of a, turns of b), seconds by (repetition, round); rounds that only one of them took
    are left out. The figure is the weighted sum of a's medians over that of b's. The interval is its middle 95% over
    `RESAMPLES` draws: in each layer by itself, repetitions are drawn with replacement, and rounds within each, since
    the rounds of one repetition have processes and places in memory in common (Efron & Tibshirani 1993, "An
    introduction to the bootstrap", ch. 6 and 8). Verdicts of b: "faster" or "slower" where the interval is beyond
    ``margin`` around 1, else "uncertain"; "too few repetitions" where a layer has fewer than `MIN_PAIRS` pairs.

    Examples
    --------
    >>> a = {(1, i): s for i, s in enumerate([2.0, 2.1, 1.9, 2.0, 2.0, 2.2])}
    >>> ratio([(1, a, dict.fromkeys(a, 1.0))]).verdict
    'faster'
    >>> ratio([(1, {(1, 0): 2.0}, {(1, 0): 1.0, (1, 1): 1.1})]).verdict
    'too few repetitions'
    """
    rng = np.random.default_rng(seed)
    sums, draws, fewest = np.zeros(2), np.zeros((2, RESAMPLES)), len(layers[0][1])
    for weight, a, b in layers:
        common = sorted(a.keys() & b.keys())
        fewest = min(fewest, len(common))
        repetitions = [[key for key in common if key[0] == r] for r in dict.fromkeys(key[0] for key in common)]
        counts = np.array([len(keys) for keys in repetitions])
        times = np.zeros((2, len(counts), counts.max()))
        for row, keys in enumerate(repetitions):
            times[:, row, : len(keys)] = [[side[key] for key in keys] for side in (a, b)]
        rows = rng.integers(0, len(counts), (RESAMPLES, len(counts), 1))
        rounds = (rng.random((RESAMPLES, len(counts), counts.max())) * counts[rows]).astype(int)
        drawn = times[:, rows, rounds].reshape(2, RESAMPLES, -1)
        sums += weight * np.array([np.median([side[key] for key in common]) for side in (a, b)])
        draws += weight * np.median(drawn, axis=2)
    value = float(sums[0] / sums[1])
    low, high = _interval(draws[0] / draws[1], level)
    if fewest < MIN_PAIRS:
        word = "too few repetitions"
    else:
        word = "faster" if low > 1 + margin else "slower" if high < 1 / (1 + margin) else "uncertain"
    return Ratio(value, low, high, fewest, word)


def change(
    layers: Sequence[tuple[float, Sequence[float], Sequence[float]]], margin: float, seed: int = 0, level: float = 0.95
) -> Ratio:
    """How many times as long the newer times are, from two runs whose times have nothing in common.

    Each layer is (weight, older times, newer times). As `ratio`, but both sides are drawn by themselves; the words are
    the newer's, beyond ``margin``.

    Examples
    --------
    >>> change([(1, [1.0, 1.1, 1.0, 1.0, 1.0, 1.1], [2.0, 2.1, 2.0, 2.1, 2.0, 2.0])], 0.1).verdict
    'slower'
    """
    rng = np.random.default_rng(seed)
    sums, draws = np.zeros(2), np.zeros((2, RESAMPLES))
    for weight, *both in layers:
        for side, times in enumerate(both):
            sums[side] += weight * median(times)
            draws[side] += weight * np.median(rng.choice(np.asarray(times), (RESAMPLES, len(times))), axis=1)
    value = float(sums[1] / sums[0])
    low, high = _interval(draws[1] / draws[0], level)
    fewest = min(len(times) for _, *both in layers for times in both)
    if fewest < MIN_PAIRS:
        word = "too few repetitions"
    else:
        word = "slower" if low > 1 + margin else "faster" if high < 1 / (1 + margin) else "uncertain"
    return Ratio(value, low, high, fewest, word)


def _interval(draws: Any, level: float) -> tuple[float, float]:
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
