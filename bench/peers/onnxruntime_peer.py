"""ONNX Runtime on the CPU: a model of one Conv with constant weights, input and output bound once.

Constant weights let the session pack them and choose its blocked layout (NCHWc) where it gains; the reorders of input
and output, which stay NCHW, are part of what is timed.
"""

from __future__ import annotations

import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from bench.peers import Ready
from conv_impls import Conv2dProblem, UnsupportedError
from conv_impls.validation import Array

# Old enough for every release in use; Conv has not changed since opset 11.
OPSET, IR_VERSION = 17, 8


def facts() -> dict[str, str]:
    """Versions."""
    return {"onnxruntime": onnxruntime.__version__, "onnx": onnx.__version__}


def prepare(problem: Conv2dProblem, x: Array, weight: Array, threads: int) -> Ready:
    """A session over `model`, run through an io binding: nothing is copied in or out while timed."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    # Warnings of unused initialisers and the like are of no use here.
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model(problem, weight).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    image = onnxruntime.OrtValue.ortvalue_from_numpy(x)
    y = onnxruntime.OrtValue.ortvalue_from_shape_and_type(problem.output_shape, x.dtype.type)
    binding = session.io_binding()
    binding.bind_ortvalue_input("x", image)
    binding.bind_ortvalue_output("y", y)
    return Ready(lambda: session.run_with_iobinding(binding), "Conv", lambda _: y.numpy())


def model(problem: Conv2dProblem, weight: Array) -> onnx.ModelProto:
    """An ONNX model of this one convolution."""
    if problem.dtype != "float32" or problem.padding_mode != "zeros":
        raise UnsupportedError("Conv of ONNX Runtime and OpenVINO: float32 and padding with zeros only")
    (top, bottom), (left, right) = problem.padding
    node = helper.make_node(
        "Conv", ["x", "w"], ["y"], pads=[top, left, bottom, right], strides=problem.stride,
        dilations=problem.dilation, group=problem.groups, kernel_shape=problem.kernel_size,
    )  # fmt: skip
    graph = helper.make_graph(
        [node],
        "conv",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, problem.input_shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, problem.output_shape)],
        [numpy_helper.from_array(weight, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
