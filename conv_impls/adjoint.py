"""The gradient of the image as convolutions of stride 1 of the output's gradient: one for each stride phase.

    dx[i] = sum over o and taps p with o*s + p*d = i + before of dy[o] * w[p]           along one axis

Pixel i has the phase a = (i + before) mod s. Only the taps with p*d = a (mod s) meet it: every (s/g)-th tap from the
first one on, g = gcd(s, d). The pixels of a phase are s apart. For the r-th of them and the t-th of these taps,
o = r + constant - t*(d/g). So a phase is a convolution of dy with these taps in reverse order, with dilation d/g and
stride 1. All phases together do as many products as the forward convolution. A phase without taps is zero.
Source: Vaidyanathan 1993, Multirate Systems and Filter Banks, sec. 4.3 (polyphase).
Limits: padding of zeros. For other padding, the gradient of the padded image is folded back afterwards.
"""

from __future__ import annotations

from itertools import product
from math import gcd
from typing import NamedTuple

from conv_impls.problem import Conv2dProblem
from conv_impls.validation import Pair, Sides


class Line(NamedTuple):
    """One phase along one axis."""

    # The first pixel and the number of pixels, which are a stride apart.
    first: int
    pixels: int
    # Taps of the forward kernel, in the order of the phase's kernel; their distance in outputs.
    taps: range
    dilation: int
    # Padding of the outputs, before and after; outputs before and after the ones that it reads.
    padding: tuple[int, int]
    cut: tuple[int, int]


class Phase(NamedTuple):
    """Pixels of the image that are a stride apart, and the convolution of the output's gradient that computes them."""

    # Input: the output's gradient without ``cut``; output: the pixels of the phase.
    problem: Conv2dProblem
    # Taps of the forward kernel along each axis, in the order of the phase's kernel.
    taps: tuple[range, range]
    # Rows (columns) of the output's gradient that the phase does not read, before and after the others.
    cut: Sides
    # The first pixel of the phase.
    first: Pair


def phases(problem: Conv2dProblem) -> list[Phase]:
    """The phases of a problem with padding of zeros whose pixels are not all zero.

    Examples
    --------
    >>> problem = Conv2dProblem.from_label("mb1ic4ih56oc8oh28kh3sh2ph1")
    >>> [(phase.first, phase.problem.kernel_size, phase.problem.out_size) for phase in phases(problem)]
    [((1, 1), (2, 2), (28, 28)), ((1, 0), (2, 1), (28, 28)), ((0, 1), (1, 2), (28, 28)), ((0, 0), (1, 1), (28, 28))]
    """
    found = []
    for rows, columns in product(*(_lines(problem, axis) for axis in (0, 1))):
        lines = rows, columns
        height, width = (out - sum(line.cut) for out, line in zip(problem.out_size, lines, strict=True))
        found.append(
            Phase(
                Conv2dProblem(
                    problem.batch, problem.out_channels, (height, width), problem.in_channels,
                    (len(rows.taps), len(columns.taps)), (1, 1), (rows.padding, columns.padding),
                    (rows.dilation, columns.dilation), problem.groups, dtype=problem.dtype,
                ),
                (rows.taps, columns.taps), (rows.cut, columns.cut), (rows.first, columns.first),
            )
        )  # fmt: skip
    return found


def _lines(problem: Conv2dProblem, axis: int) -> list[Line]:
    """The phases along one axis that have a tap and an output, by the number of their first tap."""
    size, kernel, out = problem.in_size[axis], problem.kernel_size[axis], problem.out_size[axis]
    stride, dilation, before = problem.stride[axis], problem.dilation[axis], problem.padding[axis][0]
    common = gcd(stride, dilation)
    lines = []
    for tap in range(min(kernel, stride // common)):
        taps = range(tap, kernel, stride // common)
        phase = tap * dilation % stride
        first = (phase - before) % stride
        count = -(-(size - first) // stride)
        # Output of the first pixel and the last tap, which is the first in reverse order.
        low = (first + before - taps[-1] * dilation) // stride
        high = low + (len(taps) - 1) * (dilation // common) + count - 1
        if count > 0 and low < out and high >= 0:
            padding, cut = (max(0, -low), max(0, high + 1 - out)), (max(0, low), max(0, out - 1 - high))
            lines.append(Line(first, count, taps[::-1], dilation // common, padding, cut))
    return lines
