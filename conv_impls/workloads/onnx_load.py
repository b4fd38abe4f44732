"""Load an ONNX file so that all sizes follow from its inputs: inline functions, remove declared sizes.

Inlining uses ONNX's own inliner (https://onnx.ai/onnx/api/inliner.html).
Limits: functions that would expand to more than `MOST_NODES` nodes are refused before inlining. Functions of a later
opset than the model's are not inlined.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from conv_impls.workloads.layer import WorkloadError
from conv_impls.workloads.onnx_names import function_of, inside, plain, subgraphs

# Sizes and indices are small; longer tensors are weights, and copying gigabytes of them takes seconds.
MOST_KEPT_BYTES = 2**16
# Limits for expanded functions: the largest models have tens of thousands of nodes. ONNX has the same call limit.
MOST_NODES, MOST_CALLS = 100_000, 100
# A node counts once more for each of these bytes: large constants weigh as several nodes.
NODE_BYTES = 1000
# The oldest format in which weights need not be inputs.
IR_VERSION = 4


def loaded(path: Path) -> Any:
    """The onnx.ModelProto, without large weights.

    Raises
    ------
    WorkloadError
        If its functions are recursive, or would expand to too many nodes.
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
    """Add missing opsets, as version 1: ONNX infers nothing at all if one domain has no opset."""
    declared = {opset.domain for opset in model.opset_import}
    used = {"", *(node.domain for node in _all_nodes(model))}
    for domain in sorted(used - declared - ({"ai.onnx"} if "" in declared else set())):
        model.opset_import.add(domain=domain, version=1)


def _inlined(model: Any) -> Any:
    from onnx import inliner

    functions = {(function.domain, function.name): function for function in model.functions}
    unfolded: dict[tuple[str, str], int] = {}

    def added(node: Any, callers: tuple[tuple[str, str], ...] = ()) -> int:
        """Nodes that inlining adds for the functions called by a node and its subgraphs, up to `MOST_NODES` + 1."""
        total = 0
        for called in (node, *inside(node)):
            key = function_of(called)
            if key not in functions:
                continue
            if key in callers or len(callers) == MOST_CALLS:
                why = "calls itself" if key in callers else f"is more than {MOST_CALLS} calls deep"
                raise WorkloadError(f"its function {plain('.'.join(key))} {why}, so it cannot be expanded")
            if key not in unfolded:
                body = functions[key].node
                own = sum(1 + inner.ByteSize() // NODE_BYTES for inner in body)
                unfolded[key] = own + sum(added(inner, (*callers, key)) for inner in body)
            total += unfolded[key]
        return min(total, MOST_NODES + 1)

    if sum(map(added, model.graph.node)) > MOST_NODES:
        raise WorkloadError(
            f"its functions expand to more than {MOST_NODES} nodes, the maximum; export it without functions"
        )
    # ONNX converts functions of another opset to the model's if it can; otherwise it raises errors of any type.
    try:
        return inliner.inline_local_functions(model, convert_version=True)
    except Exception:
        return inliner.inline_local_functions(model)


def _forget_sizes(graph: Any) -> None:
    """Remove the declared sizes in a subgraph: sizes must follow only from the inputs of the model."""
    del graph.value_info[:]
    for value in (*graph.input, *graph.output):
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.ClearField("shape")
