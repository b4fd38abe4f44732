"""Arguments in the order and in the forms of torch: by position, and sequences of one number."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from arguments import OUT, B, F, W, X

import conv_impls as ci

UP, DOWN = np.ones((4, 3, 3, 3), F), np.ones((6, 2, 3, 3), F)
# Positional arguments of torch.nn.functional.conv2d and conv_transpose2d, of torch.nn.grad.conv2d_input and _weight.
ORDER: dict[Callable[..., Any], tuple[str, ...]] = {
    ci.conv2d: ("x", "weight", "bias", "stride", "padding", "dilation", "groups"),
    ci.conv2d_input: ("input_size", "weight", "grad_output", "stride", "padding", "dilation", "groups"),
    ci.conv2d_weight: ("x", "weight_size", "grad_output", "stride", "padding", "dilation", "groups"),
    ci.conv_transpose2d: ("x", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation"),
}
# All values differ, so that two swapped arguments change the result or its shape.
VALUES: dict[Callable[..., Any], tuple[Any, ...]] = {
    ci.conv2d: (X, W, B, (2, 1), (3, 4), (1, 2), 2),
    ci.conv2d_input: (X.shape, W, np.ones((2, 6, 5, 10), F), (2, 1), (3, 4), (1, 2), 2),
    ci.conv2d_weight: (X, W.shape, np.ones((2, 6, 5, 10), F), (2, 1), (3, 4), (1, 2), 2),
    ci.conv_transpose2d: (X, DOWN[:4], B[:4], (3, 2), (2, 1), (1, 0), 2, (1, 3)),
}


@pytest.mark.parametrize("function", ORDER, ids=lambda function: function.__name__)
def test_arguments_by_position_are_in_the_order_of_torch(function: Callable[..., Any]) -> None:
    named = dict(zip(ORDER[function], VALUES[function], strict=True))
    np.testing.assert_array_equal(function(*VALUES[function]), function(**named))


@pytest.mark.parametrize("function", ORDER, ids=lambda function: function.__name__)
def test_all_other_arguments_need_their_names(function: Callable[..., Any]) -> None:
    parameters = inspect.signature(function).parameters.values()
    assert tuple(p.name for p in parameters if p.kind is not p.KEYWORD_ONLY) == ORDER[function]


def spread(name: str, number: int, form: Callable[[int], Any]) -> list[Any]:
    """The results of every function that takes this argument, with its value in this form."""
    value: dict[str, Any] = {name: form(number)}
    plain: dict[str, Any] = {name: number}
    calls: list[Callable[[], Any]] = [
        lambda: ci.conv2d(X, W, groups=2, **value),
        lambda: ci.Conv2dProblem.from_arrays(X, W, groups=2, **value).label,
        lambda: ci.conv2d_input(X.shape, W, ci.conv2d(X, W, groups=2, **plain), groups=2, **value),
        lambda: ci.conv2d_weight(X, W.shape, ci.conv2d(X, W, groups=2, **plain), groups=2, **value),
        lambda: ci.conv_transpose2d(X, UP, **value),
        lambda: ci.im2col(X, form(3), **value),
    ]
    return [call() for call in calls]


@pytest.mark.parametrize(
    "form", [lambda n: (n,), lambda n: [n], lambda n: np.array([n])], ids=["tuple", "list", "array"]
)
@pytest.mark.parametrize(("name", "number"), [("stride", 2), ("padding", 1), ("dilation", 2)])
def test_a_sequence_of_one_number_counts_for_both_axes(name: str, number: int, form: Callable[[int], Any]) -> None:
    for result, expected in zip(spread(name, number, form), spread(name, number, int), strict=True):
        np.testing.assert_array_equal(result, expected)


def test_a_sequence_of_one_number_counts_for_both_axes_of_every_other_pair() -> None:
    up = ci.conv_transpose2d(X, UP, stride=2, output_padding=(1,))
    np.testing.assert_array_equal(up, ci.conv_transpose2d(X, UP, stride=2, output_padding=1))
    np.testing.assert_array_equal(ci.pad2d(X, (1,)), ci.pad2d(X, 1))
    assert OUT.shape == ci.conv2d(X, W, None, (1,), (0,), (1,), 2).shape


@pytest.mark.parametrize(("size", "sides"), [((3, 3), (1, 1)), ((2, 4), (0, 1)), ((4, 2), (1, 0))])
def test_an_even_kernel_puts_the_extra_zeros_at_the_bottom_and_right(size: Any, sides: Any) -> None:
    """The first output sees ``sides`` rows and columns of zeros before the image."""
    y = ci.conv2d(np.ones((1, 6, 6), F), np.ones((1, 1, *size), F), padding="same")[0]
    (kh, kw), (top, left) = size, sides
    assert y.shape == (6, 6)
    assert y[0, 0] == (kh - top) * (kw - left)
    assert y[-1, -1] == (top + 1) * (left + 1)
