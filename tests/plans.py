"""What the tests of plans as values share: plans, their arrays, and in what two plans differ."""

from __future__ import annotations

from typing import Any

import numpy as np

from conv_impls import Conv2dProblem, Plan, get_backend, plan
from conv_impls.validation import Array

P = Conv2dProblem(2, 8, (9, 10), 8, (3, 3), padding=((1, 1), (0, 2)))


def arrays(problem: Conv2dProblem, seed: int = 0) -> tuple[Array, Array, Array]:
    rng = np.random.default_rng(seed)
    shapes = problem.input_shape, problem.weight_shape, (problem.out_channels,)
    x, weight, bias = (rng.standard_normal(shape).astype(problem.dtype) for shape in shapes)
    return x, weight, bias


def taken(backend: str, problem: Conv2dProblem) -> Conv2dProblem:
    """The problem, a depthwise one like it or one with a kernel of 5x5: the first that this backend takes."""
    each = problem, problem.replace(groups=problem.in_channels), problem.replace(kernel_size=(5, 5))
    return next(one for one in each if get_backend(backend).supports(one) is None)


def planned_with(backend: str = "auto", problem: Conv2dProblem = P, **how: Any) -> Plan:
    """A plan of this backend, for a problem that it takes."""
    fitting = taken(backend, problem)
    _, weight, bias = arrays(fitting)
    return plan(fitting, weight, bias, backend=backend, **how)


def differences(found: Plan, expected: Plan) -> set[str]:
    """In what one plan is not the other."""
    compared = "problem", "backend", "threads", "packed_bytes", "workspace_bytes"
    x = arrays(expected.problem, 1)[0]
    unlike = {name for name in compared if getattr(found, name) != getattr(expected, name)}
    unlike |= {"name"} if found.problem.name != expected.problem.name else set()
    unlike |= {"value"} if found != expected or hash(found) != hash(expected) else set()
    return unlike | ({"bits"} if found(x).tobytes() != expected(x).tobytes() else set())


def assert_same(found: list[Array], expected: list[Array]) -> None:
    for y, right in zip(found, expected, strict=True):
        np.testing.assert_array_equal(y, right)
