"""The 2-D convolutions of a user's ONNX model as layers: which backend is fastest for my network, in one command.

Sizes come from ONNX's own shape inference, attributes as the specification of the operator Conv has them
(https://onnx.ai/onnx/operators/onnx__Conv.html). Equal problems become one layer with a count. Functions of the model
are inlined; weights kept outside the file are never opened, those inside are dropped once read.
Limits: what has no fixed size or count, or is no plain 2-D Conv, is left out, and a line in the log says so.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from conv_impls.errors import ConvError
from conv_impls.problem import Conv2dProblem
from conv_impls.workloads.layer import Layer, WorkloadError

# Shape inference reads sizes and indices; longer tensors are weights, and copying gigabytes of them takes seconds.
MOST_KEPT_BYTES = 2**16
# Longer names and messages fill a terminal.
MOST_LETTERS = 100
# The operator's numbers for float32 and float64, onnx.TensorProto.DataType.
DTYPES = {1: "float32", 11: "float64"}
Shape = tuple[int | str, ...]

log = logging.getLogger(__name__)


def read(path: Path, batch: int | None) -> list[Layer]:
    """Layers of the model.

    Parameters
    ----------
    path : Path
        An ONNX file.
    batch : int or None
        Takes the place of an open first dimension of the inputs (None: 1), or rescales a fixed one.

    Returns
    -------
    list of Layer
        In the order of the graph, each with the name of its first node.

    Raises
    ------
    WorkloadError
        If the package onnx is missing, the file is no model, leaves a size open, or has no 2-D Conv.
    """
    try:
        import onnx  # noqa: F401
    except ImportError:
        raise WorkloadError(f"{path}: reading a model needs the package onnx: pip install onnx") from None
    # Anything may come of a file that is no model: the errors of the parsers behind these calls have no common base.
    try:
        return _layers(path, *_inferred(path, batch))
    except WorkloadError:
        raise
    except Exception as error:
        raise WorkloadError(f"{path}: cannot be read as an ONNX model: {_line(error)}") from None


def _layers(path: Path, graph: Any, times: int, per: int) -> list[Layer]:
    """Every 2-D Conv of the graph, its batch times ``times / per``; what is left out is logged."""
    shapes, dtypes = _values(graph)
    names: dict[Conv2dProblem, str] = {}
    counts: Counter[Conv2dProblem] = Counter()
    left_out: Counter[str] = Counter()
    taken_as_float32 = 0
    for node in graph.node:
        left_out.update(f"{_kind(inner)} inside {_plain(node.op_type)}" for inner in _inside(node) if _is_conv(inner))
        if not _is_conv(node):
            continue
        x, weight = (shapes.get(name) for name in (*node.input, "", "")[:2])
        if _kind(node) != "Conv":
            left_out[_kind(node)] += 1
        elif weight and len(weight) != 4:
            left_out[f"{len(weight) - 2}-D Conv"] += 1
        elif not (_known(x) and _known(weight)):
            _refuse_open_inputs(path, node, graph, shapes)
            left_out["Conv of a size known only at run time"] += 1
        else:
            dtype = DTYPES.get(dtypes[node.input[1]])
            taken_as_float32 += dtype is None
            problem = _problem(path, node, x, weight, dtype or "float32")
            scaled, rest = divmod(problem.batch * times, per)
            if rest:
                raise WorkloadError(f"{path}: Conv {_name(node)} has batch {problem.batch} where the model has {per}; "
                                    f"that does not scale to {times}, export the model with that batch")  # fmt: skip
            problem = problem.replace(batch=scaled)
            names.setdefault(problem, _name(node))
            counts[problem] += 1
    if taken_as_float32:
        log.warning("%s: %d Conv are neither float32 nor float64 and taken as float32", path, taken_as_float32)
    told = ", ".join(f"{count} {kind}" for kind, count in left_out.items())
    if not counts:
        raise WorkloadError(f"{path}: no 2-D Conv in this model" + (f"; it has {told}" if told else ""))
    if told:
        log.warning("%s: left out %s", path, told)
    unique = _unique(names)
    return [Layer(path.stem, unique[p], count, p.replace(name=unique[p])) for p, count in counts.items()]


def _inferred(path: Path, batch: int | None) -> tuple[Any, int, int]:
    """The graph with all shapes that can be inferred, and the ratio by which batches are still to be scaled."""
    import onnx
    from onnx import inliner, shape_inference

    model = onnx.load(path, load_external_data=False)
    if not model.HasField("graph"):
        raise ValueError("it has no graph")
    if model.functions:
        model = inliner.inline_local_functions(model)
    for tensor in model.graph.initializer:
        if len(tensor.raw_data) > MOST_KEPT_BYTES:
            tensor.ClearField("raw_data")
    ratio = _set_batch(path, model.graph, batch)
    return shape_inference.infer_shapes(model, data_prop=True).graph, *ratio


def _set_batch(path: Path, graph: Any, batch: int | None) -> tuple[int, int]:
    """Put the batch where the first dimension of an input is open; (new, old) where the model fixes it instead."""
    inputs = _inputs(graph)
    first = [value.type.tensor_type.shape.dim[0] for value in inputs if value.type.tensor_type.shape.dim]
    is_open = [dim for dim in first if not _is_fixed(dim)]
    words = {dim.dim_param for dim in is_open} - {""}
    for dim in is_open:
        dim.dim_value = batch or 1
    for value in (*graph.input, *graph.value_info, *graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in words:
                dim.dim_value = batch or 1
    if is_open or batch is None:
        return 1, 1
    images = [value.type.tensor_type.shape.dim for value in inputs]
    fixed = {dims[0].dim_value for dims in images if len(dims) == 4} - {0}
    if len(fixed) != 1:
        raise WorkloadError(
            f"{path}: batch: this model fixes it where {batch} cannot be put; export it with that batch"
        )
    return batch, fixed.pop()


def _values(graph: Any) -> tuple[dict[str, Shape], dict[str, int]]:
    """Shape and element type of every value of the graph that has a shape; an open dimension is its name or "?"."""
    shapes: dict[str, Shape] = {}
    dtypes = {}
    for value in (*graph.input, *graph.value_info, *graph.output):
        kind = value.type.tensor_type
        dtypes[value.name] = kind.elem_type
        if kind.HasField("shape"):
            dims = kind.shape.dim
            shapes[value.name] = tuple(d.dim_value if _is_fixed(d) else _plain(d.dim_param) or "?" for d in dims)
    for tensor in graph.initializer:
        shapes[tensor.name], dtypes[tensor.name] = tuple(tensor.dims), tensor.data_type
    return shapes, dtypes


def _problem(path: Path, node: Any, x: Any, weight: Any, dtype: str) -> Conv2dProblem:
    """The problem of one Conv, its padding spelled out."""
    from onnx.helper import get_attribute_value

    try:
        given = {attribute.name: get_attribute_value(attribute) for attribute in node.attribute}
        (n, c, *in_size), (oc, per_group, *kernel_size) = x, weight
        stride, dilation = (tuple(given.get(key, (1, 1))) for key in ("strides", "dilations"))
        groups, mode = given.get("group", 1), given.get("auto_pad", b"NOTSET").decode()
        if c != per_group * groups:
            raise ValueError(f"its input has {c} channels, its weight {per_group} for each of {groups} groups")
        if list(given.get("kernel_shape", kernel_size)) != kernel_size:
            raise ValueError(f"kernel_shape is {given['kernel_shape']}, its weight is {kernel_size}")
        if mode == "NOTSET":
            pads = list(given.get("pads", (0, 0, 0, 0)))
            if len(pads) != 4:
                raise ValueError(f"pads: expected top, left, bottom, right, got {pads}")
            top, left, bottom, right = pads
            padding = (top, bottom), (left, right)
        elif mode in ("VALID", "SAME_UPPER", "SAME_LOWER"):
            axes = zip(in_size, kernel_size, stride, dilation, strict=True)
            padding = tuple(_same(*axis, mode) for axis in axes)  # type: ignore[assignment]
        else:
            raise ValueError(f"auto_pad: expected NOTSET, VALID, SAME_UPPER or SAME_LOWER, got {mode!r}")
        return Conv2dProblem(
            n, c, tuple(in_size), oc, tuple(kernel_size), stride, padding, dilation, groups, dtype=dtype
        )
    except (ConvError, AttributeError, ArithmeticError, TypeError, ValueError) as error:
        raise WorkloadError(f"{path}: Conv {_name(node)}: {_line(error)}") from None


def _same(size: int, kernel: int, stride: int, dilation: int, mode: str) -> tuple[int, int]:
    """Padding (before, after) that gives ceil(size / stride) outputs; an odd one goes where the mode says."""
    total = 0 if mode == "VALID" else max(0, (-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size)
    less, more = total // 2, total - total // 2
    return (more, less) if mode == "SAME_LOWER" else (less, more)


def _refuse_open_inputs(path: Path, node: Any, graph: Any, shapes: dict[str, Shape]) -> None:
    """If inputs of the model leave sizes open, say which and how to fix them."""
    for value in _inputs(graph):
        shape = shapes.get(value.name)
        if not _known(shape):
            name, dims = _plain(value.name), ",".join(map(str, shape or "?"))
            where = (
                ", ".join(f"dimension {i} ({d})" for i, d in enumerate(shape or ()) if isinstance(d, str)) or "its rank"
            )
            raise WorkloadError(
                f"{path}: Conv {_name(node)} has no fixed size, since input {name!r} leaves open {where}; export with "
                "a fixed size, or fix it: python -m onnxruntime.tools.make_dynamic_shape_fixed "
                f"--input_name {name} --input_shape {dims} {path.name} fixed.onnx"
            )


def _inputs(graph: Any) -> list[Any]:
    """Inputs a caller gives; old models list the weights among them."""
    weights = {tensor.name for tensor in graph.initializer}
    return [value for value in graph.input if value.name not in weights]


def _inside(node: Any) -> Iterator[Any]:
    """Every node in the subgraphs of this one, at any depth."""
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                yield inner
                yield from _inside(inner)


def _kind(node: Any) -> str:
    return _plain(node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}")


def _is_conv(node: Any) -> bool:
    return "Conv" in node.op_type


def _is_fixed(dim: Any) -> bool:
    # Some exporters write -1 for an open dimension.
    return bool(dim.HasField("dim_value") and dim.dim_value >= 0)


def _known(shape: Shape | None) -> bool:
    return shape is not None and all(isinstance(dim, int) for dim in shape)


def _name(node: Any) -> str:
    return _plain(node.name or "".join(node.output[:1])) or "Conv"


def _plain(name: str) -> str:
    """A name of the file, fit for tables, labels and command lines: no quotes, commas or controls, not too long."""
    return re.sub(r"[^\w.:/()+*=-]+", " ", name).strip()[:MOST_LETTERS]


def _line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return "".join(letter for letter in text if letter.isprintable())[: 3 * MOST_LETTERS]


def _unique(names: dict[Conv2dProblem, str]) -> dict[Conv2dProblem, str]:
    """The same names, those that come again numbered."""
    taken: set[str] = set()
    unique = {}
    for problem, name in names.items():
        number, unique[problem] = 2, name
        while unique[problem] in taken:
            number, unique[problem] = number + 1, f"{name}:{number}"
        taken.add(unique[problem])
    return unique
