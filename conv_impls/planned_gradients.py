"""`plan_input` and `plan_weight`: the gradients of a convolution, prepared once for many calls.

They are values like `conv_impls.Plan`: immutable, thread-safe, copied and pickled by their arguments.
Limits: see `conv_impls.prepared_gradients`.
"""

from __future__ import annotations

import time
from typing import TypeVar

import numpy as np

from conv_impls import hints
from conv_impls import validation as check
from conv_impls.api import thread_count
from conv_impls.planned import Planned, Recipe, checked_problem, checked_weight
from conv_impls.prepared_gradients import Gradient, input_gradient, run, weight_gradient
from conv_impls.problem import Conv2dProblem
from conv_impls.validation import Array

Made = TypeVar("Made", "InputPlan", "WeightPlan")


class InputPlan(Planned):
    """A gradient with respect to the input, ready to run: call it as ``plan(grad_output, out=None) -> grad_input``.

    Attributes
    ----------
    problem : Conv2dProblem
        The forward convolution.
    backend : str
        The backends of the stride phases, joined by "+".
    threads : int
        The number of threads that its kernels use.
    packed_bytes, workspace_bytes : int or None
        Memory for the weights, packed and as given, and for each concurrent call; None if a backend does not report it.
    compile_s, prepare_s : float
        Seconds spent compiling and packing.
    """

    __slots__ = ()
    direction = "bwd_d"

    def __call__(self, grad_output: Array, out: Array | None = None) -> Array:
        """Gradient of the input, of shape (N, C_in, H, W); for one image without N."""
        dy, single = check.images("plan_input", "grad_output", grad_output)
        _fits("plan_input", "grad_output", dy, self.problem.output_shape, self._dtype, single)
        shape = self.problem.input_shape[1 if single else 0 :]
        return run("plan_input", self._call, self._dtype, shape, out, dy)


class WeightPlan(Planned):
    """A gradient with respect to the weight, ready to run: ``plan(x, grad_output, out=None) -> grad_weight``.

    Attributes
    ----------
    problem : Conv2dProblem
        The forward convolution.
    backend : str
    threads : int
        The number of threads that its kernels use.
    packed_bytes, workspace_bytes : int or None
        Always 0; memory for each concurrent call, None if the backend does not report it.
    compile_s, prepare_s : float
        Seconds spent compiling and making tables.
    """

    __slots__ = ()
    direction = "bwd_w"

    def __call__(self, x: Array, grad_output: Array, out: Array | None = None) -> Array:
        """Gradient of the weight, of shape (C_out, C_in/groups, kH, kW), summed over the batch."""
        x, single = check.images("plan_weight", "x", x)
        _fits("plan_weight", "x", x, self.problem.input_shape, self._dtype, single)
        dy, _ = check.images("plan_weight", "grad_output", grad_output)
        _fits("plan_weight", "grad_output", dy, self.problem.output_shape, self._dtype, single)
        return run("plan_weight", self._call, self._dtype, self.problem.weight_shape, out, x, dy)


def plan_input(
    problem: Conv2dProblem,
    weight: Array,
    *,
    backend: str = "auto",
    precision: str = "standard",
    threads: int | None = None,
) -> InputPlan:
    """Prepare the gradient of a convolution with respect to its input, for constant weights.

    Parameters
    ----------
    problem : Conv2dProblem
        The forward convolution.
    weight : ndarray of shape (C_out, C_in/groups, kH, kW), the problem's dtype
        It is copied; later changes have no effect.
    backend, precision, threads
        As in `conv_impls.plan`. A backend computes the convolution of each stride phase; "auto" chooses for each.

    Returns
    -------
    InputPlan
        A callable ``(grad_output, out=None) -> grad_input``.

    Raises
    ------
    ProblemError, DTypeError, UnsupportedError, UnknownBackendError
        As for `conv_impls.plan`.

    Notes
    -----
    As many products as the forward convolution, whatever the stride.

    Examples
    --------
    >>> import numpy as np
    >>> problem = Conv2dProblem.from_label("mb1ic1ih1iw4oc1oh1ow2kh1kw2sw2ph0pw0")
    >>> ready = plan_input(problem, np.ones((1, 1, 1, 2), np.float32))
    >>> ready(np.array([[[1, 2]]], np.float32))
    array([[[1., 1., 2., 2.]]], dtype=float32)
    """
    fn = "plan_input"
    problem = checked_problem(fn, problem)
    weight = checked_weight(fn, weight, problem)
    check.choice(fn, "precision", precision, check.PRECISIONS)
    count, weight = thread_count(fn, threads), np.array(weight, problem.dtype, order="C")
    start = time.perf_counter()
    made = input_gradient(fn, backend, problem, weight, precision, count)
    return _made(InputPlan(), made, problem, weight, threads, count, time.perf_counter() - start)


def plan_weight(
    problem: Conv2dProblem, *, backend: str = "auto", precision: str = "standard", threads: int | None = None
) -> WeightPlan:
    """Prepare the gradient of a convolution with respect to its weight.

    Parameters
    ----------
    problem : Conv2dProblem
        The forward convolution.
    backend, precision, threads
        As in `conv_impls.plan`.

    Returns
    -------
    WeightPlan
        A callable ``(x, grad_output, out=None) -> grad_weight``.

    Raises
    ------
    ProblemError, DTypeError, UnsupportedError, UnknownBackendError
        As for `conv_impls.plan`.

    Notes
    -----
    With "auto" and "numba_simd" each element is summed in the order of images and pixels, so its bits depend neither on
    the number of threads nor on the caches. In depthwise layers pixels are added by lanes of a vector.

    Examples
    --------
    >>> import numpy as np
    >>> problem = Conv2dProblem.from_label("mb1ic1ih1iw4oc1oh1ow3kh1kw2ph0pw0")
    >>> plan_weight(problem)(np.arange(4, dtype=np.float32).reshape(1, 1, 4), np.ones((1, 1, 3), np.float32))
    array([[[[3., 6.]]]], dtype=float32)
    """
    fn = "plan_weight"
    problem = checked_problem(fn, problem)
    check.choice(fn, "precision", precision, check.PRECISIONS)
    count = thread_count(fn, threads)
    start = time.perf_counter()
    made = weight_gradient(fn, backend, problem, precision, count)
    return _made(WeightPlan(), made, problem, None, threads, count, time.perf_counter() - start)


def _made(
    plan: Made,
    made: Gradient,
    problem: Conv2dProblem,
    weight: Array | None,
    threads: int | None,
    count: int,
    seconds: float,
) -> Made:
    """Fill in the attributes of a new plan."""
    packed = made.packed_bytes
    if packed is not None and weight is not None:
        packed += weight.nbytes
    asked = None if threads is None else int(threads)
    recipe = Recipe(problem, weight, None, made.backend, "conv_impls", asked, None)
    plan._set(
        problem=problem, backend=made.backend, packed_bytes=packed, workspace_bytes=made.workspace_bytes,
        compile_s=made.compile_s, prepare_s=seconds - made.compile_s, _threads=count, _recipe=recipe, _call=made.call,
        _dtype=np.dtype(problem.dtype),
    )  # fmt: skip
    return plan


def _fits(
    fn: str, argument: str, array: Array, shape: tuple[int, ...], dtype: np.dtype[np.generic], single: bool
) -> None:
    """Check an input of a plan, which is a batch by now."""
    if array.shape != shape:
        came = array.shape[1 if single else 0 :]
        advice = hints.fitting(argument, came, shape[1:] if single else shape)
        check.fail(fn, argument, f"shape {shape}", came, advice or "make a plan for each shape")
    if array.dtype != dtype:
        check.fail_type(fn, argument, f"dtype {dtype}", array.dtype, "make a plan for each dtype")
