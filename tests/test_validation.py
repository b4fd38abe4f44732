"""What is refused, in which words and by which class of error."""

from __future__ import annotations

import re
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from arguments import BACKENDS, OUT, B, F, P, W, X, locked, misaligned

import conv_impls as ci
from conv_impls import (
    Conv2dProblem,
    ConvError,
    DTypeError,
    ProblemError,
    UnknownBackendError,
    UnsupportedError,
    registry,
)
from conv_impls.validation import Array

W_4, W_64 = np.ones((6, 4, 3, 3), F), W.astype(float)
V, D = ProblemError, DTypeError


def masked(array: Array) -> Array:
    result: Array = np.ma.masked_array(array, mask=array == 0)
    return result


# Name -> the name its errors start with, the call, and arguments that it takes; a row below spoils one of them.
FUNCTIONS: dict[str, tuple[str, Callable[..., Any], dict[str, Any]]] = {
    "conv2d": ("conv2d", ci.conv2d, {"x": X, "weight": W, "bias": B, "groups": 2}),
    "from_arrays": ("conv2d", Conv2dProblem.from_arrays, {"x": X, "weight": W, "groups": 2}),
    "plan": ("plan", ci.plan, {"problem": P, "weight": W, "bias": B}),
    "Plan": ("plan", ci.plan(P, W, B), {"x": X}),
    "problem": ("Conv2dProblem", P.replace, {}),
    "im2col": ("im2col", ci.im2col, {"x": X, "kernel_size": 3}),
    "col2im": ("col2im", ci.col2im, {"cols": np.ones((2, 36, 12), F), "input_size": X.shape, "kernel_size": 3}),
    "pad2d": ("pad2d", ci.pad2d, {"x": X, "padding": 1}),
    "input": ("conv2d_input", ci.conv2d_input, {"input_size": X.shape, "weight": W, "grad_output": OUT, "groups": 2}),
    "weight": ("conv2d_weight", ci.conv2d_weight, {"x": X, "weight_size": W.shape, "grad_output": OUT, "groups": 2}),
    "transpose": ("conv_transpose2d", ci.conv_transpose2d, {"x": X, "weight": np.ones((4, 3, 3, 3), F), "bias": B[:3]}),
    "apply": ("apply_kernel", ci.apply_kernel, {"img2d": X[0, 0], "kernel": W[0, 0]}),
}
COLUMNS = "im2col col2im "
ALL = COLUMNS + "conv2d from_arrays problem input weight"
GROUPED = "conv2d from_arrays input weight problem"
IMAGES = "conv2d from_arrays weight im2col pad2d"
CHANNELS = "2 input channels per group (4 / 2), got 4 (x.shape=(2, 4, 5, 6), weight.shape=(6, 4, 3, 3), groups=2"
FITS = "a kernel that fits the padded input along "
KERNEL_8 = FITS + "H, got span 8 (kernel 8 with dilation 1 spans 8, padded input is 5+0+2=7)"
LOW = {"padding": ((0, 2), (0, 0))}
DIMENSIONS = "3 or 4 dimensions (N, C, H, W) or (C, H, W), got {0.ndim} (x.shape={0.shape}"
MODES = "one of 'zeros', 'reflect', 'replicate', 'circular', got {0!r}"
WORDS = "an integer, (h, w), ((top, bottom), (left, right)), 'same' or 'valid', got {0!r}"
FOUR = "4 dimensions (C_out, C_in/groups, kH, kW), got {0.ndim} (weight.shape={0.shape}"
ONE, ZERO = "an integer >= 1, got {0!r}", "an integer >= 0, got {0!r}"
PAIR_1, PAIR_0 = (f"an integer or a pair (h, w), each >= {minimum}, got {{0!r}}" for minimum in (1, 0))
HUGE = "an array of at most 140737488355328 bytes, got "
USABLE = "a writeable, aligned, C-contiguous array, got flags C-contiguous={}, writeable={}, aligned={} (allocate it"
# Functions, argument, wrong values, error, text after "<function>: <argument>: expected ", other arguments.
Row = tuple[str, str, list[Any], type[ConvError], str, dict[str, Any]]
ROWS: list[Row] = [
    ("conv2d from_arrays im2col weight transpose Plan", "x", [X[0, 0], X[None]], V, DIMENSIONS, {}),
    (IMAGES, "x", [X[:, :, :0]], V, "H >= 1, got 0 (an empty image", {}),
    (IMAGES, "x", [X[..., :0]], V, "W >= 1, got 0 (an empty image", {}),
    ("conv2d", "x", [np.array(["a"], np.dtypes.StringDType())], D, "dtype float32 or float64, got StringDType()", {}),
    ("im2col", "x", [X[:, :0]], V, "at least one channel, got 0", {}),
    ("pad2d", "x", [B], V, "at least 2 dimensions (..., H, W), got 1 (x.shape=(6,))", {}),
    ("Plan", "x", [X[..., :5]], V, "shape (2, 4, 5, 6), got (2, 4, 5, 5) (make a plan for each input shape)", {}),
    ("Plan", "x", [X[0]], V, "shape (2, 4, 5, 6), got (4, 5, 6) (make a plan for each input shape)", {}),
    ("Plan", "x", [X.astype(float)], D, "dtype float32, got float64 (make a plan for each dtype)", {}),
    ("plan", "problem", ["ic3"], D, "a Conv2dProblem, got str (see Conv2dProblem.from_arrays)", {}),
    ("conv2d from_arrays input plan", "weight", [W[0], W[None]], V, FOUR, {}),
    ("conv2d from_arrays transpose", "weight", [W_64], D, "dtype float32 like x, got float64 (mixed", {}),
    ("conv2d from_arrays", "weight", [W], D, "dtype float64 like x, got float32 (mixed", {"x": X.astype(float)}),
    ("conv2d from_arrays", "weight", [W_4], V, CHANNELS, {}),
    (
        "input",
        "weight",
        [W_4],
        V,
        "2 input channels per group (4 / 2), got 4 (input_size=(2, 4, 5, 6), weight.shape=",
        {},
    ),
    ("conv2d from_arrays input", "weight", [np.ones((6, 2, 8, 3), F)], V, KERNEL_8, LOW),
    ("weight", "weight_size", [(6, 2, 8, 3)], V, KERNEL_8, LOW),
    (COLUMNS + "problem", "kernel_size", [(8, 3)], V, KERNEL_8, LOW),
    ("conv2d input", "weight", [W], V, FITS + "W, got span 7 (kernel 3 with dilation 3 spans 7", {"dilation": (1, 3)}),
    ("conv2d from_arrays input transpose", "weight", [np.ones((4, 2, 0, 3), F)], V, "kH >= 1, got 0", {"groups": 2}),
    ("conv2d from_arrays input transpose", "weight", [np.ones((4, 2, 3, 0), F)], V, "kW >= 1, got 0", {"groups": 2}),
    (
        "transpose",
        "weight",
        [X[:1]],
        V,
        "4 input channels as its first axis, a multiple of groups=1, got 1 (x.shape=(2",
        {},
    ),
    (
        "transpose",
        "weight",
        [X[[0] * 4]],
        V,
        "4 input channels as its first axis, a multiple of groups=3, got 4",
        {"groups": 3},
    ),
    ("plan", "weight", [W[:2]], V, "shape (6, 2, 3, 3), got (2, 2, 3, 3) (problem g2mb2ic4", {"backend": "none"}),
    ("plan", "weight", [W_64], D, "dtype float32 like the problem, got float64", {}),
    ("input weight", "grad_output", [OUT.astype(float)], D, "dtype float32 like the other array, got float64", {}),
    ("input weight", "grad_output", [OUT[0]], V, "4 dimensions like the output, got 3", {}),
    ("input weight", "grad_output", [OUT[:1]], V, "shape (2, 6, 3, 4), got (1, 6, 3, 4) (problem g2mb2ic4", {}),
    (GROUPED, "groups", [3], V, "a divisor of the 4 input channels, got 3 (", {}),
    (GROUPED, "groups", [4], V, "a divisor of the 6 output channels, got 4 (", {}),
    (GROUPED + " transpose", "groups", [0, -1], V, ONE, {}),
    (GROUPED + " transpose", "groups", [True, np.True_, 2.0, (2, 2), "2", None], D, ONE, {}),
    ("conv2d plan", "bias", [B[:5]], V, "shape (6,), got (5,) (weight has 6 output channels)", {}),
    ("transpose", "bias", [B], V, "shape (3,), got (6,) (weight has 3 output channels)", {}),
    ("conv2d plan transpose", "bias", [B.astype(float)], D, "dtype float32 like x, got float64 (mixed", {}),
    ("conv2d plan transpose", "bias", [B[None], np.array(1, F)], V, "1 dimension (C_out,), got {0.ndim} (bias", {}),
    (ALL + " transpose", "stride", [0, -1], V, ONE, {}),
    (ALL + " transpose", "stride", [(1, 0)], V, "an integer >= 1, got 0", {}),
    (ALL + " transpose", "stride", [True, 1.5, None, np.float64(1)], D, ONE, {}),
    (ALL + " transpose", "stride", [(True, 1)], D, "an integer >= 1, got True", {}),
    (ALL + " transpose", "stride", [(1, 1, 1), [], (), "2", b"2"], V, PAIR_1, {}),
    (ALL + " transpose", "stride", [([1], 2)], ConvError, "", {}),
    (ALL + " transpose", "dilation", [0, -1], V, ONE, {}),
    (ALL + " transpose", "dilation", [True, 2.5, None], D, ONE, {}),
    (ALL + " transpose", "dilation", [(1, 2, 3), "1"], V, PAIR_1, {}),
    (ALL + " transpose pad2d", "padding", [-1], V, ZERO, {}),
    (ALL + " transpose pad2d", "padding", [True, 1.5, None], D, ZERO, {}),
    (
        ALL + " pad2d",
        "padding",
        [(1, 2, 3), b"same", b"ok", ((0, 0),) * 3, ((1, 2),), (), ((1, 2, 3), (0, 0))],
        V,
        WORDS,
        {},
    ),
    ("transpose", "padding", [(1, 2, 3), b"same", ((0, 0),) * 3], V, PAIR_0, {}),
    (ALL + " transpose pad2d", "padding", [(0, -1)], V, "an integer >= 0, got -1", {}),
    (ALL + " pad2d", "padding", [((1, 2), 3), (3, [1, 2])], V, WORDS, {}),
    ("transpose", "padding", [((1, 2), 3)], ConvError, "", {}),
    (ALL + " pad2d", "padding", [((0, 0), (0, -1))], V, "an integer >= 0, got -1", {}),
    (ALL + " pad2d", "padding", [((0, 0), (0, 1.5))], D, "an integer >= 0, got 1.5", {}),
    (ALL, "padding", ["full", "", "SAME"], V, WORDS, {}),
    ("pad2d", "padding", ["full", "same", "valid"], V, "an integer, (h, w) or ((top, bottom), (left, right))", {}),
    (ALL + " pad2d", "padding", [10**9, 2**70, ((0, 0), (2**42, 0))], V, HUGE, {}),
    (ALL, "padding", ["same"], V, "'same' only with stride 1, got 'same' (stride=(1, 2)", {"stride": (1, 2)}),
    (ALL, "padding", [5], V, "less than H=5 for 'reflect', got 5", {"padding_mode": "reflect"}),
    (ALL, "padding", [((0, 0), (0, 6))], V, "less than W=6 for 'reflect', got 6", {"padding_mode": "reflect"}),
    (
        ALL,
        "padding",
        [(6, 0)],
        V,
        "at most H=5 for 'circular', got 6 (the image can wrap",
        {"padding_mode": "circular"},
    ),
    (ALL, "padding", [((0, 0), (7, 0))], V, "at most W=6 for 'circular', got 7", {"padding_mode": "circular"}),
    ("pad2d", "padding", [5], V, "less than H=5 for 'reflect', got 5", {"mode": "reflect"}),
    ("pad2d", "padding", [6], V, "at most H=5 for 'circular', got 6", {"mode": "circular"}),
    ("transpose", "padding", [9], V, "an output of at least 1x1, got -11x-10 (padding=(9, 9))", {}),
    ("transpose", "output_padding", [2], V, "less than stride 2 or dilation 1, got 2", {"stride": 2}),
    ("transpose", "output_padding", [-1], V, ZERO, {}),
    (ALL + " apply", "padding_mode", ["edge", None, ["zeros"], 0], V, MODES, {}),
    ("pad2d", "mode", ["edge", None], V, MODES, {}),
    ("conv2d plan", "precision", ["fast", None, 1], V, "one of 'strict', 'standard', got {0!r}", {}),
    ("conv2d plan", "threads", [0, -1], V, ONE, {}),
    ("conv2d plan", "threads", [True, 1.5, "2"], D, ONE, {}),
    ("conv2d Plan", "out", [[1.0]], D, "a plain numpy.ndarray, got list", {}),
    ("conv2d Plan", "out", [masked(OUT)], D, "a plain numpy.ndarray, got MaskedArray", {}),
    ("conv2d Plan", "out", [OUT.astype(float), OUT.astype(">f4")], D, "dtype float32 like x, got {0.dtype}", {}),
    ("conv2d Plan", "out", [OUT[0], OUT[..., 1:]], V, "shape (2, 6, 3, 4), got {0.shape}", {}),
    ("conv2d Plan", "out", [locked(OUT)], V, USABLE.format(True, False, True), {}),
    ("conv2d Plan", "out", [np.asfortranarray(OUT)], V, USABLE.format(False, True, True), {}),
    ("conv2d Plan", "out", [OUT.repeat(2, 3)[..., ::2]], V, USABLE.format(False, True, True), {}),
    ("conv2d Plan", "out", [misaligned(OUT)], V, USABLE.format(True, True, False), {}),
    ("problem", "in_size", [(-1, 5)], V, "an integer >= 0, got -1", {}),
    ("problem", "in_size", [(5,), [5, 5, 5]], V, PAIR_0, {}),
    ("problem", "kernel_size", [(3,)], V, PAIR_0, {}),
    ("problem", "in_size", [(0, 5)], V, "H >= 1, got 0 (an empty image", {}),
    ("problem", "kernel_size", [(0, 5)], V, "kH >= 1, got 0", {}),
    (COLUMNS, "kernel_size", [0], V, ONE, {}),
    ("problem", "dtype", ["int8", np.float32], V, "one of 'float32', 'float64', got {0!r}", {}),
    ("problem", "name", ['"', "\n"], V, "printable text without double quotes, got {0!r}", {}),
    ("problem", "name", [None], D, "", {}),
    *((("problem", name, [-1], V, ZERO, {})) for name in ("batch", "in_channels", "out_channels")),
    *((("problem", name, [True, 1.5, "1"], D, ZERO, {})) for name in ("batch", "in_channels", "out_channels")),
    ("input col2im", "input_size", [5, "2456"], D, "a sequence of ", {}),
    ("input", "input_size", [(4, 5)], V, "a sequence of 3 or 4 sizes, got (4, 5)", {}),
    ("col2im", "input_size", [(4, 5, 6)], V, "a sequence of 4 sizes, got (4, 5, 6)", {}),
    ("input col2im", "input_size", [(2, -4, 5, 6)], V, "an integer >= 0, got -4", {}),
    ("input col2im", "input_size", [(2, 4, 0, 6)], V, "H >= 1, got 0 (an empty image", {}),
    ("weight", "weight_size", [(6, 2, 3)], V, "a sequence of 4 sizes, got (6, 2, 3)", {}),
    ("weight", "weight_size", [(6, 2, 0, 3)], V, "kH >= 1, got 0", {}),
    ("col2im", "cols", [np.ones((1, 36, 12), F), X[0]], V, "shape (2, 36, 12), got {0.shape} (input", {}),
    ("col2im", "cols", [B, X], V, "2 or 3 dimensions (N, C*kH*kW, L) or (C*kH*kW, L), got {0.ndim}", {}),
    ("apply", "img2d", [X, B], V, "2 dimensions (H, W), got {0.ndim} (img2d.shape={0.shape}", {}),
    ("apply", "img2d", [X[0, 0, :0]], V, "H >= 1, got 0", {}),
    ("apply", "kernel", [W, B], V, "2 dimensions (H, W), got {0.ndim} (kernel.shape={0.shape}", {}),
]
FLOATS = "dtype float32 or float64, got {0.dtype} ("
for _name, (*_, _valid) in FUNCTIONS.items():
    for _argument, _array in _valid.items():
        if isinstance(_array, np.ndarray):
            _dtypes = {"pad2d": "", "apply": "eFO"}.get(_name, "eFOlB?")
            ROWS.append((_name, _argument, [_array.tolist(), "text"], D, "a", {}))
            ROWS.append((_name, _argument, [masked(_array)], D, "a plain numpy.ndarray, got a masked array", {}))
            ROWS.append((_name, _argument, [_array.astype(code) for code in _dtypes], D, FLOATS, {}))


def calls(functions: tuple[str, ...]) -> list[Any]:
    """One parameter set a wrong call: function, arguments, error, beginning of its text."""
    sets = []
    for names, argument, values, error, text, others in ROWS:
        for name in [name for name in names.split() if name in functions]:
            for value in values:
                says = f"{FUNCTIONS[name][0]}: {argument}: expected {text.format(value)}"
                arguments = FUNCTIONS[name][2] | others | {argument: value}
                sets.append(pytest.param(name, arguments, error, says, id=f"{name} {says.split(': ', 1)[1][:100]}"))
    return sets


@pytest.mark.parametrize(("function", "arguments", "error", "text"), calls(tuple(FUNCTIONS)))
def test_a_wrong_argument_is_named_with_what_was_expected(
    function: str, arguments: dict[str, Any], error: type[ConvError], text: str
) -> None:
    with pytest.raises(error, match="^" + re.escape(text)) as caught:
        FUNCTIONS[function][1](**arguments)
    assert re.fullmatch(r"\w+: \w+: expected .+, got .+", str(caught.value)), "one line of the promised shape"


@pytest.mark.parametrize(("function", "arguments", "error", "text"), calls(("conv2d",)))
def test_conv2d_refuses_alike_whichever_backend(
    function: str, arguments: dict[str, Any], error: type[ConvError], text: str
) -> None:
    refusals = set()
    for backend in (*BACKENDS, "no_such_backend"):
        with pytest.raises(error, match="^" + re.escape(text)) as caught:
            ci.conv2d(**arguments, backend=backend)
        refusals.add((type(caught.value), str(caught.value)))
    assert len(refusals) == 1


@pytest.mark.parametrize(
    ("label", "text"),
    [
        ("what", "from_label: text: expected a benchdnn label such as"),
        ("ic1ih4oc1oh2", "from_label: kh: expected a value, got none (label 'ic1ih4oc1oh2')"),
        ("ic1ic2", "from_label: ic: expected one value, got two (label 'ic1ic2')"),
        ("ic1ih4oc1oh2kh3sh0", "from_label: sh: expected an integer >= 1, got 0 (label"),
        ("ic1ih4oc1oh2kh3ph2", "from_label: oh: expected the output size of the other values, got 2 (ih=4, kh=3"),
        ('ic1ih4oc1kh3dt"int8"', "Conv2dProblem: dtype: expected one of 'float32', 'float64', got 'int8'"),
    ],
)
def test_a_label_that_does_not_parse_is_quoted(label: str, text: str) -> None:
    with pytest.raises(ProblemError, match="^" + re.escape(text)):
        Conv2dProblem.from_label(label)


BUILTINS = {V: ValueError, D: TypeError, UnsupportedError: NotImplementedError, UnknownBackendError: LookupError}


@pytest.mark.parametrize(("error", "builtin"), BUILTINS.items())
def test_an_error_is_also_the_builtin_a_caller_would_catch(error: type[Exception], builtin: type[Exception]) -> None:
    assert issubclass(error, ConvError)
    assert issubclass(error, builtin)


def test_absurd_padding_is_refused_before_any_memory_is_taken() -> None:
    tracemalloc.start()
    for mode in ("zeros", "replicate"):
        with pytest.raises(ProblemError, match="padding: expected an array of at most"):
            ci.conv2d(X, W, groups=2, padding=2**40, padding_mode=mode)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


@pytest.mark.parametrize("name", ["conv2d", "plan"])
def test_a_backend_that_cannot_says_why(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    picky = replace(ci.get_backend("python_loops"), name="picky", supports=lambda problem: "square images only")
    monkeypatch.setitem(registry._registered, "picky", picky)
    call: Any = partial(FUNCTIONS[name][1], **FUNCTIONS[name][2])
    with pytest.raises(UnsupportedError, match=rf"^{name}: backend 'picky' cannot do g2mb2ic4.*: square images only$"):
        call(backend="picky")
    with pytest.raises(
        UnsupportedError, match=rf"^{name}: backend 'scipy_fft' cannot do g2.*: precision='strict' allo"
    ):
        call(backend="scipy_fft", precision="strict")


@pytest.mark.parametrize(
    "call", [lambda b: ci.conv2d(X, W, groups=2, backend=b), lambda b: ci.plan(P, W, backend=b), ci.get_backend]
)
def test_an_unknown_backend_is_told_the_closest_name_first(call: Callable[[Any], Any]) -> None:
    with pytest.raises(
        UnknownBackendError, match=r"^no backend 'numba_dirct'; did you mean 'numba_direct'\?"
    ) as caught:
        call("numba_dirct")
    known = str(caught.value).split("Known, closest first: ")[1].split(", ")
    assert known[0] == "numba_direct"
    assert sorted(known) == sorted(ci.backends())


@pytest.mark.parametrize("backend", [None, 3, ["numba_direct"]])
def test_a_backend_that_is_no_name_is_refused_in_words(backend: Any) -> None:
    with pytest.raises(ConvError, match="backend"):
        ci.conv2d(X, W, groups=2, backend=backend)
