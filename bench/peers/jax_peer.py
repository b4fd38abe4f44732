"""JAX on the CPU: a compiled convolution with constant weights, NCHW.

XLA takes as many threads as the process has cores, so the process is held to so many of them. Limits: the result is
waited for in each call, and is a new array each time.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from conv_impls import Conv2dProblem
from conv_impls.registry import Bound, Prepared
from conv_impls.validation import Array

from ..machine.cpu import cores
from ..machine.usage import READ_BACK
from .declare import copying, peer


@peer(
    "jax", needs=("jax",), pinned=True, order=5,
    idea="jax.lax.conv_general_dilated, compiled, weights constant", source="JAX, XLA for CPU",
    threads="cores of the process",
    supports=lambda problem: None if problem.padding_mode == "zeros" else "padding with zeros only",
)  # fmt: skip
def prepare(problem: Conv2dProblem, weight: Array, bias: Array | None, threads: int) -> Prepared:
    # Only now: JAX counts the cores when it starts, and the process is pinned by now.
    import jax

    READ_BACK["jax"] = cores
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_x64", True)
    kernel = jax.numpy.asarray(weight)
    offset = None if bias is None else jax.numpy.asarray(bias).reshape(1, -1, 1, 1)

    def convolve(image: Any) -> Any:
        y = jax.lax.conv_general_dilated(
            image, kernel, problem.stride, problem.padding, rhs_dilation=problem.dilation,
            feature_group_count=problem.groups, precision=jax.lax.Precision.HIGHEST,
        )  # fmt: skip
        return y if offset is None else y + offset

    start = time.perf_counter()
    compiled = jax.jit(convolve).lower(jax.ShapeDtypeStruct(problem.input_shape, problem.dtype)).compile()
    compile_s = time.perf_counter() - start

    def bind(x: Array) -> Bound:
        # Not asarray: that may share the memory of x, which the caller may change.
        image = jax.numpy.array(x)

        def call() -> Any:
            return compiled(image).block_until_ready()

        def rebind(new: Array) -> None:
            nonlocal image
            image = jax.numpy.array(new).block_until_ready()

        return Bound(call, np.asarray, rebind)

    return Prepared(copying(bind), compile_s=compile_s, algorithm="XLA", bind=bind)
