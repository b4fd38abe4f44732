"""Winograd convolution with the tile a cost model expects to be fastest: F(2x2, 3x3), F(4x4, 3x3) or F(2x2, 5x5).

F(4x4) does fewer products. F(2x2) wastes fewer tiles on small images, and its weights have less than half the size: on
7x7 images, reading the weights of F(4x4) takes longer than its products. The model is `conv_impls.choice.cost`.
Limits: those of the three, see `conv_impls.kernels.winograd`. F(6x6) is used only if selected by name.
"""

from __future__ import annotations

from functools import partial

from conv_impls.backends import _winograd
from conv_impls.choice.cost import estimates
from conv_impls.problem import Conv2dProblem
from conv_impls.registry import register


@register(
    "numba_winograd",
    idea="Winograd F(2x2, 3x3), F(4x4, 3x3) or F(2x2, 5x5), the fastest by the cost model",
    source="Lavin & Gray 2016, arXiv:1509.09308, sec. 4",
    accuracy="tile4",
    nan_spread="tile of 4 x 4 outputs",
    threads="argument",
    supports=partial(_winograd.supports, 2, range(2, 6)),
    compiled=True,
)
def choose(problem: Conv2dProblem, precision: str, threads: int, eager: bool) -> str:
    expected = estimates(problem, threads, eager)
    return min((name for name in expected if name in _winograd.FORMS), key=expected.__getitem__)
