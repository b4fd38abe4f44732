"""Patches copied to columns, element by element, then one matrix product.

The copy is Caffe's im2col written in Python: no slice copies two elements at once. So this step of the ladder shows the
gain of the matrix product alone. The next step, numpy_strided, shows the gain if NumPy copies too.
Source: Chellapilla, Puri & Simard 2006, "High performance convolutional neural networks for document processing",
sec. 3. Limits: the columns take kH*kW/(sh*sw) times the memory of the image. The bits of an output depend on the size
of the product, because BLAS blocks it by size.
"""

from __future__ import annotations

import numpy as np

from conv_impls.padding import padded
from conv_impls.problem import Conv2dProblem
from conv_impls.registry import register
from conv_impls.validation import Array


@register(
    "numpy_im2col",
    idea="patches copied to columns by Python loops, then one matrix product",
    source="Chellapilla, Puri & Simard 2006, sec. 3",
    threads="BLAS",
)
def run(x: Array, weight: Array, bias: Array | None, problem: Conv2dProblem) -> Array:
    image = padded(x, problem.padding, problem.padding_mode)
    (oh, ow), (kh, kw), (sh, sw), (dh, dw) = problem.out_size, problem.kernel_size, problem.stride, problem.dilation
    n, g = problem.batch, problem.groups
    cols = np.empty((n, problem.in_channels, kh, kw, oh, ow), x.dtype)
    for image_n, cols_n in zip(image, cols, strict=True):
        for plane, cols_c in zip(image_n, cols_n, strict=True):
            for p in range(kh):
                for q in range(kw):
                    to = cols_c[p, q]
                    for i in range(oh):
                        for j in range(ow):
                            to[i, j] = plane[i * sh + p * dh, j * sw + q * dw]
    kernels = weight.reshape(g, problem.out_channels // g, problem.reduction)
    y = (kernels @ cols.reshape(n, g, problem.reduction, oh * ow)).reshape(problem.output_shape)
    if bias is not None:
        y += bias[:, None, None]
    return y
