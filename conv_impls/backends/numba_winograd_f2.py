"""Winograd F(2x2, 3x3): 16 products where direct convolution needs 36, exact on small integers.

The smallest gain and error of the family: 2.25 times fewer products, errors like those of direct summation. Also 2x2
and 6x6, and 3x3 to 6x6 with stride 2, by the same interpolation points.
See `conv_impls.kernels.winograd` for the idea and the loops.
"""

from __future__ import annotations

from functools import partial

from conv_impls.backends import _winograd
from conv_impls.problem import Conv2dProblem
from conv_impls.registry import Prepared, register
from conv_impls.validation import Array


@register(
    "numba_winograd_f2",
    idea="Winograd F(2x2, 3x3): 16 products where direct convolution needs 36, exact on small integers",
    source="Lavin & Gray 2016, arXiv:1509.09308, sec. 4",
    accuracy="tile2",
    nan_spread="tile of 2 x 2 outputs",
    threads="argument",
    supports=partial(_winograd.supports, *_winograd.FORMS["numba_winograd_f2"]),
    workspace=partial(_winograd.workspace, 2),
    compiled=True,
)
def prepare(problem: Conv2dProblem, weight: Array, bias: Array | None, threads: int, relu: bool) -> Prepared:
    return _winograd.prepare(2, problem, weight, bias, threads, relu)
