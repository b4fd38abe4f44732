"""The adjoints of convolution: exact with small integers, against inner products, differences and plain loops."""

from __future__ import annotations

import re
from itertools import product
from typing import Any

import numpy as np
import pytest
from effort import Effort
from hypothesis import strategies as st

from conv_impls import DTypeError, ProblemError, conv2d, conv2d_input, conv2d_weight, conv_transpose2d
from conv_impls.validation import Array

DTYPES = ["float32", "float64"]
MODES = ["zeros", "reflect", "replicate", "circular"]
CASES: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "plain": ((2, 3, 5, 6), (4, 3, 3, 2), {}),
    "one image": ((3, 5, 6), (4, 3, 3, 2), {"padding": 1}),
    "one pixel": ((1, 1, 1, 1), (1, 1, 1, 1), {}),
    "strides": ((2, 2, 9, 8), (3, 2, 3, 3), {"stride": (2, 3), "padding": 1}),
    "stride beyond the kernel": ((1, 2, 9, 11), (3, 2, 2, 2), {"stride": 3}),
    "dilation": ((1, 2, 9, 8), (3, 2, 3, 2), {"dilation": (2, 3), "padding": (1, 2)}),
    "same": ((2, 2, 5, 4), (3, 2, 4, 2), {"padding": "same"}),
    "groups": ((2, 6, 5, 5), (4, 3, 3, 3), {"groups": 2, "stride": 2, "padding": 1}),
    "depthwise": ((2, 3, 6, 5), (3, 1, 3, 3), {"groups": 3, "padding": 1}),
    "depthwise, two outputs a channel": ((1, 3, 6, 5), (6, 1, 3, 3), {"groups": 3}),
    **{
        f"{mode}, asymmetric": ((2, 2, 5, 6), (3, 2, 3, 3), {"padding": ((1, 3), (4, 0)), "padding_mode": mode})
        for mode in MODES
    },
    **{
        f"{mode}, everything": (
            (2, 4, 7, 6),
            (6, 2, 2, 3),
            {"padding": ((0, 3), (2, 1)), "padding_mode": mode, "stride": (3, 2), "dilation": (1, 2), "groups": 2},
        )
        for mode in MODES
    },
}
every_case = pytest.mark.parametrize(("x_shape", "w_shape", "arguments"), CASES.values(), ids=CASES)


def integers(shape: tuple[int, ...], dtype: str = "float64", seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(-4, 5, shape).astype(dtype)


def inner(a: Array, b: Array) -> float:
    assert a.shape == b.shape
    return float((a.astype(np.float64) * b).sum())


def check_adjoint(x: Array, w: Array, arguments: dict[str, Any]) -> None:
    """All three inner products are the same integer."""
    y = conv2d(x, w, backend="python_loops", **arguments)
    g = integers(y.shape, x.dtype.name, seed=2)
    grad_x = conv2d_input(x.shape, w, g, **arguments)
    grad_w = conv2d_weight(x, w.shape, g, **arguments)
    assert (grad_x.dtype, grad_w.dtype) == (x.dtype, x.dtype)
    assert inner(y, g) == inner(x, grad_x) == inner(w, grad_w)


@pytest.mark.parametrize("dtype", DTYPES)
@every_case
def test_the_gradients_are_adjoint_to_the_convolution(
    x_shape: tuple[int, ...], w_shape: tuple[int, ...], arguments: dict[str, Any], dtype: str
) -> None:
    check_adjoint(integers(x_shape, dtype), integers(w_shape, dtype, seed=1), arguments)


@every_case
def test_the_gradients_are_central_differences(
    x_shape: tuple[int, ...], w_shape: tuple[int, ...], arguments: dict[str, Any]
) -> None:
    """Convolution is linear in each operand, so that a step of 1 makes no error at all."""
    x, w = integers(x_shape), integers(w_shape, seed=1)
    g = integers(conv2d(x, w, **arguments).shape, seed=2)

    def slope(array: Array, at: tuple[int, ...]) -> float:
        ends = []
        for step in (1, -2):
            array[at] += step
            ends.append(inner(conv2d(x, w, backend="numpy_strided", **arguments), g))
        array[at] += 1
        return (ends[0] - ends[1]) / 2

    for array, gradient in (
        (x, conv2d_input(x_shape, w, g, **arguments)),
        (w, conv2d_weight(x, w_shape, g, **arguments)),
    ):
        numeric = np.array([slope(array, at) for at in np.ndindex(array.shape)]).reshape(array.shape)
        np.testing.assert_array_equal(gradient, numeric)


@st.composite
def specs(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]:
    """A convolution that is valid by construction: the image is as large as its kernel and padding ask for."""
    groups, mode = draw(st.integers(1, 3)), draw(st.sampled_from(MODES))
    kernel, stride, dilation, padding, size = [], [], [], [], []
    for _ in "hw":
        k, d = draw(st.integers(1, 3)), draw(st.integers(1, 3))
        before, after = draw(st.integers(0, 3)), draw(st.integers(0, 3))
        least = max(1, d * (k - 1) + 1 - before - after)
        if mode in ("reflect", "circular"):
            least = max(least, max(before, after) + (mode == "reflect"))
        size.append(least + draw(st.integers(0, 4)))
        kernel.append(k)
        dilation.append(d)
        padding.append((before, after))
        stride.append(draw(st.integers(1, 3)))
    batch = draw(st.sampled_from([(), (1,), (2,)]))
    c, o = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    arguments = {"stride": tuple(stride), "dilation": tuple(dilation), "padding": tuple(padding), "groups": groups}
    return (*batch, groups * c, *size), (groups * o, c, *kernel), arguments | {"padding_mode": mode}


def test_the_adjoint_identity_holds_for_any_convolution(effort: Effort) -> None:
    @effort.each(spec=specs())
    def check(spec: tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]) -> None:
        x_shape, w_shape, arguments = spec
        check_adjoint(integers(x_shape), integers(w_shape, seed=1), arguments)


@pytest.mark.parametrize("dtype", DTYPES)
def test_pixels_that_no_window_covers_get_exactly_zero(dtype: str) -> None:
    grad_x = conv2d_input((1, 8, 10), np.ones((1, 1, 2, 2), dtype), np.full((1, 3, 3), np.pi, dtype), stride=(3, 4))
    covered = np.outer([1, 1, 0, 1, 1, 0, 1, 1], [1, 1, 0, 0, 1, 1, 0, 0, 1, 1]).astype(bool)
    np.testing.assert_array_equal(grad_x[0][~covered], 0)
    np.testing.assert_array_equal(grad_x[0][covered], np.array(np.pi, dtype))


def test_the_gradient_of_the_bias_is_the_sum_over_images_and_positions() -> None:
    x, w, b = integers((2, 3, 5, 6)), integers((4, 3, 3, 3)), integers((4,), seed=1)
    g = integers((2, 4, 3, 4), seed=2)
    for channel, slope in enumerate(g.sum((0, 2, 3))):
        step = np.eye(4)[channel]
        assert inner(conv2d(x, w, b + step) - conv2d(x, w, b - step), g) / 2 == slope


@pytest.mark.parametrize(("n", "c", "o"), [(0, 2, 4), (2, 0, 4), (2, 2, 0)])
def test_an_empty_axis_gives_gradients_of_zero(n: int, c: int, o: int) -> None:
    x, w, g = np.ones((n, c, 5, 5)), np.ones((o, c, 3, 3)), np.ones((n, o, 3, 3))
    np.testing.assert_array_equal(conv2d_input(x.shape, w, g), np.zeros(x.shape), strict=True)
    np.testing.assert_array_equal(conv2d_weight(x, w.shape, g), np.zeros(w.shape), strict=True)
    np.testing.assert_array_equal(conv_transpose2d(g, w), np.zeros(x.shape), strict=True)


def scattered(x: Array, w: Array, stride: Any, padding: Any, output_padding: Any, dilation: Any, groups: int) -> Array:
    """The definition of transposed convolution: every pixel stamps its kernel onto a canvas, which is then cropped."""
    (n, c, *size), (_, o, *kernel) = x.shape, w.shape
    spans = zip(size, stride, dilation, kernel, output_padding, strict=True)
    canvas = np.zeros((n, o * groups, *((h - 1) * s + d * (k - 1) + 1 + e for h, s, d, k, e in spans)))
    for b, ci, co, i, j in product(range(n), range(c), range(o), range(size[0]), range(size[1])):
        out = ci // (c // groups) * o + co
        for p, q in np.ndindex(*kernel):
            at = i * stride[0] + p * dilation[0], j * stride[1] + q * dilation[1]
            canvas[b, out, *at] += x[b, ci, i, j] * w[ci, co, p, q]
    ph, pw = padding
    return canvas[:, :, ph : canvas.shape[2] - ph, pw : canvas.shape[3] - pw]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("changes", "groups"),
    [
        ({}, 1),
        ({"stride": (2, 3)}, 1),
        ({"padding": (2, 1)}, 1),
        ({"padding": (3, 2), "stride": (3, 2), "output_padding": (2, 0)}, 1),
        ({"dilation": (2, 3), "stride": (1, 2), "padding": (1, 0)}, 1),
        ({"dilation": (2, 1), "output_padding": (1, 0)}, 1),
        ({"dilation": (1, 3), "stride": (2, 2), "output_padding": (1, 2)}, 1),
        ({"stride": (2, 2), "padding": (1, 1), "output_padding": (1, 1)}, 2),
        ({"stride": (1, 2)}, 4),
    ],
)
def test_transposed_convolution_stamps_every_pixel(changes: dict[str, Any], groups: int, dtype: str) -> None:
    arguments = {"stride": (1, 1), "padding": (0, 0), "output_padding": (0, 0), "dilation": (1, 1)} | changes
    x, w, b = integers((2, 4, 3, 5), dtype), integers((4, 2, 3, 2), dtype, 1), integers((2 * groups,), dtype, 2)
    expected = scattered(x, w, **arguments, groups=groups)
    y = conv_transpose2d(x, w, groups=groups, **arguments)
    np.testing.assert_array_equal(y, expected.astype(dtype), strict=True)
    single = conv_transpose2d(x[1], w, b, groups=groups, **arguments)
    np.testing.assert_array_equal(single, (expected[1] + b[:, None, None]).astype(dtype), strict=True)


def test_transposed_convolution_is_the_gradient_of_the_input() -> None:
    w, g = integers((4, 2, 3, 3)), integers((2, 4, 3, 4), seed=1)
    y = conv_transpose2d(g, w, stride=2, padding=1, output_padding=(1, 0), groups=2)
    np.testing.assert_array_equal(y, conv2d_input(y.shape, w, g, stride=2, padding=1, groups=2))


@pytest.mark.parametrize(
    ("grad", "error", "text"),
    [
        (np.ones((2, 4, 3, 5)), ProblemError, "expected shape (2, 4, 3, 4), got (2, 4, 3, 5) (problem mb2ic3ih5iw6oc4"),
        (np.ones((1, 4, 3, 4)), ProblemError, "expected shape (2, 4, 3, 4), got (1, 4, 3, 4) (problem mb2ic3ih5iw6oc4"),
        (
            np.ones((4, 3, 4)),
            ProblemError,
            "expected 4 dimensions like the output, got 3 (grad_output.shape=(4, 3, 4); add an axis",
        ),
        (np.ones((2, 4, 3, 4), np.float32), DTypeError, "expected dtype float64 like the other array, got float32"),
        (np.ones((2, 4, 3, 4), int), DTypeError, "expected dtype float32 or float64, got int64"),
        ([[1.0]], DTypeError, "expected a numpy.ndarray, got list"),
    ],
)
def test_a_gradient_that_is_not_like_the_output_is_refused(grad: Any, error: type[Exception], text: str) -> None:
    x, w = np.ones((2, 3, 5, 6)), np.ones((4, 3, 3, 3))
    with pytest.raises(error, match="^" + re.escape(f"conv2d_input: grad_output: {text}")):
        conv2d_input(x.shape, w, grad)
    with pytest.raises(error, match="^" + re.escape(f"conv2d_weight: grad_output: {text}")):
        conv2d_weight(x, w.shape, grad)


def test_a_batch_of_gradients_does_not_fit_one_image() -> None:
    x, w, g = np.ones((3, 5, 6)), np.ones((4, 3, 3, 3)), np.ones((1, 4, 3, 4))
    with pytest.raises(ProblemError, match=r"^conv2d_input: grad_output: expected 3 dimensions like the output, go"):
        conv2d_input(x.shape, w, g)
    with pytest.raises(ProblemError, match=r"^conv2d_weight: grad_output: expected 3 dimensions like the output, go"):
        conv2d_weight(x, w.shape, g)


def test_the_operands_of_a_gradient_are_left_alone() -> None:
    arrays = [integers((2, 3, 5, 6)), integers((4, 3, 3, 3), seed=1), integers((2, 4, 5, 6), seed=2)]
    for array in arrays:
        array.flags.writeable = False
    x, w, g = arrays
    before = [array.copy() for array in arrays]
    for mode in MODES:
        results = [
            conv2d_input(x.shape, w, g, padding=1, padding_mode=mode),
            conv2d_weight(x, w.shape, g, padding=1, padding_mode=mode),
        ]
        assert all(result.flags.c_contiguous and result.flags.writeable for result in results)
    for array, old in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(array, old)
