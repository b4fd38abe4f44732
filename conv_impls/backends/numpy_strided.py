"""Patches as a strided view, so that NumPy copies them without a Python loop, then one matrix product.

Source: numpy.lib.stride_tricks.sliding_window_view (NumPy 1.20); the matrix product of numpy_im2col.
Limits: the reshape to columns still copies, kH*kW/(sh*sw) times the memory of the image.
"""

from __future__ import annotations

from conv_impls.patches import columns
from conv_impls.problem import Conv2dProblem
from conv_impls.registry import register
from conv_impls.validation import Array


@register(
    "numpy_strided",
    idea="sliding_window_view patches, no copy loop in Python, then one matrix product",
    source="NumPy sliding_window_view; Chellapilla, Puri & Simard 2006, sec. 3",
    threads="BLAS",
)
def run(x: Array, weight: Array, bias: Array | None, problem: Conv2dProblem) -> Array:
    n, g = problem.batch, problem.groups
    cols = columns(x, problem).reshape(n, g, problem.reduction, -1)
    kernels = weight.reshape(g, problem.out_channels // g, problem.reduction)
    y = (kernels @ cols).reshape(problem.output_shape)
    if bias is not None:
        y += bias[:, None, None]
    return y
