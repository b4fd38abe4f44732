"""The size of every value that the convolutions of an ONNX graph need, or the reason why it is unknown.

It works node by node, from the inputs on. ONNX's shape inference gives the types of a node's outputs
(https://onnx.ai/onnx/api/shape_inference.html). ONNX's reference evaluator gives the few small tensors that determine
sizes, such as the shape of a Reshape. Sizes that the file declares for inner values (value_info, sizes of its outputs)
are not read: they may be left over from an export for other inputs.
Limits: sizes are unknown after operators without shape inference (another domain, an early opset) and after a loop.
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

# Operators whose output has the size of the first input; ONNX infers nothing for them.
SAME_SIZE = ("GroupNormalization", "MeanVarianceNormalization")
# The minimum rank of the weights of a convolution; shapes, pads and indices have fewer dimensions.
KERNEL_RANK = 3
RANDOM = ("Random", "Bernoulli", "Multinomial")
# Reasons for an unknown size: predicates that follow a number of convolutions.
RUN_TIME, OPEN = "have sizes known only at run time", "have sizes that the model's inputs leave open"
Shape = tuple[int | str, ...]


@dataclass
class Value:
    """The known facts about a value.

    ``type`` is an onnx.TypeProto. ``data`` is set for small constants; ``file`` describes the missing or unreadable
    source of such data. If the size is not known, ``lacking`` is the reason (a predicate after a number of
    convolutions), and ``opened_by`` the input of the model that leaves it open.
    """

    type: Any = None
    data: np.ndarray[Any, Any] | None = None
    file: str = ""
    lacking: str = ""
    opened_by: str = ""

    @cached_property
    def shape(self) -> Shape | None:
        """Its dimensions, open ones by their name or "?"; None if even their number is unknown."""
        if self.type is None or not self.type.tensor_type.HasField("shape"):
            return None
        return tuple(d.dim_value if is_fixed(d) else plain(d.dim_param) or "?" for d in self.type.tensor_type.shape.dim)

    @cached_property
    def sized(self) -> bool:
        """Whether every dimension is known."""
        return self.shape is not None and all(isinstance(dim, int) for dim in self.shape)

    @property
    def elements(self) -> float:
        """The number of elements; infinity if the size is not known."""
        return math.prod(dim for dim in self.shape or () if isinstance(dim, int)) if self.sized else math.inf

    @property
    def small(self) -> bool:
        """Whether it may determine sizes: it is small enough to be computed at almost no cost."""
        return 8 * self.elements <= MOST_KEPT_BYTES


def is_fixed(dim: Any) -> bool:
    """Whether a dimension has a number; inference may give a 0."""
    return bool(dim.HasField("dim_value") and dim.dim_value >= 0)


def values(model: Any, folder: Path) -> dict[str, Value]:
    """Infer every value of the graph that its convolutions need, by name.

    Parameters
    ----------
    model : onnx.ModelProto
        The sizes of its inputs are already set; open dimensions have no number.
    folder : Path
        The folder of the tensors that are stored outside the file.
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
    """The values known so far, and the step that adds the outputs of one node."""

    def __init__(self, model: Any, known: dict[str, Value], folder: Path) -> None:
        import onnx

        self._known, self._folder = known, folder
        self._one = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
        self._one.graph.name = "one"
        self._opsets = {opset.domain: opset.version for opset in model.opset_import}

    def add(self, node: Any) -> None:
        """Infer the outputs of a node; its inputs must have been added before."""
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
        """The known types of the node's outputs, and ONNX's error message for the node, if any."""
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
        # For example, a window larger than its image. Such sizes must stop here: ONNX's Slice would abort the process.
        if any(dim.dim_value < 0 for kind in types.values() for dim in kind.tensor_type.shape.dim):
            return {}, "a size below 0"
        return types, ""

    def _reason(self, node: Any, inputs: list[Value], refusal: str) -> tuple[str, str]:
        """Why an output of this node has no size, and the input of the model that causes it, if any."""
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
            return f"have sizes that depend on {file}", ""
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
        """The node's outputs, if all its inputs are small constants and the outputs are small, too."""
        if not all(value.small for value in made.values()):
            return {}
        if is_onnx(node) and node.op_type in ("Shape", "Size") and self._known[names[0]].sized:
            return dict.fromkeys(made, _measured(node, self._known[names[0]]))
        data = {name: self._known[name].data for name in names if name in self._known}
        if any(value is None for value in data.values()) or any(subgraphs(node)) or node.op_type.startswith(RANDOM):
            return {}
        return self._evaluated(data, list(made))

    def _evaluated(self, data: dict[str, Any], outputs: list[str]) -> dict[str, np.ndarray[Any, Any]]:
        """The outputs of the node in `_one`; none if the evaluator fails."""
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
    """The result of the operator Shape or Size."""
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
    """A tensor of the file; one stored outside is read only if it may determine sizes."""
    from onnx import external_data_helper, numpy_helper

    value = Value(_tensor_type(tensor.data_type, tensor.dims))
    if not value.small or len(tensor.dims) >= KERNEL_RANK:
        return value
    source = f"the damaged tensor {plain(tensor.name)}"
    # The path may leave the folder, the data may be too short or of an unknown type: the errors have no common base.
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
    """The convolutions and the nodes that they depend on, in the order of the graph."""
    needed, names = [], set[str]()
    for node in reversed(graph.node):
        if is_conv(node) or not names.isdisjoint(node.output):
            needed.append(node)
            names.update(node.input, _outer_names(node))
    return needed[::-1]


def _outer_names(node: Any) -> list[str]:
    """Names that a node's subgraphs use but do not define."""
    return [name for graph in subgraphs(node) for name in _free(graph)]


def _free(graph: Any) -> list[str]:
    made = {value.name for value in (*graph.input, *graph.initializer)}
    free = []
    for node in graph.node:
        free += [name for name in (*node.input, *_outer_names(node)) if name and name not in made]
        made.update(node.output)
    return [*free, *(value.name for value in graph.output if value.name not in made)]


def unmade(name: str) -> Value:
    """A placeholder for a value that is not an input, a constant or an output of an earlier node."""
    return Value(
        lacking=f"have an input {plain(name)} that no node of the model makes" if name else "have no input or no weight"
    )
