"""PyTorch on the CPU, in three configurations: eager NCHW, eager channels_last, weights packed once for oneDNN.

`prepacked` calls the operator that torch.compile emits for frozen weights (torch/_inductor/fx_passes/mkldnn_fusion.py),
with the input in channels_last, in which it was 1.1 to 2.1 times faster than with a dense NCHW one.
The algorithm recorded is torch's own choice of backend: Mkldnn is oneDNN, Slow2d is im2col and BLAS. For gradients the
NCHW backend calls torch's own, the others compute them as convolutions (`bench.run.directions`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from conv_impls import Conv2dProblem
from conv_impls.registry import Prepared, register
from conv_impls.validation import Array

from ..machine.usage import READ_BACK
from . import GRADIENTS, copying, symmetric, zeros_float32

SOURCE = "PyTorch, torch.nn.functional.conv2d"
# For the whole process: entering it in every call would cost a microsecond.
_inference = torch.inference_mode()
_inference.__enter__()
READ_BACK["torch"] = torch.get_num_threads

Bind = tuple[Callable[[], torch.Tensor], Callable[[torch.Tensor], Array]]


@register(
    "torch_nchw", idea="conv2d of PyTorch on dense NCHW tensors", source=SOURCE, threads="argument",
    supports=symmetric, mode="eager",
)  # fmt: skip
def nchw(problem: Conv2dProblem, weight: Array, bias: Array | None, threads: int) -> Prepared:
    return _eager(problem, weight, bias, threads, torch.contiguous_format)


@register(
    "torch_channels_last", idea="conv2d of PyTorch, image and weights in channels_last", source=SOURCE,
    threads="argument", supports=symmetric, mode="eager",
)  # fmt: skip
def channels_last(problem: Conv2dProblem, weight: Array, bias: Array | None, threads: int) -> Prepared:
    return _eager(problem, weight, bias, threads, torch.channels_last)


@register(
    "torch_prepacked", idea="PyTorch's oneDNN operator for frozen weights, channels_last",
    source="PyTorch, torch/_inductor/fx_passes/mkldnn_fusion.py", threads="argument",
    supports=lambda problem: symmetric(problem) or zeros_float32(problem),
)  # fmt: skip
def prepacked(problem: Conv2dProblem, weight: Array, bias: Array | None, threads: int) -> Prepared:
    torch.set_num_threads(threads)
    stride, padding, dilation, g = problem.stride, _padding(problem), problem.dilation, problem.groups
    kernel = _tensor(weight, torch.contiguous_format).to_mkldnn()
    packed = torch._C._nn.mkldnn_reorder_conv2d_weight(kernel, padding, stride, dilation, g, problem.input_shape)
    offset = None if bias is None else torch.tensor(bias)
    arguments: tuple[Any, ...] = packed, offset, padding, stride, dilation, g, "none", [], ""
    convolve = torch.ops.mkldnn._convolution_pointwise

    def bind(x: Array) -> Bind:
        image = _tensor(x, torch.channels_last)
        return lambda: convolve(image, *arguments), _array

    return Prepared(copying(bind), algorithm="Mkldnn", bind=bind)


def _eager(
    problem: Conv2dProblem, weight: Array, bias: Array | None, threads: int, layout: torch.memory_format
) -> Prepared:
    torch.set_num_threads(threads)
    kernel, offset = _tensor(weight, layout), None if bias is None else torch.tensor(bias)
    arguments = kernel, offset, problem.stride, _padding(problem), problem.dilation, problem.groups
    shape = torch.empty(problem.input_shape, dtype=kernel.dtype).contiguous(memory_format=layout)
    chosen = torch._C._select_conv_backend(shape, *arguments[:5], False, (0, 0), problem.groups)
    convolve = torch.nn.functional.conv2d

    def bind(x: Array) -> Bind:
        image = _tensor(x, layout)
        return lambda: convolve(image, *arguments), _array

    return Prepared(copying(bind), algorithm=str(chosen).rpartition(".")[2], bind=bind)


def _gradient(direction: str, problem: Conv2dProblem, weight: Array, threads: int) -> Prepared:
    """The library's own gradient, from and to the arrays of `bench.run.directions.as_forward`."""
    torch.set_num_threads(threads)
    g, (sh, sw) = problem.groups, problem.stride
    rest = [None, problem.stride, _padding(problem), problem.dilation, False, (0, 0), g]
    to_input = direction == "bwd_d"
    image, kernel = torch.zeros(problem.input_shape), torch.zeros(problem.weight_shape)
    if to_input:
        turned = weight.reshape(g, problem.in_channels // g, problem.out_channels // g, *problem.kernel_size)
        kernel = torch.tensor(turned[..., ::-1, ::-1].swapaxes(1, 2).reshape(problem.weight_shape).copy())
    else:
        grad = torch.tensor(weight.swapaxes(0, 1).copy())

    def bind(x: Array) -> Bind:
        if to_input:
            dy, seen = torch.tensor(x[:, :, ::sh, ::sw].copy()), image
        else:
            dy, seen = grad, torch.zeros(problem.input_shape, dtype=torch.tensor(x[:0]).dtype)
            seen[:, :, : x.shape[2], : x.shape[3]] = torch.tensor(x.swapaxes(0, 1).copy())
        mask = [to_input, not to_input, False]
        backward = torch.ops.aten.convolution_backward
        pick = 0 if to_input else 1
        read = _array if to_input else (lambda dw: dw.numpy().swapaxes(0, 1))
        return lambda: backward(dy, seen, kernel, *rest, mask)[pick], read

    if problem.dtype == "float64":
        image, kernel = image.double(), kernel.double()
    return Prepared(copying(bind), algorithm="convolution_backward", bind=bind)


for _direction in ("bwd_d", "bwd_w"):
    GRADIENTS["torch_nchw", _direction] = partial(_gradient, _direction)


def _padding(problem: Conv2dProblem) -> tuple[int, int]:
    (top, _), (left, _) = problem.padding
    return top, left


def _tensor(array: Array, layout: torch.memory_format) -> torch.Tensor:
    """A copy in torch's own memory, which is aligned as its kernels like it."""
    return torch.tensor(array).contiguous(memory_format=layout)


def _array(y: torch.Tensor) -> Array:
    array: Array = y.numpy()
    return array
