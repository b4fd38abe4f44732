"""The form of every workload: a `Workload` of `Layer`s. Errors are `WorkloadError`, with one line of text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from conv_impls.problem import Conv2dProblem


class WorkloadError(ValueError):
    """A workload that cannot be found or read."""


@dataclass(frozen=True)
class Layer:
    """One layer of a workload, with the number of times it occurs in the network."""

    workload: str
    name: str
    count: int
    problem: Conv2dProblem


@dataclass(frozen=True)
class Workload:
    """The layers of one name, file or label, and the number of skipped convolutions by reason.

    A reason is a predicate that follows a number: "have sizes known only at run time", "are inside If".
    """

    name: str
    layers: list[Layer]
    left_out: Mapping[str, int] = field(default_factory=dict)
    is_model: bool = False

    @property
    def coverage(self) -> str:
        """How many of its convolutions are layers, and why the others are skipped."""
        return coverage(sum(layer.count for layer in self.layers), self.left_out)


def coverage(taken: int, left_out: Mapping[str, int]) -> str:
    """How many convolutions of a model are layers of its workload, and why the others are skipped.

    Examples
    --------
    >>> coverage(35, {"have sizes known only at run time": 3})
    '35 of 38 convolutions; 3 have sizes known only at run time'
    >>> coverage(9, {"are 1-D": 1, "are inside If": 2})
    '9 of 12 convolutions; 1 is 1-D, 2 are inside If'
    """
    reasons = ", ".join(f"{count} {_verb(reason, count)}" for reason, count in left_out.items())
    return f"{taken} of {taken + sum(left_out.values())} convolutions" + (f"; {reasons}" if reasons else "")


def _verb(reason: str, count: int) -> str:
    verb, space, rest = reason.partition(" ")
    return {"are": "is", "have": "has"}.get(verb, verb) + space + rest if count == 1 else reason
