"""The kernel bank, `apply_kernel`, and the names of the "convolutions from scratch" lesson."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import conv_impls
from conv_impls import KERNELS, DTypeError, apply_kernel, lesson
from conv_impls.lesson import (
    conv2d_im2col,
    conv2d_im2col_backward,
    conv2d_naive,
    im2col,
    pad2d,
    synthetic_step_image,
)
from conv_impls.validation import Array

# Each kernel as integers and the number that divides them all.
BANK: dict[str, tuple[list[list[int]], int]] = {
    "identity": ([[0, 0, 0], [0, 1, 0], [0, 0, 0]], 1),
    "blur_3x3": ([[1, 1, 1], [1, 1, 1], [1, 1, 1]], 9),
    "sharpen": ([[0, -1, 0], [-1, 5, -1], [0, -1, 0]], 1),
    "sobel_x": ([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]], 1),
    "sobel_y": ([[-1, -2, -1], [0, 0, 0], [1, 2, 1]], 1),
    "gaussian_5x5": (
        [[1, 4, 6, 4, 1], [4, 16, 24, 16, 4], [6, 24, 36, 24, 6], [4, 16, 24, 16, 4], [1, 4, 6, 4, 1]],
        256,
    ),
    "laplacian": ([[0, 1, 0], [1, -4, 1], [0, 1, 0]], 1),
    "outline": ([[-1, -1, -1], [-1, 8, -1], [-1, -1, -1]], 1),
    "emboss": ([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]], 1),
    "prewitt_x": ([[-1, 0, 1], [-1, 0, 1], [-1, 0, 1]], 1),
    "scharr_x": ([[-3, 0, 3], [-10, 0, 10], [-3, 0, 3]], 1),
    "motion_9": ([[int(i == j) for j in range(9)] for i in range(9)], 9),
}


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape)


def integers(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(-4, 5, shape)


def test_the_bank_holds_the_kernels_of_this_table_and_no_others() -> None:
    assert set(KERNELS) == set(BANK)


@pytest.mark.parametrize(("name", "rows", "divisor"), [(name, *entry) for name, entry in BANK.items()])
def test_a_kernel_is_exact_and_read_only(name: str, rows: list[list[int]], divisor: int) -> None:
    kernel = KERNELS[name]
    np.testing.assert_array_equal(kernel, (np.array(rows) / divisor).astype(np.float32), strict=True)
    with pytest.raises(ValueError, match="read-only"):
        kernel[0, 0] = 7
    with pytest.raises(TypeError, match="does not support item assignment"):
        KERNELS[name] = kernel  # type: ignore[index]


@pytest.mark.parametrize("name", BANK)
def test_apply_kernel_slides_the_kernel_over_the_zero_padded_image(name: str) -> None:
    image, kernel = normal(7, 11), KERNELS[name]
    kh, kw = kernel.shape
    wide = np.pad(image, ((kh // 2, kh // 2), (kw // 2, kw // 2)))
    expected = [[(wide[i : i + kh, j : j + kw] * kernel).sum() for j in range(11)] for i in range(7)]
    np.testing.assert_allclose(apply_kernel(image, kernel), expected, rtol=1e-12, atol=1e-12)


def test_the_identity_gives_the_image_back() -> None:
    image = normal(5, 8).astype(np.float32)
    np.testing.assert_array_equal(apply_kernel(image, KERNELS["identity"]), image, strict=True)


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_a_flat_image_has_no_edges_unless_the_padding_makes_them(mode: str) -> None:
    flat = np.ones((6, 9), np.float32)
    np.testing.assert_array_equal(apply_kernel(flat, KERNELS["outline"], padding_mode=mode), 0 * flat)
    with_zeros = apply_kernel(flat, KERNELS["outline"])
    np.testing.assert_array_equal(with_zeros[1:-1, 1:-1], 0 * flat[1:-1, 1:-1])
    assert (with_zeros[[0, -1]] > 0).all()


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int16", "int64", "float32", "float64"])
@pytest.mark.parametrize("kernel_dtype", ["int64", "float32", "float64"])
def test_apply_kernel_follows_the_dtype_of_the_image(dtype: str, kernel_dtype: str) -> None:
    image = (np.arange(20).reshape(4, 5) % 3).astype(dtype)
    y = apply_kernel(image, KERNELS["sobel_y"].astype(kernel_dtype))
    assert y.dtype == ("float64" if dtype == "float64" else "float32")
    np.testing.assert_array_equal(y, apply_kernel(image.astype(float), KERNELS["sobel_y"]))


def test_an_even_kernel_leans_to_the_bottom_right() -> None:
    image = np.arange(1.0, 7).reshape(2, 3)
    np.testing.assert_array_equal(apply_kernel(image, np.ones((2, 2))), [[12, 16, 9], [9, 11, 6]])


def test_the_lesson_brings_exactly_its_documented_names() -> None:
    names: dict[str, Any] = {}
    exec("from conv_impls.lesson import *", names)
    documented = {"KERNELS", "apply_kernel", "conv2d_im2col", "conv2d_im2col_backward", "conv2d_naive", "im2col"}
    assert set(names) - {"__builtins__"} == documented | {"pad2d", "synthetic_step_image"}
    assert (names["KERNELS"], names["apply_kernel"]) == (conv_impls.KERNELS, conv_impls.apply_kernel)


def test_a_sobel_filter_finds_the_step_and_the_border() -> None:
    image = synthetic_step_image()
    assert (image.shape, image.dtype.name) == ((1, 16, 16), "float32")
    np.testing.assert_array_equal(image[0], np.tile(np.arange(16) >= 8, (16, 1)))
    expected = np.zeros((16, 16), np.float32)
    expected[:, 7:9], expected[[0, -1], 7:9] = 4, 3
    expected[:, 15], expected[[0, -1], 15] = -4, -3
    np.testing.assert_array_equal(apply_kernel(image[0], KERNELS["sobel_x"]), expected, strict=True)
    for convolve in (conv2d_naive, conv2d_im2col):
        y = convolve(image, KERNELS["sobel_x"][None, None], padding=1)
        np.testing.assert_array_equal(y, expected[None], strict=True)


@pytest.mark.parametrize("size", [2, 5, 32])
def test_the_step_image_may_have_any_size(size: int) -> None:
    image = synthetic_step_image(size)
    np.testing.assert_array_equal(image[0], np.tile(np.arange(size) >= size // 2, (size, 1)))


def test_the_pad2d_of_the_lesson_puts_zeros_around() -> None:
    for x in (integers(3, 4), integers(2, 3, 4).astype(np.int8), integers(2, 2, 3, 4).astype(np.float32)):
        expected = np.pad(x, [(0, 0)] * (x.ndim - 2) + [(2, 2)] * 2)
        np.testing.assert_array_equal(pad2d(x, 2), expected, strict=True)


@pytest.mark.parametrize(("stride", "padding"), [(1, 0), (2, 1), (3, 2)])
def test_the_im2col_of_the_lesson_also_gives_the_output_size(stride: int, padding: int) -> None:
    x = integers(3, 6, 8).astype(np.float32)
    cols, h_out, w_out = im2col(x, 3, 2, stride, padding)
    assert (h_out, w_out) == ((6 + 2 * padding - 3) // stride + 1, (8 + 2 * padding - 2) // stride + 1)
    assert cols.shape == (3 * 3 * 2, h_out * w_out)
    wide = np.pad(x, ((0, 0), (padding, padding), (padding, padding)))
    for column, (i, j) in zip(cols.T, np.ndindex(h_out, w_out), strict=True):
        np.testing.assert_array_equal(column, wide[:, i * stride :, j * stride :][:, :3, :2].ravel(), strict=True)


GROUPED = [
    ((3, 8, 9), (4, 3, 3, 3), 1),
    ((6, 7, 7), (4, 3, 3, 3), 2),
    ((5, 8, 6), (5, 1, 3, 3), 5),
    ((2, 4, 5, 6), (8, 1, 2, 3), 4),
]
every_grouping = pytest.mark.parametrize(
    ("x_shape", "w_shape", "groups"), GROUPED, ids=["plain", "2", "depthwise", "batch"]
)
every_step = pytest.mark.parametrize(("stride", "padding"), [(1, 0), (1, 1), (2, 1), (3, 2)])


@every_grouping
@every_step
def test_columns_agree_with_loops(
    x_shape: tuple[int, ...], w_shape: tuple[int, ...], groups: int, stride: int, padding: int
) -> None:
    x, w, b = normal(*x_shape), normal(*w_shape, seed=1), normal(w_shape[0], seed=2)
    for bias in (None, b):
        slow = conv2d_naive(x, w, bias, stride, padding, groups)
        np.testing.assert_allclose(conv2d_im2col(x, w, bias, stride, padding, groups), slow, rtol=1e-12, atol=1e-12)


def test_depthwise_convolution_filters_each_channel_by_itself_with_few_parameters() -> None:
    channels, k = 6, 3
    x, w = normal(channels, 8, 8), normal(channels, 1, k, k, seed=1)
    assert w.size == channels * k * k
    y = conv2d_im2col(x, w, padding=1, groups=channels)
    for c in range(channels):
        np.testing.assert_allclose(y[c], apply_kernel(x[c], w[c, 0]), rtol=1e-12, atol=1e-12)


@every_grouping
@every_step
def test_the_backward_pass_is_the_slope_of_the_forward_pass(
    x_shape: tuple[int, ...], w_shape: tuple[int, ...], groups: int, stride: int, padding: int
) -> None:
    """Exact with integers: the forward pass is linear in each operand, so along any direction d its slope is itself."""
    x, w, b = integers(*x_shape), integers(*w_shape, seed=1), integers(w_shape[0], seed=2)
    geometry: dict[str, Any] = {"stride": stride, "padding": padding, "groups": groups}
    y = conv2d_im2col(x, w, b, **geometry)
    g = integers(*y.shape, seed=3)
    grads = conv2d_im2col_backward(g, x, w, **geometry)
    for position, (operand, grad) in enumerate(zip((x, w, b), grads, strict=True)):
        assert grad.shape == operand.shape
        step = integers(*operand.shape, seed=4)
        ahead: list[Any] = [x, w, b]
        behind: list[Any] = [x, w, b]
        ahead[position], behind[position] = operand + step, operand - step
        difference = conv2d_im2col(*ahead, **geometry) - conv2d_im2col(*behind, **geometry)
        assert (difference * g).sum() / 2 == (grad * step).sum()


@pytest.mark.parametrize(
    ("x_dtype", "w_dtype", "expected"),
    [
        ("float32", "float32", "float32"),
        ("float64", "float64", "float64"),
        ("int64", "int64", "float64"),
        ("uint8", "bool", "float64"),
        ("float32", "float64", "float64"),
        ("int32", "float32", "float64"),
    ],
)
def test_the_lesson_takes_integers_as_float64_and_promotes(x_dtype: str, w_dtype: str, expected: str) -> None:
    x, w = np.ones((2, 4, 4), x_dtype), np.ones((3, 2, 3, 3), w_dtype)
    for convolve in (conv2d_naive, conv2d_im2col):
        np.testing.assert_array_equal(convolve(x, w), np.full((3, 2, 2), 18, expected), strict=True)
    g = np.ones((3, 2, 2), x_dtype)
    assert [str(grad.dtype) for grad in conv2d_im2col_backward(g, x, w)] == [expected] * 3
    assert im2col(x, 2, 2)[0].dtype == ("float64" if x_dtype[0] != "f" else x_dtype)


@pytest.mark.parametrize(
    "call", [conv2d_naive, conv2d_im2col, lambda x, w: im2col(x, 3, 3)], ids=["loops", "columns", "im2col"]
)
@pytest.mark.parametrize("spoil", [lambda x: x * 1j, np.ma.masked_array], ids=["complex", "masked"])
def test_the_lesson_drops_no_imaginary_part_and_no_mask_in_silence(call: Any, spoil: Any) -> None:
    with pytest.raises(DTypeError, match="expected"):
        call(spoil(np.ones((1, 3, 3))), np.ones((1, 1, 3, 3)))


def test_the_lesson_leaves_its_operands_alone() -> None:
    x, w, b = integers(2, 4, 4), integers(3, 2, 3, 3, seed=1), integers(3, seed=2)
    before = [array.copy() for array in (x, w, b)]
    lesson.conv2d_naive(x, w, b, padding=1)
    conv2d_im2col_backward(conv2d_im2col(x, w, b, padding=1), x, w, padding=1)
    for array, old in zip((x, w, b), before, strict=True):
        np.testing.assert_array_equal(array, old)
