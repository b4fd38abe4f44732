"""Gradient of the weights of depthwise layers: one dot product over all pixels for each tap. Pure kernel.

    dw[o, kh, kw] = sum over images n and output pixels p of dy[n, o, p] * x[n, c(o), place(p) + (kh, kw)]

Idea
    The padded image of a channel is staged without strides (`conv_impls.kernels.stage`), so each tap reads the same
    pixels with another shift. A vector of dy is loaded once for all taps. The sums of the taps are vectors in the
    workspace; at the end the lanes of each are added from first to last.
Source
    The definition; the staged planes are those of Zhang, Franchetti & Low 2018, arXiv:1809.10170, sec. 3.
Limits
    Each product also loads and stores its sum: 1.5 cycles instead of half a cycle. Rows shorter than a vector leave
    lanes empty.
"""

from __future__ import annotations

from typing import NamedTuple

from conv_impls.kernels.runtime.compile import kernel
from conv_impls.kernels.runtime.operands import Integers, of_call, of_plan, second_of_call
from conv_impls.kernels.simd import constant, fma, lanes_of, load, load_lanes, store
from conv_impls.kernels.stage import Staging, stage_band


class Sizes(NamedTuple):
    """Integer parameters of `convolve`."""

    batch: int
    channels: int
    # Output channels of each channel; taps.
    outputs: int
    taps: int
    out_h: int
    out_w: int
    # Elements of a row, of a phase and of all planes of a channel; rows of a phase.
    pitch: int
    plane: int
    planes: int
    plane_rows: int


class Operands(NamedTuple):
    """Data that a plan prepares for `convolve`."""

    staging: Staging
    # For each tap its distance from the place of an output.
    tap_offset: Integers
    sizes: Sizes


@kernel
def convolve(part, parts, operands):
    """Tasks are channels."""
    x, dw, work, at = of_call(operands)
    dy, plan = second_of_call(operands), of_plan(operands, Operands)
    sizes, lanes, zero = plan.sizes, lanes_of(dw), constant(dw, 0.0)
    outputs, taps, width = sizes.outputs, sizes.taps, sizes.out_w
    positions, sums = sizes.out_h * sizes.out_w, at + sizes.planes
    for c in range(part * sizes.channels // parts, (part + 1) * sizes.channels // parts):
        for k in range(outputs * taps):
            store(zero, work, sums + k * lanes)
        for n in range(sizes.batch):
            image = n * sizes.channels + c
            stage_band(x, (image, 1), (0, sizes.plane_rows), plan.staging, work, (at, sizes.planes, sizes.plane))
            for o in range(outputs):
                for i in range(sizes.out_h):
                    line, place = (image * outputs + o) * positions + i * width, at + i * sizes.pitch
                    for j in range(0, width - lanes + 1, lanes):
                        gradient = load(dy, line + j)
                        for k in range(taps):
                            to = sums + (o * taps + k) * lanes
                            seen = load(work, place + plan.tap_offset[k] + j)
                            store(fma(gradient, seen, load(work, to)), work, to)
                    j = width // lanes * lanes
                    if j < width:
                        # Both are masked: zero times what follows a row could be NaN.
                        gradient = load_lanes(dy, line + j, 0, width - j)
                        for k in range(taps):
                            to = sums + (o * taps + k) * lanes
                            seen = load_lanes(work, place + plan.tap_offset[k] + j, 0, width - j)
                            store(fma(gradient, seen, load(work, to)), work, to)
        for k in range(outputs * taps):
            total = work[sums + k * lanes]
            for lane in range(1, lanes):
                total += work[sums + k * lanes + lane]
            dw[c * outputs * taps + k] = total
