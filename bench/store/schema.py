"""JSON of any origin -> values of the expected type, or a one-line ValueError with the name of the field.

msgspec does the checks. Records and cases are declared in `bench.store.records`, configurations in
`bench.store.folder`; this module has their number types, the environment and the error texts.
Limits: msgspec checks what it decodes or converts. It does not check what Python code passes to a constructor.
"""

from __future__ import annotations

from typing import Annotated, Any, TypedDict, TypeVar

import msgspec
from msgspec import Meta

T = TypeVar("T")
# No real time is outside this range; within it, rates such as FLOP/s stay finite.
Seconds = Annotated[float, Meta(ge=1e-12, le=1e6)]
Amount = Annotated[float, Meta(ge=0, le=2**63 - 1)]
Positive = Annotated[float, Meta(gt=0, le=2**63 - 1)]
Share = Annotated[float, Meta(ge=0, le=1)]
Whole = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Count = Annotated[int, Meta(ge=1, le=10**15)]
# A number of threads as key of a JSON object.
ThreadCount = Annotated[str, Meta(pattern=r"^[1-9][0-9]{0,5}$")]
# Longest error and longest name within one; names come from files of any origin.
ERROR_LENGTH, NAME_LENGTH = 160, 1000


class Environment(TypedDict, total=False):
    """The keys of environment.json that readers use; other keys are allowed."""

    id: str
    packages: dict[str, str | None]
    caches: dict[str, str]
    machine: dict[str, Any]
    known_peaks: dict[ThreadCount, dict[str, Amount]] | None
    warnings: list[str] | None


class Threads(TypedDict):
    """The measurements with one number of threads."""

    threads: Positive
    fma_float32_gflops: Positive
    fma_float64_gflops: Positive
    launch_us: Positive


class Level(TypedDict):
    """The measurements of one cache level, or of memory."""

    level: str
    threads: Positive
    working_set_bytes: Positive
    read_gb_per_s: Positive


class Machine(TypedDict):
    """The measurements of the machine: complete, or an empty object in the environment."""

    by_threads: Annotated[list[Threads], Meta(min_length=1)]
    by_level: Annotated[list[Level], Meta(min_length=1)]
    timer_ns: Positive
    timer_call_ns: Positive
    took_s: Positive


def check_environment(values: dict[str, Any]) -> None:
    """Raise ValueError if an environment is not an `Environment`, or its machine is not a `Machine`."""
    fitted(values, Environment)
    if values.get("machine"):
        fitted(values["machine"], Machine, "machine")


def decoded(text: bytes, kind: type[T]) -> T:
    """The value of a JSON text, as this type.

    Raises
    ------
    ValueError
        If it is not JSON (NaN, numbers beyond 64 bits and lone surrogates are not), or not of this type.
    """
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(_worded(error)) from None


def fitted(values: Any, kind: type[T], where: str = "") -> T:
    """Plain values as this type; ``where`` is the name of the object that contains them.

    Raises
    ------
    ValueError
        If they are not of this type.
    """
    try:
        return msgspec.convert(values, kind)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(_worded(error, where)) from None


def printable(text: str) -> str:
    """The same text; a lone surrogate, which cannot be printed or stored, becomes "?"."""
    return text.encode(errors="replace").decode()


def is_name(text: object) -> bool:
    """Whether it is a text that fits a line: printable, not empty, shorter than `NAME_LENGTH`."""
    return isinstance(text, str) and text.isprintable() and 0 < len(text) < NAME_LENGTH


def short(text: str) -> str:
    """A text of any origin as a short printable one."""
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    return text if len(text) <= ERROR_LENGTH else text[: ERROR_LENGTH - 3] + "..."


def _worded(error: Exception, where: str = "") -> str:
    """``Expected `int` - at `$.case.threads` `` -> ``case.threads: expected `int` ``."""
    if isinstance(error, RecursionError):
        return "nested too deeply"
    # For a key the message has "at `key` in `$.packages`".
    what, _, path = str(error).replace(" - at `key` in `$", " - at `$").partition(" - at `$")
    where = (where + path.strip("`")).strip(".")
    return short(f"{where}: {what[:1].lower()}{what[1:]}" if where else what)
