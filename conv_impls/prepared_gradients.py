"""Prepare the two gradients of a convolution for a backend: the image's by phases, the weights' by a kernel of its own.

The gradient of the image is computed by the forward convolutions of its stride phases (`conv_impls.adjoint`), with any
backend. The gradient of the weights has kernels for direct summation (`conv_impls.backends._weight_gradient`), which
`numba_simd` and "auto" use. Every other backend computes it as a forward convolution whose kernels are the output's
gradient (`weight_problem`).
Padding that is not zeros: both are computed for the padded image; the border of its gradient is then folded back.
Source: Dumoulin & Visin 2016, arXiv:1603.07285, sec. 4.
Limits: few backends are fast with kernels as large as images.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from conv_impls import eager as eager_store
from conv_impls import validation as check
from conv_impls.adjoint import phases
from conv_impls.api import compute, prepare, select
from conv_impls.kernels.runtime import target
from conv_impls.padding import NO_PADDING, fold2d, padded
from conv_impls.prepared import Prepared
from conv_impls.problem import Conv2dProblem
from conv_impls.validation import Array

# Backends whose gradient of the weights is computed by our own kernels.
OWN_WEIGHT_GRADIENT = ("auto", "numba_simd")
# What "auto" takes for the gradient of the weights where nothing can be compiled.
UNCOMPILED = "numpy_strided"


def _nothing() -> None:
    pass


class Gradient(NamedTuple):
    """``call(*inputs, out)`` fills out; the backends that run, and the costs, as in `conv_impls.Prepared`.

    ``release`` puts back what was taken from the cache of `conv_impls.eager`, after the last call.
    """

    call: Callable[..., None]
    backend: str
    packed_bytes: int | None = 0
    workspace_bytes: int | None = 0
    compile_s: float = 0.0
    release: Callable[[], None] = _nothing


def input_gradient(
    fn: str, backend: str, problem: Conv2dProblem, weight: Array, precision: str, threads: int, eager: bool = False
) -> Gradient:
    """``call(grad_output, grad_input)``; ``backend`` may also be the text of `Gradient.backend`.

    With ``eager``, for one call, convolutions are taken from the cache of `conv_impls.eager`.
    """
    whole = _unpadded(problem)
    if whole is not problem:
        inner = input_gradient(fn, backend, whole, weight, precision, threads, eager)

        def folded(dy: Array, dx: Array) -> None:
            image = np.empty(whole.input_shape, dx.dtype)
            inner.call(dy, image)
            dx[...] = fold2d(image, problem.in_size, problem.padding, problem.padding_mode)

        return inner._replace(call=folded)
    found = phases(problem) if problem.macs else []
    if not found:
        return Gradient(_zeros, backend)
    # Imported here: numba is slow to import.
    from conv_impls.backends._image_gradient import assembled, weights_of

    names = backend.split("+") if backend.count("+") == len(found) - 1 else [backend] * len(found)
    chosen = [
        select(fn, name, phase.problem, precision, threads, eager) for name, phase in zip(names, found, strict=True)
    ]
    keys: list[eager_store.Key] = []
    parts: list[Prepared] = []
    for entry, phase in zip(chosen, found, strict=True):
        taps, key = weights_of(problem, weight, phase), (entry, phase.problem, threads, False)
        cached = eager_store.take(key, taps, None) if eager else None
        parts.append(cached or prepare(entry, phase.problem, taps, None, threads, relu=False))
        keys.append(key)

    def release() -> None:
        for key, part in zip(keys, parts, strict=True):
            eager_store.put(key, part)

    made = assembled(problem, list(zip(found, parts, strict=True)), threads)
    name = "+".join(entry.name for entry in chosen)
    costs = made.packed_bytes, made.workspace_bytes, made.compile_s
    return Gradient(made.call, name, *costs, release if eager else _nothing)


def weight_gradient(
    fn: str, backend: str, problem: Conv2dProblem, precision: str, threads: int, eager: bool = False
) -> Gradient:
    """``call(x, grad_output, grad_weight)``; ``eager`` as for `input_gradient`."""
    whole = _unpadded(problem)
    if whole is not problem:
        inner = weight_gradient(fn, backend, whole, precision, threads, eager)
        return inner._replace(
            call=lambda x, dy, dw: inner.call(padded(x, problem.padding, problem.padding_mode), dy, dw)
        )
    if not problem.macs:
        return Gradient(_zeros, backend)
    if backend in OWN_WEIGHT_GRADIENT and target.compiles():
        from conv_impls.backends._weight_gradient import prepare as prepare_weight

        key = "gradient of the weights", problem, threads, False
        cached = eager_store.take_unchanged(key) if eager else None
        made = cached or prepare_weight(problem, threads)
        costs = made.packed_bytes, made.workspace_bytes, made.compile_s
        release = partial(eager_store.put, key, made) if eager else _nothing
        return Gradient(made.call, "numba_simd", *costs, release)
    if backend == "auto":
        backend = UNCOMPILED
    of_group = weight_problem(problem)
    if of_group is None:
        return Gradient(_zeros, backend)
    chosen = select(fn, backend, of_group, precision, threads, eager=True)

    def call(x: Array, dy: Array, dw: Array) -> None:
        g, (rows, columns) = problem.groups, of_group.in_size
        out = np.empty(of_group.output_shape, dw.dtype)
        images = x.reshape(problem.batch, g, -1, *problem.in_size)[..., :rows, :columns]
        kernels = dy.reshape(problem.batch, g, -1, *problem.out_size)
        grads = dw.reshape(g, -1, *problem.weight_shape[1:])
        for group in range(g):
            kernel = np.ascontiguousarray(kernels[:, group].swapaxes(0, 1))
            prepared = prepare(chosen, of_group, kernel, None, threads, relu=False)
            prepared.call(np.ascontiguousarray(images[:, group].swapaxes(0, 1)), out)
            grads[group] = out.swapaxes(0, 1)

    return Gradient(call, chosen.name, None, None)


def weight_problem(problem: Conv2dProblem) -> Conv2dProblem | None:
    """The convolution that computes the gradient of the weights of one group: (C_in, C_out, kH, kW).

    None if no output reads the image, only its padding: the gradient is zero.

    Channels and batch change places, the output's gradient is the kernel, and stride and dilation change places. Rows
    and columns at the end that no output reads are left out.
    """
    ends = [
        d * (k - 1) + s * (o - 1) + 1 - size - before
        for k, d, o, s, size, (before, _) in zip(
            problem.kernel_size, problem.dilation, problem.out_size, problem.stride, problem.in_size, problem.padding,
            strict=True,
        )
    ]  # fmt: skip
    height, width = (size + min(0, end) for size, end in zip(problem.in_size, ends, strict=True))
    if min(height, width) < 1:
        return None
    top, left = ((before, max(0, end)) for (before, _), end in zip(problem.padding, ends, strict=True))
    return Conv2dProblem(
        problem.in_channels // problem.groups, problem.batch, (height, width), problem.out_channels // problem.groups,
        problem.out_size, problem.dilation, (top, left), problem.stride, dtype=problem.dtype,
    )  # fmt: skip


def run(
    fn: str,
    call: Callable[..., None],
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    out: Array | None,
    *inputs: Array,
) -> Array:
    """Check ``out``, then `conv_impls.api.compute`."""
    if out is not None:
        check.output(fn, out, shape, dtype)
    return compute(call, dtype, shape, out, inputs)


def _unpadded(problem: Conv2dProblem) -> Conv2dProblem:
    """The problem of the padded image, unless the padding is zeros."""
    if problem.padding_mode == "zeros":
        return problem
    return replace(problem, in_size=problem.padded_size, padding=NO_PADDING, padding_mode="zeros")


def _zeros(*arrays: Array) -> None:
    arrays[-1][...] = 0
