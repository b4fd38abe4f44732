"""Small statistics over samples in seconds: medians, spreads, ratios, and why a number is weak."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# Below this many samples a spread says nothing; above this spread, or below this time, a reader should be warned.
FEW_SAMPLES = 3
WIDE_SPREAD = 0.10
SHORT_S = 2e-6
# The peak beside a case, of the best in the run: below this something else was at the machine.
DRIFT = 0.9
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


def weakness(samples: Sequence[float], peaks: Sequence[float] = (), best_peak: float = 0.0) -> str:
    """Why a reader should not lean on this number, or nothing.

    ``peaks`` are what the machine could do beside these samples, ``best_peak`` the most it could in the whole run.

    Examples
    --------
    >>> weakness([1.0, 1.0, 2.0, 3.0])
    'spread 83% of the median'
    >>> weakness([1.0])
    'only 1 sample'
    >>> weakness([1.0, 1.0, 1.0], [70.0, 72.0], 100.0)
    'machine at 71% of its peak'
    """
    if len(samples) < FEW_SAMPLES:
        return f"only {len(samples)} sample" + "s" * (len(samples) != 1)
    middle = median(samples)
    if middle < SHORT_S:
        return "too short to time"
    reasons = []
    if (spread := iqr(samples) / middle) > WIDE_SPREAD:
        reasons.append(f"spread {spread:.0%} of the median")
    if peaks and (level := median(peaks) / best_peak) < DRIFT:
        reasons.append(f"machine at {level:.0%} of its peak")
    return ", ".join(reasons)


@dataclass(frozen=True)
class Ratio:
    """Time of ``a`` over time of ``b``, its interval, and what may be said of it."""

    value: float
    low: float
    high: float
    pairs: int
    verdict: str

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f})"


def ratio(
    layers: Sequence[tuple[float, Sequence[float], Sequence[float]]], seed: int = 0, margin: float = 0.0
) -> Ratio:
    """How many times as long a takes as b, from times taken pair by pair under like conditions.

    Each layer is (weight, times of a, times of b), equally many times of both; the figure is the weighted sum of a's
    medians over that of b's. The interval is the middle 95% of that figure over `RESAMPLES` draws of pairs, drawn with
    replacement in each layer by itself (Efron & Tibshirani 1993, "An introduction to the bootstrap", ch. 6 and 13).
    Verdicts of b: "faster" or "slower" where the interval is beyond ``margin`` around 1, else "uncertain"; "too few
    repetitions" where a layer has fewer than `MIN_PAIRS`: not even equal signs of all are then beyond chance.

    Examples
    --------
    >>> ratio([(1, [2.0, 2.1, 1.9, 2.0, 2.0, 2.2], [1.0] * 6)]).verdict
    'faster'
    >>> ratio([(1, [2.0, 2.1], [1.0, 1.1])]).verdict
    'too few repetitions'
    """
    rng = np.random.default_rng(seed)
    sums, draws = np.zeros(2), np.zeros((2, RESAMPLES))
    fewest = min(len(a) for _, a, _ in layers)
    for weight, a, b in layers:
        times = np.array([a, b], np.float64)
        drawn = rng.integers(0, times.shape[1], (RESAMPLES, times.shape[1]))
        sums += weight * np.median(times, axis=1)
        draws += weight * np.median(times[:, drawn], axis=2)
    value = float(sums[0] / sums[1])
    low, high = (float(v) for v in np.percentile(draws[0] / draws[1], [2.5, 97.5]))
    if fewest < MIN_PAIRS:
        word = "too few repetitions"
    elif low > 1 + margin:
        word = "faster"
    elif high < 1 / (1 + margin):
        word = "slower"
    else:
        word = "uncertain"
    return Ratio(value, low, high, fewest, word)


def change(layers: Sequence[tuple[float, Sequence[float], Sequence[float]]], margin: float, seed: int = 0) -> Ratio:
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
    low, high = (float(v) for v in np.percentile(draws[1] / draws[0], [2.5, 97.5]))
    fewest = min(len(times) for _, *both in layers for times in both)
    if fewest < MIN_PAIRS:
        word = "too few repetitions"
    else:
        word = "slower" if low > 1 + margin else "faster" if high < 1 / (1 + margin) else "uncertain"
    return Ratio(value, low, high, fewest, word)
