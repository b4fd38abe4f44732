"""Our own calls as engines: planned (weights constant), strict (direct summation only), eager (weights each time)."""

from __future__ import annotations

import numpy as np

import conv_impls
from bench.peers import Ready
from conv_impls import Conv2dProblem, conv2d, plan
from conv_impls.validation import Array


def facts() -> dict[str, str]:
    """Version."""
    return {"conv_impls": conv_impls.__version__}


def planned(
    problem: Conv2dProblem,
    x: Array,
    weight: Array,
    threads: int,
    *,
    backend: str = "auto",
    precision: str = "standard",
) -> Ready:
    """A plan, called with ``out``: nothing is allocated or packed while timed."""
    ready = plan(problem, weight, backend=backend, precision=precision, threads=threads)
    out = np.empty(problem.output_shape, problem.dtype)
    return Ready(lambda: ready(x, out=out), ready.backend)


def strict(problem: Conv2dProblem, x: Array, weight: Array, threads: int) -> Ready:
    """As `planned`, with ``precision="strict"``."""
    return planned(problem, x, weight, threads, precision="strict")


def eager(problem: Conv2dProblem, x: Array, weight: Array, threads: int) -> Ready:
    """`conv2d` on plain arrays: validation, packing and a fresh output in every call."""
    settings = {name: getattr(problem, name) for name in ("stride", "padding", "dilation", "groups", "padding_mode")}
    return Ready(lambda: conv2d(x, weight, **settings, threads=threads))
