"""Calls a backend only by public names of `conv_impls`, whatever version of it this process has.

    forward     `plan`; for auto_eager `conv2d`
    gradients   `plan_input` and `plan_weight` if the version has them, else `conv2d_input` and `conv2d_weight`

The process of another version has that version's package and this harness. So this file, and all that it and
`bench.run.subject` import, may use only names that version 0.3.0 of the package already exports. For gradients, our own
side of a comparison is also called by this file, so that both sides do the same. Limits: `conv2d_input` and
`conv2d_weight` take no backend and stand only for `auto`; other backends compute gradients as forward convolutions, as
ours do. The executed operations are known only for direct summation.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from time import perf_counter as clock
from typing import TYPE_CHECKING, Any

import numpy as np

import conv_impls
from conv_impls import Conv2dProblem, conv2d, conv2d_input, conv2d_weight, get_backend, plan

from ..store.records import Case, split_version
from .directions import as_forward, swapped
from .subject import Bound, planned

if TYPE_CHECKING:
    from conv_impls.validation import Array

# Names of `bench.peers.ours`; every version can be called by them.
EAGER, STRICT = "auto_eager", "auto_strict"
PLANNERS = {"bwd_d": "plan_input", "bwd_w": "plan_weight"}
# Accuracy classes, by the size of the error that they allow.
ACCURACIES = ("direct", "tile2", "tile2_5x5", "tile4", "tile6", "image")
CALLS = {"bwd_d": "conv2d_input", "bwd_w": "conv2d_weight"}


def with_gradients() -> frozenset[str]:
    """Backends of this version whose gradients are planned."""
    from conv_impls.registry import sources

    return frozenset({*sources(), EAGER, STRICT})


class PublicCalls:
    """The backend of a case; its name may contain a version."""

    def __init__(self, case: Case) -> None:
        name, _ = split_version(case.backend)
        self._direction, self._eager = case.direction, name == EAGER
        self._how: dict[str, Any] = {
            "backend": "auto" if name in (EAGER, STRICT) else name, "threads": case.threads,
            "precision": "strict" if name == STRICT else "standard",
        }  # fmt: skip
        # Only versions with planned gradients take a number of threads there.
        self._threads = {"threads": case.threads} if hasattr(conv_impls, "plan_input") else {}
        self._planner = None if self._eager else getattr(conv_impls, PLANNERS.get(case.direction, ""), None)
        self._gradient = case.direction != "fwd" and (self._planner is not None or name == "auto")
        unplanned = self._eager or (self._gradient and self._planner is None)
        self.mode = "eager" if unplanned else str(get_backend(self._how["backend"]).mode)

    def bound(self, given: Conv2dProblem, x: Array, weight: Array) -> tuple[Bound, dict[str, Any]]:
        """See `bench.run.subject.Calls`."""
        start = clock()
        # The plan, if there is one.
        ready: Any = None
        if self._gradient:
            made = self._of_the_image if self._direction == "bwd_d" else self._of_the_weights
            bound, ready = made(given, x, weight)
        elif self._eager:
            settings = _settings(as_forward(given, self._direction)) | self._how

            def call(x: Array) -> Array:
                return conv2d(x, weight, **settings)

            # Kernels are compiled here, not in the first timed call.
            call(np.zeros_like(x))
            bound = _on_the_image(call, x)
        else:
            problem = as_forward(given, self._direction)
            ready = plan(problem, weight, **self._how)
            bound = planned(ready, problem.output_shape, x)
        picked = getattr(ready, "backend", "")
        # A planned gradient may run several backends; the largest error counts.
        classes = {get_backend(name).accuracy for name in picked.split("+")} if picked else set()
        accuracy = max(classes or {"image" if self._eager else "direct"}, key=ACCURACIES.index)
        # Operations of the definition, for direct summation.
        executed = as_forward(given, self._direction).flops if accuracy == "direct" and not self._gradient else None
        return bound, {
            "algorithm": picked or ("conv2d" if self._eager else CALLS[self._direction]), "accuracy": accuracy,
            "executed_flops": executed, "prepare_s": getattr(ready, "prepare_s", clock() - start),
            "compile_s": getattr(ready, "compile_s", 0.0), "packed_bytes": getattr(ready, "packed_bytes", None),
            "workspace_bytes": getattr(ready, "workspace_bytes", None),
        }  # fmt: skip

    def _of_the_image(self, given: Conv2dProblem, x: Array, weight: Array) -> tuple[Bound, Any]:
        g, (sh, sw), settings = given.groups, given.stride, _settings(given) | self._threads
        grouped = weight.reshape(g, given.in_channels // g, given.out_channels // g, *given.kernel_size)
        kernel = grouped[..., ::-1, ::-1].swapaxes(1, 2).reshape(given.weight_shape).copy()
        ready = self._planner(given, kernel, **self._how) if self._planner else None
        call = ready or (lambda dy: conv2d_input(given.input_shape, kernel, dy, **settings))
        return _on_a_copy(call, given.output_shape, lambda x: x[:, :, ::sh, ::sw], lambda dx: dx, x), ready

    def _of_the_weights(self, given: Conv2dProblem, x: Array, weight: Array) -> tuple[Bound, Any]:
        settings, dy = _settings(given) | self._threads, weight.swapaxes(0, 1).copy()
        ready = self._planner(given, **self._how) if self._planner else None

        def call(image: Array) -> Any:
            return ready(image, dy) if ready else conv2d_weight(image, given.weight_shape, dy, **settings)

        # The copy has zeros there: rows and columns at the end that no output reads are not part of x.
        arranged = partial(swapped, groups=given.groups)
        return _on_a_copy(call, given.input_shape, arranged, lambda dw: dw.swapaxes(0, 1), x), ready


def _settings(given: Conv2dProblem) -> dict[str, Any]:
    return {name: getattr(given, name) for name in ("stride", "padding", "dilation", "groups", "padding_mode")}


def _on_the_image(call: Callable[[Array], Array], x: Array) -> Bound:
    """A call that returns its result."""
    return Bound(x, partial(call, x), lambda y: y, lambda: None, partial(_on_the_image, call))


def _on_a_copy(
    call: Callable[[Array], Array], shape: tuple[int, ...], arranged: Callable[[Array], Array],
    read: Callable[[Array], Array], x: Array,
) -> Bound:  # fmt: skip
    """A call that returns its result, on an array of this shape: the ``arranged`` image, and zeros elsewhere."""
    held = np.zeros(shape, x.dtype)

    def renew() -> None:
        new = arranged(x)
        held[:, :, : new.shape[2], : new.shape[3]] = new

    renew()
    return Bound(x, partial(call, held), read, renew, partial(_on_a_copy, call, shape, arranged, read))
