"""The two gradients (adjoints) of convolution, and transposed convolution.

Convolution is bilinear, so these are equal: <conv(x, w), g> = <x, conv2d_input(w, g)> = <w, conv2d_weight(x, g)>.
Transposed convolution is conv2d_input. `conv_impls.prepared_gradients` computes them.
Source: names and arguments of torch.nn.grad and torch.nn.functional.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from conv_impls import hints
from conv_impls import validation as check
from conv_impls.api import thread_count
from conv_impls.prepared_gradients import input_gradient, run, weight_gradient
from conv_impls.problem import Conv2dProblem
from conv_impls.validation import Array, Numbers, Padding


def conv2d_input(
    input_size: Sequence[int],
    weight: Array,
    grad_output: Array,
    stride: Numbers = 1,
    padding: Padding = 0,
    dilation: Numbers = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
    backend: str = "auto",
    precision: str = "standard",
    threads: int | None = None,
    out: Array | None = None,
) -> Array:
    """Gradient of ``conv2d`` with respect to its input.

    Arguments by position are in the order of torch.nn.grad.conv2d_input.

    Parameters
    ----------
    input_size : sequence
        Shape of the input: (N, C_in, H, W) or (C_in, H, W).
    weight : ndarray of shape (C_out, C_in/groups, kH, kW), float32 or float64
        The weight of the forward convolution.
    grad_output : ndarray of shape (N, C_out, H_out, W_out) or (C_out, H_out, W_out), same dtype
        Gradient with respect to the output.
    stride, padding, dilation, groups, padding_mode : see `conv_impls.conv2d`
        The arguments of the forward convolution.
    backend, precision, threads : see `conv_impls.conv2d`
        The backend, which error it may make, and the maximum number of threads.
    out : ndarray of the result's shape and dtype, C-contiguous, optional
        Output array; it is filled and returned. It may overlap the inputs.

    Returns
    -------
    ndarray of shape ``input_size``
        Pixels that no window covers get exactly 0. With reflect, replicate or circular padding, the gradient of the
        border is added to the pixels it was copied from.

    Raises
    ------
    ProblemError, DTypeError
        As for `conv_impls.conv2d`, or if ``grad_output`` does not have the shape of its output.

    Examples
    --------
    >>> import numpy as np
    >>> conv2d_input((1, 1, 4), np.ones((1, 1, 1, 2)), np.ones((1, 1, 2)), stride=2)
    array([[[1., 1., 1., 1.]]])
    """
    fn = "conv2d_input"
    shape = check.shape(fn, "input_size", input_size, (3, 4))
    weight = check.array(fn, "weight", weight, (4,), "(C_out, C_in/groups, kH, kW)")
    problem = Conv2dProblem.of_shapes(
        fn, shape, weight.shape, weight.itemsize, stride, padding, dilation, groups, padding_mode,
        names=("input_size", "weight"),
    )  # fmt: skip
    grad_output = _grad_output(fn, grad_output, problem, weight, len(shape) == 3)
    check.choice(fn, "precision", precision, check.PRECISIONS)
    made = input_gradient(fn, backend, problem, weight, precision, thread_count(fn, threads), eager=True)
    result = run(fn, made.call, weight.dtype, shape, out, grad_output)
    made.release()
    return result


def conv2d_weight(
    x: Array,
    weight_size: Sequence[int],
    grad_output: Array,
    stride: Numbers = 1,
    padding: Padding = 0,
    dilation: Numbers = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
    backend: str = "auto",
    precision: str = "standard",
    threads: int | None = None,
    out: Array | None = None,
) -> Array:
    """Gradient of ``conv2d`` with respect to its weight.

    Arguments by position are in the order of torch.nn.grad.conv2d_weight.

    Parameters
    ----------
    x : ndarray of shape (N, C_in, H, W) or (C_in, H, W), float32 or float64
        The input of the forward convolution.
    weight_size : sequence
        Shape of the weight: (C_out, C_in/groups, kH, kW).
    grad_output : ndarray of shape (N, C_out, H_out, W_out) or (C_out, H_out, W_out), same dtype
        Gradient with respect to the output.
    stride, padding, dilation, groups, padding_mode : see `conv_impls.conv2d`
        The arguments of the forward convolution.
    backend, precision, threads : see `conv_impls.conv2d`
        The backend, which error it may make, and the maximum number of threads.
    out : ndarray of the result's shape and dtype, C-contiguous, optional
        Output array; it is filled and returned. It may overlap the inputs.

    Returns
    -------
    ndarray of shape ``weight_size``
        Summed over the batch. The gradient of the bias is ``grad_output.sum((0, 2, 3))``.

    Raises
    ------
    ProblemError, DTypeError
        As for `conv_impls.conv2d`, or if ``grad_output`` does not have the shape of its output.

    Examples
    --------
    >>> import numpy as np
    >>> conv2d_weight(np.arange(4.0).reshape(1, 1, 4), (1, 1, 1, 2), np.ones((1, 1, 3)))
    array([[[[3., 6.]]]])
    """
    fn = "conv2d_weight"
    x, single = check.images(fn, "x", x)
    shape = check.shape(fn, "weight_size", weight_size, (4,))
    problem = Conv2dProblem.of_shapes(
        fn, x.shape[single:], shape, x.itemsize, stride, padding, dilation, groups, padding_mode,
        names=("x", "weight_size"),
    )  # fmt: skip
    grad_output = _grad_output(fn, grad_output, problem, x, single)
    check.choice(fn, "precision", precision, check.PRECISIONS)
    made = weight_gradient(fn, backend, problem, precision, thread_count(fn, threads), eager=True)
    result = run(fn, made.call, x.dtype, shape, out, x, grad_output)
    made.release()
    return result


def conv_transpose2d(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    stride: Numbers = 1,
    padding: Numbers = 0,
    output_padding: Numbers = 0,
    groups: int = 1,
    dilation: Numbers = 1,
    *,
    backend: str = "auto",
    precision: str = "standard",
    threads: int | None = None,
    out: Array | None = None,
) -> Array:
    """Transposed convolution: what `conv2d_input` computes, with ``output_padding`` in place of the output size.

    Arguments by position are in the order of torch.nn.functional.conv_transpose2d: dilation is the last.

    Parameters
    ----------
    x : ndarray of shape (N, C_in, H, W) or (C_in, H, W), float32 or float64
        A batch of images, or one image.
    weight : ndarray of shape (C_in, C_out/groups, kH, kW), same dtype
        The weight of the forward convolution whose adjoint this is; C_in are its output channels.
    bias : ndarray of shape (C_out,), same dtype, optional
        One number for each output channel, added to it.
    stride, padding : int or (h, w)
        Stride and padding of that convolution.
    output_padding : int or (h, w)
        Rows and columns added at the bottom and right; less than stride or dilation.
    groups : int
        Must divide C_in.
    dilation : int or (h, w)
        Dilation of that convolution.
    backend, precision, threads : see `conv_impls.conv2d`
        The backend, which error it may make, and the maximum number of threads.
    out : ndarray of the result's shape and dtype, C-contiguous, optional
        Output array; it is filled and returned. It may overlap the inputs.

    Returns
    -------
    ndarray of shape (N, C_out, H_out, W_out) or (C_out, H_out, W_out)
        H_out = (H - 1)*stride - 2*padding + dilation*(kH - 1) + output_padding + 1.

    Raises
    ------
    ProblemError, DTypeError
        If a value, shape or dtype is wrong.

    Examples
    --------
    >>> import numpy as np
    >>> conv_transpose2d(np.ones((1, 1, 2)), np.ones((1, 1, 1, 2)), stride=2)
    array([[[1., 1., 1., 1.]]])
    """
    fn = "conv_transpose2d"
    x, single = check.images(fn, "x", x)
    weight = check.array(fn, "weight", weight, (4,), "(C_in, C_out/groups, kH, kW)")
    check.same_dtype(fn, "weight", weight, "x", x)
    n, c, *in_size = x.shape
    count = check.integer(fn, "groups", groups, 1)
    if weight.shape[0] != c or c % count:
        given = x.shape[single:]
        facts = f"x.shape={given}, weight.shape={weight.shape}, groups={count}"
        facts = check.joined(facts, hints.transposed(given, weight.shape, count))
        check.fail(
            fn, "weight", f"{c} input channels as its first axis, a multiple of groups={count}", weight.shape[0], facts
        )
    steps, gaps = check.pair(fn, "stride", stride, 1), check.pair(fn, "dilation", dilation, 1)
    sides, extra = check.pair(fn, "padding", padding, 0), check.pair(fn, "output_padding", output_padding, 0)
    if min(in_size) < 1:
        check.fail(fn, "x", "H and W >= 1", f"{in_size[0]}x{in_size[1]}", "an empty image has no windows")
    full_size, out_size = [], []
    for size, k, s, p, d, e in zip(in_size, weight.shape[2:], steps, sides, gaps, extra, strict=True):
        if e >= max(s, d):
            check.fail(fn, "output_padding", f"less than stride {s} or dilation {d}", e)
        full_size.append((size - 1) * s + d * (k - 1) + 1)
        out_size.append(full_size[-1] - 2 * p + e)
    shape = (n, weight.shape[1] * count, out_size[0], out_size[1])
    if min(*out_size, *full_size) < 1:
        check.fail(fn, "padding", "an output of at least 1x1", f"{out_size[0]}x{out_size[1]}", f"padding={sides}")
    check.total_bytes(fn, "output_padding", shape, weight.itemsize)
    problem = Conv2dProblem.of_shapes(
        fn, shape, weight.shape, weight.itemsize, steps, sides, gaps, count, "zeros", names=("output_padding", "weight")
    )
    bias = check.bias_vector(fn, bias, shape[1], x)
    check.choice(fn, "precision", precision, check.PRECISIONS)
    # With an output_padding of a stride or more, the forward convolution has more outputs than x: they are zero.
    missing = [(0, whole - size) for whole, size in zip(problem.out_size, in_size, strict=True)]
    x = np.pad(x, ((0, 0), (0, 0), *missing)) if missing != [(0, 0)] * 2 else x
    made = input_gradient(fn, backend, problem, weight, precision, thread_count(fn, threads), eager=True)
    y = run(fn, made.call, weight.dtype, shape[1:] if single else shape, out, x)
    made.release()
    if bias is not None:
        y += bias[:, None, None]
    return y


def _grad_output(fn: str, grad_output: Array, problem: Conv2dProblem, like: Array, single: bool) -> Array:
    """Check ``grad_output`` (shape of the output, dtype of ``like``) and return it as a batch."""
    grad_output = check.array(fn, "grad_output", grad_output, (3,) if single else (4,), "like the output")
    check.same_dtype(fn, "grad_output", grad_output, "the other array", like)
    shape = problem.output_shape[1:] if single else problem.output_shape
    if grad_output.shape != shape:
        check.fail(fn, "grad_output", f"shape {shape}", grad_output.shape, f"problem {problem.label}")
    return grad_output.reshape(problem.output_shape)
