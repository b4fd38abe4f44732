"""The names of the "convolutions from scratch" lesson, as thin wrappers, so that its snippets run unchanged:

    from conv_impls.lesson import *

As in the lesson, images are (C, H, W) (batches (N, C, H, W) work too) and padding is one number. Unlike the lesson,
integer arrays are converted to float64, and mixed dtypes are promoted as in NumPy.
"""

from __future__ import annotations

import numpy as np

from conv_impls import patches
from conv_impls.api import conv2d
from conv_impls.filters import KERNELS, apply_kernel
from conv_impls.gradients import conv2d_input, conv2d_weight
from conv_impls.padding import pad2d as _pad2d
from conv_impls.validation import Array

__all__ = [
    "KERNELS",
    "apply_kernel",
    "conv2d_im2col",
    "conv2d_im2col_backward",
    "conv2d_naive",
    "im2col",
    "pad2d",
    "synthetic_step_image",
]


def pad2d(x: Array, p: int) -> Array:
    """Pad the last two axes with zeros: (..., H, W) -> (..., H+2p, W+2p), any dtype.

    >>> pad2d(np.ones((1, 1), int), 1)
    array([[0, 0, 0],
           [0, 1, 0],
           [0, 0, 0]])
    """
    return _pad2d(x, p)


def conv2d_naive(
    x: Array, w: Array, b: Array | None = None, stride: int = 1, padding: int = 0, groups: int = 1
) -> Array:
    """Reference convolution: backend python_loops. x (C_in, H, W), w (C_out, C_in/groups, kH, kW), b (C_out,).

    >>> conv2d_naive(np.ones((1, 3, 3)), np.ones((2, 1, 3, 3))).ravel()
    array([9., 9.])
    """
    x, w, b = _floats(x, w, b)
    return conv2d(x, w, b, stride=stride, padding=padding, groups=groups, backend="python_loops")


def im2col(x: Array, kh: int, kw: int, stride: int = 1, padding: int = 0) -> tuple[Array, int, int]:
    """Copy every window of x (C, H, W) to a column; returns cols (C*kh*kw, h_out*w_out), h_out, w_out.

    >>> cols, h_out, w_out = im2col(np.arange(9).reshape(1, 3, 3), 2, 2)
    >>> cols.shape, h_out, w_out
    ((4, 4), 2, 2)
    """
    (x,) = _floats(x)
    cols = patches.im2col(x, (kh, kw), stride=stride, padding=padding)
    h_out, w_out = ((size + 2 * padding - k) // stride + 1 for size, k in zip(x.shape[-2:], (kh, kw), strict=True))
    return cols, h_out, w_out


def conv2d_im2col(
    x: Array, w: Array, b: Array | None = None, stride: int = 1, padding: int = 0, groups: int = 1
) -> Array:
    """The same result by im2col and one matrix product: backend numpy_strided.

    >>> x, w = np.ones((4, 5, 5)), np.ones((4, 1, 3, 3))
    >>> bool((conv2d_im2col(x, w, groups=4) == conv2d_naive(x, w, groups=4)).all())
    True
    """
    x, w, b = _floats(x, w, b)
    return conv2d(x, w, b, stride=stride, padding=padding, groups=groups, backend="numpy_strided")


def conv2d_im2col_backward(
    grad_out: Array, x: Array, w: Array, stride: int = 1, padding: int = 0, groups: int = 1
) -> tuple[Array, Array, Array]:
    """Gradients (grad_x, grad_w, grad_b) of `conv2d_im2col` for grad_out (C_out, h_out, w_out).

    >>> x, w = np.ones((1, 3, 3)), np.ones((1, 1, 2, 2))
    >>> [g.shape for g in conv2d_im2col_backward(np.ones((1, 2, 2)), x, w)]
    [(1, 3, 3), (1, 1, 2, 2), (1,)]
    """
    grad_out, x, w = _floats(grad_out, x, w)
    grad_x = conv2d_input(x.shape, w, grad_out, stride=stride, padding=padding, groups=groups)
    grad_w = conv2d_weight(x, w.shape, grad_out, stride=stride, padding=padding, groups=groups)
    axes = (0, 2, 3) if grad_out.ndim == 4 else (1, 2)
    return grad_x, grad_w, grad_out.sum(axes)


def synthetic_step_image(size: int = 16) -> Array:
    """(1, size, size) float32: 0 on the left half, 1 from column size//2 on.

    A 3x3 Sobel-x with padding 1 gives 4 at columns 7 and 8 of the 16-column image (3 in the first and last row). It
    gives -4 (and -3) at column 15, because the zero padding forms an edge there. It gives 0 everywhere else.

    >>> apply_kernel(synthetic_step_image()[0], KERNELS["sobel_x"])[:2, 6:].astype(int)
    array([[ 0,  3,  3,  0,  0,  0,  0,  0,  0, -3],
           [ 0,  4,  4,  0,  0,  0,  0,  0,  0, -4]])
    """
    image: Array = np.zeros((1, size, size), np.float32)
    image[:, :, size // 2 :] = 1
    return image


def _floats(*arrays: Array | None) -> tuple[Array, ...]:
    """Convert to one floating dtype; integers become float64. `conv2d` refuses arrays that are not real.

    None stays None; the return type hides it to keep the callers simple.
    """
    given = [a if a is None or isinstance(a, np.ndarray) else np.asarray(a) for a in arrays]
    kinds = {a.dtype.kind for a in given if a is not None}
    if kinds <= set("iubf"):
        dtype = np.result_type(*(a.dtype if a.dtype.kind == "f" else np.float64 for a in given if a is not None))
        given = [a if a is None else a.astype(dtype, copy=False) for a in given]
    return tuple(given)  # type: ignore[arg-type]
