"""Values of JSON, whoever wrote them -> what the run store may trust, or a ValueError that says what does not fit.

`fitted` makes a dataclass of values that are what its fields say; `check_config` and `check_environment` look at what
every reader of a run relies on, and leave the rest to those who need it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from typing import Any, TypeVar

T = TypeVar("T")
# Of a configuration and of an environment: kinds of what is there; all but the cases may be missing.
CONFIG = {
    "cases": list, "options": dict, "command": str, "timeout_s": float, "budget_s": float, "seconds": float,
    "seed": int, "variables": dict, "fresh_cache": bool, "rotate_bytes": int,
}  # fmt: skip
ENVIRONMENT = {"id": str, "packages": dict, "caches": dict, "machine": dict}
# Numbers in each row of what was measured of the machine.
ROWS = {
    "by_threads": ("threads", "fma_float32_gflops", "fma_float64_gflops", "launch_us"),
    "by_level": ("threads", "working_set_bytes", "read_gb_per_s"),
}
TIMER = ("timer_ns", "timer_call_ns", "took_s")


def parsed(text: str) -> dict[str, Any]:
    """An object of JSON."""
    try:
        values = json.loads(text, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(values, dict):
        raise ValueError("expected a JSON object")
    return values


def fitted(kind: type[T], values: Any) -> T:
    """A dataclass of texts and numbers, made of values that are what its fields say."""
    if not isinstance(values, dict):
        raise ValueError(f"expected the fields of a {kind.__name__}, got {str(values)[:40]!r}")
    for name, value in values.items():
        known = getattr(kind, "__dataclass_fields__", {}).get(name)
        if known is None or not FITS[known.type](value):
            expected = known.type if known else f"no such field in a {kind.__name__}"
            raise ValueError(f"{name[:40]}: expected {expected}, got {str(value)[:40]!r}")
    try:
        return kind(**values)
    except TypeError as error:
        raise ValueError(str(error)) from None


def printable(values: dict[str, Any]) -> dict[str, Any]:
    """The same values; a lone surrogate in a text, which could be neither printed nor stored, becomes "?"."""
    return {name: v.encode(errors="replace").decode() if isinstance(v, str) else v for name, v in values.items()}


def check_config(values: dict[str, Any]) -> None:
    """Raise ValueError where a configuration is not what readers of a run rely on."""
    _kinds(values, CONFIG)
    if "cases" not in values:
        raise ValueError("cases: expected a list, got none")
    for name, value in values.get("options", {}).items():
        if type(value) not in (str, int, float):
            raise ValueError(f"options {name[:40]}: expected a text or a number, got {str(value)[:40]!r}")


def check_environment(values: dict[str, Any]) -> None:
    """Raise ValueError where an environment is not what readers of a run rely on."""
    _kinds(values, ENVIRONMENT)
    measured = values.get("machine")
    if not measured:
        return
    for part, names in ROWS.items():
        rows = measured.get(part)
        fit = isinstance(rows, list) and rows and all(isinstance(row, dict) and _above_0(row, names) for row in rows)
        if not fit or (part == "by_level" and not all(isinstance(row.get("level"), str) for row in rows)):
            raise ValueError(f"machine {part}: expected rows with {', '.join(names)}, got {str(rows)[:40]!r}")
    if not _above_0(measured, TIMER):
        raise ValueError(f"machine: expected numbers above 0 for {', '.join(TIMER)}")


def _kinds(values: dict[str, Any], known: Mapping[str, type]) -> None:
    for name, kind in known.items():
        if name in values and not (type(values[name]) is kind or (kind is float and _number(values[name], int))):
            raise ValueError(f"{name}: expected {kind.__name__}, got {str(values[name])[:40]!r}")


def _above_0(row: dict[str, Any], names: tuple[str, ...]) -> bool:
    return all(_number(row.get(name), int, float) and row[name] > 0 for name in names)


def _number(value: Any, *types: type) -> bool:
    # Beyond 64 bits nothing here can be, and an int could not become a float.
    return type(value) in types and bool(abs(value) < 2**63)


def _refuse(word: str) -> None:
    raise ValueError(f"{word} is no JSON number")


# Whether a value is what the annotation of a field says.
FITS: dict[Any, Callable[[Any], bool]] = {
    "Case": is_dataclass,
    # A lone surrogate could not be printed.
    "str": lambda value: isinstance(value, str) and value == value.encode(errors="ignore").decode(),
    "int": lambda value: _number(value, int),
    "int | None": lambda value: value is None or _number(value, int),
    "float | None": lambda value: value is None or _number(value, int, float),
    "list[int]": lambda value: isinstance(value, list) and all(_number(v, int) for v in value),
    "list[float]": lambda value: isinstance(value, list) and all(_number(v, int, float) for v in value),
}
