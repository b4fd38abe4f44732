"""Write the pixels of stride phases to their places in an image. Pure kernel.

    y[image, first_h + r*step_h, first_w + q*step_w] = x[image, r, q]         and likewise for a second plane

Idea
    With a column step of 2, the two column phases of a row are interleaved in registers, and whole vectors are written.
    A missing phase is zero. With other steps each phase is written element by element, into an image of zeros.
Source
    Vaidyanathan 1993, Multirate Systems and Filter Banks, sec. 4.1 (expanders).
Limits
    One read of the phases and one write of the image.
"""

from __future__ import annotations

from typing import NamedTuple

from conv_impls.kernels.runtime.compile import kernel
from conv_impls.kernels.runtime.operands import of_call, of_plan, second_of_call
from conv_impls.kernels.simd import constant, interleaved, lanes_of, load_lanes, store_lanes


class Sizes(NamedTuple):
    """Integer parameters of `pairs` and `scatter`."""

    # Images times channels, and their size.
    images: int
    h: int
    w: int
    # Rows of a phase; the row of the image of the first one, and the distance of the others.
    rows: int
    first_h: int
    step_h: int
    # Columns of the phase that is x, and of the second input; 0 if there is none.
    columns: int
    second: int
    # Of x: the first column of the image and the distance of the others; `pairs` only reads the former, 0 or 1.
    first_w: int
    step_w: int


class Operands(NamedTuple):
    """Data that a plan prepares."""

    sizes: Sizes


@kernel
def pairs(part, parts, operands):
    """Two column phases of each row; the even columns are x if ``first_w`` is 0, else the second input."""
    x, y, _, _ = of_call(operands)
    other, sizes = second_of_call(operands), of_plan(operands, Operands).sizes
    lanes, zero = lanes_of(y), constant(y, 0.0)
    lines = sizes.images * sizes.rows
    for line in range(part * lines // parts, (part + 1) * lines // parts):
        image, r = line // sizes.rows, line % sizes.rows
        to = (image * sizes.h + sizes.first_h + r * sizes.step_h) * sizes.w
        for q in range(0, -(-sizes.w // 2), lanes):
            mine, yours = zero, zero
            if sizes.columns:
                mine = load_lanes(x, line * sizes.columns + q, 0, sizes.columns - q)
            if sizes.second:
                yours = load_lanes(other, line * sizes.second + q, 0, sizes.second - q)
            low, high = interleaved(mine, yours) if sizes.first_w == 0 else interleaved(yours, mine)
            store_lanes(low, y, to + 2 * q, sizes.w - 2 * q)
            if sizes.w - 2 * q > lanes:
                store_lanes(high, y, to + 2 * q + lanes, sizes.w - 2 * q - lanes)


@kernel
def scatter(part, parts, operands):
    """One phase, element by element."""
    x, y, _, _ = of_call(operands)
    sizes = of_plan(operands, Operands).sizes
    lines = sizes.images * sizes.rows
    for line in range(part * lines // parts, (part + 1) * lines // parts):
        image, r = line // sizes.rows, line % sizes.rows
        to = (image * sizes.h + sizes.first_h + r * sizes.step_h) * sizes.w + sizes.first_w
        for q in range(sizes.columns):
            y[to + q * sizes.step_w] = x[line * sizes.columns + q]
