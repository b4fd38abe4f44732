"""Lower bound of the time of a call. A backend that is faster did not compute the convolution.

    operations   those that the backend reports as executed, at the highest known peak; for a backend that reports none,
                 a quarter of the direct ones, or above 7x7 those of an FFT if they are fewer; in both cases only the
                 share whose taps read the image: products with a padding of zeros may be left out
    bytes        image, weights and output once, at the bandwidth of the L1 cache

Both are divided by `SLACK`, because the peaks are measured, too. Sources: Winograd F(4x4, 3x3) needs a quarter of the
multiplications (Lavin & Gray 2016, arXiv:1509.09308, sec. 4); a real FFT of P points needs about 2.5 P log2(P)
operations.
Limits: if the machine was busy at every measurement of its peak, the bound is too high.
"""

from __future__ import annotations

from math import log2, prod

import numpy as np

from conv_impls import Conv2dProblem

SLACK = 1.1
# Share of the direct operations, if a backend reports none; kernels with more taps than this may be faster by FFT.
UNKNOWN_SHARE, FFT_TAPS = 0.25, 49


def least_s(
    problem: Conv2dProblem, executed_flops: float | None, peak_flops_per_s: float, l1_bytes_per_s: float
) -> float:
    """The minimum seconds of a call.

    Parameters
    ----------
    problem : Conv2dProblem
    executed_flops : float or None
        Executed operations that the backend reports.
    peak_flops_per_s, l1_bytes_per_s : float, >= 0
        Sum over all threads; 0 if unknown, and then it sets no bound.

    Examples
    --------
    >>> problem = Conv2dProblem.from_label("mb1ic64ih56oc64oh56kh3ph1")
    >>> f"{1e6 * least_s(problem, None, 100e9, 0):.0f} us, {1e6 * least_s(problem, problem.flops, 100e9, 0):.0f} us"
    '513 us, 2052 us'
    """
    flops = fewest_flops(problem) if executed_flops is None else executed_flops
    by_operations = flops * seen(problem) / peak_flops_per_s if peak_flops_per_s else 0.0
    by_bytes = problem.min_bytes / l1_bytes_per_s if l1_bytes_per_s else 0.0
    return max(by_operations, by_bytes) / SLACK


def seen(problem: Conv2dProblem) -> float:
    """The share of all taps, over all outputs, that read the image and not its padding of zeros.

    Examples
    --------
    >>> seen(Conv2dProblem.from_label("mb1ic8ih10oc8oh10kh3ph12dh11"))  # only the middle tap of nine ever sees it
    0.1111111111111111
    """
    if problem.padding_mode != "zeros" or not problem.macs:
        return 1.0
    share = 1.0
    for axis, size in enumerate(problem.in_size):
        taps = np.arange(problem.kernel_size[axis]) * problem.dilation[axis] - problem.padding[axis][0]
        first = np.arange(problem.out_size[axis]) * problem.stride[axis]
        # For each tap, the number of outputs for which it reads the image, without a table of all pairs.
        inside = np.searchsorted(first, size - taps) - np.searchsorted(first, -taps)
        share *= float(inside.sum()) / (len(taps) * len(first))
    return share


def fewest_flops(problem: Conv2dProblem) -> float:
    """Minimum number of operations, for a backend that reports none."""
    quarter = UNKNOWN_SHARE * problem.flops
    if prod(problem.kernel_size) <= FFT_TAPS:
        return quarter
    points = prod(problem.padded_size)
    transforms = problem.batch * (problem.in_channels + problem.out_channels)
    # One complex product (8 operations) per point and pair of channels; real data needs half the points.
    products = 4.0 * points * problem.batch * problem.in_channels * problem.out_channels / problem.groups
    return min(quarter, 2.5 * points * log2(max(points, 2)) * transforms + products)
