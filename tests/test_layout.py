"""Problems that backends compute in place of others: the same outputs, with less to stage."""

from __future__ import annotations

from typing import Any

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from conv_impls import Conv2dProblem, conv2d, plan
from conv_impls.backends._layout import effective, image_layout, seen_taps
from conv_impls.padding import source_index
from conv_impls.validation import Array


def seen(problem: Conv2dProblem, axis: int) -> Array:
    """What each tap of each output sees along an axis: an index of the image, -1 in the padding."""
    index = source_index(problem.in_size[axis], *problem.padding[axis], problem.padding_mode)
    taps = np.arange(problem.kernel_size[axis]) * problem.dilation[axis]
    found: Array = index[np.arange(problem.out_size[axis])[:, None] * problem.stride[axis] + taps]
    return found


@st.composite
def axes(draw: st.DrawFn) -> tuple[int, int, int, int, tuple[int, int]]:
    """Size, kernel, stride, dilation and padding, of any length against each other."""
    size, kernel, dilation = draw(st.integers(1, 5)), draw(st.integers(1, 4)), draw(st.integers(1, 40))
    before, after = draw(st.integers(0, 60)), draw(st.integers(0, 60))
    after += max(0, (kernel - 1) * dilation + 1 - size - before - after)
    return size, kernel, draw(st.integers(1, 70)), dilation, (before, after)


@hypothesis.settings(max_examples=500, database=None, deadline=None, derandomize=True)
@hypothesis.given(axes(), axes())
def test_every_tap_of_every_output_sees_what_it_saw(rows: Any, columns: Any) -> None:
    size, kernel, stride, dilation, padding = zip(rows, columns, strict=True)
    problem = Conv2dProblem(1, 1, size, 1, kernel, stride, padding, dilation)
    made = effective(problem)
    assert made.out_size == problem.out_size
    for axis in (0, 1):
        assert np.array_equal(seen(made, axis), seen(problem, axis))
        span = (problem.out_size[axis] - 1) * problem.stride[axis]
        if 1 < made.dilation[axis] < problem.dilation[axis]:
            assert made.padded_size[axis] <= problem.kernel_size[axis] * (problem.in_size[axis] + span + 1)


@hypothesis.settings(max_examples=500, database=None, deadline=None, derandomize=True)
@hypothesis.given(axes(), axes())
def test_taps_that_are_left_out_read_only_padding(rows: Any, columns: Any) -> None:
    size, kernel, stride, dilation, padding = zip(rows, columns, strict=True)
    problem = Conv2dProblem(1, 1, size, 1, kernel, stride, padding, dilation)
    made, taps = seen_taps(problem)
    assert made.out_size == problem.out_size
    for axis in (0, 1):
        whole = seen(problem, axis)
        assert np.array_equal(seen(made, axis), whole[:, taps[axis]])
        dropped = np.delete(whole, np.arange(kernel[axis])[taps[axis]], axis=1)
        assert (dropped == -1).all()


def test_all_taps_that_need_not_be_read_are_left_out() -> None:
    far = Conv2dProblem(6, 64, (8, 8), 64, (3, 3), (1, 1), ((18, 18), (18, 18)), (18, 18))
    made, taps = seen_taps(far)
    assert (made.kernel_size, made.padding, taps) == ((1, 1), ((0, 0), (0, 0)), (slice(1, 2), slice(1, 2)))
    nearer = far.replace(padding=((7, 7), (7, 7)), dilation=(7, 7))
    assert seen_taps(nearer)[0] is nearer


@pytest.mark.parametrize("weight", [np.nan, np.inf, -2.0])
def test_a_weight_that_is_not_read_counts_as_zero_or_nan(weight: float) -> None:
    problem = Conv2dProblem(1, 2, (4, 4), 3, (3, 3), (1, 1), ((9, 9), (9, 9)), (9, 9))
    x, w = np.ones(problem.input_shape, np.float32), np.ones(problem.weight_shape, np.float32)
    w[1, 1, 0, 2] = weight
    for ready in (
        plan(problem, w, backend="numba_simd"),
        plan(problem, w, np.zeros(3, np.float32), backend="numba_simd"),
    ):
        y = ready(x)
        assert (y[0, [0, 2]] == 2).all()
        assert np.isnan(y[0, 1]).all() if not np.isfinite(weight) else (y[0, 1] == 2).all()


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_padding_that_shows_the_image_stays(mode: str) -> None:
    problem = Conv2dProblem(1, 1, (9, 9), 1, (2, 2), (1, 1), ((8, 8), (8, 8)), (20, 20), padding_mode=mode)
    assert effective(problem) == problem


@pytest.mark.parametrize(
    ("problem", "most"),
    [
        (Conv2dProblem(1, 1, (801, 801), 1, (2, 2), (800, 800), dilation=(800, 800)), 2),
        (Conv2dProblem(1, 1, (1, 1), 1, (2, 2), (300, 300), ((300, 300),) * 2, (300, 300)), 3),
        (Conv2dProblem(1, 1, (9, 9), 1, (3, 3), (4, 4), dilation=(2, 2)), 6),
    ],
    ids=["a dilation as long as the stride", "in the padding", "every second phase"],
)  # fmt: skip
def test_only_the_phases_that_a_tap_sees_are_staged(problem: Conv2dProblem, most: int) -> None:
    layout = image_layout(problem)
    assert layout.staging.sizes.plane_h * layout.staging.sizes.phases_h <= most
    rng = np.random.default_rng(0)
    x, weight = (rng.integers(-9, 9, shape).astype("f4") for shape in (problem.input_shape, problem.weight_shape))
    for backend in ("numba_simd", "numba_direct"):
        y = plan(problem, weight, backend=backend)(x)
        assert np.array_equal(y, plan(problem, weight, backend="numpy_strided")(x))


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("backend", ["auto", "numba_simd", "numba_direct", "numba_depthwise"])
def test_dilation_that_lies_in_the_padding_needs_little_memory(backend: str, groups: int) -> None:
    if backend == "numba_depthwise" and groups == 1:
        return
    rng = np.random.default_rng(0)
    # Integers, so that every order of summation gives the same result.
    x = rng.integers(-9, 9, (1, 4, 10, 10)).astype(np.float32)
    weight = rng.integers(-9, 9, (4, 4 // groups, 3, 3)).astype(np.float32)
    # Only the tap in the middle sees the image. Padded as written, it would take 160 GB a channel.
    y = conv2d(x, weight, padding=100_000, dilation=100_000, groups=groups, backend=backend)
    assert np.array_equal(y, conv2d(x, weight[:, :, 1:2, 1:2], groups=groups, backend="numpy_strided"))
    weight[0, 0, 0, 0] = np.nan
    y = conv2d(x, weight, padding=100_000, dilation=100_000, groups=groups, backend=backend)
    assert np.isnan(y[:, 0]).all()
    assert np.isfinite(y[:, 1:]).all()
