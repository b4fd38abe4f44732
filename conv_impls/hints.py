"""Advice for the errors of `conv_impls.validation`: how to convert the given array to the expected one.

It recognizes arrays of other libraries, other dtypes, and other orders of axes (channels last, gray images, kernels as
(kH, kW, C_in, C_out)). Limits: advice is a guess from types and shapes alone. Every function returns "" if it has none.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from math import prod

import numpy as np

Shape = Sequence[int]

# An attribute by which the arrays of another library are recognized, and the expression that converts them.
CONVERSIONS = {
    "detach": "{}.detach().cpu().numpy()",  # PyTorch
    "toarray": "{}.toarray()",  # sparse arrays of SciPy
    "to_numpy": "{}.to_numpy()",  # pandas, polars, xarray
    "compute": "{}.compute()",  # Dask
    "block_until_ready": "numpy.asarray({})",  # JAX
    "__cuda_array_interface__": "{}.get()",  # CuPy
    "numpy": "{}.numpy()",  # TensorFlow
    "__array__": "numpy.asarray({})",
    "__array_interface__": "numpy.asarray({}, numpy.float32)",  # Pillow
}
# Axes that move the channels of an image from the last place to that of conv2d, by the number of dimensions.
CHANNELS_FIRST = {3: (2, 0, 1), 4: (0, 3, 1, 2)}
# Orders of a weight's axes in other libraries, and the axes that convert them.
WEIGHTS = {"(kH, kW, C_in, C_out)": (3, 2, 0, 1), "(C_out, kH, kW, C_in)": (0, 3, 1, 2)}


def conversion(argument: str, value: object) -> str:
    """How to make an ndarray of something else."""
    if value is None:
        return "functions that read images may return None for a missing file" if argument in ("x", "img2d") else ""
    if isinstance(value, (str, bytes, os.PathLike)):
        return "read the file into an array first"
    if argument == "bias" and isinstance(value, (int, np.integer, np.bool_)):
        return "None means no bias; stride is the next argument"
    if isinstance(value, np.generic):
        return ""
    if isinstance(value, Sequence):
        return f"convert with numpy.asarray({argument}, numpy.float32)"
    # The class is examined, so that no property of the value runs.
    known = [text for name, text in CONVERSIONS.items() if hasattr(type(value), name)]
    return f"convert with {known[0].format(argument)}" if known else ""


def cast(argument: str, dtype: np.dtype[np.generic]) -> str:
    """How to make real floating-point numbers of another dtype."""
    if dtype.kind == "c":
        parts = f"compute with {argument}.real and, without bias, with {argument}.imag"
        return f"{parts}; add the results as real + 1j * imag"
    if dtype.names:
        return f"pass one field, such as {argument}[{dtype.names[0]!r}], or numpy.lib.recfunctions"
    if dtype.kind in "Mm":
        return ""
    text = f"convert with .astype(numpy.float{64 if dtype == np.longdouble else 32})"
    if dtype.kind in "OSUT":
        return f"if every element is a number, {text}"
    wide = dtype.kind in "iu" and dtype.itemsize > 2
    return f"{text}, or numpy.float64 for values above 2**24" if wide else text


def rank(fn: str, argument: str, shape: Shape, ndims: tuple[int, ...]) -> str:
    """How to get the right number of dimensions."""
    missing, surplus = min(ndims) - len(shape), len(shape) - max(ndims)
    if ndims == (1,):
        return f"flatten it with {argument}.reshape(-1)"
    if missing > 0:
        text = f"add {'an axis' if missing == 1 else 'axes'} with {argument}[{', '.join(['None'] * missing)}]"
        gray = (fn, argument, missing) == ("conv2d", "x", 1)
        return f"{text}; conv_impls.apply_kernel takes a gray image (H, W)" if gray else text
    if prod(shape[:surplus]) == 1:
        return f"remove {'an axis' if surplus == 1 else 'axes'} with {argument}[{', '.join(['0'] * surplus)}]"
    if ndims == (2,) and surplus == 1:
        return f"filter each channel separately, such as {argument}[{'..., 0' if shape[-1] <= 4 else '0'}]"
    return ""


def channels(names: tuple[str, str], x_shape: Shape, weight_shape: Shape, groups: int) -> str:
    """What to change if x, in the shape that was given, and weight (4-D) do not fit together.

    ``names`` are the arguments: arrays "x" and "weight", or their sizes "input_size" and "weight_size". For others, no
    order of axes can be wrong.
    """
    if names[0] not in ("x", "input_size"):
        return ""
    in_channels, (out_channels, depth, *kernel) = x_shape[-3], weight_shape
    wanted = depth * groups
    # Another image cannot help if the groups do not divide the output channels.
    divides = out_channels % groups == 0
    if divides and (last := channels_last(names[0], x_shape, wanted)):
        return last
    divisor = in_channels // depth if depth and in_channels % depth == 0 else 0
    # A kernel larger than the image is not a kernel but another order of axes.
    if divisor and out_channels % divisor == 0 and kernel[0] <= x_shape[-2] and kernel[1] <= x_shape[-1]:
        return f"groups={divisor} fits"
    if divides and (planes := _planes(names[0], x_shape, wanted)):
        return planes
    return _weights(names, x_shape, weight_shape, groups)


def channels_last(name: str, shape: Shape, wanted: int) -> str:
    """How to move the channels of an image to the front, if they are last and as many as wanted; drops alpha."""
    if wanted == shape[-1] != shape[-3]:
        return f"if channels are the last axis, pass {_moved(name, shape, CHANNELS_FIRST[len(shape)])}"
    if name == "x" and wanted in (1, 3) and shape[-1] == wanted + 1:
        colors = f"x[..., :{wanted}].transpose{CHANNELS_FIRST[len(shape)]}"
        return f"if the last axis is channels with alpha, pass {colors}"
    return ""


def transposed(x_shape: Shape, weight_shape: Shape, groups: int) -> str:
    """`channels` for a transposed convolution, whose weight is (C_in, C_out/groups, kH, kW)."""
    if groups == 1 and weight_shape[1] == x_shape[-3]:
        return "if weight is (C_out, C_in, kH, kW), pass weight.transpose(1, 0, 2, 3)"
    return channels_last("x", x_shape, weight_shape[0])


def fitting(name: str, shape: Shape, expected: Shape) -> str:
    """How to reorder the axes of an image or a weight of this shape to exactly the expected shape."""
    for axes in (CHANNELS_FIRST.get(len(shape)), *WEIGHTS.values()):
        if axes is not None and len(axes) == len(shape) and tuple(shape[i] for i in axes) == tuple(expected):
            return f"pass {_moved(name, shape, axes)}"
    return ""


def _weights(names: tuple[str, str], x_shape: Shape, weight_shape: Shape, groups: int) -> str:
    """How to reorder the weight, and the image if necessary. The kernel must become smaller, else it is no advice."""
    if names[1] not in ("weight", "weight_size"):
        return ""
    for image_axis in (-3, -1):
        for order, axes in WEIGHTS.items():
            out_channels, depth, *kernel = (weight_shape[i] for i in axes)
            if (
                x_shape[image_axis] == depth * groups and out_channels % groups == 0
                and prod(kernel) < prod(weight_shape[2:])
            ):  # fmt: skip
                text = f"if {names[1]} is {order}, pass {_moved(names[1], weight_shape, axes)}"
                image = _moved(names[0], x_shape, CHANNELS_FIRST[len(x_shape)])
                return text if image_axis == -3 else f"{text} and {image}"
    return ""


def _planes(name: str, shape: Shape, wanted: int) -> str:
    """How to leave out alpha, or to filter each channel of one image, or each gray image of a stack, separately."""
    if name != "x":
        return ""
    if wanted == 3 and shape[-3] == 4:
        return f"if the last channel is alpha, pass x[{':3' if len(shape) == 3 else ':, :3'}]"
    if wanted == 1 and len(shape) == 3:
        colors_last = shape[-1] in (3, 4) and shape[0] > 4
        return f"to filter each channel separately, pass x{'.transpose(2, 0, 1)' * colors_last}[:, None]"
    return ""


def _moved(name: str, shape: Shape, axes: tuple[int, ...]) -> str:
    """The transposed array; for a size, its values in the new order."""
    if name.endswith("_size"):
        return f"{name}={tuple(shape[i] for i in axes)}"
    return f"{name}.transpose{axes}"
