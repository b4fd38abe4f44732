"""The definition in float64, for all or selected outputs, and error bounds for correct methods. Never a backend.

    y[n, o, i, j] = b[o] + sum over c, p, q of w[o, c, p, q] * xpad[n, g*C_in/groups + c, i*sh + p*dh, j*sw + q*dw]

`reference` sums tap by tap, `reference_at` output by output. The two are independent and tested against each other.
Sources of the bounds: dot products, Higham 2002, "Accuracy and stability of numerical algorithms", sec. 3.1; FFT,
ibid. sec. 24.1, in the mean-square form with the norms of whole transforms; Winograd, Barabasz et al. 2018,
arXiv:1803.10986, with the growth per tile size measured here. All factors have a margin over measured errors
(docs/decisions/0004-error-bounds.md).
"""

from __future__ import annotations

from math import log2, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conv_impls.padding import padded
from conv_impls.problem import Conv2dProblem
from conv_impls.validation import Array, Pair

Float64 = NDArray[np.float64]
Index = NDArray[np.intp]

# Accuracy classes of Winograd F(m x m): m, and the minimum factor of u S. Measured errors on normal and uniform data
# with 16 or more channels were below a third of it.
TILES = {"tile2": (2, 16), "tile2_5x5": (2, 96), "tile4": (4, 96), "tile6": (6, 256)}
# 2e-5 in float32, benchdnn's limit for Winograd (tests/benchdnn/conv/conv.cpp, setup_cmp); at most 6e-6 was measured.
# Operands rounded to float16 give 4e-4.
NORM_EPS = 168


def reference(
    x: Array, weight: Array, bias: Array | None, problem: Conv2dProblem, dtype: type[np.floating[Any]] = np.float64
) -> Float64:
    """The whole output (N, C_out, H_out, W_out), computed in ``dtype``; inputs are validated.

    Cost: one BLAS matrix product per tap of the kernel, and memory for one copy of the image at a time.
    """
    (oh, ow), (sh, sw), (dh, dw) = problem.out_size, problem.stride, problem.dilation
    n, o, c, g = problem.batch, problem.out_channels, problem.in_channels, problem.groups
    image = padded(x.astype(dtype), problem.padding, problem.padding_mode)
    grouped = weight.astype(dtype).reshape(g, o // g, c // g, *problem.kernel_size)
    y = np.zeros((n, g, o // g, oh * ow), dtype)
    for p in range(problem.kernel_size[0]):
        for q in range(problem.kernel_size[1]):
            rows, cols = p * dh + sh * np.arange(oh), q * dw + sw * np.arange(ow)
            seen = image[:, :, rows[:, None], cols].reshape(n, g, c // g, oh * ow)
            y += grouped[:, :, :, p, q] @ seen
    out: Float64 = y.reshape(problem.output_shape)
    if bias is not None:
        out += bias.astype(dtype)[:, None, None]
    return out


def reference_at(x: Array, weight: Array, bias: Array | None, problem: Conv2dProblem, at: Index) -> Float64:
    """The outputs at ``at``, an (S, 4) array of (n, o, i, j); shape (S,)."""
    image = padded(x, problem.padding, problem.padding_mode)
    (kh, kw), (sh, sw), (dh, dw) = problem.kernel_size, problem.stride, problem.dilation
    per_group_in = problem.in_channels // problem.groups
    per_group_out = problem.out_channels // problem.groups
    out = np.empty(len(at))
    for s, (n, o, i, j) in enumerate(at):
        c = o // per_group_out * per_group_in
        rows, cols = slice(i * sh, i * sh + (kh - 1) * dh + 1, dh), slice(j * sw, j * sw + (kw - 1) * dw + 1, dw)
        patch = image[n, c : c + per_group_in, rows, cols].astype(np.float64)
        out[s] = (patch * weight[o].astype(np.float64)).sum() + (0.0 if bias is None else float(bias[o]))
    return out


def sample_outputs(problem: Conv2dProblem, count: int, seed: int = 0) -> Index:
    """(S, 4) indices (n, o, i, j): the 8 corners of (o, i, j) in the first and last image, then random ones."""
    n, o, oh, ow = problem.output_shape
    ends = [(0, size - 1) for size in (n, o, oh, ow)]
    corners = np.stack([axis.ravel() for axis in np.meshgrid(*ends, indexing="ij")], axis=1)
    rng = np.random.default_rng(seed)
    inside = np.stack([rng.integers(0, size, count) for size in (n, o, oh, ow)], axis=1)
    return np.unique(np.concatenate([corners, inside]), axis=0).astype(np.intp)


def error_bound(
    x: Array, weight: Array, bias: Array | None, problem: Conv2dProblem, accuracy: str, at: Index
) -> Float64:
    """The largest absolute error allowed for this accuracy class at each output of ``at``; shape (S,).

    With u the unit roundoff, r the products in one output and S = ``sum |x||w| + |b|`` over its own window:
    "direct" summation in any order: min(gamma(r+1), max(8, 4 sqrt(r+1)) u) S; Winograd's classes of `TILES`:
    max(4 sqrt(r+1), K) u times the largest S of its tile, K of `TILES`; one transform of the "image" (FFT of P x Q
    points): 2 u log2(P Q) sum over channels of ||x_c|| ||w_c||, which does not depend on the window.
    """
    magnitudes, factor = (np.abs(x), np.abs(weight), None if bias is None else np.abs(bias)), _factor(problem, accuracy)
    if accuracy == "direct":
        return factor * reference_at(*magnitudes, problem, at)
    if accuracy in TILES:
        return factor * _largest_of_tile(*magnitudes, problem, TILES[accuracy][0], at)
    norms = _norms(*magnitudes, problem)[..., 0, 0]
    bounds: Float64 = factor * norms[at[:, 0], at[:, 1]]
    return bounds


def error_bounds(
    x: Array, weight: Array, bias: Array | None, problem: Conv2dProblem, accuracy: str, spacing: Pair | None = None
) -> Float64:
    """`error_bound` at every output: an array that broadcasts to (N, C_out, H_out, W_out).

    S is summed in float32 here; a factor of 1.001 covers its rounding. ``spacing`` is the distance of the outputs of a
    Winograd tile, by default the dilation; that of an image's gradient also depends on the stride.
    """
    magnitudes, factor = (np.abs(x), np.abs(weight), None if bias is None else np.abs(bias)), _factor(problem, accuracy)
    if accuracy == "image":
        return factor * _norms(*magnitudes, problem)
    sums = reference(*magnitudes, problem, np.float32)
    if accuracy in TILES:
        sums = _tile_maxima(sums, TILES[accuracy][0], spacing or problem.dilation)
    bounds: Float64 = (1.001 * factor) * sums
    return bounds


def norm_bound(problem: Conv2dProblem, accuracy: str) -> float:
    """The largest ||error|| / ||y|| over many outputs of normal data; it detects operands of reduced precision.

    This is benchdnn's limit for Winograd. Direct sums of very many products may need more, like their `error_bound`.
    """
    eps = float(np.finfo(problem.dtype).eps)
    return max(NORM_EPS * eps, 2 * sqrt(problem.reduction + 1) * eps if accuracy == "direct" else 0.0)


def _factor(problem: Conv2dProblem, accuracy: str) -> float:
    """The factor of an accuracy class for S, for the largest S of the tile, or for the norms."""
    u = float(np.finfo(problem.dtype).eps) / 2
    terms = problem.reduction + 1
    if accuracy == "direct":
        return min(terms * u / (1 - terms * u), max(8.0, 4 * sqrt(terms)) * u)
    if accuracy in TILES:
        return max(4 * sqrt(terms), TILES[accuracy][1]) * u
    if accuracy == "image":
        return 2 * u * log2(_points(problem))
    raise ValueError(f"no bound known for accuracy class {accuracy!r}")


def _tile_maxima(sums: Float64, m: int, spacing: Pair) -> Float64:
    """For each output, the largest S of its m x m tile; shape of ``sums`` (N, C_out, H_out, W_out).

    The outputs of a tile are d apart, ``spacing`` = (dh, dw), so m * d outputs along an axis contain d tiles.
    """
    (rows, columns), (dh, dw) = sums.shape[2:], spacing
    tiles = np.pad(sums, ((0, 0), (0, 0), (0, -rows % (m * dh)), (0, -columns % (m * dw))))
    split = (*sums.shape[:2], tiles.shape[2] // (m * dh), m, dh, tiles.shape[3] // (m * dw), m, dw)
    of_tile = tiles.reshape(split).max((3, 6), keepdims=True)
    maxima: Float64 = np.broadcast_to(of_tile, split).reshape(tiles.shape)[:, :, :rows, :columns]
    return maxima


def _largest_of_tile(x: Array, weight: Array, bias: Array | None, problem: Conv2dProblem, m: int, at: Index) -> Float64:
    """For each output of ``at``, the largest output of its m x m tile (cut at the edges); shape (S,)."""
    whole = np.repeat(at[:, None], m * m, axis=1)
    inside, dilation = np.stack(np.divmod(np.arange(m * m), m), axis=1), np.array(problem.dilation)
    places = whole[..., 2:] // (m * dilation) * (m * dilation) + whole[..., 2:] % dilation + inside * dilation
    # Outside the result, the output itself stands in for the rest of its tile.
    whole[..., 2:] = np.where(places < np.array(problem.out_size), places, whole[..., 2:])
    largest: Float64 = reference_at(x, weight, bias, problem, whole.reshape(-1, 4)).reshape(len(at), -1).max(1)
    return largest


def _points(problem: Conv2dProblem) -> float:
    """Twice the points of an FFT of padded image and dilated kernel; the factor 2 keeps its logarithm above 0."""
    points = 2.0
    for padded_size, k, d in zip(problem.padded_size, problem.kernel_size, problem.dilation, strict=True):
        points *= padded_size + d * (k - 1)
    return points


def _norms(x: Array, weight: Array, bias: Array | None, problem: Conv2dProblem) -> Float64:
    """Norms ||x_c|| ||w_c|| summed over the channels of each output channel, plus the bias; shape (N, C_out, 1, 1)."""
    image = padded(x, problem.padding, problem.padding_mode).astype(np.float64)
    g = problem.groups
    x_norm = np.sqrt((image**2).sum((2, 3))).reshape(problem.batch, g, -1)
    w_norm = np.sqrt((weight.astype(np.float64) ** 2).sum((2, 3))).reshape(g, problem.out_channels // g, -1)
    norms: Float64 = np.einsum("ngc,goc->ngo", x_norm, w_norm).reshape(problem.batch, problem.out_channels, 1, 1)
    return norms if bias is None else norms + bias.astype(np.float64)[:, None, None]
