"""Classic image filters (`KERNELS`), and `apply_kernel`, which applies one.

The first five are those of the "convolutions from scratch" lesson. Sobel and Scharr detect edges: positive from
dark to bright in reading order. Sources: Sobel & Feldman 1968 (talk); Prewitt 1970; Scharr 2000 (thesis);
Gaussian: binomial coefficients.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from conv_impls import validation as check
from conv_impls.api import conv2d
from conv_impls.validation import Array

_BINOMIAL_5 = np.array([1, 4, 6, 4, 1]) / 16


def _kernel(rows: object) -> Array:
    kernel: Array = np.array(rows, np.float32)
    kernel.flags.writeable = False
    return kernel


KERNELS: Mapping[str, Array] = MappingProxyType(
    {
        "identity": _kernel([[0, 0, 0], [0, 1, 0], [0, 0, 0]]),
        "blur_3x3": _kernel(np.full((3, 3), 1 / 9)),
        "sharpen": _kernel([[0, -1, 0], [-1, 5, -1], [0, -1, 0]]),
        "sobel_x": _kernel([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]),
        "sobel_y": _kernel([[-1, -2, -1], [0, 0, 0], [1, 2, 1]]),
        "gaussian_5x5": _kernel(np.outer(_BINOMIAL_5, _BINOMIAL_5)),
        "laplacian": _kernel([[0, 1, 0], [1, -4, 1], [0, 1, 0]]),
        "outline": _kernel([[-1, -1, -1], [-1, 8, -1], [-1, -1, -1]]),
        "emboss": _kernel([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]]),
        "prewitt_x": _kernel([[-1, 0, 1], [-1, 0, 1], [-1, 0, 1]]),
        "scharr_x": _kernel([[-3, 0, 3], [-10, 0, 10], [-3, 0, 3]]),
        "motion_9": _kernel(np.eye(9) / 9),
    }
)


def apply_kernel(img2d: Array, kernel: Array, *, padding_mode: str = "zeros") -> Array:
    """Filter one grayscale image; the output has the same size.

    Parameters
    ----------
    img2d : ndarray of shape (H, W)
        Floats keep their dtype; integers and bool become float32.
    kernel : ndarray of shape (kH, kW)
        For example from `KERNELS`; converted to the image's dtype. If kH or kW is even, the kernel reaches one pixel
        further to the bottom or right than to the top or left.
    padding_mode : {"zeros", "reflect", "replicate", "circular"}
        How the image continues beyond its border. With "zeros" the border itself acts as an edge.

    Returns
    -------
    ndarray of shape (H, W)
        The filtered image.

    Raises
    ------
    ProblemError, DTypeError
        If an array is not 2-D or its dtype is not real.

    Examples
    --------
    >>> import numpy as np
    >>> apply_kernel(np.eye(3, dtype=np.float32), KERNELS["laplacian"])
    array([[-4.,  2.,  0.],
           [ 2., -4.,  2.],
           [ 0.,  2., -4.]], dtype=float32)
    """
    fn = "apply_kernel"
    image, filter2d = _plane(fn, "img2d", img2d), _plane(fn, "kernel", kernel)
    weight = filter2d.astype(image.dtype)[None, None]
    shapes = (1, 1, *image.shape), weight.shape
    check.convolution(fn, *shapes, image.itemsize, 1, "same", 1, 1, padding_mode, names=("img2d", "kernel"))
    filtered: Array = conv2d(image[None], weight, padding="same", padding_mode=padding_mode)[0]
    return filtered


def _plane(fn: str, argument: str, value: Array) -> Array:
    if isinstance(value, np.ndarray) and value.dtype.kind in "iub":
        value = value.astype(np.float32)
    return check.array(fn, argument, value, (2,), "(H, W)")
