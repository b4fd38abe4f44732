"""Names and nodes of an ONNX file: as texts fit for a table, a label and a terminal, and the nodes inside nodes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

# Longer names and messages fill a terminal.
MOST_LETTERS = 100


def plain(name: str) -> str:
    """A name of the file, fit for tables, labels and command lines: no quotes, commas or controls, not too long."""
    return re.sub(r"[^\w.:/()+*=-]+", " ", name).strip()[:MOST_LETTERS]


def line(error: Exception) -> str:
    """What an error says, in one printable line."""
    text = " ".join(str(error).split())
    return "".join(letter for letter in text if letter.isprintable())[: 3 * MOST_LETTERS]


def name_of(node: Any) -> str:
    """What to call a node: its name, else its first output's."""
    return plain(node.name or "".join(node.output[:1])) or plain(node.op_type) or "a node"


def is_onnx(node: Any) -> bool:
    """Whether its operator is one of ONNX's own."""
    return node.domain in ("", "ai.onnx")


def kind(node: Any) -> str:
    """The operator, with its domain where that is not ONNX's own."""
    return plain(node.op_type if is_onnx(node) else f"{node.domain}.{node.op_type}")


def is_conv(node: Any) -> bool:
    """Whether its operator is a convolution by its name: ConvTranspose and conv2d are, Convert is none."""
    return re.search("[Cc]onv(olution)?(?![a-z])", node.op_type) is not None


def subgraphs(node: Any) -> Iterator[Any]:
    """The graphs in its attributes: branches, bodies."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def function_of(node: Any) -> tuple[str, str]:
    """Domain and name of the function of the model that a node calls, if there is one of them."""
    return node.domain, node.op_type


def inside(node: Any, functions: Mapping[tuple[str, str], Any] = MappingProxyType({})) -> Iterator[Any]:
    """Every node in the subgraphs of this one, and in these functions where it calls them, at any depth."""
    bodies = [graph.node for graph in subgraphs(node)]
    if function := functions.get(function_of(node)):
        bodies.append(function.node)
    for body in bodies:
        for inner in body:
            yield inner
            yield from inside(inner, functions)
