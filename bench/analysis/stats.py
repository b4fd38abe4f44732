"""Small statistics over samples in seconds: medians, spreads, means of ratios, and why a number is weak."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

import numpy as np

# A median that may be wrong by more than this share is weak, and so is a sum of such.
TOLERANCE = 0.10
# Chance that the true median is below the limit that `doubt` takes for the lowest likely one.
CHANCE = 0.125
# Fewer turns than this that nothing disturbed stand for themselves alone: the true time may be half of theirs.
FEW_TURNS, HALF = 3, 0.5
# Below this time the clock itself is felt.
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
