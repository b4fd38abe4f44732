"""JAX on the CPU: a compiled convolution with constant weights, NCHW.

XLA takes as many threads as the process has cores, so the process is held to so many of them. Limits: the result is
waited for in each call, and is a new array each time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from conv_impls import Conv2dProblem
from conv_impls.registry import Prepared, register
from conv_impls.validation import Array

from ..machine.environment import cores
from ..machine.usage import READ_BACK
from . import copying


@register(
    "jax", idea="jax.lax.conv_general_dilated, compiled, weights constant", source="JAX, XLA for CPU",
    threads="cores of the process",
    supports=lambda problem: None if problem.padding_mode == "zeros" else "padding with zeros only",
)  # fmt: skip
def prepare(problem: Conv2dProblem, weight: Array, bias: Array | None, threads: int) -> Prepared:
    # Only now: JAX counts the cores when it starts.
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

    def bind(x: Array) -> tuple[Callable[[], Any], Callable[[Any], Array]]:
        image = jax.numpy.asarray(x)
        return lambda: compiled(image).block_until_ready(), np.asarray

    return Prepared(copying(bind), compile_s=compile_s, algorithm="XLA", bind=bind)
