"""Convolution as a product of spectra: channels are summed in the frequency domain, strides subsample the result.

    Y[o] = sum over c of X[c] * conj(W[o, c])        cross-correlation, hence the conjugate

Both axes are padded to a length whose factors are small (`scipy.fft.next_fast_len`), at least the padded image, so the
outputs that are kept never wrap around. Source: Mathieu, Henaff & LeCun 2014, arXiv:1312.5851, sec. 2.
Limits: the spectra of all C_out*C_in kernels are kept up to `KEPT_BYTES`, and beyond it made anew at each call, block
by block; a stride throws work away; the rounding error follows the norm of the whole image, and one NaN reaches its
whole output image.
"""

from __future__ import annotations

import numpy as np
from scipy import fft

from conv_impls.padding import padded
from conv_impls.problem import Conv2dProblem
from conv_impls.registry import Prepared, register
from conv_impls.validation import Array

# Spectra of the kernels held at once: large enough for long transforms, small beside the memory of any machine.
BLOCK_BYTES = 64 * 2**20
# Spectra a plan keeps at most; 512 to 512 channels at 14x14 would take 380 MB where the weights take 9.
KEPT_BYTES = 256 * 2**20


@register(
    "scipy_fft",
    idea="real FFTs, channels summed in the frequency domain, stride by subsampling",
    source="Mathieu, Henaff & LeCun 2014, arXiv:1312.5851, sec. 2",
    accuracy="image",
    nan_spread="image",
    threads="argument for the transforms, BLAS for the products",
)
def prepare(problem: Conv2dProblem, weight: Array, bias: Array | None, threads: int) -> Prepared:
    g = problem.groups
    ic, oc = problem.in_channels // g, problem.out_channels // g
    (oh, ow), (sh, sw), (dh, dw) = problem.out_size, problem.stride, problem.dilation
    size = tuple(fft.next_fast_len(length, real=True) for length in problem.padded_size)
    spectrum = size[0] * (size[1] // 2 + 1)
    extent = (d * (k - 1) + 1 for d, k in zip(problem.dilation, problem.kernel_size, strict=True))
    spread = np.zeros((g, oc, ic, *extent), problem.dtype)
    spread[..., ::dh, ::dw] = weight.reshape(g, oc, ic, *problem.kernel_size)
    block = max(1, BLOCK_BYTES // (g * ic * spectrum * 2 * problem.itemsize))

    def spectra(first: int) -> Array:
        kernels = fft.rfft2(spread[:, first : first + block], size, workers=threads).conj()
        turned: Array = kernels.reshape(g, -1, ic, spectrum).transpose(0, 3, 2, 1)
        return turned

    packed_bytes = g * oc * ic * spectrum * 2 * problem.itemsize
    kept = [spectra(first) for first in range(0, oc, block)] if packed_bytes <= KEPT_BYTES else None

    def call(x: Array, out: Array) -> None:
        image = padded(x, problem.padding, problem.padding_mode)
        seen = fft.rfft2(image, size, workers=threads).reshape(problem.batch, g, ic, spectrum)
        # Frequency first: one small (N, C_in) @ (C_in, C_out) product for each frequency and group.
        seen = np.ascontiguousarray(seen.transpose(1, 3, 0, 2))
        y = out.reshape(problem.batch, g, oc, oh, ow)
        for index, first in enumerate(range(0, oc, block)):
            kernels = spectra(first) if kept is None else kept[index]
            mixed = (seen @ kernels).transpose(2, 0, 3, 1).reshape(problem.batch, g, -1, size[0], size[1] // 2 + 1)
            full = fft.irfft2(mixed, size, workers=threads, overwrite_x=True)
            y[:, :, first : first + block] = full[..., : oh * sh : sh, : ow * sw : sw]
        if bias is not None:
            out += bias[:, None, None]

    return Prepared(call, spread.nbytes if kept is None else packed_bytes)
