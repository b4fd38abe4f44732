"""Winograd F(2x2, 5x5): 36 products where direct convolution needs 100. Also 4x4, and 7x7 with stride 1 or 2.

Two outputs an axis, pieces of 4 or 5 taps, and interpolation points of small errors (decision 0022).
See `conv_impls.kernels.winograd` for the idea and the loops.
"""

from __future__ import annotations

from functools import partial

from conv_impls.backends import _winograd
from conv_impls.problem import Conv2dProblem
from conv_impls.registry import Prepared, register
from conv_impls.validation import Array


@register(
    "numba_winograd_f2_5x5",
    idea="Winograd F(2x2, 5x5): 36 products where direct convolution needs 100; strides by phases",
    source="Lavin & Gray 2016, arXiv:1509.09308, sec. 4",
    accuracy="tile2_5x5",
    nan_spread="tile of 2 x 2 outputs",
    threads="argument",
    supports=partial(_winograd.supports, *_winograd.FORMS["numba_winograd_f2_5x5"]),
    workspace=partial(_winograd.workspace, 2),
    compiled=True,
)
def prepare(problem: Conv2dProblem, weight: Array, bias: Array | None, threads: int, relu: bool) -> Prepared:
    return _winograd.prepare(2, problem, weight, bias, threads, relu)
