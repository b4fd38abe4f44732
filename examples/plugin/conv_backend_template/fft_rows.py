"""FFT along rows, direct summation along columns: for kernels that are wide and not tall.

Source: the convolution theorem in one dimension. Limits: one group, stride 1 and dilation 1. Each output depends on
whole rows of the image, so its rounding error does, too.
"""

from __future__ import annotations

import numpy as np
from scipy import fft

from conv_impls import Conv2dProblem, register
from conv_impls.padding import padded


def supports(problem: Conv2dProblem) -> str | None:
    """The reason why a problem is refused, or None."""
    if problem.groups != 1:
        return "one group only"
    if (problem.stride, problem.dilation) != ((1, 1), (1, 1)):
        return "stride 1 and dilation 1 only"
    return None


@register(
    "fft_rows",
    idea="FFT along rows, direct summation along columns",
    source="the convolution theorem, one axis",
    accuracy="image",
    nan_spread="whole rows",
    supports=supports,
)
def run(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, problem: Conv2dProblem) -> np.ndarray:
    """The result (N, C_out, H_out, W_out) of valid arrays x (N, C_in, H, W) and weight (C_out, C_in, kH, kW)."""
    image = padded(x, problem.padding, problem.padding_mode)
    (rows, columns), points = problem.out_size, fft.next_fast_len(image.shape[-1], real=True)
    spectrum = fft.rfft(image, points)
    # Cross-correlation: the spectrum of the kernel is conjugated.
    kernel = np.conj(fft.rfft(weight, points))
    total = sum(
        np.einsum("ncif,ocf->noif", spectrum[:, :, row : row + rows], kernel[:, :, row], optimize=True)
        for row in range(problem.kernel_size[0])
    )
    y = fft.irfft(total, points)[..., :columns].astype(x.dtype)
    return y if bias is None else y + bias[:, None, None]
