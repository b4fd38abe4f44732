"""`Conv2dProblem`: all parameters of one convolution in a frozen object; `conv_impls.labels` writes it as one line.

Source: shapes and output sizes as in torch.nn.functional.conv2d, with padding per side as in ONNX.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from conv_impls import labels
from conv_impls import validation as check
from conv_impls.validation import Array, Numbers, Padding, Pair, Sides

SIZES = ("in_size", "kernel_size")


@dataclass(frozen=True, slots=True)
class Conv2dProblem:
    """The parameters of one 2-D convolution: sizes, stride, padding, dilation, groups, dtype.

    Parameters
    ----------
    batch, in_channels : int
        N and C_in; 0 is allowed.
    in_size : (int, int)
        (H, W), each >= 1.
    out_channels : int
        C_out; 0 is allowed.
    kernel_size : (int, int)
        (kH, kW), each >= 1.
    stride : (int, int)
        Each >= 1.
    padding : ((int, int), (int, int))
        ((top, bottom), (left, right)), each >= 0.
    dilation : (int, int)
        Each >= 1. Dilation 1 means no dilation.
    groups : int
        Must divide in_channels and out_channels.
    padding_mode : {"zeros", "reflect", "replicate", "circular"}
    dtype : {"float32", "float64"}
    name : str
        A display name. It is ignored by ==: problems that differ only in name are equal.

    Raises
    ------
    ProblemError, DTypeError
        If a value is out of range or the kernel does not fit the padded input.

    Examples
    --------
    >>> p = Conv2dProblem.from_label('mb1ic64ih56oc64oh56kh3ph1n"res2a"')
    >>> p.output_shape, p.macs
    ((1, 64, 56, 56), 115605504)
    >>> p.label
    'mb1ic64ih56oc64oh56kh3ph1n"res2a"'
    """

    batch: int
    in_channels: int
    in_size: Pair
    out_channels: int
    kernel_size: Pair
    stride: Pair = (1, 1)
    padding: Sides = ((0, 0), (0, 0))
    dilation: Pair = (1, 1)
    groups: int = 1
    padding_mode: str = "zeros"
    dtype: str = "float32"
    name: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        fn = "Conv2dProblem"
        # Convert to Python integers: a 32-bit NumPy integer would overflow in the products below.
        for argument in ("batch", "in_channels", "out_channels"):
            object.__setattr__(self, argument, check.integer(fn, argument, getattr(self, argument), 0))
        check.integer(fn, "groups", self.groups, 1)
        in_size = check.pair(fn, "in_size", self.in_size, 0, lengths=(2,))
        kernel_size = check.pair(fn, "kernel_size", self.kernel_size, 0, lengths=(2,))
        check.choice(fn, "dtype", self.dtype, check.DTYPES)
        if not isinstance(self.name, str):
            check.fail_type(fn, "name", "a str", type(self.name).__name__)
        if '"' in self.name or not self.name.isprintable():
            check.fail(fn, "name", "printable text without double quotes", repr(self.name))
        x_shape = self.batch, self.in_channels, *in_size
        weight_shape = self.out_channels, self.in_channels // self.groups, *kernel_size
        arguments = self.stride, self.padding, self.dilation, self.groups, self.padding_mode
        full = check.convolution(fn, x_shape, weight_shape, np.dtype(self.dtype).itemsize, *arguments, SIZES)
        self._fill(self.batch, self.in_channels, in_size, self.out_channels, kernel_size, *full, self.dtype, self.name)

    def _fill(self, *values: Any) -> None:
        """Set all fields, in their order."""
        for name, value in zip(self.__dataclass_fields__, values, strict=True):
            object.__setattr__(self, name, value)

    @classmethod
    def from_arrays(
        cls,
        x: Array,
        weight: Array,
        *,
        stride: Numbers = 1,
        padding: Padding = 0,
        dilation: Numbers = 1,
        groups: int = 1,
        padding_mode: str = "zeros",
    ) -> Conv2dProblem:
        """Describe ``conv2d(x, weight, ...)`` without computing it.

        Parameters
        ----------
        x : ndarray of shape (N, C_in, H, W) or (C_in, H, W), float32 or float64
            A batch of images, or one image; only its shape and dtype matter.
        weight : ndarray of shape (C_out, C_in/groups, kH, kW), same dtype
            Only its shape matters.
        stride, padding, dilation, groups, padding_mode : see `conv_impls.conv2d`
            The arguments of the convolution.

        Returns
        -------
        Conv2dProblem

        Raises
        ------
        ProblemError, DTypeError
            As for `conv_impls.conv2d`.

        Examples
        --------
        >>> import numpy as np
        >>> Conv2dProblem.from_arrays(np.ones((3, 8, 8)), np.ones((4, 3, 3, 3)), padding="same").output_shape
        (1, 4, 8, 8)
        """
        x4, single = check.described_images("conv2d", "x", x)
        w4 = check.described("conv2d", "weight", weight, (4,), "(C_out, C_in/groups, kH, kW)")
        return cls.from_checked("conv2d", x4, w4, single, stride, padding, dilation, groups, padding_mode)

    @classmethod
    def from_checked(
        cls,
        fn: str,
        x: Array,
        weight: Array,
        single: bool,
        stride: Numbers,
        padding: Padding,
        dilation: Numbers,
        groups: int,
        padding_mode: str,
    ) -> Conv2dProblem:
        """Like `from_arrays`, for arrays that `validation.described` has checked.

        ``fn`` is the user's function. ``single``: the user gave one image (C_in, H, W), and x is a batch of it.
        """
        check.same_dtype(fn, "weight", weight, "x", x)
        shape = x.shape[1:] if single else x.shape
        arguments = stride, padding, dilation, groups, padding_mode
        try:
            hash(arguments)
        except TypeError:  # a list or an array is a valid argument, but not hashable
            return cls.of_shapes(fn, shape, weight.shape, x.itemsize, *arguments)
        # True == 1 == 1.0, but only 1 is a valid stride: repr distinguishes them in the cache key.
        return _cached(repr(arguments), fn, shape, weight.shape, x.itemsize, *arguments)

    @classmethod
    def of_shapes(
        cls,
        fn: str,
        x_shape: Sequence[int],
        weight_shape: Sequence[int],
        itemsize: int,
        stride: object,
        padding: object,
        dilation: object,
        groups: object,
        padding_mode: object,
        names: check.Names = check.ARRAYS,
    ) -> Conv2dProblem:
        """Make a problem from shapes (tuples of integers >= 0) and from arguments as the user gave them.

        ``x_shape`` may be that of one image (C_in, H, W); the problem then has batch 1. The arguments are checked here;
        errors name the function ``fn``. The constructor, which would check again, is bypassed.
        """
        arguments = stride, padding, dilation, groups, padding_mode
        full = check.convolution(fn, x_shape, weight_shape, itemsize, *arguments, names)
        (*batch, c, h, w), (o, _, kh, kw) = x_shape, weight_shape
        problem = object.__new__(cls)
        problem._fill(*(batch or [1]), c, (h, w), o, (kh, kw), *full, f"float{8 * itemsize}", "")
        return problem

    @classmethod
    def from_label(cls, text: str) -> Conv2dProblem:
        """Parse one benchdnn descriptor.

        Parameters
        ----------
        text : str
            For example ``g32mb1ic128ih56oc128oh56kh3ph1n"name"``. One ``_`` may separate tokens. The output size or
            the padding may be omitted. Defaults: mb 2, g 1. h values also apply to w if no w value is given at all.
            The name is all text after ``n``, with or without quotes.

        Returns
        -------
        Conv2dProblem
            Its padding at the bottom and right is the smallest that gives the output size.
            ``from_label(p.label)`` computes the same as ``p``.

        Raises
        ------
        ProblemError
            If the text does not parse, is 1-D or 3-D, lacks ic, ih, oc or kh, or has inconsistent sizes.

        Warns
        -----
        UserWarning
            If a padding is larger than the dilated kernel, which is likely a mistake.

        Examples
        --------
        >>> Conv2dProblem.from_label("ic3ih224oc64oh112kh7sh2ph3").padding
        ((3, 2), (3, 2))
        """
        problem = cls(*labels.read(text))
        labels.warn(text, problem)
        return problem

    @property
    def label(self) -> str:
        """The problem as one benchdnn descriptor; problems with equal labels compute the same."""
        return labels.write(self)

    @property
    def out_size(self) -> Pair:
        """(H_out, W_out), H_out = (H + top + bottom - dilation*(kH-1) - 1)//stride + 1."""
        h, w = (
            (padded - d * (k - 1) - 1) // s + 1
            for padded, k, s, d in zip(self.padded_size, self.kernel_size, self.stride, self.dilation, strict=True)
        )
        return h, w

    @property
    def padded_size(self) -> Pair:
        """(H + top + bottom, W + left + right)."""
        return self.in_size[0] + sum(self.padding[0]), self.in_size[1] + sum(self.padding[1])

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        """(N, C_in, H, W)."""
        return self.batch, self.in_channels, *self.in_size

    @property
    def weight_shape(self) -> tuple[int, int, int, int]:
        """(C_out, C_in/groups, kH, kW)."""
        return self.out_channels, self.in_channels // self.groups, *self.kernel_size

    @property
    def output_shape(self) -> tuple[int, int, int, int]:
        """(N, C_out, H_out, W_out)."""
        return self.batch, self.out_channels, *self.out_size

    @property
    def reduction(self) -> int:
        """Products summed for one output: C_in/groups * kH * kW."""
        return prod(self.weight_shape[1:])

    @property
    def macs(self) -> int:
        """Multiply-adds of the definition, taps in the padding included."""
        return prod(self.output_shape) * self.reduction

    @property
    def flops(self) -> int:
        """Nominal floating-point operations, 2 per multiply-add; rates from them are *effective* for FFT, Winograd."""
        return 2 * self.macs

    @property
    def itemsize(self) -> int:
        """Bytes of one element."""
        return np.dtype(self.dtype).itemsize

    @property
    def min_bytes(self) -> int:
        """Minimum bytes that any method moves: input and weight read once, output written once."""
        return self.itemsize * (prod(self.input_shape) + prod(self.weight_shape) + prod(self.output_shape))

    def replace(self, **changes: Any) -> Conv2dProblem:
        """Return a copy with some fields changed; all fields are checked again."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return Conv2dProblem(**(values | changes))


# Cached: checking takes 30 us, and every eager call needs it. Errors are not cached.
@lru_cache(maxsize=4096)
def _cached(spelling: str, *arguments: Any) -> Conv2dProblem:
    return Conv2dProblem.of_shapes(*arguments)
