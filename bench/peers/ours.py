"""Our own convolution in other ways than a plan: `conv2d` with the weights at each call, and direct summation only.

Limits: for comparison with other libraries; users call `conv_impls.conv2d` and `conv_impls.plan`.
"""

from __future__ import annotations

import time

import numpy as np

from conv_impls import Conv2dProblem, conv2d, plan
from conv_impls.registry import Bound, Prepared, resolve
from conv_impls.validation import Array

from .declare import copying, peer


@peer(
    "auto_strict", own=True, idea="auto with precision='strict': direct summation only", source="this package",
    threads="argument",
)  # fmt: skip
def strict(problem: Conv2dProblem, weight: Array, bias: Array | None, threads: int) -> Prepared:
    ready = plan(problem, weight, bias, precision="strict", threads=threads)
    made = ready.prepared

    def call(x: Array, out: Array) -> None:
        ready(x, out=out)

    # Packed weights only: the caller that plans this backend counts the weights that a plan stores.
    return Prepared(
        call, made.packed_bytes, made.workspace_bytes, made.compile_s, algorithm=ready.backend,
        executed_flops=problem.flops,
    )  # fmt: skip


@peer(
    "auto_eager",
    own=True,
    idea="conv2d on plain arrays: validation, packing and a fresh output in every call",
    source="this package",
    accuracy="image",
    nan_spread="that of the selected backend, at most the image",
    threads="argument",
    mode="eager",
)
def eager(problem: Conv2dProblem, weight: Array, bias: Array | None, threads: int) -> Prepared:
    settings = {name: getattr(problem, name) for name in ("stride", "padding", "dilation", "groups", "padding_mode")}
    # Kernels are compiled here, not in the first call that is timed.
    start = time.perf_counter()
    conv2d(np.zeros(problem.input_shape, problem.dtype), weight, bias, **settings, threads=threads)
    compile_s = time.perf_counter() - start

    def bind(x: Array) -> Bound:
        def rebind(new: Array) -> None:
            nonlocal x
            x = new

        return Bound(lambda: conv2d(x, weight, bias, **settings, threads=threads), lambda y: y, rebind)

    picked = resolve("conv2d", "auto", problem, "standard", threads, True).name
    return Prepared(copying(bind), compile_s=compile_s, algorithm=picked, bind=bind)
