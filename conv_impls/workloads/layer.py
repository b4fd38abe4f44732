"""What every workload becomes: a list of `Layer`; what is wrong with one is a `WorkloadError`, one line of text."""

from __future__ import annotations

from dataclasses import dataclass

from conv_impls.problem import Conv2dProblem


class WorkloadError(ValueError):
    """A workload that cannot be found or read."""


@dataclass(frozen=True)
class Layer:
    """One layer of a workload and how often the network has it."""

    workload: str
    name: str
    count: int
    problem: Conv2dProblem
