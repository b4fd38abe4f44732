"""Reference of the record format, computed from the types and docstrings of `bench.store`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_type_hints

import msgspec
from numpydoc.docscrape import NumpyDocString

# The last word of a field's name is its unit.
UNITS = {
    "s": "seconds", "us": "microseconds", "ns": "nanoseconds", "bytes": "bytes", "gflops": "GFLOP/s",
    "flops": "operations",
}  # fmt: skip
# Fields without a unit in their name.
OTHER_UNITS = {
    "gflops_effective": "GFLOP/s", "read_gb_per_s": "GB/s", "stalled_share": "fraction", "error": "fraction",
    "error_over_bound": "fraction of the bound", "seconds": "seconds",
}  # fmt: skip
# JSON types in plain words.
WORDS = {
    "string": "text", "integer": "whole number", "number": "number", "boolean": "true or false", "null": "null",
}  # fmt: skip


@dataclass(frozen=True)
class Field:
    """One field of a JSON object."""

    name: str
    kind: str
    unit: str
    text: str


def fields(kind: type[msgspec.Struct]) -> list[Field]:
    """The fields of a `Case` or `Record`, in order.

    Raises
    ------
    LookupError
        If the docstring of the type does not describe a field, or describes one that does not exist.
    """
    described = _described(kind)
    names = [field.name for field in msgspec.structs.fields(kind)]
    if set(described) != set(names):
        different = ", ".join(sorted(set(described) ^ set(names)))
        raise LookupError(
            f"{kind.__name__}: expected every field under Attributes of its docstring, these differ: {different}"
        )
    hints = get_type_hints(kind)
    return [Field(name, json_type(hints[name]), unit(name), described[name]) for name in names]


def markdown(kind: type[msgspec.Struct]) -> Iterator[str]:
    """Lines of Markdown: a definition list of the fields."""
    for field in fields(kind):
        measure = f" ({field.unit})" if field.unit else ""
        yield from (f"`{field.name}`: {field.kind}{measure}", f": {field.text}", "")


def keys(kind: type) -> Iterator[str]:
    """Lines of Markdown: a table of the keys of a JSON object without docstrings."""
    yield from ("| key | type | unit |", "|---|---|---|")
    for name, hint in get_type_hints(kind).items():
        yield f"| `{name}` | {json_type(hint)} | {unit(name)} |"


def unit(name: str) -> str:
    """The unit of a field; empty for texts, counts and ratios without one.

    Examples
    --------
    >>> unit("median_s"), unit("packed_bytes"), unit("gflops_effective"), unit("backend")
    ('seconds', 'bytes', 'GFLOP/s', '')
    """
    return OTHER_UNITS.get(name) or UNITS.get(name.rpartition("_")[2], "") * ("_" in name)


def json_type(hint: Any) -> str:
    """The JSON type of a field, in words.

    Examples
    --------
    >>> json_type(list[float]), json_type(int | None), json_type(str)
    ('list of numbers', 'whole number or null', 'text')
    """
    return _words(msgspec.json.schema(hint))


def _words(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(_words(part) for part in schema["anyOf"])
    if "$ref" in schema or schema.get("type") == "object":
        return "object"
    if not schema:
        return "any"
    if "enum" in schema:
        return "one of " + ", ".join(f"`{word}`" if word else "empty" for word in schema["enum"])
    if schema["type"] == "array":
        return f"list of {_words(schema['items'])}s"
    return WORDS[schema["type"]]


def _described(kind: type) -> dict[str, str]:
    """Text of each attribute of a numpydoc docstring."""
    entries = NumpyDocString(kind.__doc__ or "")["Attributes"]
    # An entry without a type has its name in the place of the type.
    return {entry.name or entry.type: " ".join(entry.desc).replace("``", "`") for entry in entries}
