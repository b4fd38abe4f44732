"""The forward direction and the two gradients, each as a forward convolution that any backend can compute.

    bwd_d   dx: the gradient of y, with zeros between its rows if the stride is not 1, padded by d (k-1) - p and
            convolved with the kernels rotated by 180 degrees; input and output channels are swapped
    bwd_w   dw: x as images (channels as batch), the gradient of y as kernels; stride and dilation are swapped. With
            groups, an image has the batch of every group as channels (`swapped`)

Source: Dumoulin & Visin 2016, arXiv:1603.07285, sec. 4; bwd_w: the definition, differentiated. So one check and one
bound work for all three. Limits: zeros between rows are multiplied too, and few backends are fast with kernels as large
as images. So this shows what a forward backend can do for training, not the optimum. Our backends and some peers have
gradients of their own.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from conv_impls import Conv2dProblem, UnsupportedError

# Processes of other versions import this file: `bench.run.public_calls`.
if TYPE_CHECKING:
    from conv_impls.validation import Array, Pair


def as_forward(problem: Conv2dProblem, direction: str) -> Conv2dProblem:
    """The convolution that computes this direction.

    Raises
    ------
    UnsupportedError
        No convolution computes it: padding that is not zeros, or padding wider than the kernel; for bwd_w also an image
        that no output reads.
    """
    if direction == "fwd":
        return problem
    if problem.padding_mode != "zeros":
        raise UnsupportedError(f"{direction}: only padding with zeros is supported")
    sides, strides, dilations = problem.padding, problem.stride, problem.dilation
    size, kernel, out = problem.in_size, problem.kernel_size, problem.out_size
    if direction == "bwd_d":
        height, width = ((o - 1) * s + 1 for o, s in zip(out, strides, strict=True))
        first = [d * (k - 1) - low for d, k, (low, _) in zip(dilations, kernel, sides, strict=True)]
        ends = zip(size, dilations, kernel, (height, width), first, strict=True)
        last = [n + d * (k - 1) - e - f for n, d, k, e, f in ends]
        if min(first + last) < 0:
            raise UnsupportedError(
                "bwd_d: the padding is larger than the kernel, so the result would have to be cropped"
            )
        padding = ((first[0], last[0]), (first[1], last[1]))
        return replace(
            problem, in_channels=problem.out_channels, out_channels=problem.in_channels, in_size=(height, width),
            padding=padding, stride=(1, 1),
        )  # fmt: skip
    # Rows at the end that no output reads are left out, also those of the padding.
    last = [
        d * (k - 1) + s * (o - 1) + 1 - n - low
        for k, d, o, s, n, (low, _) in zip(kernel, dilations, out, strides, size, sides, strict=True)
    ]
    rows, columns = (n + min(0, end) for n, end in zip(size, last, strict=True))
    if rows < 1 or columns < 1:
        raise UnsupportedError("bwd_w: no output reads the image, only its padding")
    padding = ((sides[0][0], max(0, last[0])), (sides[1][0], max(0, last[1])))
    return Conv2dProblem(
        problem.in_channels // problem.groups, problem.batch * problem.groups, (rows, columns), problem.out_channels,
        out, dilations, padding, strides, problem.groups, dtype=problem.dtype, name=problem.name,
    )  # fmt: skip


def swapped(images: Array, groups: int) -> Array:
    """Batch and channels of a group change places: (N, G*C, H, W) -> (C, G*N, H, W), and back."""
    n, channels, *size = images.shape
    grouped = images.reshape(n, groups, channels // groups, *size)
    return grouped.swapaxes(0, 2).reshape(channels // groups, groups * n, *size)


def every(problem: Conv2dProblem, direction: str) -> Pair:
    """Step between non-zero rows and columns of the data of `as_forward`: the stride s for bwd_d, else 1."""
    return problem.stride if direction == "bwd_d" else (1, 1)
