"""An ONNX file -> a model whose inputs alone say how large its values are: functions inlined, declared sizes gone.

Inlining is ONNX's own (https://onnx.ai/onnx/api/inliner.html).
Limits: functions that would unfold to more than `MOST_NODES` nodes are refused before that; those of a later opset than
the model's stay functions.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from conv_impls.workloads.layer import WorkloadError
from conv_impls.workloads.onnx_names import function_of, inside, plain, subgraphs

# Sizes and indices are small; longer tensors are weights, and copying gigabytes of them takes seconds.
MOST_KEPT_BYTES = 2**16
# What functions may add to a model: the largest have tens of thousands of nodes. ONNX has the same limit of calls.
MOST_NODES, MOST_CALLS = 100_000, 100
# A node with a large constant counts as several.
NODE_BYTES = 1000
# The oldest format in which weights are no inputs.
IR_VERSION = 4


def loaded(path: Path) -> Any:
    """The onnx.ModelProto, without large weights.

    Raises
    ------
    WorkloadError
        If its functions unfold without end, or nearly so.
    """
    import onnx

    model = onnx.load(path, load_external_data=False)
    if not model.HasField("graph"):
        raise ValueError("it has no graph")
    graphs = [model.graph, *(inner for node in _all_nodes(model) for inner in subgraphs(node))]
    tensors = [tensor for graph in graphs for tensor in graph.initializer]
    tensors += [attribute.t for node in _all_nodes(model) for attribute in node.attribute if attribute.HasField("t")]
    for tensor in tensors:
        if len(tensor.raw_data) > MOST_KEPT_BYTES:
            tensor.ClearField("raw_data")
    model.ir_version = max(model.ir_version, IR_VERSION)
    _complete_opsets(model)
    if model.functions:
        model = _inlined(model)
    weights = {tensor.name for tensor in model.graph.initializer}
    weights |= {tensor.values.name for tensor in model.graph.sparse_initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    for value in inputs:
        if not value.type.WhichOneof("value"):
            value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    for node in _all_nodes(model):
        for graph in subgraphs(node):
            _forget_sizes(graph)
    return model


def _all_nodes(model: Any) -> list[Any]:
    tops = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    return [inner for node in tops for inner in (node, *inside(node))]


def _complete_opsets(model: Any) -> None:
    """ONNX infers nothing at all where one domain has no opset; without a number it is 1."""
    declared = {opset.domain for opset in model.opset_import}
    used = {"", *(node.domain for node in _all_nodes(model))}
    for domain in sorted(used - declared - ({"ai.onnx"} if "" in declared else set())):
        model.opset_import.add(domain=domain, version=1)


def _inlined(model: Any) -> Any:
    from onnx import inliner

    functions = {(function.domain, function.name): function for function in model.functions}
    unfolded: dict[tuple[str, str], int] = {}

    def added(node: Any, callers: tuple[tuple[str, str], ...] = ()) -> int:
        """How many nodes the functions that a node and its subgraphs call become, as far as that matters."""
        total = 0
        for called in (node, *inside(node)):
            key = function_of(called)
            if key not in functions:
                continue
            if key in callers or len(callers) == MOST_CALLS:
                why = "calls itself" if key in callers else f"is more than {MOST_CALLS} calls deep"
                raise WorkloadError(f"its function {plain('.'.join(key))} {why}, so it cannot be unfolded")
            if key not in unfolded:
                body = functions[key].node
                own = sum(1 + inner.ByteSize() // NODE_BYTES for inner in body)
                unfolded[key] = own + sum(added(inner, (*callers, key)) for inner in body)
            total += unfolded[key]
        return min(total, MOST_NODES + 1)

    if sum(map(added, model.graph.node)) > MOST_NODES:
        raise WorkloadError(
            f"its functions unfold to more than {MOST_NODES} nodes, which are not followed; export it without functions"
        )
    # Functions of another opset are converted to the model's where ONNX can; it raises what it likes where it cannot.
    try:
        return inliner.inline_local_functions(model, convert_version=True)
    except Exception:
        return inliner.inline_local_functions(model)


def _forget_sizes(graph: Any) -> None:
    """What the file says of a subgraph's values; whose inputs alone say it are those of the model."""
    del graph.value_info[:]
    for value in (*graph.input, *graph.output):
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.ClearField("shape")
