"""The definition as code: for every image, output channel, row and column, patch times kernel, summed.

Source: the sum in Dumoulin & Visin 2016, arXiv:1603.07285, sec. 1. Limits: only time, a few microseconds for each
output element. This is the baseline of all speed-ups.
"""

from __future__ import annotations

import numpy as np

from conv_impls.padding import padded
from conv_impls.problem import Conv2dProblem
from conv_impls.registry import register
from conv_impls.validation import Array


@register(
    "python_loops",
    idea="loops over image, output channel, row and column; patch times kernel, summed",
    source="Dumoulin & Visin 2016, arXiv:1603.07285, sec. 1",
    deterministic="output",
)
def run(x: Array, weight: Array, bias: Array | None, problem: Conv2dProblem) -> Array:
    image = padded(x, problem.padding, problem.padding_mode)
    y = np.empty(problem.output_shape, x.dtype)
    (oh, ow), (kh, kw), (sh, sw), (dh, dw) = problem.out_size, problem.kernel_size, problem.stride, problem.dilation
    ic = problem.in_channels // problem.groups
    oc = problem.out_channels // problem.groups
    for n in range(problem.batch):
        for o in range(problem.out_channels):
            first = o // oc * ic
            for i in range(oh):
                for j in range(ow):
                    rows = slice(i * sh, i * sh + (kh - 1) * dh + 1, dh)
                    cols = slice(j * sw, j * sw + (kw - 1) * dw + 1, dw)
                    patch = image[n, first : first + ic, rows, cols]
                    y[n, o, i, j] = (patch * weight[o]).sum()
    if bias is not None:
        y += bias[:, None, None]
    return y
