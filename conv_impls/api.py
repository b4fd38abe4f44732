"""`conv2d` for one call, `plan` for many: validate, resolve the backend, prepare, run."""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress

import numpy as np

from conv_impls import eager
from conv_impls import validation as check
from conv_impls.choice import tuning
from conv_impls.errors import UnknownBackendError, UnsupportedError
from conv_impls.problem import Conv2dProblem
from conv_impls.registry import Backend, Prepared, rectified, resolve
from conv_impls.validation import Array, Pair, Sides


def conv2d(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    stride: int | Pair = 1,
    padding: int | Pair | Sides | str = 0,
    dilation: int | Pair = 1,
    groups: int = 1,
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
    weight : ndarray of shape (C_out, C_in/groups, kH, kW), x's dtype
    bias : ndarray of shape (C_out,), x's dtype, optional
    stride, dilation : int or (h, w), each >= 1
        Dilation 1 means none.
    padding : int, (h, w), ((top, bottom), (left, right)), "same" or "valid"
        "same" needs stride 1; an odd total puts the extra row or column at the bottom or right.
    groups : int
        Divides C_in and C_out; group g of the outputs sees group g of the inputs.
    padding_mode : {"zeros", "reflect", "replicate", "circular"}
        Reflect pads less than the size, circular at most it.
    backend : str
        A name of `conv_impls.backends`.
    precision : {"standard", "strict"}
        "strict" allows direct summation only; "standard" also Winograd and FFT within their published bounds, which
        spread rounding errors, and a NaN, over a tile of outputs or over the whole image.
    threads : int, optional
        At most this many; all cores by default, or ``NUMBA_NUM_THREADS`` where that is less. Backends on BLAS follow
        BLAS's own setting instead.
    activation : {None, "relu"}
        "relu" gives max(y, 0), without a second pass over y where the backend can; NaN stays NaN.
    out : ndarray of y's shape and dtype, C-contiguous, optional
        Filled and returned; it may overlap the inputs.

    Returns
    -------
    y : ndarray of shape (N, C_out, H_out, W_out) or (C_out, H_out, W_out)
        x's dtype, C-contiguous, freshly owned unless ``out`` was given.
        H_out = (H + top + bottom - dilation*(kH-1) - 1)//stride + 1.

    Notes
    -----
    What was prepared for a problem is kept for its next call, which packs its own weights into it: 256 MiB at most, the
    least recently used goes first, `clear_cache` frees it. Weights that stay the same are packed once by `plan`.

    Raises
    ------
    ProblemError
        A value or shape is wrong (also a ValueError).
    DTypeError
        A type or dtype is wrong (also a TypeError).
    UnsupportedError
        The backend asked for cannot do this problem.
    UnknownBackendError
        There is no such backend.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.arange(16, dtype=np.float32).reshape(1, 4, 4)
    >>> conv2d(x, np.ones((1, 1, 3, 3), np.float32), stride=2, padding=1)
    array([[[10., 24.],
            [51., 90.]]], dtype=float32)
    """
    fn = "conv2d"
    given, single = check.described_images(fn, "x", x)
    kernels = check.described(fn, "weight", weight, (4,), "(C_out, C_in/groups, kH, kW)")
    problem = Conv2dProblem.from_checked(fn, given, kernels, stride, padding, dilation, groups, padding_mode)
    b = check.bias_vector(fn, bias, problem.out_channels, given)
    check.choice(fn, "precision", precision, check.PRECISIONS)
    count, relu = thread_count(fn, threads), _relu(fn, activation)
    shape = _result_shape(fn, out, problem, single)
    # The backend comes last, so that a wrong argument reads the same whichever one was named.
    chosen = settle(fn, backend, problem, precision, count, once=True)
    images, w = check.laid_out(given), check.laid_out(kernels)
    key = chosen, problem, count, relu
    prepared = eager.take(key, w, b) or _prepare(chosen, problem, w, b, count, relu)
    y = _compute(prepared, problem, images, shape, out, (images, w) if b is None else (images, w, b))
    eager.put(key, prepared)
    return y


class Plan:
    """A convolution ready to run: weights copied, packed and compiled for once, at `plan` time.

    Calling it is right from several threads at once, and follows no later change of the weight array.

    Attributes
    ----------
    problem : Conv2dProblem
    backend : str
        The backend that runs, after "auto" has chosen.
    threads : int
        As many as its kernels run on.
    packed_bytes, workspace_bytes : int or None
        Memory kept for the weights, and for each call in flight; None where the backend does not tell.
    compile_s, prepare_s : float
        Seconds spent compiling (0 where the cache had it), and packing.
    prepared : Prepared
        What the backend made, with what else it tells of itself.
    """

    __slots__ = (
        "_call", "_dtype", "_input_shape", "_output_shape",
        "backend", "compile_s", "packed_bytes", "prepare_s", "prepared", "problem", "threads", "workspace_bytes",
    )  # fmt: skip

    def __init__(
        self, problem: Conv2dProblem, backend: str, threads: int, prepared: Prepared, prepare_s: float
    ) -> None:
        self.problem, self.backend, self.threads = problem, backend, threads
        self.packed_bytes, self.workspace_bytes = prepared.packed_bytes, prepared.workspace_bytes
        self.compile_s, self.prepare_s = prepared.compile_s, prepare_s - prepared.compile_s
        self.prepared, self._call, self._dtype = prepared, prepared.call, np.dtype(problem.dtype)
        self._input_shape, self._output_shape = problem.input_shape, problem.output_shape

    def __call__(self, x: Array, out: Array | None = None) -> Array:
        """Convolve x, of the planned shape and dtype; see `conv2d` for ``out`` and the result."""
        # Arrays that need neither a copy nor a word are told by their attributes alone: 1 us where `_checked` takes 10.
        if type(x) is np.ndarray and x.shape == self._input_shape and x.dtype == self._dtype:
            flags = x.flags
            if flags.c_contiguous and flags.aligned:
                if out is None:
                    y = np.empty(self._output_shape, self._dtype)
                    self._call(x, y)
                    return y
                if (
                    type(out) is np.ndarray and out.shape == self._output_shape and out.dtype == self._dtype
                    and out.flags.carray and not np.may_share_memory(out, x)
                ):  # fmt: skip
                    self._call(x, out)
                    return out
        return self._checked(x, out)

    def _checked(self, x: Array, out: Array | None) -> Array:
        """Any x and ``out``: refused in words, or copied to where a kernel may work on them."""
        given, single = check.described_images("plan", "x", x)
        problem = self.problem
        if given.shape != problem.input_shape:
            check.fail("plan", "x", f"shape {problem.input_shape}", x.shape, "make a plan for each input shape")
        if given.dtype.name != problem.dtype:
            check.fail_type("plan", "x", f"dtype {problem.dtype}", given.dtype, "make a plan for each dtype")
        shape = _result_shape("plan", out, problem, single)
        images = check.laid_out(given)
        return _compute(self.prepared, problem, images, shape, out, (images,))

    def __repr__(self) -> str:
        return f"<Plan {self.backend} {self.problem.label} threads={self.threads}>"


def plan(
    problem: Conv2dProblem,
    weight: Array,
    bias: Array | None = None,
    *,
    backend: str = "auto",
    precision: str = "standard",
    threads: int | None = None,
    activation: str | None = None,
    tune: bool = False,
) -> Plan:
    """Prepare one convolution for many calls with constant weights.

    Parameters
    ----------
    problem : Conv2dProblem
        From `Conv2dProblem.from_arrays` or `Conv2dProblem.from_label`.
    weight : ndarray of shape (C_out, C_in/groups, kH, kW), the problem's dtype
        Copied: later changes do not matter.
    bias : ndarray of shape (C_out,), same dtype, optional
    backend, precision, threads, activation
        As in `conv2d`.
    tune : bool
        Measure the likely backends now, take the fastest, and remember it on this machine: from then on "auto" takes it
        for this problem, precision and number of threads, in every process.

    Returns
    -------
    Plan
        ``Plan(x, out=None) -> y``.

    Raises
    ------
    ProblemError, DTypeError, UnsupportedError, UnknownBackendError
        As `conv2d`.

    Examples
    --------
    >>> import numpy as np
    >>> problem = Conv2dProblem.from_label("mb1ic1ih4oc1oh2kh3ph0")
    >>> ready = plan(problem, np.ones((1, 1, 3, 3), np.float32))
    >>> ready(np.ones((1, 4, 4), np.float32))
    array([[[9., 9.],
            [9., 9.]]], dtype=float32)
    """
    fn = "plan"
    if not isinstance(problem, Conv2dProblem):
        check.fail_type(fn, "problem", "a Conv2dProblem", type(problem).__name__, "see Conv2dProblem.from_arrays")
    given = check.described(fn, "weight", weight, (4,), "(C_out, C_in/groups, kH, kW)")
    if given.dtype.name != problem.dtype:
        check.fail_type(fn, "weight", f"dtype {problem.dtype} like the problem", given.dtype)
    if given.shape != problem.weight_shape:
        check.fail(fn, "weight", f"shape {problem.weight_shape}", given.shape, f"problem {problem.label}")
    b = check.bias_vector(fn, bias, problem.out_channels, given)
    check.choice(fn, "precision", precision, check.PRECISIONS)
    count, relu = thread_count(fn, threads), _relu(fn, activation)
    w = np.array(given, problem.dtype, order="C")
    if tune and problem.macs:
        if backend != "auto":
            check.fail(fn, "tune", "False with a backend of your choice", tune, f"backend={backend!r}; use 'auto'")
        tuning.tune(problem, precision, count)
    chosen = settle(fn, backend, problem, precision, count, once=False)
    start = time.perf_counter()
    prepared = _prepare(chosen, problem, w, None if b is None else b.copy(), count, relu)
    return Plan(problem, chosen.name, count, prepared, time.perf_counter() - start)


def thread_count(fn: str, threads: int | None) -> int:
    """At least 1, at most what kernels get here: the cores of this process, ``NUMBA_NUM_THREADS``, 1 after a fork."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    wanted = cores if threads is None else min(check.integer(fn, "threads", threads, 1), cores)
    # Not imported for this, since Numba takes half a second, and not every backend needs it.
    launch = sys.modules.get("conv_impls.kernels.runtime.launch")
    if launch is not None:
        return int(launch.usable(wanted))
    with suppress(KeyError, ValueError):
        return min(wanted, max(int(os.environ["NUMBA_NUM_THREADS"]), 1))
    return wanted


def settle(fn: str, name: str, problem: Conv2dProblem, precision: str, threads: int, once: bool) -> Backend:
    """As `registry.resolve`, with "auto" giving way to what `tuning` found fastest on this machine."""
    winner = tuning.winner(problem, precision, threads) if name == "auto" else None
    if winner is not None:
        # A plug-in may be gone, or a backend refuse what it took: auto then decides as if nothing had been measured.
        with suppress(UnknownBackendError, UnsupportedError):
            return resolve(fn, winner, problem, precision, threads, once)
    return resolve(fn, name, problem, precision, threads, once)


def _relu(fn: str, activation: str | None) -> bool:
    return activation is not None and check.choice(fn, "activation", activation, check.ACTIVATIONS) == "relu"


def _result_shape(fn: str, out: Array | None, problem: Conv2dProblem, single: bool) -> tuple[int, ...]:
    """The shape of the result, after checking ``out`` against it."""
    shape = problem.output_shape[1 if single else 0 :]
    if out is not None:
        check.output(fn, out, shape, np.dtype(problem.dtype))
    return shape


def _prepare(
    backend: Backend, problem: Conv2dProblem, weight: Array, bias: Array | None, threads: int, relu: bool
) -> Prepared:
    """Prepare, sparing every backend the problems without a product: what is left of them is the bias."""
    if problem.macs:
        return backend.prepare(problem, weight, bias, threads, relu)

    def fill(x: Array, out: Array) -> None:
        out[...] = 0 if bias is None else bias[:, None, None]

    return rectified(Prepared(fill)) if relu else Prepared(fill)


def _compute(
    prepared: Prepared,
    problem: Conv2dProblem,
    x: Array,
    shape: tuple[int, ...],
    out: Array | None,
    inputs: tuple[Array, ...],
) -> Array:
    """Run into ``out``, by way of a temporary where it overlaps an input, or into a fresh array."""
    direct = out is not None and not any(np.may_share_memory(out, source) for source in inputs)
    y = out if out is not None and direct else np.empty(shape, problem.dtype)
    prepared.call(x, y if y.ndim == 4 else y[None])
    if out is None or direct:
        return y
    out[...] = y
    return out
