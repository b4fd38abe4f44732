"""Depthwise convolution across channels: lanes are channels, for images too narrow for vectors. Pure kernels.

Idea
    As many channels as lanes are transposed into a buffer, so that every load is aligned and every tap a vector of
    weights; kernel rows in the padding are left out, and results are transposed back.
Source
    The NCHWc layout of Georganas et al. 2018, arXiv:1808.05567, sec. II, made on the way.
Limits
    One input channel a group, zero padding, as many output channels as input channels, a stride of 1 or 2 along rows.
"""

from __future__ import annotations

from typing import NamedTuple

from numba import njit

from conv_impls.kernels.depthwise_tile import COLUMNS, channel_tile
from conv_impls.kernels.runtime.cache import kernel
from conv_impls.kernels.runtime.team import Floats, Integers, of_call, of_plan
from conv_impls.kernels.simd import lanes_of
from conv_impls.kernels.square import load_rows, scatter_rows, store_rows, transpose


class Sizes(NamedTuple):
    """What `convolve` counts by."""

    batch: int
    channels: int
    h: int
    w: int
    out_h: int
    out_w: int
    kh: int
    kw: int
    stride_h: int
    stride_w: int
    dilation_h: int
    dilation_w: int
    top: int
    # Elements of a padded row of the transposed image; where the results lie; elements of work of each part.
    row: int
    out_at: int
    area: int


class Operands(NamedTuple):
    """What a plan of `convolve` made."""

    # For each vector of channels all taps, then the bias.
    weight: Floats
    floor: Floats
    # Where each position of the image lies in the transposed one.
    places: Integers
    sizes: Sizes


@njit(error_model="numpy")
def _convolve(work, at, kernel_at, plan):
    """All rows of the result of one vector of channels."""
    sizes, lanes = plan.sizes, lanes_of(work)
    kh, kw, ow, row, out_at = sizes.kh, sizes.kw, sizes.out_w, sizes.row, at + sizes.out_at
    bias = plan.weight, kernel_at + kh * kw * lanes
    for i in range(sizes.out_h):
        above = i * sizes.stride_h - sizes.top
        # Kernel rows that see the image.
        low = min(kh, max(0, -(above // sizes.dilation_h)))
        high = max(low, min(kh, (sizes.h - 1 - above) // sizes.dilation_h + 1))
        source = at + (above + low * sizes.dilation_h) * row
        if low == high:  # none: a row of zeros lies before the results
            low, high, source = 0, 1, out_at - row
        weight = plan.weight, kernel_at + low * kw * lanes
        groups = -(-ow // COLUMNS)
        for g in range(groups):
            j = g * ow // groups
            seen = work, source + j * sizes.stride_w * lanes, sizes.dilation_h * row, sizes.dilation_w * lanes
            channel_tile((g + 1) * ow // groups - j, high - low, kw, sizes.stride_w, seen, weight, bias, plan.floor[1],
                         (work, out_at + (i * ow + j) * lanes))  # fmt: skip


@kernel(error_model="numpy")
def convolve(phase, part, parts, operands):
    """All of it in one phase: this part's vectors of channels."""
    x, y, work = of_call(operands)
    plan = of_plan(operands, Operands)
    sizes, lanes, at = plan.sizes, lanes_of(y), part * plan.sizes.area
    channels, taps, size, out_size = sizes.channels, sizes.kh * sizes.kw, sizes.h * sizes.w, sizes.out_h * sizes.out_w
    blocks = -(-channels // lanes)
    for task in range(part * sizes.batch * blocks // parts, (part + 1) * sizes.batch * blocks // parts):
        block = task % blocks
        first = block * lanes
        here, image = min(lanes, channels - first), task // blocks * channels + first
        for p in range(0, size, lanes):
            # The last vectors begin earlier rather than end behind the image: whole ones need no masks.
            p = max(0, min(p, size - lanes))
            rows = load_rows(x, image * size + p, size, here, size - p)
            scatter_rows(transpose(rows), work, at, plan.places, p)
        _convolve(work, at, block * (taps + 1) * lanes, plan)
        for p in range(0, out_size, lanes):
            p = max(0, min(p, out_size - lanes))
            rows = transpose(load_rows(work, at + sizes.out_at + p * lanes, lanes, lanes, lanes))
            store_rows(rows, y, image * out_size + p, out_size, here, out_size - p)
