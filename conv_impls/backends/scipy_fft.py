"""Convolution as a product of spectra, tile by tile: channels are summed in the frequency domain.

    Y[o] = sum over c of X[c] * conj(W[o, c])        cross-correlation, hence the conjugate

The padded image is cut into overlapping tiles. Each tile gives the outputs that do not wrap around (overlap-save).
`conv_impls.choice.cost.fft_size` chooses between many small transforms and few large ones, or one of the whole image.
Strides subsample the result. Sources: Mathieu, Henaff & LeCun 2014, arXiv:1312.5851, sec. 2; overlap-save: Oppenheim &
Schafer, "Discrete-time signal processing", sec. 8.7.3.
Limits: the spectra of all C_out*C_in kernels are cached up to `KEPT_BYTES`; above it they are computed again at each
call, block by block. A stride wastes work. The rounding error grows with the norm of the whole image. One NaN reaches
all outputs of its tiles, at most the whole image. Tiles, and so the bits of an output, depend on the image size.
"""

from __future__ import annotations

from math import log2, prod
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided
from scipy import fft

from conv_impls.backends._layout import effective
from conv_impls.choice.cost import fft_size
from conv_impls.padding import NO_PADDING, padded
from conv_impls.problem import Conv2dProblem
from conv_impls.registry import Prepared, register
from conv_impls.validation import Array

# Maximum size of the spectra of a block: large enough for long transforms, small compared to any machine's memory.
BLOCK_BYTES = 64 * 2**20
# Maximum size of the cached spectra of a plan; 512 to 512 channels at 14x14 would take 380 MB, the weights take 9.
KEPT_BYTES = 256 * 2**20


class Tiling(NamedTuple):
    """How a problem is cut into transforms.

    Rows and columns of a transform (``size``), of its outputs, of the tiles of an image (``grid``) and of the padded
    image under all tiles (``covered``). ``block`` output channels are transformed at once. ``kept``: whether a plan
    caches the spectra of the kernels.
    """

    size: tuple[int, int]
    outputs: tuple[int, int]
    grid: tuple[int, int]
    covered: tuple[int, int]
    block: int
    kept: bool


def tiling(problem: Conv2dProblem) -> Tiling:
    """How a problem is cut into transforms."""
    g, size, (sh, sw) = problem.groups, fft_size(problem), problem.stride
    ic, oc = problem.in_channels // g, problem.out_channels // g
    th, tw = ((length - e) // s + 1 for length, e, s in zip(size, _extent(problem), problem.stride, strict=True))
    down, across = -(-problem.out_size[0] // th), -(-problem.out_size[1] // tw)
    covered = (down - 1) * th * sh + size[0], (across - 1) * tw * sw + size[1]
    # BLOCK_BYTES limits the spectra of the kernels of a block together with its products for all tiles.
    images, point = problem.batch * down * across, g * _spectrum(size) * 2 * problem.itemsize
    block = min(oc, max(1, BLOCK_BYTES // ((ic + 3 * images) * point)))
    return Tiling(size, (th, tw), (down, across), covered, block, oc * ic * point <= KEPT_BYTES)


def _extent(problem: Conv2dProblem) -> tuple[int, int]:
    """Rows and columns of a kernel, including the zeros of its dilation."""
    (kh, kw), (dh, dw) = problem.kernel_size, problem.dilation
    return dh * (kh - 1) + 1, dw * (kw - 1) + 1


def _spectrum(size: tuple[int, int]) -> int:
    """Number of frequencies of a real transform."""
    return size[0] * (size[1] // 2 + 1)


def _call_bytes(problem: Conv2dProblem, cut: Tiling) -> int:
    """Workspace of a call: the maximum over its steps, including the arrays left from the step before."""
    images, channels, item = problem.batch * prod(cut.grid), problem.in_channels, problem.itemsize
    # Padding copies the image once, and again if tiles extend past its end. Modes other than zeros gather it in one
    # order of axes and copy it to another.
    plane, end = problem.batch * channels * item, tuple(map(max, cut.covered, problem.padded_size))
    image = plane * prod(problem.padded_size) if problem.padding != NO_PADDING else 0
    longer = plane * prod(end) if end != problem.padded_size else 0
    padding = image + max(longer, image if problem.padding_mode != "zeros" else 0)
    # A copy of the tiles, if one is made, takes less than their spectra. The spectra are copied from one order of axes
    # to another. So are the products: the inverse transform copies them, and its result needs its own memory.
    point, block = _spectrum(cut.size) * 2 * item, problem.groups * cut.block
    seen, mixed, result = images * channels * point, images * block * point, images * block * prod(cut.size) * item
    kernels = 0 if cut.kept else block * channels // problem.groups * point
    return max(
        padding, (longer or image) + seen, 2 * seen, seen + 2 * kernels, seen + kernels + 2 * mixed + result
    )  # fmt: skip


def _workspace(problem: Conv2dProblem, threads: int) -> int:
    problem = effective(problem)
    # Kernels with a large dilation, mostly zeros, are larger than all other arrays.
    spread = prod((*problem.weight_shape[:2], *_extent(problem))) * problem.itemsize
    return _call_bytes(problem, tiling(problem)) + spread


@register(
    "scipy_fft",
    idea="real FFTs of overlapping tiles (overlap-save), channels summed in the frequency domain",
    source="Mathieu, Henaff & LeCun 2014, arXiv:1312.5851, sec. 2",
    accuracy="image",
    nan_spread="image",
    threads="argument for the transforms, BLAS for the products",
    workspace=_workspace,
)
def prepare(problem: Conv2dProblem, weight: Array, bias: Array | None, threads: int) -> Prepared:
    problem = effective(problem)
    n, g = problem.batch, problem.groups
    ic, oc = problem.in_channels // g, problem.out_channels // g
    (oh, ow), (sh, sw), (dh, dw) = problem.out_size, problem.stride, problem.dilation
    cut = tiling(problem)
    size, (th, tw), (down, across), covered, block, kept = cut
    spectrum, images = _spectrum(size), n * down * across
    spread = np.zeros((g, oc, ic, *_extent(problem)), problem.dtype)
    spread[..., ::dh, ::dw] = weight.reshape(g, oc, ic, *problem.kernel_size)

    def spectra(first: int) -> Array:
        kernels = fft.rfft2(spread[:, first : first + block], size, workers=threads).conj()
        turned: Array = kernels.reshape(g, -1, ic, spectrum).transpose(0, 3, 2, 1)
        return turned

    packed_bytes = g * oc * ic * spectrum * 2 * problem.itemsize
    # With cached spectra, a call does not need the kernels.
    kernels_of = {first: spectra(first) for first in range(0, oc, block)}.__getitem__ if kept else spectra

    def tiles(x: Array) -> Array:
        """Overlapping tiles of the padded image, zeros after its end: (N * down * across, C_in, *size)."""
        image = padded(x, problem.padding, problem.padding_mode)
        short = [(0, max(0, want - have)) for want, have in zip(covered, image.shape[2:], strict=True)]
        image = np.pad(image, ((0, 0), (0, 0), *short)) if any(end for _, end in short) else image
        by_n, by_c, by_h, by_w = image.strides
        strides = by_n, th * sh * by_h, tw * sw * by_w, by_c, by_h, by_w
        seen: Array = as_strided(image, (n, down, across, problem.in_channels, *size), strides, writeable=False)
        return seen.reshape(-1, problem.in_channels, *size)

    def call(x: Array, out: Array) -> None:
        # No warning for Inf times zero: it is no error of the caller. Inf and NaN are in y, as with other backends.
        with np.errstate(all="ignore"):
            compute(x, out)

    def compute(x: Array, out: Array) -> None:
        seen = fft.rfft2(tiles(x), workers=threads).reshape(-1, g, ic, spectrum)
        # Frequency first: one small (tiles, C_in) @ (C_in, C_out) product for each frequency and group.
        seen = np.ascontiguousarray(seen.transpose(1, 3, 0, 2))
        y = out.reshape(n, g, oc, oh, ow)
        for first in range(0, oc, block):
            y[:, :, first : first + block] = outputs(seen, kernels_of(first))
        if bias is not None:
            out += bias[:, None, None]

    def outputs(seen: Array, kernels: Array) -> Array:
        """Outputs of a block of channels; a function, so that arrays of a block are freed before the next."""
        mixed = (seen @ kernels).transpose(2, 0, 3, 1).reshape(-1, g, kernels.shape[3], size[0], size[1] // 2 + 1)
        full = fft.irfft2(mixed, size, workers=threads, overwrite_x=True)[..., : th * sh : sh, : tw * sw : sw]
        whole = full.reshape(n, down, across, *full.shape[1:]).transpose(0, 3, 4, 1, 5, 2, 6)
        inside: Array = whole.reshape(n, g, -1, down * th, across * tw)[..., :oh, :ow]
        return inside

    # A real transform of P points takes 2.5 P log2 P operations, a complex multiply-add 8 (Frigo & Johnson's count).
    transforms = images * (problem.in_channels + problem.out_channels) + (0 if kept else g * oc * ic)
    executed = 2.5 * transforms * prod(size) * log2(prod(size)) + 8.0 * images * g * oc * ic * spectrum
    packed = packed_bytes if kept else spread.nbytes
    return Prepared(call, packed, _call_bytes(problem, cut), executed_flops=executed)
