"""Ratio of two times, its confidence interval, and a verdict. Pure.

    ratio     two backends of one run, paired turn by turn under the same conditions
    change    one backend in two runs; their turns have only the machine's yardstick in common

The interval is a Student t interval of logarithms over repetitions. Turns of one repetition share a process, and so the
placement of code and arrays in memory; they therefore agree better with each other than with the true value. A run has
one to three repetitions, too few to estimate their spread. The prior spread comes from stored runs; the spread observed
in a run is combined with it by degrees of freedom (a moderated variance: Smyth 2004, doi:10.2202/1544-6115.1027,
sec. 3). The expected variance of a repetition's logarithm is

    shared^2 + sum of share^2 * (place^2 + pi/2 * scatter^2 / turns)    over its layers; share = share of the time

where ``scatter`` is 1.4826 times the median absolute deviation of the layer's turns, and the factor pi/2 / turns gives
the variance of a median. docs/decisions/0016 has the measurements, and why it is not a bootstrap. Limits: the interval
does not cover effects on all turns of a run, such as a slower CPU; `change` detects them only by the yardstick.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, log, pi, sqrt
from statistics import fmean, median
from typing import NamedTuple

from scipy.special import stdtrit

# Seconds of a backend's turns on one layer, by (repetition, round).
Turns = Mapping[tuple[int, int], float]
# Minimum number of pairs for a verdict.
MIN_PAIRS = 3
# Standard deviation of a normal distribution whose median absolute deviation is 1.
MAD = 1.4826
# With fewer turns than FEW, the scatter is taken to be at least TYPICAL.
FEW, TYPICAL = 6, 0.06


class Spread(NamedTuple):
    """Spread between repetitions of one case beyond the scatter of their turns, as shares of the time."""

    shared: float
    place: float
    # Weight of this prior, as a number of repetitions.
    freedom: float


# Fitted to stored runs by tests/spread.py, which prints them.
PAIRED = Spread(shared=0.01, place=0.03, freedom=3.0)
ALONE = Spread(shared=0.01, place=0.04, freedom=3.0)


@dataclass(frozen=True)
class Ratio:
    """Time of ``a`` over time of ``b``, its interval and verdict."""

    value: float
    low: float
    high: float
    pairs: int
    verdict: str


@dataclass(frozen=True)
class _Side:
    """Logarithm of a figure, the logarithm of each repetition, and the expected variance of one repetition."""

    log: float
    logs: tuple[float, ...]
    expected: float

    @property
    def excess(self) -> float:
        """Sum of squares around the mean of the repetitions."""
        middle = fmean(self.logs)
        return sum((one - middle) ** 2 for one in self.logs)


def ratio(layers: Sequence[tuple[float, Turns, Turns]], margin: float = 0.0, level: float = 0.95) -> Ratio:
    """Ratio of the times of a and b, from turns paired under the same conditions.

    Each layer is (weight, turns of a, turns of b), seconds by (repetition, round); rounds that only one of them has
    are left out. The figure of a layer is the median over its rounds of a over b. The figure of several layers is the
    mean of their figures, weighted with the time of b. Verdicts for b: "faster" or "slower" if the interval does not
    contain 1 and the figure is beyond ``margin`` around 1, else "uncertain"; "too few repetitions" if a layer has fewer
    than `MIN_PAIRS` pairs.

    Examples
    --------
    >>> a = {(1, i): s for i, s in enumerate([2.0, 2.1, 1.9, 2.0, 2.0, 2.2])}
    >>> ratio([(1, a, dict.fromkeys(a, 1.0))]).verdict
    'faster'
    >>> ratio([(1, {(1, 0): 2.0}, {(1, 0): 1.0, (1, 1): 1.1})]).verdict
    'too few repetitions'
    """
    common = [
        (weight, {key: a[key] for key in a if key in b}, {key: b[key] for key in a if key in b})
        for weight, a, b in layers
    ]
    fewest = min(len(a) for _, a, _ in common)
    return _judged(fewest, [_side(common, PAIRED)], PAIRED, ("faster", "slower"), margin, level)


def change(layers: Sequence[tuple[float, Turns, Turns]], margin: float = 0.0, level: float = 0.95) -> Ratio:
    """Ratio of the newer to the older times, from two runs whose turns are not paired.

    Each layer is (weight, older turns, newer turns). As `ratio`, but the verdict is for the newer run.

    Examples
    --------
    >>> old = {(1, i): s for i, s in enumerate([1.0, 1.1, 1.0, 1.0, 1.0, 1.1])}
    >>> change([(1, old, {key: 2 * s for key, s in old.items()})]).verdict
    'slower'
    """
    fewest = min(len(turns) for _, *both in layers for turns in both)
    # A single time is expressed as its ratio to one second.
    older, newer = (
        _side([(weight, turns, dict.fromkeys(turns, 1.0)) for weight, turns in one], ALONE)
        for one in ([(weight, old) for weight, old, _ in layers], [(weight, new) for weight, _, new in layers])
    )
    return _judged(fewest, [newer, older], ALONE, ("slower", "faster"), margin, level)


def _side(layers: Sequence[tuple[float, Turns, Turns]], spread: Spread) -> _Side:
    """The ratio of a to b over all layers: in total, and for each repetition that all layers have."""
    repetitions = set.intersection(*({repetition for repetition, _ in a} for _, a, _ in layers))
    whole = _figure(layers, None, spread)
    # Without several common repetitions, all turns are treated as one repetition.
    each = [_figure(layers, {number}, spread) for number in sorted(repetitions)] if len(repetitions) > 1 else [whole]
    logs, expected = zip(*each, strict=True)
    return _Side(whole[0], logs, fmean(expected))


def _figure(
    layers: Sequence[tuple[float, Turns, Turns]], repetitions: set[int] | None, spread: Spread
) -> tuple[float, float]:
    """The logarithm of the ratio in some repetitions or in all, and its expected variance."""
    # Lists, not arrays: a case has about a dozen turns, and there are thousands of cases.
    times, others, variances = [], [], []
    for weight, a, b in layers:
        keys = [key for key in a if repetitions is None or key[0] in repetitions]
        logs = [log(a[key] / b[key]) for key in keys]
        middle = median(logs)
        scatter = MAD * median([abs(one - middle) for one in logs])
        if len(keys) < FEW:
            scatter = max(scatter, TYPICAL)
        others.append(weight * median([b[key] for key in keys]))
        times.append(others[-1] * exp(middle))
        variances.append(spread.place**2 + pi / 2 * scatter**2 / len(keys))
    whole = sum(times)
    expected = sum((time / whole) ** 2 * variance for time, variance in zip(times, variances, strict=True))
    return log(whole / sum(others)), spread.shared**2 + expected


def _judged(
    pairs: int, sides: Sequence[_Side], spread: Spread, words: tuple[str, str], margin: float, level: float
) -> Ratio:
    """Ratio of one side, or of the first to the second, with its interval; ``words``: verdicts above and below 1."""
    value = exp(sides[0].log - sum(side.log for side in sides[1:]))
    prior = spread.freedom * sum(side.expected for side in sides) / len(sides)
    freedom = spread.freedom + sum(len(side.logs) - 1 for side in sides)
    variance = (prior + sum(side.excess for side in sides)) / freedom * sum(1 / len(side.logs) for side in sides)
    width = exp(float(stdtrit(freedom, (1 + level) / 2)) * sqrt(variance))
    low, high = value / width, value * width
    if pairs < MIN_PAIRS:
        word = "too few repetitions"
    elif low > 1 and value > 1 + margin:
        word = words[0]
    elif high < 1 and value < 1 / (1 + margin):
        word = words[1]
    else:
        word = "uncertain"
    return Ratio(value, low, high, pairs, word)
