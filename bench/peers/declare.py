"""The decorator `peer`, which declares a backend of this folder, and helper functions of these files.

A declared backend is not registered yet: `bench.peers.load` registers it, in the process that measures it. So a file
must import its library inside its functions. Then importing the file costs nothing.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

from conv_impls import Conv2dProblem
from conv_impls.errors import BackendError
from conv_impls.registry import Binding, Prepared, register
from conv_impls.validation import Array

# A gradient computed by the library's own function: (problem, weight of `as_forward`, threads) -> Prepared.
Gradient = Callable[[Conv2dProblem, Array, int], Prepared]
Context = Callable[[], AbstractContextManager[Any]]
Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Peer:
    """One backend of this folder.

    Attributes
    ----------
    name : str
    function : callable
        Its ``prepare``.
    facts : mapping
        Keywords for `conv_impls.registry.register`.
    needs : tuple of str
        Import names of the packages that it needs.
    distributions : mapping
        Import name -> distribution name, if the two differ.
    gradients : mapping
        "bwd_d" or "bwd_w" -> the library's own gradient. Other directions are computed as forward convolutions.
    pinned : bool
        Whether the library uses all cores of its process, so that only pinning limits its threads.
    obeys_isa : bool
        Whether the variables of `bench.run.isa` limit it to an older instruction set.
    context : callable
        () -> a context manager. Only the process that measures the backend enters it, and stays in it: for a mode of
        the library that is too slow to enter in each call.
    own : bool
        Whether it is our own convolution, called in another way.
    order : int
        Position in lists, ascending. Equal numbers are in the order of files and of definition.
    """

    name: str
    function: Callable[..., Any]
    facts: Mapping[str, Any]
    needs: tuple[str, ...]
    distributions: Mapping[str, str]
    gradients: Mapping[str, Gradient]
    pinned: bool
    obeys_isa: bool
    context: Context
    own: bool
    order: int


# All backends declared so far, in the order of import.
DECLARED: dict[str, Peer] = {}


def peer(
    name: str,
    *,
    needs: tuple[str, ...] = (),
    distributions: Mapping[str, str] | None = None,
    gradients: Mapping[str, Gradient] | None = None,
    pinned: bool = False,
    obeys_isa: bool = False,
    context: Context = nullcontext,
    own: bool = False,
    order: int = 100,
    **facts: Any,
) -> Callable[[Function], Function]:
    """Declare the decorated ``prepare`` as a backend, without registering it.

    Parameters
    ----------
    name : str
    needs, distributions, gradients, pinned, obeys_isa, context, own, order
        See `Peer`.
    **facts
        Keywords of `conv_impls.registry.register`: ``idea``, ``source``, ``threads``, ``supports`` and so on.

    Returns
    -------
    callable
        The decorator; it returns the function unchanged.

    Raises
    ------
    BackendError
        If the name is already in use.
    TypeError
        If `register` has no such keyword.
    """
    # Here, not in `load`: a wrong keyword fails at import, even if the library is not installed.
    inspect.signature(register).bind(name, **facts)

    def decorate(function: Function) -> Function:
        if name in DECLARED:
            raise BackendError(f"peer({name!r}): the name is taken by {DECLARED[name].function.__module__}")
        DECLARED[name] = Peer(
            name, function, facts, needs, distributions or {}, gradients or {}, pinned, obeys_isa, context, own, order
        )
        return function

    return decorate


def symmetric(problem: Conv2dProblem) -> str | None:
    """For libraries with equal zero padding on opposite sides: None, or the reason why a problem is unsupported.

    Rows and columns at the end that no output reads do not matter.
    """
    (top, _), (left, _) = problem.padding
    try:
        alike = problem.replace(padding=((top, top), (left, left)))
    except ValueError:
        alike = None
    if alike is None or alike.out_size != problem.out_size or problem.padding_mode != "zeros":
        return "this library supports only padding with zeros, equal on opposite sides"
    return None


def zeros_float32(problem: Conv2dProblem) -> str | None:
    """For libraries used with float32 and zero padding: None, or the reason why a problem is unsupported."""
    fits = problem.dtype == "float32" and problem.padding_mode == "zeros"
    return None if fits else "this library is measured only with float32 and padding with zeros"


def copying(bind: Callable[[Array], Binding]) -> Callable[[Array, Array], None]:
    """Make ``call(x, out)`` for a backend that has only ``bind``: correct, but not for timing."""

    def call(x: Array, out: Array) -> None:
        bound, read = bind(x)[:2]
        out[...] = read(bound())

    return call
