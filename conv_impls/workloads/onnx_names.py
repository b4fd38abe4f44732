"""Helpers for ONNX files: names as safe text for a table, a label and a terminal, and the nodes inside nodes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

# Maximum length: longer names and messages would fill a terminal.
MOST_LETTERS = 100


def plain(name: str) -> str:
    """A name of the file, safe for tables, labels and command lines: no quotes, commas or control characters, short."""
    return re.sub(r"[^\w.:/()+*=-]+", " ", name).strip()[:MOST_LETTERS]


def line(error: Exception) -> str:
    """The text of an error, in one printable line."""
    text = " ".join(str(error).split())
    return "".join(letter for letter in text if letter.isprintable())[: 3 * MOST_LETTERS]


def name_of(node: Any) -> str:
    """The display name of a node: its name, or else the name of its first output."""
    return plain(node.name or "".join(node.output[:1])) or plain(node.op_type) or "a node"


def is_onnx(node: Any) -> bool:
    """Whether its operator is one of ONNX's own."""
    return node.domain in ("", "ai.onnx")


def kind(node: Any) -> str:
    """The operator, with its domain if that is not ONNX's own."""
    return plain(node.op_type if is_onnx(node) else f"{node.domain}.{node.op_type}")


def is_conv(node: Any) -> bool:
    """Whether the operator's name is that of a convolution: ConvTranspose and conv2d are, Convert is not."""
    return re.search("[Cc]onv(olution)?(?![a-z])", node.op_type) is not None


def subgraphs(node: Any) -> Iterator[Any]:
    """The graphs in a node's attributes: branches and loop bodies."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def function_of(node: Any) -> tuple[str, str]:
    """Domain and name of the function that a node calls, if the model defines it."""
    return node.domain, node.op_type


def inside(node: Any, functions: Mapping[tuple[str, str], Any] = MappingProxyType({})) -> Iterator[Any]:
    """Every node in the subgraphs of a node and in the given functions that it calls, at any depth."""
    bodies = [graph.node for graph in subgraphs(node)]
    if function := functions.get(function_of(node)):
        bodies.append(function.node)
    for body in bodies:
        for inner in body:
            yield inner
            yield from inside(inner, functions)
