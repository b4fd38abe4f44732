"""The 2-D convolutions of a user's ONNX model as layers, to find the fastest backend for a network in one command.

Sizes follow from the inputs (`onnx_inputs`) by ONNX's own shape inference (`onnx_sizes`). Attributes are read as in the
specification of the operator Conv (https://onnx.ai/onnx/operators/onnx__Conv.html). Equal problems become one layer
with a count. Weights are not read: of the tensors outside the file, only small ones that determine sizes are opened.
Limits: a convolution without a fixed size or count, or other than a plain 2-D Conv, is skipped and counted by reason.
"""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path
from typing import Any

from conv_impls.errors import ConvError
from conv_impls.problem import Conv2dProblem
from conv_impls.workloads.layer import Layer, Workload, WorkloadError
from conv_impls.workloads.onnx_inputs import Inputs, Sizes, parse
from conv_impls.workloads.onnx_load import loaded
from conv_impls.workloads.onnx_names import function_of, inside, is_conv, is_onnx, kind, line, name_of, plain
from conv_impls.workloads.onnx_sizes import OPEN, Value, unmade, values

# Numbers of float32 and float64 in onnx.TensorProto.DataType.
DTYPES = {1: "float32", 11: "float64"}
CONV_RANK = 4
# Descriptions of ONNX's other convolutions.
WHAT = {
    "ConvTranspose": "transposed", "ConvInteger": "quantized", "QLinearConv": "quantized", "DeformConv": "deformable",
}  # fmt: skip

log = logging.getLogger(__name__)


class _OpenError(Exception):
    """A Conv has no fixed size, because inputs of the model have open dimensions."""

    def __init__(self, conv: str, inputs: Inputs, shapes: dict[str, Any], others: int) -> None:
        self.conv, self.inputs, self.shapes, self.others = conv, inputs, shapes, others


def read(path: Path, batch: int | None, size: str = "") -> Workload:
    """The layers of the model, in the order of the graph, each with the name of its first node.

    Parameters
    ----------
    path : Path
        An ONNX file.
    batch : int or None
        Sets an open first dimension of inputs with four dimensions (None: 1), or rescales a fixed one.
    size : str
        Sizes of inputs with open dimensions, in the form of `onnx_inputs.parse`.

    Raises
    ------
    WorkloadError
        If the package onnx is missing; if the file is not a model, leaves a size open, or has no 2-D Conv; or if a size
        or the batch cannot be set.
    """
    try:
        import onnx  # noqa: F401
    except ImportError:
        raise WorkloadError(f"{path}: reading a model needs the package onnx: pip install onnx") from None
    try:
        workload = _read(path, batch, parse(size), log.warning)
    except _OpenError as found:
        raise WorkloadError(f"{path}: {_asked(path, batch, found)}") from None
    if not workload.layers:
        reasons = workload.coverage.partition("; ")[2]
        raise WorkloadError(
            f"{path}: no 2-D Conv " + (f"to measure in this model: {reasons}" if reasons else "in this model")
        )
    if workload.left_out:
        log.warning("%s: %s", path, workload.coverage)
    return workload


def _asked(path: Path, batch: int | None, found: _OpenError) -> str:
    """The inputs with open sizes, and an example of the option that sets them."""

    def left_out(sizes: Sizes) -> float:
        try:
            return sum(_read(path, batch, sizes).left_out.values())
        except (WorkloadError, _OpenError):
            return float("inf")

    texts = []
    for name, shape in found.shapes.items():
        dims = ", ".join(f"dimension {i} ({d})" for i, d in enumerate(shape or ()) if isinstance(d, str)) or "its rank"
        texts.append(f"input {plain(name)!r} leaves open {dims}")
    example = found.inputs.example(list(found.shapes), batch, left_out, found.others)
    return f"Conv {found.conv} has no fixed size, since {' and '.join(texts)}; give sizes, for example: {example}"


def _read(path: Path, batch: int | None, sizes: Sizes, say: Any = lambda *texts: None) -> Workload:
    # A file that is not a model may raise anything: the errors of the parsers behind these calls have no common base.
    try:
        model = loaded(path)
        inputs = Inputs(model.graph, sizes)
        ratio = inputs.fix(batch)
        return _layers(path, model, inputs, *ratio, say)
    except WorkloadError as error:
        raise WorkloadError(f"{path}: {error}") from None
    except _OpenError:
        raise
    except Exception as error:
        raise WorkloadError(f"{path}: cannot be read as an ONNX model: {line(error)}") from None


def _layers(path: Path, model: Any, inputs: Inputs, times: int, per: int, say: Any) -> Workload:
    """Every 2-D Conv of the graph, with its batch multiplied by ``times / per``."""
    known = values(model, path.parent)
    functions = {(function.domain, function.name): function for function in model.functions}
    sparse = {tensor.values.name for tensor in model.graph.sparse_initializer}
    names: dict[Conv2dProblem, str] = {}
    counts: Counter[Conv2dProblem] = Counter()
    left_out: Counter[str] = Counter()
    notes: Counter[str] = Counter()
    opened: dict[str, str] = {}
    for node in model.graph.node:
        inner = [each for each in inside(node, functions) if is_conv(each) and function_of(each) not in functions]
        left_out[f"are inside {kind(node)}"] += len(inner)
        if not is_conv(node) or function_of(node) in functions:
            continue
        x, weight = (known.get(name) or unmade(name) for name in (*node.input, "", "")[:2])
        if reason := _reason(node, x, weight):
            left_out[reason] += 1
            if reason == OPEN:
                opened |= {value.opened_by: name_of(node) for value in (weight, x) if value.opened_by} | opened
            continue
        dtype = DTYPES.get(weight.type.tensor_type.elem_type)
        notes["have a dtype other than float32 or float64 and are measured as float32"] += dtype is None
        notes["have a sparse weight and are measured as dense"] += node.input[1] in sparse
        problem = _problem(node, x.shape, weight.shape, dtype or "float32")
        scaled, rest = divmod(problem.batch * times, per)
        if rest:
            raise WorkloadError(f"Conv {name_of(node)} has batch {problem.batch} where the model has {per}; "
                                f"that does not scale to {times}; export the model with that batch")  # fmt: skip
        problem = problem.replace(batch=scaled)
        names.setdefault(problem, name_of(node))
        counts[problem] += 1
    if opened:
        others = sum(left_out.values()) - left_out[OPEN]
        raise _OpenError(next(iter(opened.values())), inputs, {name: known[name].shape for name in opened}, others)
    for note, count in notes.items():
        if count:
            say("%s: %d Conv %s", path, count, note)
    unique = _unique(names)
    layers = [Layer(path.stem, unique[p], count, p.replace(name=unique[p])) for p, count in counts.items()]
    return Workload(path.stem, layers, dict(+left_out), is_model=True)


def _reason(node: Any, x: Value, weight: Value) -> str:
    """Why a convolution is skipped, as a predicate that follows a number; empty if it is a layer."""
    if not is_onnx(node):
        return f"are {kind(node)}, which is not an operator of ONNX"
    if node.op_type != "Conv":
        what = WHAT.get(node.op_type)
        return f"are {what} ({kind(node)})" if what else f"are {kind(node)}, not a plain Conv"
    shape = weight.shape if weight.shape is not None else x.shape
    if shape is not None and len(shape) != CONV_RANK:
        return f"are {len(shape) - 2}-D" if len(shape) > 2 else f"have a weight of {len(shape)} dimensions, not four"
    if not (x.sized and weight.sized):
        return (x if not x.sized else weight).lacking
    if 0 in (*(x.shape or ()), *(weight.shape or ())):
        return "have an empty input"
    return ""


def _problem(node: Any, x: Any, weight: Any, dtype: str) -> Conv2dProblem:
    """The problem of one Conv, with explicit padding."""
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
        raise WorkloadError(f"Conv {name_of(node)}: {line(error)}") from None


def _same(size: int, kernel: int, stride: int, dilation: int, mode: str) -> tuple[int, int]:
    """Padding (before, after) that gives ceil(size / stride) outputs; the mode places the extra one of an odd total."""
    total = 0 if mode == "VALID" else max(0, (-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size)
    less, more = total // 2, total - total // 2
    return (more, less) if mode == "SAME_LOWER" else (less, more)


def _unique(names: dict[Conv2dProblem, str]) -> dict[Conv2dProblem, str]:
    """Make the names unique: repeated names get a number."""
    taken: set[str] = set()
    unique = {}
    for problem, name in names.items():
        number, unique[problem] = 2, name
        while unique[problem] in taken:
            number, unique[problem] = number + 1, f"{name}:{number}"
        taken.add(unique[problem])
    return unique
