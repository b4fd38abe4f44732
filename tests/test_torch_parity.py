"""The same numbers as PyTorch: forward on every backend, both gradients, transposed convolution, parameter counts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from conv_impls import (
    Conv2dProblem,
    DTypeError,
    UnsupportedError,
    backends,
    conv2d,
    conv2d_input,
    conv2d_weight,
    conv_transpose2d,
    get_backend,
    trace,
)
from conv_impls.lesson import conv2d_im2col, conv2d_im2col_backward
from conv_impls.validation import Array

F = torch.nn.functional

# Our names of the padding modes -> torch.nn.functional.pad's.
MODES = {"zeros": "constant", "reflect": "reflect", "replicate": "replicate", "circular": "circular"}
ASYMMETRIC = ((1, 3), (2, 0))
CASES: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "plain": ((2, 3, 9, 8), (4, 3, 3, 3), {}),
    "one image": ((3, 9, 8), (4, 3, 3, 2), {"padding": 1}),
    "one pixel kernel": ((2, 8, 5, 6), (4, 8, 1, 1), {}),
    "strides": ((1, 3, 11, 10), (4, 3, 3, 5), {"stride": (2, 3), "padding": (1, 2)}),
    "stride beyond the kernel": ((1, 2, 11, 10), (3, 2, 2, 2), {"stride": (4, 3)}),
    "dilation": ((1, 3, 12, 11), (4, 3, 3, 2), {"dilation": (2, 3), "padding": 2}),
    "groups": ((2, 6, 7, 7), (4, 3, 3, 3), {"groups": 2, "padding": 1}),
    "depthwise": ((2, 5, 8, 7), (10, 1, 3, 3), {"groups": 5, "stride": 2, "padding": 1}),
    "same, odd": ((2, 3, 7, 6), (4, 3, 3, 5), {"padding": "same", "dilation": (2, 1)}),
    "same, even": ((2, 3, 7, 6), (4, 3, 4, 2), {"padding": "same"}),
    "valid": ((2, 3, 7, 6), (4, 3, 4, 2), {"padding": "valid", "stride": 2}),
    "large kernel": ((1, 2, 16, 16), (2, 2, 11, 11), {"padding": 5}),
    **{
        f"{mode}, asymmetric": ((2, 4, 6, 7), (6, 2, 3, 3), {"padding": ASYMMETRIC, "padding_mode": mode, "groups": 2})
        for mode in MODES
    },
    **{
        f"{mode}, strided": (
            (1, 2, 6, 7),
            (3, 2, 3, 2),
            {"padding": 2, "padding_mode": mode, "stride": 2, "dilation": 2},
        )
        for mode in MODES
    },
}
every_case = pytest.mark.parametrize(("x_shape", "w_shape", "arguments"), CASES.values(), ids=CASES)
# torch says so once where an even kernel makes "same" lopsided; that is the case under test.
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """No team of torch's own beside the kernels'; afterwards torch is as it was."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def normal(shape: tuple[int, ...], dtype: str = "float64", seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def forward(x: Any, w: Any, b: Any = None, *, padding: Any = 0, padding_mode: str = "zeros", **others: Any) -> Any:
    """torch's convolution, its pad first where ours pads by itself."""
    if padding_mode == "zeros" and padding != ASYMMETRIC:
        return F.conv2d(x, w, b, padding=padding, **others)
    (top, bottom), (left, right) = ASYMMETRIC if padding == ASYMMETRIC else ((padding, padding),) * 2
    return F.conv2d(F.pad(x, (left, right, top, bottom), MODES[padding_mode]), w, b, **others)


def tensors(*arrays: Array) -> list[Any]:
    return [torch.from_numpy(array).requires_grad_() for array in arrays]


def check_close(y: Array, expected: Any, scale: float) -> None:
    """|error| <= 64 u times the largest sum of |products|: room for any order of summation here, and for an FFT."""
    expected = expected.detach().numpy()
    assert (y.shape, y.dtype) == (expected.shape, expected.dtype)
    np.testing.assert_allclose(y, expected, rtol=0, atol=32 * np.finfo(y.dtype).eps * scale)


@pytest.mark.parametrize("backend", backends())
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@every_case
def test_every_backend_agrees_with_torch(
    x_shape: tuple[int, ...], w_shape: tuple[int, ...], arguments: dict[str, Any], dtype: str, backend: str
) -> None:
    x, w, b = normal(x_shape, dtype), normal(w_shape, dtype, 1), normal(w_shape[:1], dtype, 2)
    reason = get_backend(backend).supports(Conv2dProblem.from_arrays(x, w, **arguments))
    if reason is not None:
        with pytest.raises(UnsupportedError, match="cannot do"):
            conv2d(x, w, b, backend=backend, **arguments)
        return
    scale = forward(*tensors(abs(x), abs(w), abs(b)), **arguments).max().item()
    leaves = tensors(x, w)
    for bias, offset in ((None, None), (b, torch.from_numpy(b))):
        expected = forward(leaves[0], leaves[1], offset, **arguments)
        check_close(conv2d(x, w, bias, backend=backend, **arguments), expected, scale)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@every_case
def test_both_gradients_agree_with_autograd(
    x_shape: tuple[int, ...], w_shape: tuple[int, ...], arguments: dict[str, Any], dtype: str
) -> None:
    x, w = normal(x_shape, dtype), normal(w_shape, dtype, 1)
    y = forward(*(leaves := tensors(x, w)), **arguments)
    g = normal(tuple(y.shape), dtype, 2)
    expected = torch.autograd.grad(y, leaves, torch.from_numpy(g))
    absolute = forward(*(leaves := tensors(abs(x), abs(w))), **arguments)
    scales = torch.autograd.grad(absolute, leaves, torch.from_numpy(abs(g)))
    check_close(conv2d_input(x.shape, w, g, **arguments), expected[0], scales[0].max().item())
    check_close(conv2d_weight(x, w.shape, g, **arguments), expected[1], scales[1].max().item())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"stride": (2, 3), "padding": (1, 2)},
        {"stride": 3, "output_padding": (2, 1)},
        {"dilation": (2, 3), "padding": 1},
        {"dilation": 3, "output_padding": 2},
        {"groups": 2, "stride": 2, "padding": 1, "output_padding": 1},
        {"groups": 4, "stride": 2},
    ],
    ids=str,
)
def test_transposed_convolution_agrees_with_torch(arguments: dict[str, Any], dtype: str) -> None:
    x, w = normal((2, 4, 5, 6), dtype), normal((4, 3, 3, 2), dtype, 1)
    b = normal((3 * arguments.get("groups", 1),), dtype, 2)
    scale = F.conv_transpose2d(*tensors(abs(x), abs(w), abs(b)), **arguments).max().item()
    for image in (x, x[0]):
        check_close(
            conv_transpose2d(image, w, b, **arguments), F.conv_transpose2d(*tensors(image, w, b), **arguments), scale
        )
        check_close(conv_transpose2d(image, w, **arguments), F.conv_transpose2d(*tensors(image, w), **arguments), scale)


@pytest.mark.parametrize(("stride", "padding", "groups"), [(1, 0, 1), (2, 1, 1), (1, 1, 2), (3, 2, 4)])
@pytest.mark.parametrize("batch", [(), (2,)])
def test_the_lesson_agrees_with_autograd(batch: tuple[int, ...], stride: int, padding: int, groups: int) -> None:
    x, w, b = normal((*batch, 4, 8, 9)), normal((8, 4 // groups, 3, 3), seed=1), normal((8,), seed=2)
    leaves = tensors(x, w, b)
    expected = F.conv2d(*leaves, stride=stride, padding=padding, groups=groups)
    y = conv2d_im2col(x, w, b, stride, padding, groups)
    check_close(y, expected, 100)
    g = normal(y.shape, seed=3)
    gradients = conv2d_im2col_backward(g, x, w, stride, padding, groups)
    for gradient, slope in zip(gradients, torch.autograd.grad(expected, leaves, torch.from_numpy(g)), strict=True):
        check_close(gradient, slope, 1000)


@pytest.mark.parametrize(
    ("text", "module"),
    [
        ("conv 64 k3 p1", {"out_channels": 64, "kernel_size": 3, "padding": 1}),
        ("conv 64 k3 nobias", {"out_channels": 64, "kernel_size": 3, "bias": False}),
        (
            "conv 16 k3x5 s2x3 p1x2 g4",
            {"out_channels": 16, "kernel_size": (3, 5), "stride": (2, 3), "padding": (1, 2), "groups": 4},
        ),
        (
            "conv 16 k5 d2 psame dw",
            {"out_channels": 16, "kernel_size": 5, "dilation": 2, "padding": "same", "groups": 8},
        ),
    ],
)
def test_traced_sizes_and_parameters_are_those_of_the_module(text: str, module: dict[str, Any]) -> None:
    layer = torch.nn.Conv2d(8, **module)
    step = trace((8, 21, 26), text).layers[0]
    assert step.parameters == sum(parameter.numel() for parameter in layer.parameters())
    assert step.output == tuple(layer(torch.zeros(8, 21, 26)).shape)


def test_positional_arguments_mean_what_they_mean_in_torch() -> None:
    """Every value differs from its neighbors, so swapped arguments would change the result or its shape."""
    x, w, b, up = normal((2, 4, 9, 8)), normal((6, 2, 3, 3)), normal((6,)), normal((4, 3, 3, 3))
    order = (2, 1), (3, 4), (1, 2), 2
    expected = F.conv2d(*tensors(x, w, b), *order)
    check_close(conv2d(x, w, b, *order), expected, 40)
    g = normal(tuple(expected.shape))
    check_close(conv2d_input(x.shape, w, g, *order), torch.nn.grad.conv2d_input(x.shape, *tensors(w, g), *order), 40)
    theirs = torch.nn.grad.conv2d_weight(torch.from_numpy(x), w.shape, torch.from_numpy(g), *order)
    check_close(conv2d_weight(x, w.shape, g, *order), theirs, 400)
    reverse = (3, 2), (2, 1), (1, 0), 2, (1, 3)
    check_close(conv_transpose2d(x, up, b, *reverse), F.conv_transpose2d(*tensors(x, up, b), *reverse), 40)


def test_sequences_of_one_number_mean_what_they_mean_in_torch() -> None:
    x, w, b, up = normal((2, 4, 9, 8)), normal((6, 4, 3, 3)), normal((6,)), normal((4, 6, 3, 3))
    one = (2,), (1,), (3,)
    check_close(conv2d(x, w, b, *one), F.conv2d(*tensors(x, w, b), *one), 100)
    arguments: dict[str, Any] = {"stride": (2,), "padding": (1,), "output_padding": (1,)}
    check_close(conv_transpose2d(x, up, b, **arguments), F.conv_transpose2d(*tensors(x, up, b), **arguments), 100)


@pytest.mark.parametrize("tensor", [torch.ones(3, 9, 9), torch.nn.Parameter(torch.ones(3, 9, 9))])
def test_a_tensor_is_refused_with_a_conversion_that_works(tensor: Any) -> None:
    weight = np.ones((4, 3, 3, 3), np.float32)
    with pytest.raises(DTypeError, match=r"\(convert with x\.detach\(\)\.cpu\(\)\.numpy\(\)\)$"):
        conv2d(tensor, weight)
    assert conv2d(tensor.detach().cpu().numpy(), weight).shape == (4, 7, 7)
