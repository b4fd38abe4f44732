"""PyTorch on the CPU, in three configurations: eager NCHW, eager channels_last, weights packed once for oneDNN.

`prepacked` calls the operator that torch.compile emits for frozen weights (torch/_inductor/fx_passes/mkldnn_fusion.py),
with input in channels_last: it was 1.1 to 2.1 times faster than with dense NCHW input.
The recorded algorithm is torch's choice of backend: Mkldnn is oneDNN, Slow2d is im2col and BLAS. The two eager backends
use torch's own gradients in their layout; `prepacked` computes gradients as convolutions (`bench.run.directions`).
"""

from __future__ import annotations

from functools import cache, partial
from typing import Any

from conv_impls import Conv2dProblem
from conv_impls.registry import Bound, Prepared
from conv_impls.validation import Array

from ..machine.usage import READ_BACK
from .declare import copying, peer, symmetric, zeros_float32

SOURCE = "PyTorch, torch.nn.functional.conv2d"


@cache
def _torch() -> Any:
    """Import torch, and add it to the thread counts that the worker reports."""
    import torch

    READ_BACK["torch"] = torch.get_num_threads
    return torch


def _inference() -> Any:
    """Inference mode. The worker enters it once: to enter it in each call costs a microsecond."""
    return _torch().inference_mode()


def _gradient(memory_format: str, direction: str, problem: Conv2dProblem, weight: Array, threads: int) -> Prepared:
    """The library's own gradient, from and to the arrays of `bench.run.directions.as_forward`."""
    torch = _torch()
    torch.set_num_threads(threads)
    g, (sh, sw), dtype = problem.groups, problem.stride, getattr(torch, problem.dtype)
    layout = {"memory_format": getattr(torch, memory_format)}
    rest = [None, problem.stride, _padding(problem), problem.dilation, False, (0, 0), g]
    backward = torch.ops.aten.convolution_backward
    if direction == "bwd_d":
        turned = weight.reshape(g, problem.in_channels // g, problem.out_channels // g, *problem.kernel_size)
        kernel = torch.tensor(turned[..., ::-1, ::-1].swapaxes(1, 2).reshape(problem.weight_shape).copy())
        kernel = kernel.contiguous(**layout)
        image = torch.zeros(problem.input_shape, dtype=dtype).contiguous(**layout)

        def bind(x: Array) -> Bound:
            dy = torch.empty(problem.output_shape, dtype=dtype).contiguous(**layout)

            def rebind(new: Array) -> None:
                dy.copy_(torch.from_numpy(new[:, :, ::sh, ::sw]))

            rebind(x)
            return Bound(lambda: backward(dy, image, kernel, *rest, [True, False, False])[0], _array, rebind)
    else:
        dy = torch.tensor(weight.swapaxes(0, 1).copy()).contiguous(**layout)
        kernel = torch.zeros(problem.weight_shape, dtype=dtype).contiguous(**layout)

        def bind(x: Array) -> Bound:
            # Zero-filled: x lacks the rows and columns at the end that no output reads.
            image = torch.zeros(problem.input_shape, dtype=dtype).contiguous(**layout)

            def rebind(new: Array) -> None:
                image[:, :, : new.shape[2], : new.shape[3]] = (
                    torch.from_numpy(new).unflatten(1, (g, -1)).swapaxes(0, 2).flatten(1, 2)
                )

            rebind(x)
            return Bound(
                lambda: backward(dy, image, kernel, *rest, [False, True, False])[1],
                lambda dw: _array(dw).swapaxes(0, 1),
                rebind,
            )

    return Prepared(copying(bind), algorithm="convolution_backward", bind=bind)


@peer(
    "torch_nchw", needs=("torch",), obeys_isa=True, context=_inference, order=1,
    gradients={direction: partial(_gradient, "contiguous_format", direction) for direction in ("bwd_d", "bwd_w")},
    idea="conv2d of PyTorch on dense NCHW tensors", source=SOURCE, threads="argument", supports=symmetric, mode="eager",
)  # fmt: skip
def nchw(problem: Conv2dProblem, weight: Array, bias: Array | None, threads: int) -> Prepared:
    return _eager(problem, weight, bias, threads, "contiguous_format")


@peer(
    "torch_channels_last", needs=("torch",), obeys_isa=True, context=_inference, order=1,
    gradients={direction: partial(_gradient, "channels_last", direction) for direction in ("bwd_d", "bwd_w")},
    idea="conv2d of PyTorch, image and weights in channels_last", source=SOURCE,
    threads="argument", supports=symmetric, mode="eager",
)  # fmt: skip
def channels_last(problem: Conv2dProblem, weight: Array, bias: Array | None, threads: int) -> Prepared:
    return _eager(problem, weight, bias, threads, "channels_last")


@peer(
    "torch_prepacked", needs=("torch",), obeys_isa=True, context=_inference, order=1,
    idea="PyTorch's oneDNN operator for frozen weights, channels_last",
    source="PyTorch, torch/_inductor/fx_passes/mkldnn_fusion.py", threads="argument",
    supports=lambda problem: symmetric(problem) or zeros_float32(problem),
)  # fmt: skip
def prepacked(problem: Conv2dProblem, weight: Array, bias: Array | None, threads: int) -> Prepared:
    torch = _torch()
    torch.set_num_threads(threads)
    stride, padding, dilation, g = problem.stride, _padding(problem), problem.dilation, problem.groups
    kernel = _tensor(weight, torch.contiguous_format).to_mkldnn()
    packed = torch._C._nn.mkldnn_reorder_conv2d_weight(kernel, padding, stride, dilation, g, problem.input_shape)
    offset = None if bias is None else torch.tensor(bias)
    arguments: tuple[Any, ...] = packed, offset, padding, stride, dilation, g, "none", [], ""
    convolve = torch.ops.mkldnn._convolution_pointwise

    def bind(x: Array) -> Bound:
        image = _tensor(x, torch.channels_last)
        return Bound(lambda: convolve(image, *arguments), _array, partial(_copy, image))

    return Prepared(copying(bind), algorithm="Mkldnn", bind=bind)


def _eager(problem: Conv2dProblem, weight: Array, bias: Array | None, threads: int, memory_format: str) -> Prepared:
    torch = _torch()
    layout = getattr(torch, memory_format)
    torch.set_num_threads(threads)
    kernel, offset = _tensor(weight, layout), None if bias is None else torch.tensor(bias)
    arguments = kernel, offset, problem.stride, _padding(problem), problem.dilation, problem.groups
    shape = torch.empty(problem.input_shape, dtype=kernel.dtype).contiguous(memory_format=layout)
    chosen = torch._C._select_conv_backend(shape, *arguments[:5], False, (0, 0), problem.groups)
    convolve = torch.nn.functional.conv2d

    def bind(x: Array) -> Bound:
        image = _tensor(x, layout)
        return Bound(lambda: convolve(image, *arguments), _array, partial(_copy, image))

    return Prepared(copying(bind), algorithm=str(chosen).rpartition(".")[2], bind=bind)


def _padding(problem: Conv2dProblem) -> tuple[int, int]:
    (top, _), (left, _) = problem.padding
    return top, left


def _tensor(array: Array, layout: Any) -> Any:
    """A copy in memory allocated by torch, with the alignment that its kernels prefer."""
    return _torch().tensor(array).contiguous(memory_format=layout)


def _copy(image: Any, x: Array) -> None:
    """Copy x into the tensor, which keeps its layout."""
    image.copy_(_torch().from_numpy(x))


def _array(y: Any) -> Array:
    array: Array = y.numpy()
    return array
