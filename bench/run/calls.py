"""Calls a backend of this version (ours, a peer's or a plug-in's) by a plan or by a library's own gradient.

A library with its own tensor type is called on its own tensors (`conv_impls.registry.Prepared.bind`). Where it has no
gradient for a direction, that direction is computed as a forward convolution (`bench.run.directions`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from time import perf_counter as clock
from typing import Any

from conv_impls import Conv2dProblem, UnsupportedError, backends, get_backend, plan, registry
from conv_impls.registry import Binding
from conv_impls.validation import Array

from ..peers import GRADIENTS
from ..store.records import Case
from .directions import as_forward
from .subject import Bound, planned


class OwnCalls:
    """The backend of a case. Raises UnsupportedError if the backend does not support the case."""

    def __init__(self, case: Case) -> None:
        self._case, self._gradient = case, GRADIENTS.get((case.backend, case.direction))
        backend = get_backend(case.backend)
        self.mode: str = backend.mode
        if reason := backend.supports(case.problem if self._gradient else as_forward(case.problem, case.direction)):
            raise UnsupportedError(reason)

    def bound(self, given: Conv2dProblem, x: Array, weight: Array) -> tuple[Bound, dict[str, Any]]:
        """See `bench.run.subject.Calls`."""
        case, problem = self._case, as_forward(given, self._case.direction)
        start = clock()
        if self._gradient is None:
            ready = plan(problem, weight, backend=case.backend, threads=case.threads)
            # packed_bytes of the plan also counts the weights that the plan itself holds.
            made = replace(ready.prepared, packed_bytes=ready.packed_bytes)
            name, prepare_s = ready.backend, ready.prepare_s
        else:
            made, name = self._gradient(given, weight, case.threads), case.backend
            prepare_s = clock() - start
        # Our own calls report which backend they picked; a library reports its own algorithm name.
        accuracy = get_backend(made.algorithm if made.algorithm in backends() else name).accuracy
        executed = made.executed_flops
        # A library does not report its executed operations; our direct summation executes those of the definition.
        if executed is None and not made.algorithm and accuracy == "direct":
            executed = problem.flops
        facts = {
            "algorithm": made.algorithm or name, "executed_flops": executed, "prepare_s": prepare_s,
            "compile_s": made.compile_s, "packed_bytes": made.packed_bytes, "workspace_bytes": made.workspace_bytes,
            "accuracy": accuracy,
        }  # fmt: skip
        if made.bind is not None:
            return _bound_by(made.bind, x), facts
        return planned(ready, problem.output_shape, x), facts


def _bound_by(bind: Callable[[Array], Binding], x: Array) -> Bound:
    """A call on a library's own tensors."""
    call, read, rebind = registry.Bound(*bind(x))
    bound = Bound(x, call, read, lambda: None, partial(_bound_by, bind))

    def with_new_tensors() -> None:
        # Without `rebind`, a new image needs new tensors.
        bound.call, bound.read = bind(x)[:2]

    bound.renew = with_new_tensors if rebind is None else partial(rebind, x)
    return bound
