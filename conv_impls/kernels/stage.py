"""Copy the padded image into a layout without stride: one plane per stride phase. Pure kernel.

Idea
    Row ``a`` of phase ``r`` is padded row ``a*sh + r``; columns work the same way. Every tap of a convolution then
    reads the same run of positions with a different shift, for every padding mode, stride and dilation.
    `conv_impls.backends._layout` computes the shifts and the table that this kernel reads.
Source
    Zhang, Franchetti & Low 2018, arXiv:1809.10170, sec. 3, for direct convolution on such planes.
Limits
    One read and one write of the image: a few percent of a dense layer. Not used if there is neither padding nor
    stride, or if a kernel applies masks and shuffles itself.
"""

from __future__ import annotations

from typing import NamedTuple

from conv_impls.kernels.runtime.compile import helper, kernel
from conv_impls.kernels.runtime.operands import Integers, of_call, of_plan
from conv_impls.kernels.simd import constant, evens, lanes_of, load, load_lanes, store, store_lanes
from conv_impls.kernels.transpose_block import load_rows, store_rows, transpose


class StageSizes(NamedTuple):
    """Integer parameters of `stage`: channels of all images, their size, phases and planes, stride along columns."""

    images: int
    # Elements from one channel to the next.
    channel: int
    h: int
    w: int
    phases_h: int
    plane_h: int
    phases_w: int
    plane_w: int
    stride: int
    # 1 if everything outside the image is zero.
    zeros: int


class Staging(NamedTuple):
    """Data that a plan prepares for staging."""

    sizes: StageSizes
    # The image row of each row of each phase (-1: zeros); the same for columns.
    rows: Integers
    columns: Integers
    # For each phase: the range (low, high) of its columns that are inside the image, one stride apart.
    inner: Integers


class Staged(NamedTuple):
    """The first field of the operands of every kernel whose image may be staged."""

    staging: Staging


@kernel
def stage(part, parts, operands):
    """Stage the rows of this part, into planes at the beginning of the workspace."""
    x, _, planes, _ = of_call(operands)
    staging = of_plan(operands, Staged).staging
    sizes = staging.sizes
    phases_h, plane = sizes.phases_h, sizes.plane_h * sizes.plane_w
    # A task is the rows of one phase of one channel: the three channels of a photograph alone split badly.
    pieces = sizes.images * phases_h
    for piece in range(part * pieces // parts, (part + 1) * pieces // parts):
        c, r = piece // phases_h, piece % phases_h
        target = c * sizes.channel + r * sizes.phases_w * plane, plane
        stage_phases(x, c, (r * sizes.plane_h, sizes.plane_h), staging, planes, target)


@helper
def stage_band(x, channels, span, staging, planes, target):
    """Stage rows ``span`` = (first, count) of every phase, for ``channels`` = (first, count) of all images' channels.

    ``target`` is (at, channel step, phase step).
    """
    (first, count), (at, channel, plane), (sizes, _, _, _) = channels, target, staging
    for c in range(count):
        for r in range(sizes.phases_h):
            rows, to = (r * sizes.plane_h + span[0], span[1]), at + c * channel + r * sizes.phases_w * plane
            stage_phases(x, first + c, rows, staging, planes, (to, plane))


@helper
def stage_phases(x, c, span, staging, planes, target):
    """`stage_rows` for all column phases; ``target`` is (at, phase step)."""
    (to, plane), (sizes, rows, columns, inner) = target, staging
    phases, plane_w, lanes = sizes.phases_w, sizes.plane_w, lanes_of(x)
    # Columns that are inside the image in all phases; for these strides they are consecutive in the image.
    low, high = 0, plane_w
    for s in range(phases):
        low, high = max(low, inner[2 * s]), min(high, inner[2 * s + 1])
    if sizes.stride in (1, 2, 4) or low >= high or columns[(phases - 1) * plane_w + low] - columns[low] != phases - 1:
        for s in range(phases):
            stage_rows(x, c, span, s, staging, planes, to + s * plane)
    else:
        for a in range(span[0], span[0] + span[1]):
            line, inside = (c * sizes.h + rows[a]) * sizes.w, rows[a] >= 0
            for s in range(phases):
                first, there = s * plane_w, to + s * plane
                for b in range(low if inside else plane_w):
                    planes[there + b] = x[line + columns[first + b]] if inside and columns[first + b] >= 0 else 0
                for b in range(high, plane_w):
                    planes[there + b] = x[line + columns[first + b]] if inside and columns[first + b] >= 0 else 0
            if inside:
                for b in range(low, high, lanes):
                    for s in range(0, phases, lanes):
                        here = line + columns[low] + (b - low) * sizes.stride + s
                        block = load_rows(x, here, sizes.stride, high - b, phases - s)
                        store_rows(transpose(block), planes, to + s * plane + b, plane, phases - s, high - b)
            to += plane_w


@helper
def stage_rows(x, c, span, s, staging, planes, to):
    """Stage rows ``span`` = (first, count) of channel ``c``, indexed as in ``staging.rows``, of column phase ``s``."""
    sizes, rows, columns, inner = staging
    plane_w = sizes.plane_w
    low, high = inner[2 * s], inner[2 * s + 1]
    if sizes.zeros and sizes.stride <= 2:
        _stage_columns(x, c, span, s, staging, planes, to)
        return
    for a in range(span[0], span[0] + span[1]):
        if rows[a] < 0:
            for b in range(plane_w):
                planes[to + b] = 0
        else:
            line, first = (c * sizes.h + rows[a]) * sizes.w, s * plane_w
            for b in range(low):
                planes[to + b] = x[line + columns[first + b]] if columns[first + b] >= 0 else 0
            _copy(x, line + columns[first + low], sizes.stride, planes, to + low, high - low)
            for b in range(high, plane_w):
                planes[to + b] = x[line + columns[first + b]] if columns[first + b] >= 0 else 0
        to += plane_w


@helper
def _stage_columns(x, c, span, s, staging, planes, to):
    """`stage_rows` for zeros outside the image and column strides 1 and 2: one vector of all rows at a time.

    The masks are then the same for all rows. Row by row, with scalar loops at both edges, 15 rows of 15 columns took
    five times as long.
    """
    sizes, rows, columns, inner = staging
    (first_row, count), plane_w, lanes, step = span, sizes.plane_w, lanes_of(x), sizes.stride
    low, high, zero = inner[2 * s], inner[2 * s + 1], constant(x, 0.0)
    # The last vector ends at the end of the row and overlaps the previous one.
    last, width = max(plane_w - lanes, 0), min(plane_w, lanes)
    for v in range(0, plane_w, lanes):
        at = min(v, last)
        # Relative to a row of the image; before its first column if the vector starts in the padding.
        place = columns[s * plane_w + low] + (at - low) * step
        for a in range(count):
            row, there = rows[first_row + a], to + a * plane_w + at
            line = (c * sizes.h + row) * sizes.w + place
            if row < 0:
                value = zero
            elif step == 1:
                value = load_lanes(x, line, low - at, high - at)
            else:
                near, far = 2 * (low - at), 2 * (high - at) - 1
                value = evens(load_lanes(x, line, near, far), load_lanes(x, line + lanes, near - lanes, far - lanes))
            if width == lanes:
                store(value, planes, there)
            else:
                store_lanes(value, planes, there, width)


@helper(inline="always")
def _copy(source, at, step, target, to, count):
    """target[to + b] = source[at + b*step] for b < count; whole vectors for the common steps.

    The last vector ends at the end of the row and overlaps the previous one: masked stores are slow without AVX-512.
    """
    lanes = lanes_of(source)
    last = count - lanes
    if step == 1 and last >= 0:
        for b in range(0, last, lanes):
            store(load(source, at + b), target, to + b)
        store(load(source, at + last), target, to + last)
    elif step == 1:
        store_lanes(load_lanes(source, at, 0, count), target, to, count)
    elif step == 2 and last >= 0:
        for b in range(0, last, lanes):
            store(evens(load(source, at + 2 * b), load(source, at + 2 * b + lanes)), target, to + b)
        # The element after the last used one may be outside the image.
        far = load_lanes(source, at + 2 * last + lanes, 0, lanes - 1)
        store(evens(load(source, at + 2 * last), far), target, to + last)
    elif step == 2:
        near = load_lanes(source, at, 0, 2 * count - 1)
        far = load_lanes(source, at + lanes, 0, 2 * count - 1 - lanes)
        store_lanes(evens(near, far), target, to, count)
    elif step == 4 and last >= 0 and lanes >= 4:
        for b in range(0, last, lanes):
            here = at + 4 * b
            near = evens(load(source, here), load(source, here + lanes))
            far = evens(load(source, here + 2 * lanes), load(source, here + 3 * lanes))
            store(evens(near, far), target, to + b)
        here = at + 4 * last
        near = evens(load(source, here), load(source, here + lanes))
        # The three elements after the last used one may be outside the image.
        far = evens(load(source, here + 2 * lanes), load_lanes(source, here + 3 * lanes, 0, lanes - 3))
        store(evens(near, far), target, to + last)
    else:
        for b in range(count):
            target[to + b] = source[at + b * step]
