"""OpenVINO on the CPU: one convolution with constant weights in float32, latency mode, tensors of its own.

Input and output are the request's own tensors, filled once and shared, so no copy is timed. The convolution works in
NHWC: it reorders NCHW input and output. "openvino_channels_last" needs no reorder.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from conv_impls import Conv2dProblem
from conv_impls.registry import Bound, Prepared
from conv_impls.validation import Array

from ..machine.usage import READ_BACK
from .declare import copying, peer, zeros_float32

SOURCE = "OpenVINO, CPU plug-in"


@peer(
    "openvino", needs=("openvino",), order=3,
    idea="a compiled model of OpenVINO, one convolution, NCHW in and out", source=SOURCE,
    threads="argument", supports=zeros_float32,
)  # fmt: skip
def nchw(problem: Conv2dProblem, weight: Array, bias: Array | None, threads: int) -> Prepared:
    from openvino import opset8 as opset

    image = opset.parameter(problem.input_shape, np.float32)
    return _ready(_convolution(problem, image, weight, bias), image, threads, (0, 1, 2, 3))


@peer(
    "openvino_channels_last", needs=("openvino",), order=3,
    idea="a compiled model of OpenVINO, one convolution, NHWC in and out", source=SOURCE,
    threads="argument", supports=zeros_float32,
)  # fmt: skip
def channels_last(problem: Conv2dProblem, weight: Array, bias: Array | None, threads: int) -> Prepared:
    from openvino import opset8 as opset

    # The plug-in executes no transposition: the transpositions of the model only define layouts.
    batch, channels, height, width = problem.input_shape
    image = opset.parameter((batch, height, width, channels), np.float32)
    y = opset.transpose(_convolution(problem, opset.transpose(image, (0, 3, 1, 2)), weight, bias), (0, 2, 3, 1))
    return _ready(y, image, threads, (0, 2, 3, 1))


def _convolution(problem: Conv2dProblem, image: Any, weight: Array, bias: Array | None) -> Any:
    from openvino import opset8 as opset

    (top, bottom), (left, right) = problem.padding
    geometry = problem.stride, (top, left), (bottom, right), problem.dilation
    g = problem.groups
    if g == 1:
        y = opset.convolution(image, opset.constant(weight), *geometry)
    else:
        grouped = weight.reshape(g, problem.out_channels // g, *weight.shape[1:])
        y = opset.group_convolution(image, opset.constant(grouped), *geometry)
    return y if bias is None else opset.add(y, opset.constant(bias.reshape(1, -1, 1, 1)))


def _ready(y: Any, image: Any, threads: int, axes: tuple[int, ...]) -> Prepared:
    import openvino

    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
    compiled = openvino.Core().compile_model(openvino.Model([y], [image], "conv"), "CPU", settings)

    READ_BACK["openvino"] = lambda: compiled.get_property("INFERENCE_NUM_THREADS")

    def bind(x: Array) -> Bound:
        request = compiled.create_infer_request()

        def rebind(new: Array) -> None:
            request.get_input_tensor().data[...] = new.transpose(axes)

        rebind(x)
        out = request.get_output_tensor()
        # Without share_outputs every call copies its output into a new array.
        return Bound(lambda: request.infer(share_outputs=True), lambda _: out.data.transpose(np.argsort(axes)), rebind)

    return Prepared(copying(bind), algorithm=_algorithm(compiled), bind=bind)


def _algorithm(compiled: Any) -> str:
    """The primitive that the plug-in chose, such as brgconv_avx512_f32."""
    nodes = [node.get_rt_info() for node in compiled.get_runtime_model().get_ops()]
    return ", ".join(str(node["primitiveType"].value) for node in nodes if node["layerType"].value == "Convolution")
