"""Padding against numpy.pad, patches against plain loops, and the adjoint of each against inner products."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from effort import Effort
from hypothesis import strategies as st

from conv_impls import col2im, im2col, pad2d
from conv_impls.padding import fold2d, padded
from conv_impls.validation import Array, Sides

# Our names of the modes -> numpy.pad's.
MODES: dict[str, Any] = {"zeros": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}
every_mode = pytest.mark.parametrize("mode", MODES)


def integers(shape: tuple[int, ...], dtype: str = "float64", seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(-9, 10, shape).astype(dtype)


def inner(a: Array, b: Array) -> float:
    assert a.shape == b.shape
    return float((a.astype(np.float64) * b).sum())


@every_mode
@pytest.mark.parametrize("shape", [(4, 5), (2, 4, 5), (2, 3, 4, 5), (0, 4, 5)])
@pytest.mark.parametrize(
    ("padding", "sides"),
    [
        (0, ((0, 0), (0, 0))),
        (2, ((2, 2), (2, 2))),
        ((1, 3), ((1, 1), (3, 3))),
        (((3, 0), (1, 4)), ((3, 0), (1, 4))),
        (((0, 0), (0, 2)), ((0, 0), (0, 2))),
    ],
)
def test_padding_agrees_with_numpy(padding: Any, sides: Sides, shape: tuple[int, ...], mode: str) -> None:
    x = integers(shape)
    expected = np.pad(x, [(0, 0)] * (x.ndim - 2) + list(sides), MODES[mode])
    np.testing.assert_array_equal(pad2d(x, padding, mode), expected, strict=True)


@every_mode
@pytest.mark.parametrize(
    "dtype", ["int8", "uint16", "int64", "bool", "float16", "float32", "complex64", ">f4", "object"]
)
def test_padding_keeps_any_dtype(dtype: str, mode: str) -> None:
    x = np.arange(12).reshape(3, 4).astype(dtype)
    expected = np.pad(x, 1, MODES[mode])
    y = pad2d(x, 1, mode)
    assert y.dtype == x.dtype
    np.testing.assert_array_equal(y, expected)


@every_mode
def test_the_widest_padding_of_a_mode_still_agrees_with_numpy(mode: str) -> None:
    x = integers((3, 4))
    sides = ((2, 2), (3, 3)) if mode == "reflect" else ((3, 3), (4, 4))
    np.testing.assert_array_equal(pad2d(x, sides, mode), np.pad(x, sides, MODES[mode]))


@every_mode
@pytest.mark.parametrize("padding", [0, ((0, 0), (0, 1))])
def test_padding_gives_a_fresh_array(padding: Any, mode: str) -> None:
    x = integers((3, 4))
    y = pad2d(x, padding, mode)
    assert not np.shares_memory(x, y)
    y[...] = 99
    np.testing.assert_array_equal(x, integers((3, 4)))


@st.composite
def paddings(draw: st.DrawFn) -> tuple[tuple[int, int], Sides, str]:
    """Image size, sides and mode that fit together."""
    mode = draw(st.sampled_from(list(MODES)))
    h, w = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    most = {"reflect": (h - 1, w - 1), "circular": (h, w)}.get(mode, (7, 7))
    (top, bottom), (left, right) = ((draw(st.integers(0, n)), draw(st.integers(0, n))) for n in most)
    return (h, w), ((top, bottom), (left, right)), mode


def test_folding_is_adjoint_to_padding(effort: Effort) -> None:
    @effort.each(case=paddings())
    def check(case: tuple[tuple[int, int], Sides, str]) -> None:
        size, sides, mode = case
        x = integers((2, *size))
        wide = padded(x, sides, mode)
        np.testing.assert_array_equal(wide, np.pad(x, [(0, 0), *sides], MODES[mode]))
        g = integers(wide.shape, seed=1)
        folded = fold2d(g, size, sides, mode)
        assert inner(wide, g) == inner(x, folded)


@pytest.mark.parametrize(
    ("mode", "folded"),
    [("zeros", [2, 3, 4]), ("reflect", [8, 9, 4]), ("replicate", [3, 3, 15]), ("circular", [7, 9, 5])],
)
def test_folding_adds_a_border_onto_its_source(mode: str, folded: list[int]) -> None:
    wide = np.arange(7).reshape(1, 7)
    np.testing.assert_array_equal(fold2d(wide, (1, 3), ((0, 0), (2, 2)), mode), [folded])


def test_im2col_by_hand() -> None:
    """Two channels of 2x3, kernel 2x2, one row of zeros on top, stride (1, 2) over 4 columns."""
    x = np.array([[[1, 2, 3], [4, 5, 6]], [[7, 8, 9], [10, 11, 12]]], np.float32)
    cols = im2col(x, 2, stride=(1, 2), padding=((1, 0), (0, 1)))
    expected = [
        [0, 0, 1, 3],
        [0, 0, 2, 0],
        [1, 3, 4, 6],
        [2, 0, 5, 0],
        [0, 0, 7, 9],
        [0, 0, 8, 0],
        [7, 9, 10, 12],
        [8, 0, 11, 0],
    ]
    np.testing.assert_array_equal(cols, np.array(expected, np.float32), strict=True)


GEOMETRIES: list[dict[str, Any]] = [
    {"kernel_size": 3},
    {"kernel_size": (2, 3), "stride": (2, 1)},
    {"kernel_size": (1, 4), "padding": ((0, 2), (3, 1)), "stride": 3},
    {"kernel_size": (3, 2), "dilation": (1, 3), "padding": (1, 2)},
    {"kernel_size": (2, 2), "stride": (3, 4)},
    {"kernel_size": (4, 3), "padding": "same"},
    {"kernel_size": 1},
    {"kernel_size": (5, 7)},
]


def columns_by_loops(x: Array, arguments: dict[str, Any], mode: str) -> Array:
    """Every window of (N, C, H, W) as a column, window by window."""

    def two(name: str, default: Any) -> Any:
        value = arguments.get(name, default)
        return (value, value) if isinstance(value, int) else value

    (kh, kw), (sh, sw), (dh, dw) = two("kernel_size", 1), two("stride", 1), two("dilation", 1)
    # "same" appears with a kernel of 4x3 alone: a total of 3 rows and 2 columns, the odd one at the bottom.
    padding = {"same": ((1, 2), (1, 1))}.get(str(arguments.get("padding")), two("padding", 0))
    sides = [(p, p) if isinstance(p, int) else p for p in padding]
    image = np.pad(x, [(0, 0), (0, 0), *sides], MODES[mode])
    height, width = image.shape[2:]
    windows = [
        image[:, :, i : i + dh * (kh - 1) + 1 : dh, j : j + dw * (kw - 1) + 1 : dw].reshape(len(x), -1)
        for i in range(0, height - dh * (kh - 1), sh)
        for j in range(0, width - dw * (kw - 1), sw)
    ]
    return np.stack(windows, axis=2)


@every_mode
@pytest.mark.parametrize("arguments", GEOMETRIES, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_im2col_copies_every_window(dtype: str, arguments: dict[str, Any], mode: str) -> None:
    x = integers((2, 3, 5, 7), dtype)
    cols = im2col(x, **arguments, padding_mode=mode)
    np.testing.assert_array_equal(cols, columns_by_loops(x, arguments, mode), strict=True)
    np.testing.assert_array_equal(im2col(x[0], **arguments, padding_mode=mode), cols[0], strict=True)


@every_mode
@pytest.mark.parametrize("arguments", GEOMETRIES, ids=str)
@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (3, 5, 7), (0, 3, 5, 7)])
def test_col2im_is_adjoint_to_im2col(shape: tuple[int, ...], arguments: dict[str, Any], mode: str) -> None:
    x = integers(shape)
    cols = im2col(x, **arguments, padding_mode=mode)
    g = integers(cols.shape, seed=1)
    back = col2im(g, shape, **arguments, padding_mode=mode)
    assert back.shape == shape
    assert inner(cols, g) == inner(x, back)


def test_col2im_counts_the_windows_over_each_pixel() -> None:
    ones = np.ones((1, 4, 4))
    counts = col2im(im2col(ones, 3), ones.shape, 3)
    np.testing.assert_array_equal(counts[0], np.outer([1, 2, 2, 1], [1, 2, 2, 1]))
    strided = col2im(im2col(ones, 1, stride=3), ones.shape, 1, stride=3)
    np.testing.assert_array_equal(strided[0], np.outer([1, 0, 0, 1], [1, 0, 0, 1]))


@pytest.mark.parametrize("kernel_size", [1, 2])
def test_patches_are_a_copy_the_caller_may_write(kernel_size: int) -> None:
    x = integers((2, 4, 4))
    cols = im2col(x, kernel_size)
    assert not np.shares_memory(x, cols)
    cols[...] = 99
    np.testing.assert_array_equal(x, integers((2, 4, 4)))


def test_patches_of_any_padded_image_match_loops_and_go_back(effort: Effort) -> None:
    @effort.each(case=paddings(), kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)), stride=st.integers(1, 3))
    def check(case: tuple[tuple[int, int], Sides, str], kernel: tuple[int, int], stride: int) -> None:
        (h, w), sides, mode = case
        fits = min(kernel[0], h + sum(sides[0])), min(kernel[1], w + sum(sides[1]))
        arguments: dict[str, Any] = {"kernel_size": fits, "stride": stride, "padding": sides}
        x = integers((1, 2, h, w))
        cols = im2col(x, **arguments, padding_mode=mode)
        np.testing.assert_array_equal(cols, columns_by_loops(x, arguments, mode))
        g = integers(cols.shape, seed=1)
        assert inner(cols, g) == inner(x, col2im(g, x.shape, **arguments, padding_mode=mode))
