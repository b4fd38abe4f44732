"""Inputs in a library's own tensors: two are independent of each other, and each takes new images outside the clock.

The checks run in a process of their own for each library, since a library may change its whole process.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
from harness import apart

from bench.peers import GRADIENTS, OWN, PEERS, context, load, missing
from bench.run.directions import as_forward, every
from conv_impls import Conv2dProblem, get_backend
from conv_impls.reference import reference
from conv_impls.registry import Binding, Bound
from conv_impls.validation import Array

# A first layer, a layer for Winograd, a depthwise one; `_eager` and gradients have strides of their own.
LABELS = "mb2ic3ih16oc8kh7sh2ph3", "mb1ic16ih14oc16kh3ph1", "g8mb1ic8ih9oc8kh3ph1sh2"
Bind = Callable[[Array], Binding]
Right = Callable[[Array, Array], bool]
# What a backend needs -> those that are installed. One process serves a library, whose import takes seconds.
LIBRARIES: dict[str, list[str]] = {}
for name, entry in (PEERS | OWN).items():
    if missing(name) is None and name != "auto_strict":
        LIBRARIES.setdefault(" ".join(entry.needs) or "our own", []).append(name)


def faults(bind: Bind, images: list[Array], right: Right) -> list[str]:
    """Which rules of ``Prepared.bind`` are broken; ``right(y, x)`` judges an output."""
    first, second, third = (image.copy() for image in images)
    one, two = Bound(*bind(first)), Bound(*bind(second))
    found: list[str] = []

    def look(bound: Bound, x: Array, when: str) -> None:
        if not right(np.array(bound.read(bound.call())), x):
            found.append(when)

    for _ in range(2):
        look(one, images[0], "the first, in turns with the second")
        look(two, images[1], "the second, in turns with the first")
    if one.rebind is None:
        return [*found, "no rebind"]
    one.rebind(third)
    look(two, images[1], "the second, after the first took a new image")
    look(one, images[2], "the first, after it took a new image")
    third *= 2
    one.rebind(third)
    look(one, 2 * images[2], "the first, after its image was scaled in place")
    look(two, images[1], "the second, after the first took a new image twice")
    if not (np.array_equal(first, images[0]) and np.array_equal(second, images[1])):
        found.append("it wrote into an image of the caller's")
    return found


def faults_of(name: str, label: str, direction: str, dtype: str) -> list[str]:
    """`faults` of one backend on one problem; meant for a process of its own."""
    load(name)
    given = Conv2dProblem.from_label(label).replace(dtype=dtype)
    problem, (sh, sw) = as_forward(given, direction), every(given, direction)
    if get_backend(name).supports(given) is not None:
        return ["unsupported"]
    rng = np.random.default_rng(0)
    images = [np.zeros(problem.input_shape, dtype) for _ in range(3)]
    for image in images:
        image[:, :, ::sh, ::sw] = rng.standard_normal(image[:, :, ::sh, ::sw].shape)
    weight = rng.standard_normal(problem.weight_shape).astype(dtype)

    def right(y: Array, x: Array) -> bool:
        expected = reference(x, weight, None, problem)
        return bool(np.abs(y - expected).max() <= 1e-4 * np.abs(expected).max())

    found: list[str] = []
    # As the worker measures it, and as anybody calls it.
    for around in (context(name), nullcontext()):
        with around:
            if direction == "fwd":
                made = get_backend(name).prepare(problem, weight, None, 2)
            else:
                made = GRADIENTS[name, direction](given, weight, 2)
            assert made.bind is not None
            found += faults(made.bind, images, right)
    return found


@pytest.mark.parametrize("library", LIBRARIES)
def test_two_inputs_are_independent_and_take_new_images(library: str) -> None:
    strided = "mb2ic3ih11iw10oc4kh3kw5sh2sw3ph1pw2"
    names = LIBRARIES[library]
    forward = [(name, label, "fwd", "float32") for name in names for label in LABELS]
    double = [(name, LABELS[0], "fwd", "float64") for name in names]
    gradients = [
        (name, label, direction, dtype)
        for name, direction in GRADIENTS
        for label in (LABELS[1], strided)
        for dtype in ("float32", "float64")
        if name in names
    ]
    asked = forward + double + gradients
    found = dict(zip(asked, apart(faults_of, asked), strict=True))
    assert all(found[case] in ([], ["unsupported"]) for case in double), found
    assert not any(found[case] for case in forward + gradients), found


def modes_left(name: str) -> list[object]:
    """What a peer of torch leaves behind after it prepared and was called: inference mode, and no gradients."""
    import torch

    assert faults_of(name, LABELS[1], "fwd", "float32") == []
    return [torch.is_inference_mode_enabled(), not torch.is_grad_enabled()]


@pytest.mark.parametrize("names", [LIBRARIES[library] for library in LIBRARIES if library == "torch"])
def test_no_mode_of_torch_outlasts_its_context(names: list[str]) -> None:
    assert apart(modes_left, [(name,) for name in names]) == [[False, False]] * len(names)


def own(x: Array) -> Bound:
    tensor = x.copy()
    return Bound(tensor.copy, lambda y: y, lambda new: np.copyto(tensor, new))


SHARED: Any = np.zeros(3)


def shared(x: Array) -> Bound:
    np.copyto(SHARED, x)
    return own(x)._replace(call=SHARED.copy, rebind=lambda new: np.copyto(SHARED, new))


WRONG: dict[str, tuple[Bind, str]] = {
    "one tensor for both": (shared, "the first, in turns with the second"),
    "a plain tuple": (lambda x: own(x)[:2], "no rebind"),
    "a rebind that does nothing": (
        lambda x: own(x)._replace(rebind=lambda new: None), "the first, after it took a new image",
    ),
    "a rebind that writes into the caller's image": (
        lambda x: Bound(x.copy, lambda y: y, lambda new: np.copyto(x, new)), "it wrote into an image of the caller's",
    ),
}  # fmt: skip


def test_a_right_binding_has_no_faults() -> None:
    images = [np.array([1.0, 2.0, 3.0]) * k for k in (1, 3, 5)]
    assert faults(own, images, np.array_equal) == []


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_binding_is_found(kind: str) -> None:
    bind, expected = WRONG[kind]
    images = [np.array([1.0, 2.0, 3.0]) * k for k in (1, 3, 5)]
    assert expected in faults(bind, images, np.array_equal)
