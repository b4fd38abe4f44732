"""Small statistics over samples in seconds: medians, spreads, ratios, and why a number is weak."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# Below this many samples a spread says nothing; above this spread, or below this time, a reader should be warned.
FEW_SAMPLES = 3
WIDE_SPREAD = 0.10
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


def weakness(samples: Sequence[float]) -> str:
    """Why a reader should not lean on this number, or nothing.

    Examples
    --------
    >>> weakness([1.0, 1.0, 2.0, 3.0])
    'spread 83% of the median'
    >>> weakness([1.0])
    'only 1 sample'
    """
    if len(samples) < FEW_SAMPLES:
        return f"only {len(samples)} sample" + "s" * (len(samples) != 1)
    middle = median(samples)
    if middle < SHORT_S:
        return "too short to time"
    spread = iqr(samples) / middle
    return f"spread {spread:.0%} of the median" if spread > WIDE_SPREAD else ""


def verdict(a: Sequence[float], b: Sequence[float], margin: float) -> str:
    """Whether samples ``b`` differ from ``a`` beyond noise: faster, slower, uncertain, too_few_samples.

    The medians must differ by more than ``margin`` and the interquartile ranges must not overlap.

    Examples
    --------
    >>> verdict([1.0, 1.0, 1.1], [2.0, 2.1, 2.0], 0.05)
    'slower'
    """
    if min(len(a), len(b)) < FEW_SAMPLES:
        return "too_few_samples"
    (a_low, a_mid, a_high), (b_low, b_mid, b_high) = (np.percentile(np.asarray(s), [25, 50, 75]) for s in (a, b))
    if b_mid > a_mid * (1 + margin) and b_low > a_high:
        return "slower"
    if b_mid < a_mid / (1 + margin) and b_high < a_low:
        return "faster"
    return "uncertain"
