"""What an error advises for common mistakes; every expression that it proposes is evaluated and must then work."""

from __future__ import annotations

import array
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from effort import Effort
from PIL import Image

import conv_impls as ci
from conv_impls import Conv2dProblem, ConvError, DTypeError, ProblemError, hints, validation
from conv_impls.validation import Array

F = np.float32


def ones(*shape: int) -> Array:
    return np.ones(shape, F)


RGB, GRAY, FIRST = ones(30, 28, 3), ones(30, 28), ones(3, 30, 28)
W, DEPTHWISE, ONE_KERNEL, HWIO, OHWI = (
    ones(8, 3, 3, 3), ones(3, 1, 3, 3), ones(1, 1, 3, 3), ones(3, 3, 16, 32), ones(32, 3, 3, 16),
)  # fmt: skip
READY = ci.plan(Conv2dProblem.from_arrays(FIRST, W, padding=1), W, threads=1)
SINGLE = ci.plan(Conv2dProblem.from_arrays(ones(1, 30, 28), ONE_KERNEL), ONE_KERNEL, threads=1)
# Function, its arguments, the replacements that the error must propose.
Case = tuple[Callable[..., Any], dict[str, Any], dict[str, str]]
LAYOUTS: dict[str, Case] = {
    "channels last": (ci.conv2d, {"x": RGB, "weight": W}, {"x": "x.transpose(2, 0, 1)"}),
    "channels last, batch": (ci.conv2d, {"x": RGB[None], "weight": W}, {"x": "x.transpose(0, 3, 1, 2)"}),
    "channels last, depthwise": (
        ci.conv2d, {"x": RGB, "weight": DEPTHWISE, "groups": 3}, {"x": "x.transpose(2, 0, 1)"},
    ),
    "channels last, rows divisible by the groups": (
        ci.conv2d, {"x": RGB[:27], "weight": DEPTHWISE, "groups": 3}, {"x": "x.transpose(2, 0, 1)"},
    ),
    "one channel last": (ci.conv2d, {"x": RGB[..., :1], "weight": ONE_KERNEL}, {"x": "x.transpose(2, 0, 1)"}),
    "alpha last": (ci.conv2d, {"x": ones(30, 28, 4), "weight": W}, {"x": "x[..., :3].transpose(2, 0, 1)"}),
    "alpha last, batch": (ci.conv2d, {"x": ones(2, 30, 28, 4), "weight": W}, {"x": "x[..., :3].transpose(0, 3, 1, 2)"}),
    "gray and alpha last": (
        ci.conv2d, {"x": RGB[..., :2], "weight": ONE_KERNEL}, {"x": "x[..., :1].transpose(2, 0, 1)"},
    ),
    "alpha first": (ci.conv2d, {"x": ones(4, 30, 28), "weight": W}, {"x": "x[:3]"}),
    "alpha first, batch": (ci.conv2d, {"x": ones(2, 4, 30, 28), "weight": W}, {"x": "x[:, :3]"}),
    "gray": (ci.conv2d, {"x": GRAY, "weight": ONE_KERNEL}, {"x": "x[None]"}),
    "a row of pixels": (ci.conv2d, {"x": GRAY[0], "weight": ones(1, 1, 1, 3)}, {"x": "x[None, None]"}),
    "gray images as a stack": (ci.conv2d, {"x": ones(60, 30, 28), "weight": ONE_KERNEL}, {"x": "x[:, None]"}),
    "one kernel for each color": (
        ci.conv2d, {"x": RGB, "weight": ONE_KERNEL}, {"x": "x.transpose(2, 0, 1)[:, None]"},
    ),
    "five dimensions": (ci.conv2d, {"x": FIRST[None, None], "weight": W}, {"x": "x[0]"}),
    "one 2-D kernel": (ci.conv2d, {"x": ones(1, 9, 9), "weight": ones(3, 3)}, {"weight": "weight[None, None]"}),
    "one output channel": (ci.conv2d, {"x": FIRST, "weight": W[0]}, {"weight": "weight[None]"}),
    "groups forgotten": (ci.conv2d, {"x": ones(2, 3, 9, 9), "weight": DEPTHWISE}, {"groups": "groups=3"}),
    "HWIO": (ci.conv2d, {"x": ones(16, 9, 9), "weight": HWIO}, {"weight": "weight.transpose(3, 2, 0, 1)"}),
    "OHWI": (ci.conv2d, {"x": ones(16, 9, 9), "weight": OHWI}, {"weight": "weight.transpose(0, 3, 1, 2)"}),
    "HWIO and channels last": (
        ci.conv2d, {"x": ones(1, 9, 8, 16), "weight": HWIO},
        {"weight": "weight.transpose(3, 2, 0, 1)", "x": "x.transpose(0, 3, 1, 2)"},
    ),
    "bias of four dimensions": (
        ci.conv2d, {"x": FIRST, "weight": W, "bias": ones(1, 8, 1, 1)}, {"bias": "bias.reshape(-1)"},
    ),
    "problem": (Conv2dProblem.from_arrays, {"x": RGB, "weight": W}, {"x": "x.transpose(2, 0, 1)"}),
    "plan": (READY, {"x": RGB}, {"x": "x.transpose(2, 0, 1)"}),
    "plan, batch": (READY, {"x": RGB[None]}, {"x": "x.transpose(0, 3, 1, 2)"}),
    "plan, gray": (SINGLE, {"x": GRAY}, {"x": "x[None]"}),
    "plan, HWIO": (
        ci.plan, {"problem": READY.problem, "weight": ones(3, 3, 3, 8)}, {"weight": "weight.transpose(3, 2, 0, 1)"},
    ),
    "gradient of a channels-last weight": (
        ci.conv2d_weight, {"x": RGB, "weight_size": W.shape, "grad_output": ones(8, 28, 26)},
        {"x": "x.transpose(2, 0, 1)"},
    ),
    "gradient of channels last": (
        ci.conv2d_input, {"input_size": RGB.shape, "weight": W, "grad_output": ones(8, 28, 26)},
        {"input_size": "input_size=(3, 30, 28)"},
    ),
    "gradient as a batch": (
        ci.conv2d_input, {"input_size": FIRST.shape, "weight": W, "grad_output": ones(1, 8, 28, 26)},
        {"grad_output": "grad_output[0]"},
    ),
    "transposed, channels last": (
        ci.conv_transpose2d, {"x": RGB, "weight": ones(3, 8, 3, 3)}, {"x": "x.transpose(2, 0, 1)"},
    ),
    "transposed, weight of conv2d": (
        ci.conv_transpose2d, {"x": FIRST, "weight": W}, {"weight": "weight.transpose(1, 0, 2, 3)"},
    ),
    "columns": (ci.im2col, {"x": GRAY, "kernel_size": 3}, {"x": "x[None]"}),
    "filter of colors": (ci.apply_kernel, {"img2d": RGB, "kernel": ones(3, 3)}, {"img2d": "img2d[..., 0]"}),
    "filter of planes": (ci.apply_kernel, {"img2d": FIRST, "kernel": ones(3, 3)}, {"img2d": "img2d[0]"}),
    "filter by a weight": (ci.apply_kernel, {"img2d": GRAY, "kernel": ONE_KERNEL}, {"kernel": "kernel[0, 0]"}),
}  # fmt: skip


def refusal(call: Callable[..., Any], arguments: dict[str, Any], error: type[ConvError]) -> str:
    with pytest.raises(error) as caught:
        call(**arguments)
    return str(caught.value)


@pytest.mark.parametrize(("call", "arguments", "proposed"), LAYOUTS.values(), ids=LAYOUTS)
def test_a_proposed_order_of_axes_works(
    call: Callable[..., Any], arguments: dict[str, Any], proposed: dict[str, str]
) -> None:
    text = refusal(call, arguments, ProblemError)
    assert all(expression in text for expression in proposed.values()), text
    call(**arguments | {name: eval(e.removeprefix(f"{name}="), {}, arguments) for name, e in proposed.items()})


def test_whatever_is_proposed_for_shapes_that_do_not_fit_makes_them_fit(effort: Effort) -> None:
    rng, proposals = np.random.default_rng(effort.seed), Counter[str]()
    for _ in range(effort.calls):
        batch = [[], [1], [2]][rng.integers(3)]
        arguments: dict[str, Any] = {
            "x": np.empty([*batch, *rng.choice([1, 2, 3, 4, 6, 9], 3)]),
            "weight": np.empty(rng.choice([1, 2, 3, 4, 6], 4)),
            "groups": int(rng.choice([1, 1, 2, 3])),
        }
        try:
            fits(**arguments)
        except ProblemError as error:
            found = re.findall(r"((?:x|weight)(?:\[[^]]*\]|\.transpose\([^)]*\))+)", str(error).partition("; ")[2])
            changed = {text.partition(".")[0].partition("[")[0]: eval(text, {}, arguments) for text in found}
            if groups := re.search(r"; groups=(\d+) fits", str(error)):
                changed["groups"] = int(groups[1])
            if changed:
                fits(**arguments | changed)
            proposals.update([",".join(sorted(changed))])
    assert proposals.keys() == {"x", "weight", "weight,x", "groups", ""}


def fits(x: Array, weight: Array, groups: int) -> None:
    validation.channels("conv2d", x.shape, weight.shape, groups)


def test_a_gray_image_may_also_go_to_apply_kernel() -> None:
    assert "apply_kernel" in refusal(ci.conv2d, {"x": GRAY, "weight": ONE_KERNEL}, ProblemError)
    assert "apply_kernel" not in refusal(ci.conv2d, {"x": FIRST, "weight": W[0]}, ProblemError)
    assert "apply_kernel" not in refusal(SINGLE, {"x": GRAY}, ProblemError)


@pytest.mark.parametrize(
    ("names", "x", "weight"),
    [
        (("x", "weight"), (1, 5, 9, 9), (8, 3, 3, 3)),  # nothing fits
        (("x", "weight"), (2, 7, 9, 9), (8, 1, 3, 3)),  # a batch cannot be a stack of gray images
        (("x", "weight"), (5, 9, 9), (7, 7, 5, 3)),  # as (kH, kW, C_in, C_out) the kernel would be larger
        (("in_size", "kernel_size"), (1, 9, 9, 3), (8, 3, 3, 3)),  # sizes of a Conv2dProblem have no order
    ],
)
def test_where_nothing_fits_there_is_no_advice(names: tuple[str, str], x: Any, weight: Any) -> None:
    assert hints.channels(names, x, weight, 1) == ""


def test_channels_that_are_where_they_belong_are_not_moved() -> None:
    text = refusal(ci.conv2d, {"x": ones(4, 9, 4), "weight": ones(5, 2, 3, 3), "groups": 2}, ProblemError)
    assert text.startswith("conv2d: groups: expected a divisor of the 5 output channels, got 2 (")
    assert text.endswith("groups=2)")


def test_the_shape_in_an_error_is_the_one_that_was_given() -> None:
    assert "(x.shape=(30, 28, 3), weight" in refusal(ci.conv2d, {"x": RGB, "weight": W}, ProblemError)
    assert "(x.shape=(1, 30, 28, 3), weight" in refusal(ci.conv2d, {"x": RGB[None], "weight": W}, ProblemError)


FRAME, SPARSE = pd.DataFrame(np.ones((5, 4), F)), scipy.sparse.csr_array(ones(5, 4))
TYPES: dict[str, tuple[Any, str]] = {
    "list": (ones(5, 4).tolist(), "numpy.asarray(img2d, numpy.float32)"),
    "tuple": (((1, 2), (3, 4)), "numpy.asarray(img2d, numpy.float32)"),
    "memoryview": (memoryview(ones(5, 4).data), "numpy.asarray(img2d, numpy.float32)"),
    "DataFrame": (FRAME, "img2d.to_numpy()"),
    "csr_array": (SPARSE, "img2d.toarray()"),
    "Image": (Image.new("L", (5, 4)), "numpy.asarray(img2d, numpy.float32)"),
}


@pytest.mark.parametrize(("value", "expression"), TYPES.values(), ids=TYPES)
def test_a_proposed_conversion_works(value: Any, expression: str) -> None:
    arguments = {"img2d": value, "kernel": ones(3, 3)}
    assert refusal(ci.apply_kernel, arguments, DTypeError).endswith(f" (convert with {expression})")
    ci.apply_kernel(eval(expression, {"numpy": np}, arguments), ones(3, 3))


@pytest.mark.parametrize("name", hints.CONVERSIONS)
def test_a_library_is_recognized_by_one_attribute_of_its_arrays(name: str) -> None:
    foreign = type("Foreign", (), {name: property(lambda _: pytest.fail("a property of the value ran"))})()
    assert hints.conversion("x", foreign) == f"convert with {hints.CONVERSIONS[name].format('x')}"


def test_a_tensor_is_detached_although_it_has_other_conversions() -> None:
    both = type("Tensor", (), {"numpy": None, "__array__": None, "detach": None})()
    assert hints.conversion("x", both) == "convert with x.detach().cpu().numpy()"


@pytest.mark.parametrize("value", [3, 2.5, F(1), {}, SimpleNamespace(), iter([])])
def test_there_is_no_conversion_of_what_is_no_array(value: Any) -> None:
    assert hints.conversion("x", value) == ""
    assert refusal(ci.conv2d, {"x": value, "weight": W}, DTypeError).endswith(f"got {type(value).__name__}")


@pytest.mark.parametrize("value", ["photo.png", b"photo.png", Path("photo.png")])
def test_a_file_is_read_first(value: Any) -> None:
    assert "(read the file into an array first)" in refusal(ci.conv2d, {"x": value, "weight": W}, DTypeError)


def test_none_may_be_a_missing_file_but_not_as_a_weight() -> None:
    assert "None for a missing file)" in refusal(ci.conv2d, {"x": None, "weight": W}, DTypeError)
    assert refusal(ci.conv2d, {"x": FIRST, "weight": None}, DTypeError).endswith("got NoneType")


@pytest.mark.parametrize("value", [2, False, np.int64(2), np.True_])
def test_a_number_as_bias_was_meant_as_the_stride(value: Any) -> None:
    text = refusal(ci.conv2d, {"x": FIRST, "weight": W, "bias": value}, DTypeError)
    assert text.endswith("(None means no bias; stride is the next argument)")


@pytest.mark.parametrize("name", ["x", "weight"])
@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_complex_arrays_are_computed_by_parts(name: str, dtype: str) -> None:
    rng = np.random.default_rng(0)
    parts = {"x": rng.integers(-4, 5, (1, 2, 5, 5)), "weight": rng.integers(-4, 5, (3, 2, 3, 3))}
    real = np.empty(0, dtype).real.dtype
    arguments: dict[str, Any] = {key: value.astype(real) for key, value in parts.items()}
    arguments[name] = arguments[name] + 1j * arguments[name][::-1, :, ::-1]
    text = refusal(ci.conv2d, arguments, DTypeError)
    assert f"compute with {name}.real and, without bias, with {name}.imag; add the results as real + 1j * imag" in text
    assert "astype" not in text
    bias = np.arange(3, dtype=real)
    first = ci.conv2d(**arguments | {name: arguments[name].real, "bias": bias})
    second = ci.conv2d(**arguments | {name: arguments[name].imag})
    # The definition, in complex numbers.
    windows = np.lib.stride_tricks.sliding_window_view(arguments["x"][0], (3, 3), axis=(1, 2))
    expected = np.einsum("chwij,ocij->ohw", windows, arguments["weight"]) + bias[:, None, None]
    np.testing.assert_array_equal((first + 1j * second)[0], expected)


DTYPES = {
    "?": "(convert with .astype(numpy.float32))",
    "u1": "(convert with .astype(numpy.float32))",
    "i2": "(convert with .astype(numpy.float32))",
    "i4": "(convert with .astype(numpy.float32), or numpy.float64 for values above 2**24)",
    "u8": "(convert with .astype(numpy.float32), or numpy.float64 for values above 2**24)",
    "f2": "(convert with .astype(numpy.float32))",
    "O": "(if every element is a number, convert with .astype(numpy.float32))",
    "U3": "(if every element is a number, convert with .astype(numpy.float32))",
}


@pytest.mark.parametrize(("code", "advice"), DTYPES.items())
def test_a_proposed_dtype_works(code: str, advice: str) -> None:
    x = FIRST.astype(np.uint8).astype(code)
    assert refusal(ci.conv2d, {"x": x, "weight": W}, DTypeError).endswith(advice)
    ci.conv2d(x.astype(F), W)


def test_whole_numbers_above_the_limit_of_the_advice_are_rounded() -> None:
    assert [int(F(2**24 + i)) for i in range(2)] == [2**24, 2**24]


@pytest.mark.skipif(np.dtype(np.longdouble).itemsize == 8, reason="here a long double is a double")
def test_a_long_double_keeps_what_a_double_can_hold() -> None:
    text = refusal(ci.conv2d, {"x": FIRST.astype(np.longdouble), "weight": W}, DTypeError)
    assert text.endswith("(convert with .astype(numpy.float64))")


def test_fields_and_dates_are_not_cast() -> None:
    pixels = np.zeros((3, 9, 9), [("r", F), ("g", F)])
    text = refusal(ci.conv2d, {"x": pixels, "weight": W}, DTypeError)
    assert "(pass one field, such as x['r']" in text
    ci.conv2d(pixels["r"], W)
    days = refusal(ci.conv2d, {"x": np.zeros((3, 9, 9), "M8[D]"), "weight": W}, DTypeError)
    assert days.endswith("got datetime64[D]")


@pytest.mark.parametrize("value", [FIRST, array.array("d", [1.5]), FRAME], ids=["ndarray", "array", "DataFrame"])
def test_an_array_in_place_of_its_shape(value: Any) -> None:
    text = refusal(ci.conv2d_input, {"input_size": value, "weight": W, "grad_output": ones(8, 28, 26)}, ConvError)
    assert text.startswith("conv2d_input: input_size: expected a sequence of 3 or 4 sizes, got ")
    assert ("(pass its shape, such as x.shape)" in text) == hasattr(value, "shape")


def test_a_long_value_is_cut() -> None:
    text = refusal(ci.conv2d, {"x": FIRST, "weight": W, "stride": list(range(1000))}, ProblemError)
    assert len(text) < 300
    assert text.endswith("...")
