"""`plan` and `Plan`: a convolution with constant weights, prepared once, that can be copied and pickled.

A plan is immutable, so a copy is the plan itself. Addresses and compiled code are not valid in another process, so a
pickle contains the arguments of the plan (`Recipe`), and `restore` calls `plan` again when it is loaded. This applies
to everything built on pickle: multiprocessing, cloudpickle, joblib, Dask.
Limits: a plan holds the weights twice, packed and as given. A backend that a program registers by itself must also be
registered in the other process.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import fields
from typing import Any, ClassVar, NamedTuple, NoReturn, Self

import numpy as np

from conv_impls import hints
from conv_impls import validation as check
from conv_impls._version import __version__
from conv_impls.api import compute, is_relu, prepare, result_shape, select, thread_count, usable
from conv_impls.choice import tuning
from conv_impls.errors import UnknownBackendError
from conv_impls.prepared import Prepared
from conv_impls.problem import Conv2dProblem
from conv_impls.registry import backends
from conv_impls.validation import Array

# Version of the pickle format; increment it when older versions of the package cannot read the new format.
FORMAT = 1


class Recipe(NamedTuple):
    """The arguments a plan was made from. Plans with equal recipes are equal; a pickle contains the recipe."""

    problem: Conv2dProblem
    # Copies of the caller's arrays; the plan of a gradient of the weights has none.
    weight: Array | None
    bias: Array | None
    # The backend that runs, after "auto" has chosen, and the module that registered it.
    backend: str
    module: str
    # The argument, not the actual number: another machine may have more cores, or fewer.
    threads: int | None
    activation: str | None


class Planned:
    """What all plans share: attributes that cannot be changed, threads, copies, pickles, equality."""

    __slots__ = (
        "_call", "_dtype", "_recipe", "_threads",
        "backend", "compile_s", "packed_bytes", "prepare_s", "problem", "workspace_bytes",
    )  # fmt: skip
    # The function that makes such a plan, by the name in pickles.
    direction: ClassVar[str] = "fwd"
    problem: Conv2dProblem
    backend: str
    packed_bytes: int | None
    workspace_bytes: int | None
    compile_s: float
    prepare_s: float
    _recipe: Recipe
    _threads: int
    _call: Callable[..., None]
    _dtype: np.dtype[Any]

    def _set(self, **values: object) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @property
    def threads(self) -> int:
        """The number of threads that its kernels use."""
        return usable(self._threads)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(
            f"{self._kind()} is immutable, so {name!r} cannot be set; make a new one with conv_impls.plan"
        )

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{self._kind()} is immutable, so {name!r} cannot be deleted")

    def _kind(self) -> str:
        """The name of the class with its article."""
        name = type(self).__name__
        return f"{'an' if name[0] in 'AEIO' else 'a'} {name}"

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        # Plain values by name: old pickles stay readable when a field is added or a class moves.
        problem = {field.name: getattr(self.problem, field.name) for field in fields(self.problem)}
        state = {"format": FORMAT, "version": __version__, **self._recipe._asdict(), "problem": problem}
        # Pickles of forward plans stay readable by versions that have no others.
        return restore, (state if self.direction == "fwd" else state | {"direction": self.direction},)

    def __eq__(self, other: object) -> bool:
        return self._value() == other._value() if isinstance(other, Planned) else NotImplemented

    def __hash__(self) -> int:
        return hash((self.direction, self.problem, self.backend, self._recipe.threads, self._recipe.activation))

    def _value(self) -> tuple[Any, ...]:
        """The recipe with arrays as bytes, so that a NaN equals itself and -0.0 differs from 0.0."""
        parts = (part.tobytes() if isinstance(part, np.ndarray) else part for part in self._recipe)
        return (self.direction, *parts)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.backend} {self.problem.label} threads={self.threads}>"


class Plan(Planned):
    """A convolution that is ready to run: `plan` has copied and packed the weights and compiled the kernels.

    Call it as ``plan(x, out=None) -> y``. It is thread-safe, and later changes of the weight array have no effect. It
    is immutable, so a copy is the plan itself. A pickle contains the problem, weight, bias, activation, ``threads``
    argument and name of the backend, but no compiled code; unpickling calls `plan` again. Plans made from equal
    arguments are equal.

    Attributes
    ----------
    problem : Conv2dProblem
        The problem that it computes.
    backend : str
        The backend that runs, after "auto" has chosen.
    threads : int
        The number of threads that its kernels use; 1 in a process that was forked after `plan`.
    packed_bytes : int or None
        Memory for the weights, packed and as given; None if the backend does not report it.
    workspace_bytes : int or None
        Memory for each concurrent call; None if the backend does not report it.
    compile_s, prepare_s : float
        Seconds spent compiling (0 on a cache hit) and packing.
    prepared : Prepared
        The backend's result, with its other reported costs. Its own ``packed_bytes`` counts packed weights only.

    Raises
    ------
    UnknownBackendError
        On unpickling, if no backend of that name is registered in the process.
    ProblemError
        On unpickling, if the version of the package that wrote the pickle used another format.
    """

    __slots__ = ("_input_shape", "_output_shape", "prepared")
    prepared: Prepared
    _input_shape: tuple[int, ...]
    _output_shape: tuple[int, ...]

    def __init__(self, recipe: Recipe, threads: int, prepared: Prepared, prepare_s: float) -> None:
        problem, packed_bytes = recipe.problem, prepared.packed_bytes
        if packed_bytes is not None:
            packed_bytes += sum(array.nbytes for array in (recipe.weight, recipe.bias) if array is not None)
        self._set(
            problem=problem, backend=recipe.backend, packed_bytes=packed_bytes, prepared=prepared,
            workspace_bytes=prepared.workspace_bytes, compile_s=prepared.compile_s,
            prepare_s=prepare_s - prepared.compile_s, _threads=threads, _recipe=recipe, _call=prepared.call,
            _dtype=np.dtype(problem.dtype), _input_shape=problem.input_shape, _output_shape=problem.output_shape,
        )  # fmt: skip

    def __call__(self, x: Array, out: Array | None = None) -> Array:
        """Convolve x, which has the planned shape and dtype; see `conv2d` for ``out`` and the result."""
        # Fast path: valid arrays are recognized from their attributes (1 us; `_checked` takes 10).
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
        """Slow path: check x and ``out``; raise, or copy them to a layout that a kernel accepts."""
        x, single = check.described_images("plan", "x", x)
        problem = self.problem
        if x.shape != problem.input_shape:
            came = x.shape[1 if single else 0 :]
            hint = hints.fitting("x", came, problem.input_shape[1 if single else 0 :])
            check.fail("plan", "x", f"shape {problem.input_shape}", came, hint or "make a plan for each input shape")
        if x.dtype.name != problem.dtype:
            check.fail_type("plan", "x", f"dtype {problem.dtype}", x.dtype, "make a plan for each dtype")
        shape = result_shape("plan", out, problem, single)
        x = check.laid_out(x)
        return compute(self._call, self._dtype, shape, out, (x,))


def restore(state: dict[str, Any]) -> Planned:
    """Make the plan that `Planned.__reduce__` wrote. Pickles name this function: do not move or rename it."""
    if state["format"] != FORMAT:
        facts = f"written by conv_impls {state['version']}, read by {__version__}; use one version on both sides"
        check.fail("plan", "pickle", f"format {FORMAT}", state["format"], facts)
    for name in state["backend"].split("+"):
        if name not in backends():
            raise UnknownBackendError(
                f"plan: a pickled plan runs on backend {name!r}, which is not registered in this process; "
                f"before unpickling, import the module that registers it ({state['module']!r} where it was pickled)"
            )
    problem, how = Conv2dProblem(**state["problem"]), {name: state[name] for name in ("backend", "threads")}
    if state.get("direction", "fwd") == "fwd":
        return plan(problem, state["weight"], state["bias"], activation=state["activation"], **how)
    from conv_impls.planned_gradients import plan_input, plan_weight

    return plan_weight(problem, **how) if state["weight"] is None else plan_input(problem, state["weight"], **how)


def checked_problem(fn: str, problem: object) -> Conv2dProblem:
    """The argument ``problem``."""
    if not isinstance(problem, Conv2dProblem):
        check.fail_type(fn, "problem", "a Conv2dProblem", type(problem).__name__, "see Conv2dProblem.from_arrays")
    return problem


def checked_weight(fn: str, weight: object, problem: Conv2dProblem) -> Array:
    """The argument ``weight``, which fits the problem."""
    found = check.described(fn, "weight", weight, (4,), "(C_out, C_in/groups, kH, kW)")
    if found.dtype.name != problem.dtype:
        check.fail_type(fn, "weight", f"dtype {problem.dtype} like the problem", found.dtype)
    if found.shape != problem.weight_shape:
        facts = check.joined(f"problem {problem.label}", hints.fitting("weight", found.shape, problem.weight_shape))
        check.fail(fn, "weight", f"shape {problem.weight_shape}", found.shape, facts)
    return found


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
    """Prepare one convolution once, for many calls with constant weights.

    Parameters
    ----------
    problem : Conv2dProblem
        From `Conv2dProblem.from_arrays` or `Conv2dProblem.from_label`.
    weight : ndarray of shape (C_out, C_in/groups, kH, kW), the problem's dtype
        It is copied; later changes have no effect.
    bias : ndarray of shape (C_out,), same dtype, optional
        It is copied as well.
    backend, precision, threads, activation : see `conv2d`
        They hold for every call of the plan.
    tune : bool
        Measure the likely backends now, use the fastest, and store the choice on this machine. From then on "auto" uses
        it for this problem, precision and number of threads, in every process.

    Returns
    -------
    Plan
        A callable ``(x, out=None) -> y``. It can be copied and pickled, so it can be sent to other processes and
        machines.

    Raises
    ------
    ProblemError, DTypeError, UnsupportedError, UnknownBackendError
        As for `conv2d`.

    Examples
    --------
    >>> import numpy as np
    >>> problem = Conv2dProblem.from_label("mb1ic1ih4oc1oh2kh3ph0")
    >>> ready = plan(problem, np.ones((1, 1, 3, 3), np.float32))
    >>> ready(np.ones((1, 4, 4), np.float32))
    array([[[9., 9.],
            [9., 9.]]], dtype=float32)
    >>> import pickle
    >>> pickle.loads(pickle.dumps(ready)) == ready
    True
    """
    fn = "plan"
    problem = checked_problem(fn, problem)
    weight = checked_weight(fn, weight, problem)
    bias = check.bias_vector(fn, bias, problem.out_channels, weight)
    check.choice(fn, "precision", precision, check.PRECISIONS)
    count, relu = thread_count(fn, threads), is_relu(fn, activation)
    weight, bias = np.array(weight, problem.dtype, order="C"), None if bias is None else bias.copy()
    if tune and problem.macs:
        if backend != "auto":
            check.fail(fn, "tune", "False with a backend of your choice", tune, f"backend={backend!r}; use 'auto'")
        tuning.tune(problem, precision, count)
    chosen = select(fn, backend, problem, precision, count, eager=False)
    start = time.perf_counter()
    prepared = prepare(chosen, problem, weight, bias, count, relu)
    prepare_s = time.perf_counter() - start
    recipe = Recipe(
        problem, weight, bias, chosen.name, chosen.function.__module__, None if threads is None else int(threads),
        activation,
    )  # fmt: skip
    return Plan(recipe, count, prepared, prepare_s)
