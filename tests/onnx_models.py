"""Small ONNX models for the tests of the reader, written to a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from conv_impls import workloads
from conv_impls.workloads import Layer

FLOAT = TensorProto.FLOAT


def weight(name: str, *shape: int, dtype: str = "float32") -> Any:
    return numpy_helper.from_array(np.ones(shape, dtype), name)


def conv(x: str, w: str, y: str, **attributes: Any) -> Any:
    return helper.make_node("Conv", [x, w], [y], **attributes)


def save(
    path: Path,
    nodes: Sequence[Any],
    weights: Sequence[Any] = (),
    shape: Sequence[int | str | None] = (1, 3, 17, 20),
    functions: Sequence[Any] = (),
    kind: int = FLOAT,
    opset: int = 17,
    inputs: Sequence[Any] = (),
    inner: Sequence[Any] = (),
    output: Sequence[int] | None = None,
) -> str:
    """Write a model of the input x and others, with these declared sizes of values inside; returns its path."""
    y = helper.make_tensor_value_info(nodes[-1].output[0], kind, output)
    x = helper.make_tensor_value_info("x", kind, shape)
    graph = helper.make_graph(nodes, "graph", [x, *inputs], [y], weights, value_info=inner)
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("mine", 1)]
    onnx.save(helper.make_model(graph, functions=functions, opset_imports=imports), path)
    return str(path)


def value(name: str, *shape: int | str | None) -> Any:
    """The declaration of a float value."""
    return helper.make_tensor_value_info(name, FLOAT, shape)


def integers(name: str, *numbers: int) -> Any:
    """A one-dimensional constant."""
    return numpy_helper.from_array(np.array(numbers), name)


def only(path: str, **options: Any) -> Layer:
    (layer,) = workloads.load(path, **options)
    return layer
