"""Padding as an index map: the source row or column of each padded row or column, -1 for a zero.

One map per axis has three uses. Gathering through it pads (`pad2d`). Scatter-add through it is the adjoint (`fold2d`:
values that reflect, replicate or circular copied are added back to their source). A kernel can read through it.
Source: numpy.pad's modes constant, reflect, edge and wrap.
Limits: reflect needs padding < size, circular needs padding <= size.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from conv_impls import validation as check
from conv_impls.validation import Array, Padding, Pair, Sides

NO_PADDING: Sides = ((0, 0), (0, 0))


def source_index(size: int, before: int, after: int, mode: str) -> NDArray[np.intp]:
    """Source position of each padded position, -1 for a zero; shape (before + size + after,)."""
    return source_at(np.arange(-before, size + after), size, mode)


def source_at(at: NDArray[np.intp], size: int, mode: str) -> NDArray[np.intp]:
    """Source position of the positions ``at``, where 0 is the first of the image; -1 for a zero."""
    if mode == "zeros":
        return np.where((at >= 0) & (at < size), at, -1)
    if mode == "reflect":
        at = np.abs(at)
        return np.where(at >= size, 2 * (size - 1) - at, at)
    return np.clip(at, 0, size - 1) if mode == "replicate" else at % size


def pad2d(x: Array, padding: Padding, mode: str = "zeros") -> Array:
    """Pad the last two axes of an array.

    Parameters
    ----------
    x : ndarray of shape (..., H, W)
        Any dtype.
    padding : int, (h, w) or ((top, bottom), (left, right))
        Each >= 0. "reflect" needs padding < size, "circular" padding <= size.
    mode : {"zeros", "reflect", "replicate", "circular"}
        As numpy.pad's "constant", "reflect", "edge" and "wrap".

    Returns
    -------
    ndarray of shape (..., top + H + bottom, left + W + right)
        A new array of x's dtype.

    Raises
    ------
    ProblemError
        If the mode is unknown, or the padding is negative or too large for the mode.

    Examples
    --------
    >>> import numpy as np
    >>> pad2d(np.array([[1, 2, 3]]), ((0, 0), (2, 2)), "reflect")
    array([[3, 2, 1, 2, 3, 2, 1]])
    """
    check.plain_array("pad2d", "x", x)
    if x.ndim < 2:
        check.fail("pad2d", "x", "at least 2 dimensions (..., H, W)", x.ndim, f"x.shape={x.shape}")
    check.choice("pad2d", "mode", mode, check.PADDING_MODES)
    if isinstance(padding, str):
        check.fail("pad2d", "padding", "an integer, (h, w) or ((top, bottom), (left, right))", repr(padding))
    (top, bottom), (left, right) = check.sides("pad2d", padding, (1, 1), (1, 1), (1, 1))
    h, w = x.shape[-2:]
    check.geometry("pad2d", (h, w), (1, 1), (1, 1), ((top, bottom), (left, right)), (1, 1), mode)
    check.total_bytes("pad2d", "padding", (*x.shape[:-2], top + h + bottom, left + w + right), x.itemsize)
    out = padded(x, ((top, bottom), (left, right)), mode)
    return out.copy() if out is x else out


def padded(x: Array, sides: Sides, mode: str) -> Array:
    """`pad2d` for checked arguments; returns x itself if there is nothing to pad."""
    if sides == NO_PADDING:
        return x
    h, w = x.shape[-2:]
    (top, bottom), (left, right) = sides
    if mode == "zeros":
        out = np.zeros((*x.shape[:-2], top + h + bottom, left + w + right), x.dtype)
        out[..., top : top + h, left : left + w] = x
        return out
    rows, cols = source_index(h, top, bottom, mode), source_index(w, left, right, mode)
    return np.ascontiguousarray(x[..., rows[:, None], cols])


def fold2d(x: Array, size: Pair, sides: Sides, mode: str) -> Array:
    """The adjoint of `padded`: (..., top+H+bottom, left+W+right) -> (..., H, W), borders added to their source."""
    out = x
    for axis, (length, (before, after)) in zip((-2, -1), zip(size, sides, strict=True), strict=True):
        out = _fold_axis(np.moveaxis(out, axis, 0), length, before, after, mode)
        out = np.moveaxis(out, 0, axis)
    return np.ascontiguousarray(out)


def _fold_axis(x: Array, size: int, before: int, after: int, mode: str) -> Array:
    out = x[before : before + size].copy()
    if mode != "zeros":
        source = source_index(size, before, after, mode)
        for at in (*range(before), *range(before + size, before + size + after)):
            out[source[at]] += x[at]
    return out
