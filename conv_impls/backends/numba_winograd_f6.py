"""Winograd F(6x6, 3x3): 64 products where direct convolution needs 324.

Errors are about thirty times those of direct summation, so it is used only if selected by name.
See `conv_impls.kernels.winograd` for the idea and the loops.
"""

from __future__ import annotations

from functools import partial

from conv_impls.backends import _winograd
from conv_impls.problem import Conv2dProblem
from conv_impls.registry import Prepared, register
from conv_impls.validation import Array


@register(
    "numba_winograd_f6",
    idea="Winograd F(6x6, 3x3): 64 products where direct convolution needs 324",
    source="Lavin & Gray 2016, arXiv:1509.09308, sec. 4",
    accuracy="tile6",
    nan_spread="tile of 6 x 6 outputs",
    threads="argument",
    supports=partial(_winograd.supports, *_winograd.FORMS["numba_winograd_f6"]),
    compiled=True,
)
def prepare(problem: Conv2dProblem, weight: Array, bias: Array | None, threads: int, relu: bool) -> Prepared:
    return _winograd.prepare(6, problem, weight, bias, threads, relu)
