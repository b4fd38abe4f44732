"""The definition in float64, whole or at chosen outputs, and the error any honest method may make. Never a backend.

    y[n, o, i, j] = b[o] + sum over c, p, q of w[o, c, p, q] * xpad[n, g*C_in/groups + c, i*sh + p*dh, j*sw + q*dw]

`reference` sums tap by tap, `reference_at` output by output: two routes to one answer, tested against each other.
Sources of the bounds: dot products, Higham 2002, "Accuracy and stability of numerical algorithms", sec. 3.1; FFT,
ibid. sec. 24.1, in the mean-square form with the norms of whole transforms; Winograd, Barabasz et al. 2018,
arXiv:1803.10986, whose growth with the tile is measured here. All factors leave room over measured errors
(docs/decisions/0004-error-bounds.md).
"""

from __future__ import annotations

from math import inf, log2, sqrt

import numpy as np
from numpy.typing import NDArray

from conv_impls.padding import padded
from conv_impls.problem import Conv2dProblem
from conv_impls.validation import Array

Float64 = NDArray[np.float64]
Index = NDArray[np.intp]

# Accuracy classes of Winograd F(m x m, 3x3): m, and the least factor of u S; less than a quarter of it was measured.
TILES = {"tile2": (2, 16), "tile4": (4, 96), "tile6": (6, 256)}
# 2e-5 in float32, as benchdnn allows Winograd (tests/benchdnn/conv/conv.cpp, setup_cmp); up to 6e-6 was measured.
TILE_NORM_EPS = 168


def reference(x: Array, weight: Array, bias: Array | None, problem: Conv2dProblem) -> Float64:
    """The whole output (N, C_out, H_out, W_out) in float64; inputs as `validation` leaves them."""
    (oh, ow), (sh, sw), (dh, dw) = problem.out_size, problem.stride, problem.dilation
    n, o, c, g = problem.batch, problem.out_channels, problem.in_channels, problem.groups
    image = padded(x.astype(np.float64), problem.padding, problem.padding_mode)
    grouped = weight.astype(np.float64).reshape(g, o // g, c // g, *problem.kernel_size)
    y = np.zeros((n, g, o // g, oh * ow))
    for p in range(problem.kernel_size[0]):
        for q in range(problem.kernel_size[1]):
            rows, cols = p * dh + sh * np.arange(oh), q * dw + sw * np.arange(ow)
            seen = image[:, :, rows[:, None], cols].reshape(n, g, c // g, oh * ow)
            y += grouped[:, :, :, p, q] @ seen
    out: Float64 = y.reshape(problem.output_shape)
    if bias is not None:
        out += bias.astype(np.float64)[:, None, None]
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
    """The largest |error| a method of this accuracy class may have at each output of ``at``; shape (S,).

    With u the unit roundoff, r the products in one output and S = sum |x||w| + |b| over its own window:
    "direct" summation in any order: min(gamma(r+1), max(8, 4 sqrt(r+1)) u) S; Winograd's "tile2", "tile4", "tile6":
    max(4 sqrt(r+1), K) u times the largest S of its tile, K of `TILES`; one transform of the "image" (FFT of P x Q
    points): 2 u log2(P Q) sum over channels of ||x_c|| ||w_c||, which knows nothing of the window.
    """
    u = float(np.finfo(problem.dtype).eps) / 2
    terms = problem.reduction + 1
    magnitudes = np.abs(x), np.abs(weight), None if bias is None else np.abs(bias)
    if accuracy == "direct":
        gamma = terms * u / (1 - terms * u)
        return min(gamma, max(8.0, 4 * sqrt(terms)) * u) * reference_at(*magnitudes, problem, at)
    if accuracy in TILES:
        m, growth = TILES[accuracy]
        return max(4 * sqrt(terms), growth) * u * _largest_of_tile(*magnitudes, problem, m, at)
    if accuracy == "image":
        return 2 * u * log2(_points(problem)) * _norms(*magnitudes, problem, at)
    raise ValueError(f"no bound known for accuracy class {accuracy!r}")


def norm_bound(problem: Conv2dProblem, accuracy: str) -> float:
    """The largest ||error|| / ||y|| over any good number of outputs: for Winograd, inf for the other classes."""
    return TILE_NORM_EPS * float(np.finfo(problem.dtype).eps) if accuracy in TILES else inf


def _largest_of_tile(x: Array, weight: Array, bias: Array | None, problem: Conv2dProblem, m: int, at: Index) -> Float64:
    """The largest output of the m x m tile, cut at the edges, that each of ``at`` lies in; shape (S,)."""
    whole = np.repeat(at[:, None], m * m, axis=1)
    inside = np.stack(np.divmod(np.arange(m * m), m), axis=1)
    whole[..., 2:] = np.minimum(whole[..., 2:] // m * m + inside, np.array(problem.out_size) - 1)
    largest: Float64 = reference_at(x, weight, bias, problem, whole.reshape(-1, 4)).reshape(len(at), -1).max(1)
    return largest


def _points(problem: Conv2dProblem) -> float:
    """Twice the points of an FFT that holds the padded image and the dilated kernel: its logarithm is never 0."""
    points = 2.0
    for padded_size, k, d in zip(problem.padded_size, problem.kernel_size, problem.dilation, strict=True):
        points *= padded_size + d * (k - 1)
    return points


def _norms(x: Array, weight: Array, bias: Array | None, problem: Conv2dProblem, at: Index) -> Float64:
    """Norms ||x_c|| ||w_c|| summed over the channels of each of ``at``, plus the bias; shape (S,)."""
    image = padded(x, problem.padding, problem.padding_mode).astype(np.float64)
    g = problem.groups
    x_norm = np.sqrt((image**2).sum((2, 3))).reshape(problem.batch, g, -1)
    w_norm = np.sqrt((weight.astype(np.float64) ** 2).sum((2, 3))).reshape(g, problem.out_channels // g, -1)
    norms = np.einsum("ngc,goc->ngo", x_norm, w_norm).reshape(problem.batch, problem.out_channels)
    offset = 0.0 if bias is None else bias[at[:, 1]].astype(np.float64)
    total: Float64 = norms[at[:, 0], at[:, 1]] + offset
    return total
