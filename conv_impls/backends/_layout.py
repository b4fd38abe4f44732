"""Memory layout for kernels: tables of the padded, strided image, made once for each plan.

A staged image has one plane for each stride phase (`conv_impls.kernels.stage`). So tap (c, p, q) of every output has
the same offset, ``tap_offset``, from the output's own position ``i*pitch + j``.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from conv_impls.padding import NO_PADDING, source_at
from conv_impls.problem import Conv2dProblem

if TYPE_CHECKING:
    from conv_impls.kernels.stage import Staging

Table = NDArray[np.int64]
# Addresses a page apart map to the same set of L1 on every CPU known here; a set has 8 or 12 ways.
PAGE_BYTES, LINE_BYTES, WAYS = 4096, 64, 8


@dataclass(frozen=True, slots=True)
class Layout:
    """Layout of the image for kernels.

    Attributes
    ----------
    staged : bool
        Whether the image is padded or strided; backends may still read it as it is.
    channel, pitch : int
        Elements of one channel, and of one row of a plane.
    tap_offset : ndarray of shape (C_in/groups * kH * kW,)
        Offset of the tap of output (0, 0) from the first channel of its group.
    staging : Staging
        Operands of `conv_impls.kernels.stage`.
    """

    staged: bool
    channel: int
    pitch: int
    tap_offset: Table
    staging: Staging


def round_up(value: int, multiple: int) -> int:
    """The smallest multiple that is not below ``value``."""
    return -(-value // multiple) * multiple


def share(parts: int, most: int, threads: int) -> int:
    """``parts``, or a few more, so that all threads get the same number; at most ``most``, and one part stays one."""
    return parts if parts == 1 else min(round_up(parts, threads), most)


def together(channel_bytes: int) -> int:
    """Number of channels, ``channel_bytes`` apart, whose elements at the same position fit the innermost cache."""
    return WAYS * PAGE_BYTES // gcd(channel_bytes, PAGE_BYTES)


def spread(elements: int, itemsize: int) -> int:
    """Size of a channel, padded by a cache line if channels would map to the same cache set."""
    return elements + LINE_BYTES // itemsize if elements * itemsize % (PAGE_BYTES // 2) == 0 else elements


def effective(problem: Conv2dProblem) -> Conv2dProblem:
    """The same computation with the shortest possible stride and dilation, so that the staged image stays small.

    A stride longer than the image gives only one output, so it can be shortened. If at most one tap reads the image,
    the dilation can be shortened too, with less padding of zeros for the other taps.
    """
    stride = tuple(min(s, size) for s, size in zip(problem.stride, problem.padded_size, strict=True))
    dilation, padding = zip(*(_nearer(problem, axis) for axis in (0, 1)), strict=True)
    # Most problems do not change, and need no second validation.
    if (stride, dilation, padding) == (problem.stride, problem.dilation, problem.padding):
        return problem
    return problem.replace(stride=stride, dilation=dilation, padding=padding)


def seen_taps(problem: Conv2dProblem) -> tuple[Conv2dProblem, tuple[slice, slice]]:
    """The problem without the outer taps that read only padding of zeros, for all outputs; the taps that remain.

    Dilated kernels have such taps: of 3x3 with dilation 18 on 8x8, only the middle one reads the image.
    """
    if problem.padding_mode != "zeros":
        return problem, (slice(None), slice(None))
    rows, columns = (_seen(problem, axis) for axis in (0, 1))
    if (len(rows), len(columns)) == problem.kernel_size:
        return problem, (slice(None), slice(None))
    padding = tuple(
        (before - d * taps.start, after - d * (kernel - taps.stop))
        for taps, (before, after), d, kernel in zip(
            (rows, columns), problem.padding, problem.dilation, problem.kernel_size, strict=True
        )
    )
    seen = problem.replace(kernel_size=(len(rows), len(columns)), padding=padding)
    return seen, (slice(rows.start, rows.stop), slice(columns.start, columns.stop))


def _seen(problem: Conv2dProblem, axis: int) -> range:
    """The taps from the first to the last one that reads the image; no more are left out than the padding allows."""
    kernel, size, (before, after) = problem.kernel_size[axis], problem.in_size[axis], problem.padding[axis]
    dilation, stride, outputs = problem.dilation[axis], problem.stride[axis], problem.out_size[axis]
    seen = []
    for tap in range(kernel):
        at = tap * dilation - before
        # The first output whose tap is not above the image.
        output = max(0, -(at // stride))
        if output < outputs and at + output * stride < size:
            seen.append(tap)
    first, last = (seen[0], seen[-1]) if seen else (0, 0)
    return range(min(first, before // dilation), max(last + 1, kernel - after // dilation))


def _nearer(problem: Conv2dProblem, axis: int) -> tuple[int, tuple[int, int]]:
    """Dilation and padding of one axis, with the shortest distance of taps that gives the same result."""
    kernel, size, (before, after) = problem.kernel_size[axis], problem.in_size[axis], problem.padding[axis]
    dilation, span = problem.dilation[axis], (problem.out_size[axis] - 1) * problem.stride[axis]
    # At this distance from a tap that reads the image for some output, the next tap reads none of it.
    least = size + span + 1
    if kernel == 1 or dilation <= least or problem.padding_mode != "zeros":
        return dilation if kernel > 1 else 1, (before, after)
    # The first tap that is not above the image for all outputs, and its position for the first output.
    tap = max(0, -(-(before - span) // dilation))
    at = tap * dilation - before
    if tap >= kernel or at >= size:
        tap, at = 0, -span - 1
    before = tap * least - at
    return least, (before, max(0, span + (kernel - 1) * least + 1 - before - size))


def image_layout(problem: Conv2dProblem) -> Layout:
    """The layout of an `effective` problem."""
    # Imported here: numba is slow to import, and `effective` needs none of it.
    from conv_impls.kernels.stage import StageSizes, Staging

    row_source, col_source = (sources(problem, axis) for axis in (0, 1))
    plane, pitch = row_source.shape[1] * col_source.shape[1], col_source.shape[1]
    staged = problem.padding != NO_PADDING or problem.stride != (1, 1)
    channel = row_source.shape[0] * col_source.shape[0] * plane
    if staged:
        channel = spread(channel, problem.itemsize)
    tap_offset = tap_offsets(problem, channel, plane, pitch, col_source.shape[0])
    (h, w), (phases_h, plane_h), (phases_w, plane_w) = problem.in_size, row_source.shape, col_source.shape
    images, stride = problem.batch * problem.in_channels, problem.stride[1]
    zeros = problem.padding_mode == "zeros"
    sizes = StageSizes(images, channel, h, w, phases_h, plane_h, phases_w, plane_w, stride, zeros)
    staging = Staging(sizes, row_source, col_source, inner_columns(problem, pitch))
    return Layout(staged, channel, pitch, tap_offset, staging)


def sources(problem: Conv2dProblem, axis: int) -> Table:
    """Source row (column) of each row (column) of each stride phase; -1 means zero. Shape (phases, plane size)."""
    extent, stride = (problem.kernel_size[axis] - 1) * problem.dilation[axis], problem.stride[axis]
    first = phases(problem, axis)[:, None]
    padded_row = np.arange(problem.out_size[axis] + extent // stride) * stride + first
    before, after = problem.padding[axis]
    size = problem.in_size[axis]
    inside = padded_row < before + size + after
    return np.where(inside, source_at(np.where(inside, padded_row, before) - before, size, problem.padding_mode), -1)


def phases(problem: Conv2dProblem, axis: int) -> Table:
    """The stride phases of padded rows (columns) that taps read, in order."""
    return np.unique(np.arange(problem.kernel_size[axis]) * problem.dilation[axis] % problem.stride[axis])


def inner_columns(problem: Conv2dProblem, width: int) -> Table:
    """Range (low, high) of the columns of each stride phase that are inside the image; shape (phases, 2)."""
    left, (size, stride) = problem.padding[1][0], (problem.in_size[1], problem.stride[1])
    phase = phases(problem, 1)
    low = np.clip(-(-(left - phase) // stride), 0, width)
    high = np.clip((left + size - 1 - phase) // stride + 1, 0, width)
    # A phase that contains no part of the image gets an empty range at a valid index.
    return np.where(high > low, np.stack([low, high]), 0).T.copy()


def tap_offsets(problem: Conv2dProblem, channel: int, plane: int, pitch: int, phases_w: int) -> Table:
    """Offset of each tap (c, p, q) for output (0, 0) in the staged image; shape (C_in/groups*kH*kW,)."""
    (kh, kw), (sh, sw), (dh, dw) = problem.kernel_size, problem.stride, problem.dilation
    row, col = np.arange(kh) * dh, np.arange(kw) * dw
    phase = np.searchsorted(phases(problem, 0), row % sh)[:, None] * phases_w
    phase = phase + np.searchsorted(phases(problem, 1), col % sw)
    shift = (row // sh)[:, None] * pitch + col // sw
    channels = np.arange(problem.in_channels // problem.groups) * channel
    offsets: Table = (channels[:, None, None] + phase * plane + shift).ravel()
    return offsets
