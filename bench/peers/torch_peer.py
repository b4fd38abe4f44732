"""PyTorch on the CPU, in three configurations: eager NCHW, eager channels_last, weights packed once for oneDNN.

`prepacked` calls the operator that torch.compile emits for frozen weights (torch/_inductor/fx_passes/mkldnn_fusion.py),
with the input in channels_last, in which it was 1.1 to 2.1 times faster than with a dense NCHW one.
The algorithm recorded is torch's own choice of backend: Mkldnn is oneDNN, Slow2d is im2col and BLAS.
"""

from __future__ import annotations

from typing import Any

import torch

from bench.peers import Ready, symmetric
from conv_impls import Conv2dProblem, UnsupportedError
from conv_impls.validation import Array

# For the whole process: entering it in every call would cost a microsecond.
_inference = torch.inference_mode()
_inference.__enter__()


def facts() -> dict[str, str]:
    """Versions, and the instruction set torch chose."""
    onednn = "available" if torch.backends.mkldnn.is_available() else "missing"
    return {"torch": torch.__version__, "onednn": onednn, "isa": torch.backends.cpu.get_cpu_capability()}


def nchw(problem: Conv2dProblem, x: Array, weight: Array, threads: int) -> Ready:
    """torch.nn.functional.conv2d on dense NCHW tensors."""
    return _eager(problem, x, weight, threads, torch.contiguous_format)


def channels_last(problem: Conv2dProblem, x: Array, weight: Array, threads: int) -> Ready:
    """torch.nn.functional.conv2d, input and weight in channels_last."""
    return _eager(problem, x, weight, threads, torch.channels_last)


def prepacked(problem: Conv2dProblem, x: Array, weight: Array, threads: int) -> Ready:
    """Weights reordered once into the layout oneDNN asks for."""
    if problem.dtype != "float32":
        raise UnsupportedError("oneDNN convolves float32 only")
    torch.set_num_threads(threads)
    image, kernel = _tensor(x, torch.channels_last), _tensor(weight, torch.contiguous_format)
    padding, stride, dilation = symmetric(problem), problem.stride, problem.dilation
    packed = torch._C._nn.mkldnn_reorder_conv2d_weight(
        kernel.to_mkldnn(), padding, stride, dilation, problem.groups, image.shape
    )
    arguments: tuple[Any, ...] = packed, None, padding, stride, dilation, problem.groups, "none", [], ""
    convolve = torch.ops.mkldnn._convolution_pointwise
    return Ready(lambda: convolve(image, *arguments), "Mkldnn")


def _eager(problem: Conv2dProblem, x: Array, weight: Array, threads: int, layout: torch.memory_format) -> Ready:
    torch.set_num_threads(threads)
    image, kernel = _tensor(x, layout), _tensor(weight, layout)
    arguments = None, problem.stride, symmetric(problem), problem.dilation
    chosen = torch._C._select_conv_backend(image, kernel, *arguments, False, (0, 0), problem.groups)
    convolve = torch.nn.functional.conv2d
    return Ready(lambda: convolve(image, kernel, *arguments, problem.groups), str(chosen).rpartition(".")[2])


def _tensor(array: Array, layout: torch.memory_format) -> torch.Tensor:
    """A copy in torch's own memory, which is aligned as its kernels like it."""
    return torch.tensor(array).contiguous(memory_format=layout)
