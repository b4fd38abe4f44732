"""Validate arguments and arrays, so that kernels need no checks. All texts of input errors are written here.

Every text has the form ``<function>: <argument>: expected <what>, got <value> (<the facts the check used>)``. The
checks run before any large allocation or compilation, and do not depend on the backend. Of the package, this module
imports only `errors` and `hints`, which adds what to do about common mistakes.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from conv_impls import hints
from conv_impls.errors import DTypeError, ProblemError

Array = NDArray[Any]
Pair = tuple[int, int]
Sides = tuple[Pair, Pair]
# Arguments as users may give them: one number for both axes, or (h, w); padding also as a word or for each side.
Numbers = int | Sequence[int]
Padding = Numbers | Sequence[Sequence[int]] | str
# Argument names for the image (or its size) and the kernel in the calling function, for error texts.
Names = tuple[str, str]

DTYPES = ("float32", "float64")
PADDING_MODES = ("zeros", "reflect", "replicate", "circular")
PRECISIONS = ("strict", "standard")
ACTIVATIONS = ("relu",)
ARRAYS: Names = ("x", "weight")
# No address space holds a larger array; below this limit, a 64-bit index cannot overflow.
MAX_BYTES = 2**47
# A longer value is cut in an error text.
MAX_LETTERS = 200


def fail(fn: str, argument: str, expected: str, got: object, facts: str = "") -> NoReturn:
    """Raise `ProblemError` with a text of the common form."""
    raise ProblemError(_text(fn, argument, expected, got, facts))


def fail_type(fn: str, argument: str, expected: str, got: object, facts: str = "") -> NoReturn:
    raise DTypeError(_text(fn, argument, expected, got, facts))


def _text(fn: str, argument: str, expected: str, got: object, facts: str) -> str:
    came = " ".join(str(got).split())
    if len(came) > MAX_LETTERS:
        came = f"{came[:MAX_LETTERS]}..."
    return f"{fn}: {argument}: expected {expected}, got {came}" + (f" ({facts})" if facts else "")


def joined(*texts: str) -> str:
    """The texts that are not empty, separated by semicolons."""
    return "; ".join(filter(None, texts))


def integer(fn: str, argument: str, value: object, minimum: int) -> int:
    """An integer >= minimum; bool and float are refused, NumPy integers accepted."""
    expected = f"an integer >= {minimum}"
    if isinstance(value, (bool, np.bool_)):
        fail_type(fn, argument, expected, repr(value))
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        fail_type(fn, argument, expected, repr(value))
    if number < minimum:
        fail(fn, argument, expected, number)
    return number


def pair(fn: str, argument: str, value: object, minimum: int, lengths: tuple[int, ...] = (1, 2)) -> Pair:
    """An int, or a pair (h, w) of ints, each >= minimum; a sequence of one counts for both axes, as in torch."""
    value = _plain(value)
    if isinstance(value, (str, bytes)) or (isinstance(value, Sequence) and len(value) not in lengths):
        fail(fn, argument, f"an integer or a pair (h, w), each >= {minimum}", repr(value))
    if isinstance(value, Sequence):
        return integer(fn, argument, value[0], minimum), integer(fn, argument, value[-1], minimum)
    number = integer(fn, argument, value, minimum)
    return number, number


def sides(fn: str, value: object, kernel_size: Pair, stride: Pair, dilation: Pair) -> Sides:
    """Convert padding from any accepted form to ((top, bottom), (left, right))."""
    value = _plain(value)
    spellings = "an integer, (h, w), ((top, bottom), (left, right)), 'same' or 'valid'"
    if isinstance(value, str):
        if value == "valid":
            return (0, 0), (0, 0)
        if value != "same":
            fail(fn, "padding", spellings, repr(value))
        if stride != (1, 1):
            fail(fn, "padding", "'same' only with stride 1", "'same'", f"stride={stride}; give the padding as numbers")
        total = [d * (k - 1) for d, k in zip(dilation, kernel_size, strict=True)]
        # An odd total puts the extra row or column at the bottom or right, as in torch.
        return (total[0] // 2, total[0] - total[0] // 2), (total[1] // 2, total[1] - total[1] // 2)
    if isinstance(value, Sequence):
        nested = [isinstance(v, Sequence) and len(v) == 2 for v in value]
        lengths = (2,) if any(nested) else (1, 2)
        if len(value) not in lengths or any(nested) != all(nested) or isinstance(value, bytes):
            fail(fn, "padding", spellings, repr(value))
    if isinstance(value, Sequence) and any(nested):
        return pair(fn, "padding", value[0], 0), pair(fn, "padding", value[1], 0)
    h, w = pair(fn, "padding", value, 0)
    return (h, h), (w, w)


def _plain(value: object) -> object:
    """Convert arrays to lists, so that they are treated like any other sequence."""
    return value.tolist() if isinstance(value, np.ndarray) and value.ndim else value


def choice(fn: str, argument: str, value: object, allowed: tuple[str, ...]) -> str:
    """Check that a value is one of the allowed words."""
    if not isinstance(value, str) or value not in allowed:
        fail(fn, argument, "one of " + ", ".join(map(repr, allowed)), repr(value))
    return value


def plain_array(fn: str, argument: str, value: object) -> Array:
    """An ndarray of any dtype, without a mask."""
    if isinstance(value, np.ma.MaskedArray):
        facts = "a mask would be lost; call .filled(value) first"
        fail_type(fn, argument, "a plain numpy.ndarray", "a masked array", facts)
    if not isinstance(value, np.ndarray):
        fail_type(fn, argument, "a numpy.ndarray", type(value).__name__, hints.conversion(argument, value))
    return value


def described(fn: str, argument: str, value: object, ndims: tuple[int, ...], layout: str) -> Array:
    """A float32 or float64 ndarray of one of these ranks, in any memory layout; nothing is copied yet."""
    given = plain_array(fn, argument, value)
    if given.dtype.kind != "f" or given.dtype.itemsize not in (4, 8):
        fail_type(fn, argument, "dtype float32 or float64", given.dtype, hints.cast(argument, given.dtype))
    if given.ndim not in ndims:
        expected = f"{' or '.join(map(str, ndims))} dimension{'s' * (ndims != (1,))} {layout}"
        hint = hints.rank(fn, argument, given.shape, ndims)
        fail(fn, argument, expected, f"{given.ndim}", joined(f"{argument}.shape={given.shape}", hint))
    return given.view(np.ndarray)


def laid_out(given: Array) -> Array:
    """The array C-contiguous, aligned and in native byte order.

    Copies only if the memory layout requires it. Negative strides, foreign byte order, misaligned data and read-only
    arrays are all accepted.
    """
    flags = given.flags
    if flags.c_contiguous and flags.aligned and given.dtype.isnative:
        return given
    return np.require(given, dtype=given.dtype.newbyteorder("="), requirements=("C", "A"))


def array(fn: str, argument: str, value: object, ndims: tuple[int, ...], layout: str) -> Array:
    """`described`, then `laid_out`."""
    return laid_out(described(fn, argument, value, ndims, layout))


def same_dtype(fn: str, argument: str, value: Array, other: str, like: Array) -> None:
    """Raise on mixed dtypes instead of promoting silently; the byte order is ignored."""
    if value.dtype == like.dtype:
        return
    got, expected = value.dtype.name, like.dtype.name
    if got != expected:
        facts = f"mixed dtypes are not promoted; convert one, such as {argument}.astype(numpy.{expected})"
        fail_type(fn, argument, f"dtype {expected} like {other}", got, facts)


def described_images(fn: str, argument: str, value: object) -> tuple[Array, bool]:
    """(N, C, H, W) in any memory layout from a batch or one (C, H, W) image, and whether it was one image."""
    checked = described(fn, argument, value, (3, 4), "(N, C, H, W) or (C, H, W)")
    return (checked[None], True) if checked.ndim == 3 else (checked, False)


def images(fn: str, argument: str, value: object) -> tuple[Array, bool]:
    """`described_images`, then `laid_out`."""
    checked, single = described_images(fn, argument, value)
    return laid_out(checked), single


def bias_vector(fn: str, value: object, out_channels: int, like: Array) -> Array | None:
    """A bias of shape (C_out,) and of x's dtype, or None."""
    if value is None:
        return None
    bias = array(fn, "bias", value, (1,), "(C_out,)")
    same_dtype(fn, "bias", bias, "x", like)
    if bias.shape != (out_channels,):
        fail(fn, "bias", f"shape ({out_channels},)", bias.shape, f"weight has {out_channels} output channels")
    return bias


def channels(fn: str, x_shape: Sequence[int], weight_shape: Sequence[int], groups: int, names: Names = ARRAYS) -> None:
    """Check that x (N, C_in, H, W) or (C_in, H, W) and weight (C_out, C_in/groups, kH, kW) fit together."""
    in_channels, out_channels = x_shape[-3], weight_shape[0]
    # Some functions take sizes that are whole shapes; the sizes of a Conv2dProblem are only height and width.
    image = names[0] if names[0] == "input_size" else "x.shape"
    kernel = names[1] if names[1] == "weight_size" else "weight.shape"
    facts = f"{image}={tuple(x_shape)}, {kernel}={tuple(weight_shape)}, groups={groups}"
    if in_channels % groups or out_channels % groups or weight_shape[1] != in_channels // groups:
        facts = joined(facts, hints.channels(names, x_shape, weight_shape, groups))
    if in_channels % groups:
        fail(fn, "groups", f"a divisor of the {in_channels} input channels", groups, facts)
    if out_channels % groups:
        fail(fn, "groups", f"a divisor of the {out_channels} output channels", groups, facts)
    if weight_shape[1] != in_channels // groups:
        expected = f"{in_channels // groups} input channels per group ({in_channels} / {groups})"
        fail(fn, names[1], expected, weight_shape[1], facts)


def geometry(
    fn: str,
    in_size: Pair,
    kernel_size: Pair,
    stride: Pair,
    padding: Sides,
    dilation: Pair,
    padding_mode: str,
    names: Names = ARRAYS,
) -> Pair:
    """Check the sizes of both axes and return (H_out, W_out)."""
    image_name, kernel_name = names
    out = []
    for axis, size, kernel, step, (before, after), gap in zip(
        "HW", in_size, kernel_size, stride, padding, dilation, strict=True
    ):
        if size < 1:
            fail(fn, image_name, f"{axis} >= 1", size, "an empty image has no windows")
        if kernel < 1:
            fail(fn, kernel_name, f"k{axis} >= 1", kernel)
        most = max(before, after)
        if padding_mode == "reflect" and most >= size:
            facts = "a reflection can copy at most size-1 rows"
            fail(fn, "padding", f"less than {axis}={size} for 'reflect'", most, facts)
        if padding_mode == "circular" and most > size:
            fail(fn, "padding", f"at most {axis}={size} for 'circular'", most, "the image can wrap around only once")
        padded, extent = size + before + after, gap * (kernel - 1) + 1
        if extent > padded:
            room = f"{size}+{before}+{after}={padded}"
            facts = f"kernel {kernel} with dilation {gap} spans {extent}, padded input is {room}"
            fail(fn, kernel_name, f"a kernel that fits the padded input along {axis}", f"span {extent}", facts)
        out.append((padded - extent) // step + 1)
    return out[0], out[1]


def total_bytes(fn: str, what: str, shape: Sequence[int], itemsize: int) -> None:
    """Raise for arrays that are too large for any machine, before any allocation."""
    count = itemsize
    for size in shape:
        count *= int(size)
    if count > MAX_BYTES:
        fail(
            fn, what, f"an array of at most {MAX_BYTES} bytes", count, f"shape {tuple(shape)}; check padding and sizes"
        )


def convolution(
    fn: str,
    x_shape: Sequence[int],
    weight_shape: Sequence[int],
    itemsize: int,
    stride: object,
    padding: object,
    dilation: object,
    groups: object,
    padding_mode: object,
    names: Names = ARRAYS,
) -> tuple[Pair, Sides, Pair, int, str]:
    """Check all shapes and arguments of one convolution; return the arguments in their full form.

    ``x_shape`` is the shape of a batch or of one image.
    """
    strides, dilations = pair(fn, "stride", stride, 1), pair(fn, "dilation", dilation, 1)
    count = integer(fn, "groups", groups, 1)
    mode = choice(fn, "padding_mode", padding_mode, PADDING_MODES)
    in_size, kernel_size = (x_shape[-2], x_shape[-1]), (weight_shape[2], weight_shape[3])
    borders = sides(fn, padding, kernel_size, strides, dilations)
    channels(fn, x_shape, weight_shape, count, names)
    out_size = geometry(fn, in_size, kernel_size, strides, borders, dilations, mode, names)
    padded = [size + sum(side) for size, side in zip(in_size, borders, strict=True)]
    total_bytes(fn, "padding", (*x_shape[:-2], *padded), itemsize)
    total_bytes(fn, "padding", (*x_shape[:-3], weight_shape[0], *out_size), itemsize)
    return strides, borders, dilations, count, mode


def output(fn: str, out: object, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Check that a kernel can write ``out``: right shape and dtype, C-contiguous, writeable, aligned."""
    if not isinstance(out, np.ndarray) or isinstance(out, np.ma.MaskedArray):
        fail_type(fn, "out", "a plain numpy.ndarray", type(out).__name__)
    if out.dtype != dtype:
        fail_type(fn, "out", f"dtype {dtype} like x", out.dtype)
    if out.shape != shape:
        fail(fn, "out", f"shape {shape}", out.shape)
    if not (out.flags.c_contiguous and out.flags.writeable and out.flags.aligned):
        fail(
            fn,
            "out",
            "a writeable, aligned, C-contiguous array",
            f"flags {_flag_words(out)}",
            "allocate it with numpy.empty",
        )
    return out


def _flag_words(out: Array) -> str:
    flags = out.flags
    return f"C-contiguous={flags.c_contiguous}, writeable={flags.writeable}, aligned={flags.aligned}"


def shape(fn: str, argument: str, value: object, ranks: tuple[int, ...]) -> tuple[int, ...]:
    """A tuple of non-negative sizes of one of these lengths."""
    expected = f"a sequence of {' or '.join(map(str, ranks))} sizes"
    if len(getattr(value, "shape", (0,))) != 1:
        fail_type(fn, argument, expected, type(value).__name__, "pass its shape, such as x.shape")
    value = _plain(value)
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
        fail_type(fn, argument, expected, repr(value))
    if len(value) not in ranks:
        fail(fn, argument, expected, tuple(value))
    return tuple(integer(fn, argument, size, 0) for size in value)
