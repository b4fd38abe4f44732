"""Convolutions drawn at random, each by every fast backend that takes it: sizes, steps, layouts of memory, threads.

Integers, so that a wrong product shows (`harness.assert_right`). A failure names its label and the number of its draw;
``--seed`` is the seed of all draws.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from effort import Effort
from harness import NUMBA, assert_right, integers

from conv_impls import Conv2dProblem, conv2d, get_backend, plan, registry
from conv_impls.errors import ProblemError
from conv_impls.reference import reference
from conv_impls.validation import PADDING_MODES, Array

BACKENDS = [*NUMBA, "scipy_fft", "auto"]
ARGUMENTS = "stride", "padding", "dilation", "groups", "padding_mode"


def draw(rng: np.random.Generator) -> Conv2dProblem:
    """A small problem. Half are 3x3 or 1x1, a third depthwise; sizes lie around those of vectors and tiles."""
    chances: Any = [0.2, 0.1, 0.4, 0.1, 0.1, 0.05, 0.05], [0.6, 0.3, 0.1], [0.8, 0.1, 0.1]
    while True:
        kernel, stride, dilation = (
            tuple(rng.choice(values, 2, p=chance).tolist())
            for values, chance in zip(([1, 2, 3, 4, 5, 7, 9], [1, 2, 3], [1, 2, 3]), chances, strict=True)
        )
        kernel = kernel[:1] * 2 if rng.random() < 0.7 else kernel
        height, width = rng.integers(1, 34, 2).tolist()
        rows, columns = rng.integers(0, 5, (2, 2)).tolist()
        groups, multiplier = (int(n) for n in rng.integers(1, 5, 2))
        depthwise = rng.random() < 1 / 3
        inputs = int(rng.integers(1, 40)) if depthwise else groups * int(rng.integers(1, 12))
        outputs = inputs * (multiplier if rng.random() < 0.3 else 1) if depthwise else groups * int(rng.integers(1, 40))
        mode = str(rng.choice(PADDING_MODES)) if rng.random() < 0.3 else "zeros"
        try:
            return Conv2dProblem(
                int(rng.integers(1, 4)), inputs, (height, width), outputs, kernel, stride, (rows, columns), dilation,
                inputs if depthwise else groups, mode, str(rng.choice(["float32", "float64"])),
            )  # fmt: skip
        except ProblemError:
            # The kernel is larger than the image, or the padding than what it shows.
            continue


def laid(rng: np.random.Generator, array: Array) -> Array:
    """The same values in another layout: transposed, every second of a larger array, or backwards."""
    way = rng.integers(4)
    if way == 0:
        return array
    if way == 1:
        return np.asfortranarray(array)
    if way == 2:
        wide = np.full((*array.shape[:-1], 2 * array.shape[-1]), np.nan, array.dtype)
        wide[..., ::2] = array
        return wide[..., ::2]
    return array[..., ::-1].copy()[..., ::-1]


def calls(
    rng: np.random.Generator, name: str, problem: Conv2dProblem, *operands: Any
) -> Iterator[tuple[int, Array, str]]:
    """Multiples of x, what eager calls and calls of a plan make of them, and the accuracy of what computed it."""
    x, weight, bias, activation = operands
    arguments = {argument: getattr(problem, argument) for argument in ARGUMENTS}
    # Most calls have one thread: where another program runs, two wait for each other.
    common: Any = {"backend": name, "threads": int(rng.choice([1, 1, 1, 2, 3])), "activation": activation}
    ready = plan(problem, weight, bias, **common)
    for scale in (1, -1, 2):
        image = scale * x
        y = conv2d(laid(rng, image), laid(rng, weight), bias, **common, **arguments)
        yield scale, y, get_backend(name).accuracy
        for out in (None, np.full(problem.output_shape, np.nan, problem.dtype)):
            yield scale, ready(laid(rng, image), out), get_backend(ready.backend).accuracy


def fuzz(count: int, seed: int) -> Counter[str]:
    """At least so many calls; how many each backend had."""
    rng, done, number = np.random.default_rng(seed), Counter[str](), 0
    while done.total() < count:
        problem, number = draw(rng), number + 1
        x, weight, some = integers(problem, seed + number)
        relu, bias = rng.random() < 0.3, some if rng.random() < 0.5 else None
        # Of x itself; that of a multiple is a multiple, and the bias is added once.
        products = reference(x, weight, None, problem)
        for name in BACKENDS:
            if get_backend(name).supports(problem) is not None:
                continue
            for scale, y, accuracy in calls(rng, name, problem, x, weight, bias, "relu" if relu else None):
                expected = scale * products + (0 if bias is None else bias[:, None, None])
                try:
                    assert_right(y, scale * x, weight, bias, problem, accuracy, relu, expected)
                except AssertionError as error:
                    raise AssertionError(f"{name}, draw {number}, {problem.label}: {error}") from error
                done[name] += 1
    return done


def test_drawn_convolutions_are_right(effort: Effort) -> None:
    assert set(fuzz(effort.calls, effort.seed)) == set(BACKENDS)


def test_one_wrong_output_is_found(registered: dict[str, registry.Backend]) -> None:
    right = registered["numba_direct"]

    def wrong(*arguments: Any) -> Any:
        made = right.prepare(*arguments)

        def call(x: Array, out: Array) -> None:
            made.call(x, out)
            out.flat[-1] += 1

        return call

    registered["numba_direct"] = replace(right, function=wrong, fuses_relu=False)
    with pytest.raises(AssertionError, match="numba_direct, draw 1, "):
        fuzz(20, 0)
