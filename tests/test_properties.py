"""What convolution is, as properties over drawn problems: linear, shift-equivariant, and so on. Integers, so exact."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from effort import Effort

from conv_impls import Conv2dProblem, conv2d
from conv_impls.reference import reference, reference_at, sample_outputs
from conv_impls.validation import Array

EXACT = pytest.mark.parametrize("backend", ["numba_direct", "numpy_strided"])
SEEDS = st.integers(0, 99)
NUMPY_MODE = {"zeros": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}


@st.composite
def problems(draw: st.DrawFn, groups: int | None = None, mode: str | None = None) -> Conv2dProblem:
    """Problems that are valid by construction: the image is large enough for the kernel, the padding small enough."""
    g = groups or draw(st.sampled_from([1, 2, 3]))
    kernel, stride, dilation = (tuple(draw(st.integers(1, top)) for _ in "hw") for top in (4, 6, 2))
    size = tuple(d * (k - 1) + 1 + draw(st.integers(0, 9)) for d, k in zip(dilation, kernel, strict=True))
    mode = mode or draw(st.sampled_from(sorted(NUMPY_MODE)))
    most = [min(3, n - 1) if mode in ("reflect", "circular") else 8 for n in size]
    sides = tuple(tuple(draw(st.integers(0, top)) for _ in range(2)) for top in most)
    return Conv2dProblem(
        draw(st.integers(1, 2)), g * draw(st.integers(1, 4)), size,  # type: ignore[arg-type]
        g * draw(st.sampled_from([1, 2, 5, 64, 70])), kernel,  # type: ignore[arg-type]
        stride, sides, dilation, g, mode, "float32",  # type: ignore[arg-type]
    )  # fmt: skip


def drawn(problem: Conv2dProblem, seed: int) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    x, w = (rng.integers(-4, 5, shape).astype(problem.dtype) for shape in (problem.input_shape, problem.weight_shape))
    return x, w


def convolve(problem: Conv2dProblem, x: Array, weight: Array, backend: str, **changes: Any) -> Array:
    names = ("stride", "padding", "dilation", "groups", "padding_mode")
    return conv2d(x, weight, backend=backend, **({name: getattr(problem, name) for name in names} | changes))


@EXACT
def test_it_is_the_definition(backend: str, effort: Effort) -> None:
    @effort.each(problem=problems(), seed=SEEDS)
    def check(problem: Conv2dProblem, seed: int) -> None:
        x, weight = drawn(problem, seed)
        np.testing.assert_array_equal(convolve(problem, x, weight, backend), reference(x, weight, None, problem))


@EXACT
def test_it_is_linear_in_both_arguments(backend: str, effort: Effort) -> None:
    @effort.each(problem=problems(), seed=SEEDS)
    def check(problem: Conv2dProblem, seed: int) -> None:
        (x, weight), (other_x, other_w) = drawn(problem, seed), drawn(problem, seed + 1)
        y = convolve(problem, x, weight, backend)
        np.testing.assert_array_equal(
            convolve(problem, 2 * x - other_x, weight, backend), 2 * y - convolve(problem, other_x, weight, backend)
        )
        np.testing.assert_array_equal(
            convolve(problem, x, 3 * weight + other_w, backend), 3 * y + convolve(problem, x, other_w, backend)
        )


@EXACT
def test_shifting_the_image_shifts_the_answer(backend: str, effort: Effort) -> None:
    @effort.each(problem=problems(mode="circular"), seed=SEEDS, shift=st.integers(1, 5))
    def check(problem: Conv2dProblem, seed: int, shift: int) -> None:
        x, weight = drawn(problem, seed)
        plain = {"stride": 1, "padding": 0}
        wide = np.pad(x, ((0, 0), (0, 0), (0, 0), (shift, 0)))
        y = convolve(problem, x, weight, backend, **plain)
        np.testing.assert_array_equal(convolve(problem, wide, weight, backend, **plain)[..., shift:], y)


@EXACT
def test_a_stride_is_subsampling(backend: str, effort: Effort) -> None:
    @effort.each(problem=problems(), seed=SEEDS)
    def check(problem: Conv2dProblem, seed: int) -> None:
        x, weight = drawn(problem, seed)
        sh, sw = problem.stride
        dense = convolve(problem, x, weight, backend, stride=1)
        np.testing.assert_array_equal(convolve(problem, x, weight, backend), dense[:, :, ::sh, ::sw])


@EXACT
def test_groups_are_convolutions_side_by_side(backend: str, effort: Effort) -> None:
    @effort.each(problem=problems(), seed=SEEDS)
    def check(problem: Conv2dProblem, seed: int) -> None:
        x, weight = drawn(problem, seed)
        parts = [
            convolve(problem, part_x, part_w, backend, groups=1)
            for part_x, part_w in zip(np.split(x, problem.groups, 1), np.split(weight, problem.groups, 0), strict=True)
        ]
        np.testing.assert_array_equal(convolve(problem, x, weight, backend), np.concatenate(parts, 1))


@EXACT
def test_padding_modes_are_those_of_numpy_pad(backend: str, effort: Effort) -> None:
    @effort.each(problem=problems(), seed=SEEDS)
    def check(problem: Conv2dProblem, seed: int) -> None:
        x, weight = drawn(problem, seed)
        around = np.pad(x, ((0, 0), (0, 0), *problem.padding), NUMPY_MODE[problem.padding_mode])  # type: ignore[call-overload]
        expected = convolve(problem, around, weight, backend, padding=0, padding_mode="zeros")
        np.testing.assert_array_equal(convolve(problem, x, weight, backend), expected)


def test_the_two_ways_to_the_reference_agree(effort: Effort) -> None:
    @effort.each(problem=problems(), seed=SEEDS)
    def check(problem: Conv2dProblem, seed: int) -> None:
        x, weight = drawn(problem, seed)
        bias = np.arange(problem.out_channels, dtype=problem.dtype)
        at = sample_outputs(problem, 40, seed)
        whole = reference(x, weight, bias, problem)[tuple(at.T)]
        np.testing.assert_array_equal(reference_at(x, weight, bias, problem, at), whole)


@pytest.mark.filterwarnings("ignore:from_label. padding")
def test_a_label_reads_back_as_the_same_computation(effort: Effort) -> None:
    @effort.each(problem=problems())
    def check(problem: Conv2dProblem) -> None:
        again = Conv2dProblem.from_label(problem.label)
        assert again.label == problem.label
        assert (again.output_shape, again.macs, again.dtype) == (problem.output_shape, problem.macs, problem.dtype)
        x, weight = drawn(problem, 0)
        np.testing.assert_array_equal(reference(x, weight, None, again), reference(x, weight, None, problem))
