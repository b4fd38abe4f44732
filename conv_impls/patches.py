"""Images as columns of patches: `im2col` copies every window to a column, `col2im` adds columns back to their windows.

The two are adjoint: <im2col(x), c> = <x, col2im(c)>. Source: Chellapilla, Puri & Simard 2006, "High performance
convolutional neural networks for document processing", sec. 3; the layout is that of torch.nn.functional.unfold.
"""

from __future__ import annotations

from math import prod

import numpy as np

from conv_impls import validation as check
from conv_impls.padding import fold2d, padded
from conv_impls.problem import Conv2dProblem
from conv_impls.validation import Array, Numbers, Padding


def windows(x: Array, problem: Conv2dProblem) -> Array:
    """Read-only view (N, C, H_out, W_out, kH, kW) of a padded image. No copy: strides repeat the elements."""
    extent = tuple(d * (k - 1) + 1 for d, k in zip(problem.dilation, problem.kernel_size, strict=True))
    view = np.lib.stride_tricks.sliding_window_view(x, extent, axis=(2, 3))
    (sh, sw), (dh, dw) = problem.stride, problem.dilation
    return view[:, :, ::sh, ::sw, ::dh, ::dw]


def columns(x: Array, problem: Conv2dProblem) -> Array:
    """(N, C*kH*kW, H_out*W_out) of a checked image batch; makes one copy, of the size of the columns."""
    view = windows(padded(x, problem.padding, problem.padding_mode), problem)
    n, c, oh, ow, kh, kw = view.shape
    return view.transpose(0, 1, 4, 5, 2, 3).reshape(n, c * kh * kw, oh * ow)


def scatter(cols: Array, problem: Conv2dProblem) -> Array:
    """Adjoint of `columns`: add every column back to the window it came from; (N, C, H, W)."""
    (oh, ow), (kh, kw), (sh, sw), (dh, dw) = problem.out_size, problem.kernel_size, problem.stride, problem.dilation
    taps = cols.reshape(problem.batch, problem.in_channels, kh, kw, oh, ow)
    image = np.zeros((problem.batch, problem.in_channels, *problem.padded_size), cols.dtype)
    for i in range(kh):
        for j in range(kw):
            # One tap writes each padded pixel at most once, so a strided += is safe; only different taps overlap.
            image[:, :, i * dh : i * dh + oh * sh : sh, j * dw : j * dw + ow * sw : sw] += taps[:, :, i, j]
    return fold2d(image, problem.in_size, problem.padding, problem.padding_mode)


def im2col(
    x: Array,
    kernel_size: Numbers,
    *,
    stride: Numbers = 1,
    padding: Padding = 0,
    dilation: Numbers = 1,
    padding_mode: str = "zeros",
) -> Array:
    """Copy every window of an image to a column.

    Parameters
    ----------
    x : ndarray of shape (N, C, H, W) or (C, H, W), float32 or float64
        A batch of images, or one image.
    kernel_size : int or (kH, kW)
        Size of the window.
    stride, padding, dilation, padding_mode : see `conv_impls.conv2d`
        The arguments of the convolution with these windows.

    Returns
    -------
    ndarray of shape (N, C*kH*kW, H_out*W_out) or (C*kH*kW, H_out*W_out)
        Rows are ordered by channel, kernel row, kernel column; columns by output row, output column.

    Raises
    ------
    ProblemError, DTypeError
        If an argument is wrong or the window does not fit the padded image.

    Notes
    -----
    The result takes kH*kW/stride**2 times the memory of the image. In return, the convolution is one matrix product.

    Examples
    --------
    >>> import numpy as np
    >>> im2col(np.arange(9.0).reshape(1, 3, 3), 2)
    array([[0., 1., 3., 4.],
           [1., 2., 4., 5.],
           [3., 4., 6., 7.],
           [4., 5., 7., 8.]])
    """
    x, single = check.images("im2col", "x", x)
    arguments = kernel_size, stride, padding, dilation, padding_mode
    problem = _problem("im2col", "x", x.shape, x.itemsize, *arguments)
    cols = columns(x, problem)
    # For a 1x1 window, cols is still the read-only view of the windows.
    cols = cols if cols.flags.writeable else cols.copy()
    return cols[0] if single else cols


def col2im(
    cols: Array,
    input_size: tuple[int, ...],
    kernel_size: Numbers,
    *,
    stride: Numbers = 1,
    padding: Padding = 0,
    dilation: Numbers = 1,
    padding_mode: str = "zeros",
) -> Array:
    """Add every column back to the window it came from: the adjoint of `im2col`, not its inverse.

    Parameters
    ----------
    cols : ndarray of shape (N, C*kH*kW, H_out*W_out) or (C*kH*kW, H_out*W_out), float32 or float64
        Columns as `im2col` returns them.
    input_size : tuple
        Shape of the image: (N, C, H, W) or (C, H, W).
    kernel_size, stride, padding, dilation, padding_mode : see `im2col`
        The arguments that `im2col` was called with.

    Returns
    -------
    ndarray of shape ``input_size``
        Overlapping windows are summed; pixels that no window covers are exactly 0.

    Raises
    ------
    ProblemError, DTypeError
        If an argument is wrong, or ``cols`` does not have the shape that `im2col` returns.

    Examples
    --------
    >>> import numpy as np
    >>> col2im(np.ones((4, 4)), (1, 3, 3), 2)
    array([[[1., 2., 1.],
            [2., 4., 2.],
            [1., 2., 1.]]])
    """
    fn = "col2im"
    cols = check.array(fn, "cols", cols, (2, 3), "(N, C*kH*kW, L) or (C*kH*kW, L)")
    shape = check.shape(fn, "input_size", input_size, (cols.ndim + 1,))
    batch = shape if len(shape) == 4 else (1, *shape)
    arguments = kernel_size, stride, padding, dilation, padding_mode
    problem = _problem(fn, "input_size", batch, cols.itemsize, *arguments)
    expected = (batch[1] * prod(problem.kernel_size), prod(problem.out_size))
    if cols.shape[-2:] != expected or (cols.ndim == 3 and cols.shape[0] != batch[0]):
        full = (batch[0], *expected) if cols.ndim == 3 else expected
        check.fail(fn, "cols", f"shape {full}", cols.shape, f"input_size={shape}, kernel_size={problem.kernel_size}")
    image = scatter(cols.reshape(batch[0], *expected), problem)
    return image.reshape(shape)


def _problem(
    fn: str,
    image_name: str,
    shape: tuple[int, ...],
    itemsize: int,
    kernel_size: Numbers,
    stride: Numbers,
    padding: Padding,
    dilation: Numbers,
    padding_mode: str,
) -> Conv2dProblem:
    """The depthwise problem with the same windows."""
    kernel = check.pair(fn, "kernel_size", kernel_size, 1)
    if shape[1] == 0:
        check.fail(fn, image_name, "at least one channel", 0)
    return Conv2dProblem.of_shapes(
        fn, shape, (shape[1], 1, *kernel), itemsize, stride, padding, dilation, shape[1], padding_mode,
        names=(image_name, "kernel_size"),
    )  # fmt: skip
