"""The forward convolution that stands for a gradient gives that gradient, on problems of every kind."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from effort import Effort
from hypothesis import strategies as st

from bench.run.directions import as_forward, every, swapped
from conv_impls import Conv2dProblem, ConvError, UnsupportedError, conv2d_input, conv2d_weight
from conv_impls.reference import reference
from conv_impls.validation import Array

LABELS = {
    "plain": "mb2ic3ih7iw6oc4kh3kw3ph1pw1",
    "one pixel kernel": "mb2ic8ih5iw6oc4kh1kw1",
    "strides": "mb2ic3ih11iw10oc4kh3kw5sh2sw3ph1pw2",
    "stride beyond the kernel": "mb1ic2ih11iw10oc3kh2kw2sh4sw3",
    "rows that no output reads": "mb2ic3ih12iw11oc2kh3kw3sh2sw4",
    "columns read, rows not": "mb1ic2ih6iw7oc3kh3kw3sh2sw2",
    "dilation": "mb1ic3ih12iw11oc4kh3kw2dh1dw2ph2pw2",
    "dilation and stride": "mb3ic2ih13iw12oc3kh3kw3dh1dw1sh2sw2ph2pw2",
    "one output": "mb2ic3ih5iw4oc4kh5kw4",
}


def arrays(problem: Conv2dProblem) -> tuple[Array, Array, Array]:
    """Image, weights, and the gradient of the output."""
    rng = np.random.default_rng(0)
    x, w, g = (rng.standard_normal(s) for s in (problem.input_shape, problem.weight_shape, problem.output_shape))
    return x, w, g


def turned(problem: Conv2dProblem, w: Array) -> Array:
    """Kernels turned by 180 degrees, input and output channels exchanged inside each group."""
    g = problem.groups
    grouped = w.reshape(g, problem.out_channels // g, problem.in_channels // g, *problem.kernel_size)
    return grouped[..., ::-1, ::-1].swapaxes(1, 2).reshape(problem.in_channels, -1, *problem.kernel_size)


def windows_stay_near(problem: Conv2dProblem) -> bool:
    """No window lies in the padding alone, so that the image's gradient is a convolution."""
    axes = zip(
        problem.padding, problem.dilation, problem.kernel_size, problem.out_size, problem.stride, problem.in_size,
        strict=True,
    )  # fmt: skip
    return all(low <= d * (k - 1) and (o - 1) * s - low < n for (low, _), d, k, o, s, n in axes)


def forward_of(problem: Conv2dProblem, direction: str) -> Conv2dProblem | None:
    try:
        return as_forward(problem, direction)
    except UnsupportedError:
        return None


def assert_gradients(problem: Conv2dProblem) -> None:
    """Both gradients by the mapped convolution, where it can be, equal those of the library."""
    x, w, g = arrays(problem)
    settings = {name: getattr(problem, name) for name in ("stride", "padding", "dilation", "groups")}
    mapped = forward_of(problem, "bwd_d")
    assert (mapped is not None) == windows_stay_near(problem)
    if mapped:
        image = np.zeros(mapped.input_shape)
        sh, sw = every(problem, "bwd_d")
        image[:, :, ::sh, ::sw] = g
        dx = reference(image, turned(problem, w), None, mapped)
        np.testing.assert_allclose(dx, conv2d_input(x.shape, w, g, **settings), rtol=1e-12, atol=1e-12)
    mapped, expected = forward_of(problem, "bwd_w"), conv2d_weight(x, w.shape, g, **settings)
    if mapped:
        rows, columns = mapped.in_size
        images = swapped(x[:, :, :rows, :columns], problem.groups)
        dw = reference(images, g.swapaxes(0, 1), None, mapped).swapaxes(0, 1)
        np.testing.assert_array_equal(swapped(images, problem.groups), x[:, :, :rows, :columns])
        np.testing.assert_allclose(dw, expected, rtol=1e-12, atol=1e-12)
        assert every(problem, "bwd_w") == (1, 1)
    else:
        assert not expected.any()


@pytest.mark.parametrize("label", LABELS.values(), ids=LABELS)
@pytest.mark.parametrize("sides", [None, ((0, 1), (1, 0)), ((1, 0), (0, 1))])
def test_the_mapped_convolution_is_the_gradient(label: str, sides: tuple[tuple[int, int], ...] | None) -> None:
    problem = Conv2dProblem.from_label(label).replace(dtype="float64")
    assert_gradients(problem if sides is None else problem.replace(padding=sides))


@pytest.mark.parametrize("groups", [2, 6])
def test_groups_have_both_gradients(groups: int) -> None:
    problem = Conv2dProblem(2, 6, (7, 8), 12, (3, 2), (2, 1), ((1, 1), (0, 1)), (1, 1), groups, dtype="float64")
    assert_gradients(problem)
    assert as_forward(problem, "bwd_w").groups == groups


small = st.tuples(st.integers(1, 3), st.integers(1, 3))
sides = st.tuples(st.integers(0, 4), st.integers(0, 4))


def test_any_problem_has_its_gradients_or_a_reason(effort: Effort) -> None:
    @effort.each(
        batch=st.integers(1, 3), channels=st.integers(1, 3), size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
        out=st.integers(1, 3), kernel=small, stride=small, padding=st.tuples(sides, sides), dilation=small,
        groups=st.integers(1, 3),
    )  # fmt: skip
    def check(batch: int, channels: int, size: Any, out: int, groups: int, **settings: Any) -> None:
        kernel = settings.pop("kernel")
        try:
            problem = Conv2dProblem(
                batch, channels * groups, size, out * groups, kernel, groups=groups, dtype="float64", **settings
            )
        except ConvError:
            return
        assert_gradients(problem)


def test_forward_is_itself() -> None:
    problem = Conv2dProblem.from_label(LABELS["strides"])
    assert as_forward(problem, "fwd") is problem
    assert every(problem, "fwd") == (1, 1)


@pytest.mark.parametrize("direction", ["bwd_d", "bwd_w"])
def test_padding_that_is_not_zeros_says_so(direction: str) -> None:
    problem = Conv2dProblem.from_label('ic2ih6oc2kh3ph1pm"reflect"')
    with pytest.raises(UnsupportedError, match="only padding with zeros"):
        as_forward(problem, direction)


def test_a_check_of_the_wrong_gradient_fails() -> None:
    problem = Conv2dProblem.from_label(LABELS["strides"]).replace(dtype="float64")
    _, w, g = arrays(problem)
    mapped = as_forward(problem, "bwd_d")
    image = np.zeros(mapped.input_shape)
    image[:, :, ::2, ::3] = g
    unturned = w.swapaxes(0, 1)
    dx = conv2d_input(problem.input_shape, w, g, stride=problem.stride, padding=problem.padding)
    assert not np.allclose(reference(image, unturned, None, mapped), dx)
