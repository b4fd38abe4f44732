"""`conv2d`, and the steps it shares with `conv_impls.planned`: validate, select the backend, prepare, run."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np

from conv_impls import eager as eager_store
from conv_impls import validation as check
from conv_impls.backend import Backend
from conv_impls.choice import tuning
from conv_impls.errors import UnknownBackendError, UnsupportedError
from conv_impls.kernels.runtime.cores import affinity, granted
from conv_impls.prepared import Prepared, rectified
from conv_impls.problem import Conv2dProblem
from conv_impls.registry import resolve
from conv_impls.validation import Array, Numbers, Padding

# The module that starts the threads of the kernels.
LAUNCH = "conv_impls.kernels.runtime.launch"


def conv2d(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    stride: Numbers = 1,
    padding: Padding = 0,
    dilation: Numbers = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
    backend: str = "auto",
    precision: str = "standard",
    threads: int | None = None,
    activation: str | None = None,
    out: Array | None = None,
) -> Array:
    """2-D convolution (cross-correlation, as in every deep-learning library).

    Parameters
    ----------
    x : ndarray of shape (N, C_in, H, W) or (C_in, H, W), float32 or float64
        A batch of images, or one image.
    weight : ndarray of shape (C_out, C_in/groups, kH, kW), x's dtype
        One kernel for each output channel.
    bias : ndarray of shape (C_out,), x's dtype, optional
        One number for each output channel, added to it.
    stride : int or (h, w), each >= 1
        Step of the kernel. A sequence of one number, such as (2,), counts for both axes, here and below.
    padding : int, (h, w), ((top, bottom), (left, right)), "same" or "valid"
        "same" needs stride 1 and keeps the image size. It adds dilation*(kH-1) rows of zeros. If that is odd, as for an
        even kernel, the extra row is at the bottom; likewise the extra column is at the right.
    dilation : int or (h, w), each >= 1
        Distance of the kernel's taps; 1 means no dilation.
    groups : int
        Must divide C_in and C_out. Output group g depends only on input group g.
    padding_mode : {"zeros", "reflect", "replicate", "circular"}
        "reflect" needs a padding smaller than the image size, "circular" one of at most the image size.
    backend : str
        "auto", or any other name in `conv_impls.backends()`.
    precision : {"standard", "strict"}
        "strict" allows direct summation only. "standard" also allows Winograd and FFT, within their published error
        bounds. These spread rounding errors, and any NaN, over a tile of outputs or over the whole image.
    threads : int, optional
        Maximum number of threads. Default: all cores, or ``NUMBA_NUM_THREADS`` if that is less. BLAS backends use the
        thread setting of BLAS instead.
    activation : {None, "relu"}
        "relu" returns max(y, 0). Backends that can fuse it need no second pass over y. NaN stays NaN.
    out : ndarray of y's shape and dtype, C-contiguous, optional
        Output array; it is filled and returned. It may overlap the inputs.

    Returns
    -------
    y : ndarray of shape (N, C_out, H_out, W_out) or (C_out, H_out, W_out)
        Has x's dtype and is C-contiguous. A new array, unless ``out`` was given.
        H_out = (H + top + bottom - dilation*(kH-1) - 1)//stride + 1.

    Raises
    ------
    ProblemError
        If a value or shape is wrong (also a ValueError).
    DTypeError
        If a type or dtype is wrong (also a TypeError).
    UnsupportedError
        If the selected backend does not support this problem.
    UnknownBackendError
        If no backend has this name.

    Notes
    -----
    Prepared convolutions are cached per problem (LRU, at most 256 MiB). A cache hit only repacks the weights.
    `clear_cache` frees the cache. For constant weights, use `plan`: it packs them once.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.arange(16, dtype=np.float32).reshape(1, 4, 4)
    >>> conv2d(x, np.ones((1, 1, 3, 3), np.float32), stride=2, padding=1)
    array([[[10., 24.],
            [51., 90.]]], dtype=float32)

    Arguments by position are in the order of torch: x, weight, bias, stride, padding, dilation, groups.

    >>> conv2d(x, np.ones((1, 1, 3, 3), np.float32), None, 2, 1)
    array([[[10., 24.],
            [51., 90.]]], dtype=float32)

    An even kernel with "same" padding sees one more zero after the image than before it.

    >>> conv2d(np.ones((1, 1, 4)), np.ones((1, 1, 1, 2)), padding="same")
    array([[[2., 2., 2., 1.]]])

    An image with its channels last, as most libraries for images return it, is transposed first.

    >>> photo = np.zeros((32, 48, 3), np.uint8)
    >>> conv2d(photo.transpose(2, 0, 1).astype(np.float32), np.ones((8, 3, 3, 3), np.float32)).shape
    (8, 30, 46)
    """
    fn = "conv2d"
    x, single = check.described_images(fn, "x", x)
    weight = check.described(fn, "weight", weight, (4,), "(C_out, C_in/groups, kH, kW)")
    problem = Conv2dProblem.from_checked(fn, x, weight, single, stride, padding, dilation, groups, padding_mode)
    bias = check.bias_vector(fn, bias, problem.out_channels, x)
    check.choice(fn, "precision", precision, check.PRECISIONS)
    count, relu = thread_count(fn, threads), is_relu(fn, activation)
    shape = result_shape(fn, out, problem, single)
    # The backend is selected last, so that the error for a wrong argument does not depend on it.
    chosen = select(fn, backend, problem, precision, count, eager=True)
    x, weight = check.laid_out(x), check.laid_out(weight)
    key = chosen, problem, count, relu
    prepared = eager_store.take(key, weight, bias) or prepare(chosen, problem, weight, bias, count, relu)
    y = compute(prepared.call, x.dtype, shape, out, (x,), (weight,) if bias is None else (weight, bias))
    eager_store.put(key, prepared)
    return y


def thread_count(fn: str, threads: int | None) -> int:
    """Number of threads to use: >= 1, limited by usable cores and ``NUMBA_NUM_THREADS``; 1 after a fork."""
    wanted = min(affinity(), granted())
    if threads is not None:
        wanted = min(check.integer(fn, "threads", threads, 1), wanted)
    if LAUNCH in sys.modules:
        return usable(wanted)
    with suppress(KeyError, ValueError):
        return min(wanted, max(int(os.environ["NUMBA_NUM_THREADS"]), 1))
    return wanted


def usable(threads: int) -> int:
    """Limit ``threads`` to what the launch module can use; unchanged while that module is not loaded."""
    # Not imported here: importing Numba takes half a second, and not every backend needs it.
    launch = sys.modules.get(LAUNCH)
    return threads if launch is None else int(launch.usable(threads))


def select(fn: str, name: str, problem: Conv2dProblem, precision: str, threads: int, eager: bool) -> Backend:
    """Like `registry.resolve`, but "auto" prefers the backend that `tuning` measured as fastest on this machine."""
    winner = tuning.winner(problem, precision, threads) if name == "auto" else None
    if winner is not None:
        from conv_impls.choice.cost import fits

        # The tuned backend may be uninstalled, may now reject this problem, or may need more memory than auto allows.
        # Then auto decides as if nothing had been measured.
        with suppress(UnknownBackendError, UnsupportedError):
            chosen = resolve(fn, winner, problem, precision, threads, eager)
            if fits(chosen, problem, threads):
                return chosen
    return resolve(fn, name, problem, precision, threads, eager)


def is_relu(fn: str, activation: str | None) -> bool:
    """Whether the activation is ReLU."""
    return activation is not None and check.choice(fn, "activation", activation, check.ACTIVATIONS) == "relu"


def result_shape(fn: str, out: Array | None, problem: Conv2dProblem, single: bool) -> tuple[int, ...]:
    """Return the shape of the result; check ``out`` against it."""
    shape = problem.output_shape[1 if single else 0 :]
    if out is not None:
        check.output(fn, out, shape, np.dtype(problem.dtype))
    return shape


def prepare(
    backend: Backend, problem: Conv2dProblem, weight: Array, bias: Array | None, threads: int, relu: bool
) -> Prepared:
    """Prepare a convolution. Problems without any product never reach a backend: their output is the bias."""
    if problem.macs:
        return backend.prepare(problem, weight, bias, threads, relu)

    def fill(x: Array, out: Array) -> None:
        out[...] = 0 if bias is None else bias[:, None, None]

    filled = Prepared(fill, packed_bytes=0, workspace_bytes=0)
    return rectified(filled) if relu else filled


def compute(
    call: Callable[..., None],
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    out: Array | None,
    inputs: tuple[Array, ...],
    others: tuple[Array, ...] = (),
) -> Array:
    """``call(*inputs, out)`` into ``out`` or a new array.

    If ``out`` overlaps an input, or an array of ``others``, the result goes through a temporary.
    """
    direct = out is not None and not any(np.may_share_memory(out, source) for source in (*inputs, *others))
    y = out if out is not None and direct else np.empty(shape, dtype)
    call(*inputs, y if y.ndim == 4 else y[None])
    if out is None or direct:
        return y
    out[...] = y
    return out
