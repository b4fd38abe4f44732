"""The kernels of numba_depthwise: every tail, pass and padding, each of the three ways, and many threads."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from conv_impls import Conv2dProblem, UnsupportedError, plan
from conv_impls.backends import numba_depthwise
from conv_impls.backends._depthwise import Way
from conv_impls.kernels.simd import lanes
from conv_impls.reference import reference
from conv_impls.validation import PADDING_MODES

# Two for every kernel, one for 3x3.
GENERAL: tuple[Way, ...] = ("position", "channel")
WAYS: tuple[Way, ...] = (*GENERAL, "slide")


def depthwise(
    channels: int, size: tuple[int, int], kernel: tuple[int, int] = (3, 3), stride: int = 1, padding: int = 1,
    dilation: int = 1, multiplier: int = 1, mode: str = "zeros", dtype: str = "float32", batch: int = 1,
) -> Conv2dProblem:  # fmt: skip
    return Conv2dProblem(
        batch, channels, size, channels * multiplier, kernel, (stride, stride), ((padding, padding),) * 2,
        (dilation, dilation), channels, mode, dtype,
    )  # fmt: skip


def check(problem: Conv2dProblem, way: Way | None = None, threads: int = 2, relu: bool = False) -> None:
    rng = np.random.default_rng(0)
    x, w = (rng.integers(-4, 5, s).astype(problem.dtype) for s in (problem.input_shape, problem.weight_shape))
    bias = rng.integers(-4, 5, problem.out_channels).astype(problem.dtype)
    comp = np.full(problem.output_shape, np.nan, problem.dtype)
    prepared = numba_depthwise._prepare(problem, w, bias, threads, relu, way)
    ref = reference(x, w, bias, problem)
    # The second call finds the workspace as the first left it.
    for _ in range(2):
        prepared.call(x, comp)
        np.testing.assert_array_equal(comp, np.maximum(ref, 0) if relu else ref, err_msg=problem.label)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_every_width_modulo_the_lanes(stride: int, dtype: str) -> None:
    for width in range(1, 5 * lanes(4) + 2):
        for way in WAYS if stride < 3 else ("position",):
            check(depthwise(2, (5, width), stride=stride, dtype=dtype), way)


@pytest.mark.parametrize("way", WAYS)
def test_every_height_and_every_channel_count_modulo_the_lanes(way: Way) -> None:
    for count in range(1, 2 * lanes(4) + 2):
        check(depthwise(1, (count, 6)), way)
        check(depthwise(count, (6, 5), batch=2), way)


@pytest.mark.parametrize("kernel", [*product((1, 2, 3, 4), (1, 2, 3)), (5, 5), (6, 7), (7, 7), (9, 3), (31, 31)])
@pytest.mark.parametrize("way", GENERAL)
def test_every_kernel_with_stride_and_dilation(kernel: tuple[int, int], way: Way) -> None:
    for stride, dilation, padding in product((1, 2, 3), (1, 2), (0, 4)):
        if way == "channel" and stride == 3:
            continue
        size = 70 if kernel[0] == 31 else 21
        check(depthwise(2, (size, size + 2), kernel, stride, padding, dilation, batch=2), way)


@pytest.mark.parametrize("mode", PADDING_MODES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_padding_modes_with_several_outputs_a_channel(mode: str, dtype: str) -> None:
    for multiplier, stride, padding, threads in product((1, 2, 3), (1, 2, 3), (1, 3), (1, 2)):
        problem = depthwise(3, (13, 18), (3, 3), stride, padding, 1, multiplier, mode, dtype)
        check(problem, threads=threads)


@pytest.mark.parametrize("way", WAYS)
def test_sides_that_differ_and_padding_beyond_the_kernel(way: Way) -> None:
    for stride in ((1, 1), (2, 2)) if way == "slide" else ((1, 1), (2, 1), (1, 2)):
        for padding in (((0, 5), (7, 1)), ((4, 0), (0, 9))):
            check(Conv2dProblem(1, 2, (9, 20), 2, (3, 3), stride, padding, groups=2), way)


@pytest.mark.parametrize("way", WAYS)
def test_the_activation(way: Way) -> None:
    for size in (3,) if way == "slide" else (7, 9):
        check(depthwise(5, (9, 9), (size, size), padding=size // 2), way, relu=True)


def test_few_images_are_shared_by_bands_of_rows() -> None:
    for channels, height, threads, stride in product((1, 3), (3, 4, 9, 40), (1, 2, 3), (1, 2)):
        check(depthwise(channels, (height, 20), stride=stride), "slide", threads)


@pytest.mark.parametrize("way", WAYS)
def test_a_nan_reaches_only_the_outputs_that_see_it(way: Way) -> None:
    problem = depthwise(3, (12, 40))
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal(s).astype("float32") for s in (problem.input_shape, problem.weight_shape))
    prepared = numba_depthwise._prepare(problem, w, None, 1, False, way)
    window, comp = np.zeros(problem.output_shape, bool), np.empty(problem.output_shape, "float32")
    for row, column in ((0, 39), (5, 0), (5, 16), (11, 39)):
        x[0, 1, row, column] = np.nan
        window[0, 1, max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2] = True
    prepared.call(x, comp)
    np.testing.assert_array_equal(np.isnan(comp), window)
    x[:] = 0
    prepared.call(x, comp)
    assert not comp.any()


def test_other_layers_are_refused_with_the_reason() -> None:
    problem = Conv2dProblem(1, 4, (5, 5), 4, (3, 3), groups=2)
    with pytest.raises(UnsupportedError, match="groups must equal the 4 input channels, got 2"):
        plan(problem, np.ones(problem.weight_shape, "float32"), backend="numba_depthwise")
