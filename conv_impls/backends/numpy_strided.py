"""Patches as a strided view, so that NumPy copies them without a Python loop, then one matrix product.

Source: numpy.lib.stride_tricks.sliding_window_view (NumPy 1.20); the matrix product of numpy_im2col.
Limits: the reshape to columns still copies, kH*kW/(sh*sw) times the memory of the image. The bits of an output
depend on the size of the product, because BLAS blocks it by size.
"""

from __future__ import annotations

from math import prod

import numpy as np

from conv_impls.patches import columns
from conv_impls.problem import Conv2dProblem
from conv_impls.registry import Prepared, register
from conv_impls.validation import Array


def column_bytes(problem: Conv2dProblem, threads: int) -> int:
    """Bytes of the patch matrix."""
    taps = problem.in_channels * prod(problem.kernel_size)
    return problem.batch * taps * prod(problem.out_size) * problem.itemsize


@register(
    "numpy_strided",
    idea="sliding_window_view patches, no copy loop in Python, then one matrix product",
    source="NumPy sliding_window_view; Chellapilla, Puri & Simard 2006, sec. 3",
    threads="BLAS",
    workspace=column_bytes,
)
def prepare(problem: Conv2dProblem, weight: Array, bias: Array | None, threads: int) -> Prepared:
    n, g, oc, positions = problem.batch, problem.groups, problem.out_channels, prod(problem.out_size)
    kernels = weight.reshape(g, oc // g, problem.reduction)

    def call(x: Array, out: Array) -> None:
        cols = columns(x, problem).reshape(n, g, problem.reduction, positions)
        # No warning for Inf times zero: it is no error of the caller. Inf and NaN are in y, as with other backends.
        with np.errstate(all="ignore"):
            # Directly into the output: a temporary product and a copy cost a third more on 1x1 layers.
            np.matmul(kernels, cols, out=out.reshape(n, g, oc // g, positions))
            if bias is not None:
                out += bias[:, None, None]

    return Prepared(call, 0, column_bytes(problem, threads))
