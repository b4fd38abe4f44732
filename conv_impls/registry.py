"""Backends by name: `@register`, `backends()`, `get_backend()`.

Backends are discovered: every file of ``backends/`` is one, named like its file, and so is every entry point of the
group ``conv_impls.backends`` of an installed package. Files that start with ``_`` are shared code. Backends are
imported on first use, and import errors propagate. `register` adds one at run time. Names are unique: a second
registration is refused.
"""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable
from functools import cache, lru_cache
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any, TypeVar, get_args

# Imported before the package binds this name to the function `backends`: a later first import would rebind it.
from conv_impls import backends as folder
from conv_impls.backend import Accuracy, Deterministic, Mode, Supports, Workspace
from conv_impls.backend import Backend as Backend
from conv_impls.errors import BackendError, UnknownBackendError, UnsupportedError
from conv_impls.kernels.runtime import target

# Re-exported, so that a backend's file needs only this module.
from conv_impls.prepared import Binding as Binding
from conv_impls.prepared import Bound as Bound
from conv_impls.prepared import Call as Call
from conv_impls.prepared import Prepared as Prepared
from conv_impls.problem import Conv2dProblem
from conv_impls.validation import fail_type

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

Function = TypeVar("Function", bound=Callable[..., Any])

ENTRY_POINTS = "conv_impls.backends"
# Command-line options use "," between names and "@" before versions.
NAME = re.compile(r"[\w.-]+")
NO_COMPILER = "it needs Numba's compiler, which NUMBA_DISABLE_JIT disables; unset it, or use backend 'auto'"
# A backend is one function; its parameter names determine which of the three kinds it is.
RUN = ("x", "weight", "bias", "problem")
PREPARE = ("problem", "weight", "bias", "threads")
FUSED = (*PREPARE, "relu")
CHOOSE = ("problem", "precision", "threads", "eager")


_registered: dict[str, Backend] = {}


def register(
    name: str,
    *,
    idea: str = "",
    source: str = "",
    accuracy: Accuracy = "direct",
    nan_spread: str = "receptive field",
    deterministic: Deterministic | bool = "call",
    threads: str = "none",
    supports: Supports = lambda problem: None,
    mode: Mode | None = None,
    workspace: Workspace | None = None,
    compiled: bool = False,
) -> Callable[[Function], Function]:
    """Register the decorated function as a backend.

    Parameters
    ----------
    name : str
        The name of the backend. In a file of ``backends/``, it must be the name of the file.
    idea, source, accuracy, nan_spread, deterministic, threads, supports : see `Backend`
        Without ``supports``, every problem is accepted. ``deterministic`` may be a bool: True means "call", False means
        "no".
    mode : {"planned", "eager"}, optional
        See `Backend`. Default: "eager" for a ``run`` function, "planned" for the others.
    workspace : callable, optional
        See `Backend`.
    compiled : bool
        Whether it runs code that Numba compiles. It then refuses every problem if ``NUMBA_DISABLE_JIT`` is set.

    Returns
    -------
    callable
        A decorator for one of three kinds of function, which are distinguished by their parameter names:
        ``run(x, weight, bias, problem) -> y``; ``prepare(problem, weight, bias, threads) -> callable(x, out)`` or
        `Prepared`, with a fifth parameter ``relu`` (bool) if it can apply max(y, 0) itself;
        ``choose(problem, precision, threads, eager) -> name`` of the backend to use. ``eager`` means that the weights
        are prepared for one call only. Results of ``choose`` are cached.

    Raises
    ------
    BackendError
        If the name is invalid or taken, an argument has a wrong value, or the parameters match none of these kinds.

    Examples
    --------
    >>> import numpy as np
    >>> from conv_impls import conv2d, register
    >>> @register("one_by_one", supports=lambda p: None if p.kernel_size == (1, 1) else "1x1 only")
    ... def run(x, weight, bias, problem):
    ...     return np.einsum("nchw,oc->nohw", x, weight[:, :, 0, 0])
    >>> float(conv2d(np.ones((2, 4, 4)), np.ones((1, 2, 1, 1)), backend="one_by_one")[0, 0, 0])
    2.0
    """
    kinds = {RUN: "run", PREPARE: "prepare", FUSED: "prepare", CHOOSE: "choose"}
    if isinstance(deterministic, bool):
        deterministic = "call" if deterministic else "no"
    if not isinstance(name, str) or not NAME.fullmatch(name):
        got = repr(name) if isinstance(name, str) else type(name).__name__
        raise BackendError(
            f'register: name: expected letters, digits, "_", "." or "-", got {got}; as in @register("mine")'
        )
    accuracies, promises, modes = get_args(Accuracy), get_args(Deterministic), get_args(Mode)
    for argument, value, right, expected in (
        ("accuracy", accuracy, accuracy in accuracies, f"one of {accuracies}"),
        ("deterministic", deterministic, deterministic in promises, f"one of {promises}"),
        ("mode", mode, mode in (None, *modes), f"None or one of {modes}"),
        ("supports", supports, callable(supports), "a function"),
        ("workspace", workspace, workspace is None or callable(workspace), "a function"),
    ):
        if not right:
            raise BackendError(f"register({name!r}): {argument}: expected {expected}, got {value!r}")

    def decorate(function: Function) -> Function:
        parameters = tuple(inspect.signature(function).parameters)
        kind: Any = kinds.get(parameters)
        if kind is None:
            expected = ", ".join(f"{word}({', '.join(names)})" for names, word in kinds.items())
            got = f"{function.__name__}{inspect.signature(function)}"
            raise BackendError(f"register({name!r}): expected one of {expected}, got {got}")
        taken = _registered.get(name)
        if taken is not None or (name in sources() and sources()[name] != function.__module__):
            where = taken.function.__module__ if taken else sources()[name]
            raise BackendError(f"register({name!r}): the name is taken by {where}; choose another")
        _registered[name] = Backend(
            name, idea, source, accuracy, nan_spread, deterministic, threads,
            _where_compiled(supports) if compiled else supports, function, kind,
            fuses_relu=parameters == FUSED, mode=mode or ("eager" if kind == "run" else "planned"), compiled=compiled,
            workspace=workspace,
        )  # fmt: skip
        _selected.cache_clear()
        return function

    return decorate


def _where_compiled(supports: Supports) -> Supports:
    """Wrap ``supports`` so that it refuses every problem when Numba compilation is disabled."""

    def answer(problem: Conv2dProblem) -> str | None:
        return supports(problem) if target.compiles() else NO_COMPILER

    return answer


@cache
def _points() -> dict[str, EntryPoint]:
    # Imported here because it is slow to import, and many users never name a backend.
    from importlib.metadata import entry_points

    return {point.name: point for point in entry_points(group=ENTRY_POINTS)}


@cache
def sources() -> dict[str, str]:
    """Name -> module of every backend that can be found without importing it."""
    files = {m.name: f"{folder.__name__}.{m.name}" for m in iter_modules(folder.__path__) if not m.name.startswith("_")}
    for name, point in _points().items():
        if name in files:
            raise BackendError(f"entry point {name!r} of {point.value!r} has the name of a built-in backend; rename it")
    return files | {name: point.module for name, point in _points().items()}


def backends() -> tuple[str, ...]:
    """Names of all backends, sorted; no backend is imported.

    Returns
    -------
    tuple of str
        Built-in backends, installed plug-ins, and those of `register`.

    Examples
    --------
    >>> "numba_direct" in backends()
    True
    """
    return tuple(sorted(sources().keys() | _registered.keys()))


def get_backend(name: str) -> Backend:
    """Return the backend with this name; it is imported on first use.

    Parameters
    ----------
    name : str
        One of `backends()`.

    Returns
    -------
    Backend
        Its properties, and its function.

    Raises
    ------
    UnknownBackendError
        If no backend has this name; the text lists the known names, closest first.
    BackendError
        If its file does not register it.

    Examples
    --------
    >>> get_backend("numpy_strided").threads
    'BLAS'
    """
    if not isinstance(name, str):
        fail_type("get_backend", "name", "a str", type(name).__name__)
    if name not in _registered:
        if name not in sources():
            close = difflib.get_close_matches(str(name), backends(), n=len(backends()), cutoff=0.0)
            raise UnknownBackendError(
                f"no backend {name!r}; did you mean {close[0]!r}? Known, closest first: {', '.join(close)}"
            )
        point = _points().get(name)
        if point is None:
            import_module(sources()[name])
        else:
            point.load()
        if name not in _registered:
            raise BackendError(
                f"{sources()[name]} was imported but does not register {name!r}; the two names must be equal"
            )
    return _registered[name]


def resolve(fn: str, name: str, problem: Conv2dProblem, precision: str, threads: int, eager: bool) -> Backend:
    """The backend that will compute ``problem``: follows "choose" backends; raises if the problem is unsupported."""
    if not isinstance(name, str):
        fail_type(fn, "backend", "a name (str)", type(name).__name__)
    return _selected(fn, get_backend(name), problem, precision, threads, eager)


# Cached: every eager call needs it, and a cost model takes 0.1 ms. Errors are not cached.
@lru_cache(maxsize=4096)
def _selected(fn: str, backend: Backend, problem: Conv2dProblem, precision: str, threads: int, eager: bool) -> Backend:
    visited: list[Any] = []
    while (reason := backend.supports(problem)) is None and backend.kind == "choose":
        visited.append(backend.name)
        chosen = backend.function(problem, precision, threads, eager)
        if chosen in visited or not isinstance(chosen, str):
            way = ", which chooses ".join(map(repr, [*visited[1:], chosen]))
            wrong = "a cycle" if chosen in visited else "not the name of a backend"
            raise BackendError(f"{fn}: backend {visited[0]!r} chooses {way}: {wrong}; use a backend that computes")
        backend = get_backend(chosen)
    if reason is None and precision == "strict" and backend.accuracy != "direct":
        reason = "precision='strict' allows direct summation only; use precision='standard'"
    if reason is not None:
        raise UnsupportedError(f"{fn}: backend {backend.name!r} cannot do {problem.label}: {reason}")
    return backend
