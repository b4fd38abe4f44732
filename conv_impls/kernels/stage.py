"""Lay the padded image out so that stride disappears: one plane a stride phase. Pure kernel.

Idea
    Row ``a`` of phase ``r`` is padded row ``a*sh + r``, and the same along columns. Every tap of a convolution then
    reads the same run of positions, only shifted, whatever the padding mode, stride and dilation:
    `conv_impls.backends._layout` says by how much, and makes the table this kernel reads.
Source
    Zhang, Franchetti & Low 2018, arXiv:1809.10170, sec. 3, for direct convolution on such planes.
Limits
    One read and one write of the image, a few percent of a dense layer; skipped where there is neither padding
    nor stride, and where a kernel masks and shuffles for itself.
"""

from __future__ import annotations

from typing import NamedTuple

from numba import njit

from conv_impls.kernels.runtime.team import Integers
from conv_impls.kernels.simd import constant, evens, lanes_of, load, load_lanes, store, store_lanes


class StageSizes(NamedTuple):
    """What `stage_part` counts by: channels of all images, their size, phases and planes, stride along columns."""

    images: int
    h: int
    w: int
    phases_h: int
    plane_h: int
    phases_w: int
    plane_w: int
    stride: int


class Staging(NamedTuple):
    """What a plan that stages made."""

    sizes: StageSizes
    # The row of the image that each row of each phase shows, -1 for a zero; the same for columns.
    rows: Integers
    columns: Integers
    # For each phase the range (low, high) of its columns that lie inside the image, at equal steps of the stride.
    inner: Integers


@njit(error_model="numpy")
def stage_part(part, parts, x, staging, planes):
    """This part's channels of ``x``, in planes."""
    sizes, rows, columns, inner = staging
    images, h, w, phases_h, plane_h, phases_w, plane_w, stride = sizes
    lanes = lanes_of(planes)
    channel = phases_h * phases_w * plane_h * plane_w
    zero = constant(planes, 0.0)
    for c in range(part * images // parts, (part + 1) * images // parts):
        to = c * channel
        for r in range(phases_h):
            for s in range(phases_w):
                low, high = inner[2 * s], inner[2 * s + 1]
                for a in range(plane_h):
                    row = rows[r * plane_h + a]
                    if row < 0:
                        for b in range(0, plane_w, lanes):
                            store_lanes(zero, planes, to + b, plane_w - b)
                    else:
                        line, first = (c * h + row) * w, s * plane_w
                        for b in range(low):
                            planes[to + b] = x[line + columns[first + b]] if columns[first + b] >= 0 else 0
                        _copy(x, line + columns[first + low], stride, planes, to + low, high - low)
                        for b in range(high, plane_w):
                            planes[to + b] = x[line + columns[first + b]] if columns[first + b] >= 0 else 0
                    to += plane_w


@njit(error_model="numpy")
def _copy(source, at, step, target, to, count):
    """target[to + b] = source[at + b*step] for b < count; whole vectors for the steps that are common."""
    lanes = lanes_of(source)
    if step == 1:
        whole = count // lanes * lanes
        for b in range(0, whole, lanes):
            store(load(source, at + b), target, to + b)
        if whole < count:
            store_lanes(load_lanes(source, at + whole, 0, count - whole), target, to + whole, count - whole)
    elif step == 2 and count > 0:
        # The last vector would read one element behind the last wanted.
        inside = (count - 1) // lanes * lanes
        for b in range(0, inside, lanes):
            store(evens(load(source, at + 2 * b), load(source, at + 2 * b + lanes)), target, to + b)
        left = 2 * (count - inside) - 1
        first = load_lanes(source, at + 2 * inside, 0, left)
        second = load_lanes(source, at + 2 * inside + lanes, 0, left - lanes)
        store_lanes(evens(first, second), target, to + inside, count - inside)
    else:
        for b in range(count):
            target[to + b] = source[at + b * step]
