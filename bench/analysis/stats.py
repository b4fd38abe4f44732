"""Small statistics over samples in seconds: medians, spreads, means of ratios, and reasons why a number is weak."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

import numpy as np

# A median, or a sum of medians, that may be wrong by more than this share is weak.
TOLERANCE = 0.10
# Probability that the true median is below the lower limit that `doubt` uses.
CHANCE = 0.125
# With fewer undisturbed turns than this, the true time may be half of the measured one.
FEW_TURNS, HALF = 3, 0.5
# Below this time the overhead of the clock is visible.
SHORT_S = 2e-6


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
    """Geometric mean: the correct mean for ratios.

    Examples
    --------
    >>> round(geometric_mean([0.5, 2.0]), 6)
    1.0
    """
    return float(np.exp(np.mean(np.log(np.asarray(ratios)))))


@dataclass(frozen=True)
class Doubt:
    """How much too long a median may be, as shares of it, and the reason why it is weak (empty if it is not).

    ``noise`` is the random part, which averages out over the layers of a network. ``bias`` is the systematic part,
    common to all turns, which does not average out.
    """

    noise: float = 0.0
    bias: float = 0.0
    weak: str = ""


def doubt(turns_s: Sequence[float], peaks: Sequence[float] = (), best_peak: float = 0.0, disturbed: int = 0) -> Doubt:
    """Possible errors of the median of these turns.

    Disturbances make turns longer, very rarely shorter, so only a lower limit of the median is used: the turn that the
    true median is below with a probability of at most one in eight (the binomial limits of order statistics:
    Conover 1999, "Practical nonparametric statistics", sec. 3.2).

    Parameters
    ----------
    turns_s : sequence of float
        The undisturbed turns.
    peaks : sequence of float
        FMA peaks of the machine in the same rounds.
    best_peak : float
        The highest known peak of the machine; 0 if it is unknown.
    disturbed : int
        Number of disturbed turns, which are not used.

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
    """Rank of the highest turn that the true median is below with a probability of at most `CHANCE`."""
    below, chance = 0, 0.5**turns
    while chance + comb(turns, below + 1) * 0.5**turns <= CHANCE:
        below += 1
        chance += comb(turns, below) * 0.5**turns
    return below
