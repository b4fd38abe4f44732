"""Winograd F(4x4, 3x3): 36 products where direct convolution needs 144.

Errors about ten times those of direct summation, within the published bound: the standard choice for 3x3 layers.
Also 2x2, and 3x3 with stride 2.
See `conv_impls.kernels.winograd` for the idea and the loops.
"""

from __future__ import annotations

from functools import partial

from conv_impls.backends import _winograd
from conv_impls.problem import Conv2dProblem
from conv_impls.registry import Prepared, register
from conv_impls.validation import Array


@register(
    "numba_winograd_f4",
    idea="Winograd F(4x4, 3x3): 36 products where direct convolution needs 144",
    source="Lavin & Gray 2016, arXiv:1509.09308, sec. 4",
    accuracy="tile4",
    nan_spread="tile of 4 x 4 outputs",
    threads="argument",
    supports=partial(_winograd.supports, *_winograd.FORMS["numba_winograd_f4"]),
    workspace=partial(_winograd.workspace, 4),
    compiled=True,
)
def prepare(problem: Conv2dProblem, weight: Array, bias: Array | None, threads: int, relu: bool) -> Prepared:
    return _winograd.prepare(4, problem, weight, bias, threads, relu)
