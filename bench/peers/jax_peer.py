"""JAX on the CPU: a compiled convolution with constant weights, in NCHW and in channels_last (NHWC).

XLA uses as many threads as the process has cores, so the process is pinned to that many cores. Limits: each call waits
for its result, which is a new array each time.
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

SOURCE = "JAX, XLA for CPU"


def _zeros(problem: Conv2dProblem) -> str | None:
    return None if problem.padding_mode == "zeros" else "only padding with zeros is supported"


@peer(
    "jax", needs=("jax",), pinned=True, order=5, idea="jax.lax.conv_general_dilated, compiled, weights constant",
    source=SOURCE, threads="cores of the process", supports=_zeros,
)  # fmt: skip
def nchw(problem: Conv2dProblem, weight: Array, bias: Array | None, threads: int) -> Prepared:
    return _compiled(problem, weight, bias, ("NCHW", "OIHW", "NCHW"))


@peer(
    "jax_channels_last", needs=("jax",), pinned=True, order=5, idea="the same, image and result in channels_last",
    source=SOURCE, threads="cores of the process", supports=_zeros,
)  # fmt: skip
def channels_last(problem: Conv2dProblem, weight: Array, bias: Array | None, threads: int) -> Prepared:
    return _compiled(problem, weight, bias, ("NHWC", "HWIO", "NHWC"))


def _compiled(
    problem: Conv2dProblem, weight: Array, bias: Array | None, layouts: tuple[str, str, str]
) -> Prepared:  # fmt: skip
    """The convolution compiled for these layouts of image, weights and result."""
    # Import it only now: JAX counts the cores when it starts, and now the process is pinned.
    import jax

    READ_BACK["jax"] = cores
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_x64", True)
    image_axes = ["NCHW".index(axis) for axis in layouts[0]]
    back = [layouts[2].index(axis) for axis in "NCHW"]
    kernel = jax.numpy.asarray(weight.transpose(["OIHW".index(axis) for axis in layouts[1]]))
    across = [-1 if axis == "C" else 1 for axis in layouts[2]]
    offset = None if bias is None else jax.numpy.asarray(bias.reshape(across))

    def convolve(image: Any) -> Any:
        y = jax.lax.conv_general_dilated(
            image, kernel, problem.stride, problem.padding, rhs_dilation=problem.dilation, dimension_numbers=layouts,
            feature_group_count=problem.groups, precision=jax.lax.Precision.HIGHEST,
        )  # fmt: skip
        return y if offset is None else y + offset

    def copied(x: Array) -> Any:
        # Not asarray: that may share the memory of x, which the caller may change.
        return jax.numpy.array(np.ascontiguousarray(x.transpose(image_axes))).block_until_ready()

    shape = [problem.input_shape[axis] for axis in image_axes]
    start = time.perf_counter()
    compiled = jax.jit(convolve).lower(jax.ShapeDtypeStruct(shape, problem.dtype)).compile()
    compile_s = time.perf_counter() - start

    def bind(x: Array) -> Bound:
        image = copied(x)

        def call() -> Any:
            return compiled(image).block_until_ready()

        def rebind(new: Array) -> None:
            nonlocal image
            image = copied(new)

        return Bound(call, lambda y: np.asarray(y).transpose(back), rebind)

    return Prepared(copying(bind), compile_s=compile_s, algorithm="XLA", bind=bind)
