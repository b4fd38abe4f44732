"""One convolution as an ONNX model, for the libraries that read such models."""

from __future__ import annotations

from conv_impls import Conv2dProblem
from conv_impls.validation import Array

# Supported by every release in use; Conv has not changed since opset 11.
OPSET, IR_VERSION = 17, 8


def model(problem: Conv2dProblem, weight: Array, bias: Array | None) -> bytes:
    """The serialized model: input "x", output "y", constant weights, float32, zero padding."""
    from onnx import TensorProto, helper, numpy_helper

    (top, bottom), (left, right) = problem.padding
    constants = {"w": weight} if bias is None else {"w": weight, "b": bias}
    node = helper.make_node(
        "Conv", ["x", *constants], ["y"], pads=[top, left, bottom, right], strides=problem.stride,
        dilations=problem.dilation, group=problem.groups, kernel_shape=problem.kernel_size,
    )  # fmt: skip
    sizes = {"x": problem.input_shape, "y": problem.output_shape}
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, size) for name, size in sizes.items())
    tensors = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph([node], "conv", [x], [y], tensors)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    return bytes(made.SerializeToString())
