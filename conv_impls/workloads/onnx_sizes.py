"""The size of every value that the convolutions of an ONNX graph need, or why it has none.

Node by node, from the inputs on: ONNX's shape inference gives the types of a node's outputs
(https://onnx.ai/onnx/api/shape_inference.html), its reference evaluator the few small tensors that decide sizes, such
as the shape of a Reshape. What the file itself says of the values inside (value_info, sizes of its outputs) is not
read: it may be left over from an export for other inputs.
Limits: operators that ONNX infers nothing for (another domain, an early opset) end what is known; a loop's results too.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from conv_impls.workloads.onnx_load import MOST_KEPT_BYTES
from conv_impls.workloads.onnx_names import is_conv, is_onnx, kind, line, name_of, plain, subgraphs

# Their output has the size of their first input; ONNX infers nothing for them.
SAME_SIZE = ("GroupNormalization", "MeanVarianceNormalization")
# The least rank of the weights of a convolution; shapes, pads and indices have fewer dimensions.
KERNEL_RANK = 3
RANDOM = ("Random", "Bernoulli", "Multinomial")
# Why a value has no size, as what follows a number of convolutions.
RUN_TIME, OPEN = "have sizes known only at run time", "have sizes that the model's inputs leave open"
Shape = tuple[int | str, ...]


@dataclass
class Value:
    """What is known of a value.

    ``type`` is an onnx.TypeProto; ``data`` is there where it is a small constant, and ``file`` says which file would
    have held it. Where the size is not known, ``lacking`` is the reason (of convolutions, after their number), and
    ``opened_by`` the input of the model that leaves it open.
    """

    type: Any = None
    data: np.ndarray[Any, Any] | None = None
    file: str = ""
    lacking: str = ""
    opened_by: str = ""

    @cached_property
    def shape(self) -> Shape | None:
        """Its dimensions, open ones by their name or "?"; None where not even their number is known."""
        if self.type is None or not self.type.tensor_type.HasField("shape"):
            return None
        return tuple(d.dim_value if is_fixed(d) else plain(d.dim_param) or "?" for d in self.type.tensor_type.shape.dim)

    @cached_property
    def sized(self) -> bool:
        """Whether every dimension is known."""
        return self.shape is not None and all(isinstance(dim, int) for dim in self.shape)

    @property
    def elements(self) -> float:
        """How many elements it has, infinitely many where its size is not known."""
        return math.prod(dim for dim in self.shape or () if isinstance(dim, int)) if self.sized else math.inf

    @property
    def small(self) -> bool:
        """Whether it may decide sizes: so small that computing it costs nothing."""
        return 8 * self.elements <= MOST_KEPT_BYTES


def is_fixed(dim: Any) -> bool:
    """Whether a dimension has a number; inference may find a 0."""
    return bool(dim.HasField("dim_value") and dim.dim_value >= 0)


def values(model: Any, folder: Path) -> dict[str, Value]:
    """Every value of the graph that its convolutions need, by name.

    Parameters
    ----------
    model : onnx.ModelProto
        Its inputs are as they are to be taken; their open dimensions have no number.
    folder : Path
        Where the tensors kept outside the file are looked for.
    """
    graph = model.graph
    known = {value.name: _input(value) for value in graph.input}
    known |= {tensor.name: _constant(tensor, folder) for tensor in graph.initializer}
    for sparse in graph.sparse_initializer:
        known[sparse.values.name] = Value(_tensor_type(sparse.values.data_type, sparse.dims))
    inference = _Inference(model, known, folder)
    for node in _needed(graph):
        inference.add(node)
    return known


class _Inference:
    """What is known of the values so far, and the one step that adds a node's outputs."""

    def __init__(self, model: Any, known: dict[str, Value], folder: Path) -> None:
        import onnx

        self._known, self._folder = known, folder
        self._one = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
        self._one.graph.name = "one"
        self._opsets = {opset.domain: opset.version for opset in model.opset_import}

    def add(self, node: Any) -> None:
        """Learn what is known of the outputs of a node, whose inputs were added before."""
        if node.op_type == "Constant" and is_onnx(node) and node.output:
            for attribute in node.attribute:
                if attribute.name == "value":
                    self._known[node.output[0]] = _constant(attribute.t, self._folder)
                    return
        names = list(dict.fromkeys([*filter(None, node.input), *_outer_names(node)]))
        inputs = [self._known.get(name) or unmade(name) for name in names]
        types, refusal = self._types(node, names)
        made = {name: Value(types.get(name)) for name in node.output if name}
        if node.op_type in SAME_SIZE and is_onnx(node) and names:
            made = {name: Value(inputs[0].type) for name in made}
        for value in made.values():
            if not value.sized:
                value.lacking, value.opened_by = self._reason(node, inputs, refusal)
            elif len(value.shape or ()) < 2:
                value.file = next((known.file for known in inputs if known.file), "")
        for name, data in self._computed(node, names, made).items():
            made[name].data = data
        self._known |= made

    def _types(self, node: Any, names: list[str]) -> tuple[dict[str, Any], str]:
        """The types of the node's outputs, as far as they are known, and what ONNX says against the node."""
        from onnx import numpy_helper, shape_inference

        graph = self._one.graph
        for part in (graph.node, graph.input, graph.initializer):
            del part[:]
        graph.node.append(node)
        for name in names:
            if (value := self._known.get(name)) is None or value.type is None:
                continue
            if value.data is not None:
                graph.initializer.append(numpy_helper.from_array(value.data, name))
            else:
                graph.input.add(name=name, type=value.type)
        try:
            inferred = shape_inference.infer_shapes(self._one, strict_mode=True)
        except shape_inference.InferenceError as error:
            return {}, plain(line(error).rpartition("Error] ")[2])
        types = {value.name: value.type for value in inferred.graph.value_info}
        # Such as of a window larger than its image. Handed on, they end the process: ONNX's Slice asserts otherwise.
        if any(dim.dim_value < 0 for kind in types.values() for dim in kind.tensor_type.shape.dim):
            return {}, "a size below 0"
        return types, ""

    def _reason(self, node: Any, inputs: list[Value], refusal: str) -> tuple[str, str]:
        """Why an output of this node has no size, and the input of the model to blame, if any."""
        unsized = [value for value in inputs if value.lacking]
        if unsized:
            first = next((value for value in unsized if value.opened_by), unsized[0])
            return first.lacking, first.opened_by
        if not self._is_inferred(node):
            opset = f" of opset {self._opsets.get('', 1)}" if is_onnx(node) else ""
            return f"have sizes that ONNX does not infer through {kind(node)}{opset}", ""
        if refusal:
            return f"have sizes that {kind(node)} {name_of(node)} refuses ({refusal})", ""
        if file := next((value.file for value in inputs if value.file), ""):
            return f"have sizes that {file} decides", ""
        return RUN_TIME, ""

    def _is_inferred(self, node: Any) -> bool:
        import onnx

        version = self._opsets.get(node.domain if not is_onnx(node) else "", 1)
        try:
            schema = onnx.defs.get_schema(node.op_type, version, "" if is_onnx(node) else node.domain)
        except onnx.defs.SchemaError:
            return False
        return bool(schema.has_type_and_shape_inference_function)

    def _computed(self, node: Any, names: list[str], made: dict[str, Value]) -> dict[str, np.ndarray[Any, Any]]:
        """The node's outputs, where all its inputs are small constants and the outputs are small, too."""
        if not all(value.small for value in made.values()):
            return {}
        if is_onnx(node) and node.op_type in ("Shape", "Size") and self._known[names[0]].sized:
            return dict.fromkeys(made, _measured(node, self._known[names[0]]))
        data = {name: self._known[name].data for name in names if name in self._known}
        if any(value is None for value in data.values()) or any(subgraphs(node)) or node.op_type.startswith(RANDOM):
            return {}
        return self._evaluated(data, list(made))

    def _evaluated(self, data: dict[str, Any], outputs: list[str]) -> dict[str, np.ndarray[Any, Any]]:
        """The outputs of the node in `_one`; none where the evaluator cannot."""
        import onnx
        from onnx.reference import ReferenceEvaluator

        model = onnx.ModelProto()
        model.CopyFrom(self._one)
        del model.graph.initializer[:], model.graph.input[:]
        model.graph.input.extend(onnx.ValueInfoProto(name=name) for name in data)
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            # The evaluator's errors have no common base.
            try:
                found = ReferenceEvaluator(model).run(None, data)
            except Exception:
                return {}
        return {
            name: value
            for name, value in zip(outputs, map(np.asarray, found), strict=True)
            if value.dtype.kind in "biuf"
        }


def _measured(node: Any, value: Value) -> np.ndarray[Any, Any]:
    """What Shape or Size gives."""
    dims = [dim for dim in value.shape or () if isinstance(dim, int)]
    if node.op_type == "Size":
        return np.array(math.prod(dims), np.int64)
    given = {attribute.name: attribute.i for attribute in node.attribute}
    return np.array(dims[slice(given.get("start"), given.get("end"))], np.int64)


def _input(value: Any) -> Value:
    if not value.type.HasField("tensor_type"):
        return Value(value.type, lacking=RUN_TIME)
    given = Value(value.type)
    return given if given.sized else Value(value.type, lacking=OPEN, opened_by=value.name)


def _constant(tensor: Any, folder: Path) -> Value:
    """A tensor of the file; one kept outside is read where it may decide sizes."""
    from onnx import external_data_helper, numpy_helper

    value = Value(_tensor_type(tensor.data_type, tensor.dims))
    if not value.small or len(tensor.dims) >= KERNEL_RANK:
        return value
    source = f"the damaged tensor {plain(tensor.name)}"
    # What leads out of the folder, is too short, or of no known type: the errors have no common base.
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if external_data_helper.uses_external_data(tensor):
                place = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
                if not (folder / place).is_file():
                    value.file = f"the missing file {plain(place)}"
                    return value
                source = f"the unreadable file {plain(place)}"
                external_data_helper.load_external_data_for_tensor(tensor, str(folder))
            data = numpy_helper.to_array(tensor)
    except Exception:
        value.file = source
        return value
    value.data = data if data.dtype.kind in "biuf" else None
    return value


def _tensor_type(kind_of_element: int, dims: Any) -> Any:
    from onnx import helper

    return helper.make_tensor_type_proto(kind_of_element, list(dims))


def _needed(graph: Any) -> list[Any]:
    """The nodes that the convolutions depend on, and these, in the order of the graph."""
    needed, names = [], set[str]()
    for node in reversed(graph.node):
        if is_conv(node) or not names.isdisjoint(node.output):
            needed.append(node)
            names.update(node.input, _outer_names(node))
    return needed[::-1]


def _outer_names(node: Any) -> list[str]:
    """Names that its subgraphs use and do not make."""
    return [name for graph in subgraphs(node) for name in _free(graph)]


def _free(graph: Any) -> list[str]:
    made = {value.name for value in (*graph.input, *graph.initializer)}
    free = []
    for node in graph.node:
        free += [name for name in (*node.input, *_outer_names(node)) if name and name not in made]
        made.update(node.output)
    return [*free, *(value.name for value in graph.output if value.name not in made)]


def unmade(name: str) -> Value:
    """What there is of a value that is neither an input, a constant nor an output of a node before."""
    return Value(
        lacking=f"have an input {plain(name)} that nothing in the model makes" if name else "have no input or no weight"
    )
