"""OpenVINO on the CPU: one convolution with constant weights in float32, latency mode, tensors of its own.

Input and output are the request's own tensors, filled once and shared, so that nothing is copied while timed. The
convolution works in NHWC: given NCHW tensors it reorders both, which `channels_last` spares it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import openvino
from openvino import opset8 as opset

from bench.peers import Ready
from conv_impls import Conv2dProblem, UnsupportedError
from conv_impls.validation import Array


def facts() -> dict[str, str]:
    """Version."""
    return {"openvino": openvino.__version__}


def prepare(problem: Conv2dProblem, x: Array, weight: Array, threads: int) -> Ready:
    """A compiled model of the one layer, NCHW in and out."""
    image = opset.parameter(problem.input_shape, np.float32)
    return _ready(_convolution(problem, image, weight), image, x, threads, np.asarray)


def channels_last(problem: Conv2dProblem, x: Array, weight: Array, threads: int) -> Ready:
    """The same with NHWC tensors; the transpositions of the model are no more than names of layouts."""
    batch, channels, height, width = problem.input_shape
    image = opset.parameter((batch, height, width, channels), np.float32)
    y = opset.transpose(_convolution(problem, opset.transpose(image, (0, 3, 1, 2)), weight), (0, 2, 3, 1))
    return _ready(y, image, x.transpose(0, 2, 3, 1), threads, lambda y: np.asarray(y).transpose(0, 3, 1, 2))


def _convolution(problem: Conv2dProblem, image: Any, weight: Array) -> Any:
    if problem.dtype != "float32" or problem.padding_mode != "zeros":
        raise UnsupportedError("OpenVINO is asked for float32 and padding with zeros only")
    (top, bottom), (left, right) = problem.padding
    geometry = problem.stride, (top, left), (bottom, right), problem.dilation
    g = problem.groups
    if g == 1:
        return opset.convolution(image, opset.constant(weight), *geometry)
    grouped = weight.reshape(g, problem.out_channels // g, *weight.shape[1:])
    return opset.group_convolution(image, opset.constant(grouped), *geometry)


def _ready(y: Any, image: Any, x: Array, threads: int, read: Callable[[Array], Array]) -> Ready:
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
    compiled = openvino.Core().compile_model(openvino.Model([y], [image], "conv"), "CPU", settings)
    request = compiled.create_infer_request()
    request.get_input_tensor().data[...] = x
    out = request.get_output_tensor()
    # Without share_outputs every call copies its output into a new array.
    return Ready(lambda: request.infer(share_outputs=True), _algorithm(compiled), lambda _: read(out.data))


def _algorithm(compiled: openvino.CompiledModel) -> str:
    """The primitive the plug-in chose, such as brgconv_avx512_f32."""
    nodes = [node.get_rt_info() for node in compiled.get_runtime_model().get_ops()]
    return ", ".join(str(node["primitiveType"].value) for node in nodes if node["layerType"].value == "Convolution")
