"""Direct convolution from the image where it is: no patch is packed, each tap is one shift. Pure kernel.

    y[o, i, j] = sum over k of weight[o, k] * image[i*pitch + j + tap_offset[k]]

Idea
    In staged planes (`conv_impls.kernels.stage`) stride disappears, and the inputs of a row of outputs for one tap are
    next to each other. A register tile multiplies a few output channels by vectors of positions and looks up where each
    tap starts. With few channels the products are too few to pay for packing patches. Bands of rows are staged one by
    one, small enough for L2, so that the padded image never reaches memory.
Source
    Zhang, Franchetti & Low 2018, arXiv:1809.10170, sec. 3.
Limits
    Vectors end with a row: rows a little longer than whole vectors waste some of the last one. The rows that two bands
    share are staged twice.
"""

from __future__ import annotations

from typing import NamedTuple

from conv_impls.kernels.runtime.compile import kernel
from conv_impls.kernels.runtime.operands import Floats, Integers, of_call, of_plan
from conv_impls.kernels.simd import lanes_of
from conv_impls.kernels.stage import Staging, stage_band
from conv_impls.kernels.tile import ROWS
from conv_impls.kernels.tile_few import tile_by_tap


class Sizes(NamedTuple):
    """Integers that `convolve` needs. ``out_channels`` and ``reduction`` are those of one group."""

    batch: int
    groups: int
    out_channels: int
    reduction: int
    out_height: int
    out_width: int
    bands: int
    # Of a tile.
    vectors: int
    # Channels of a group; elements of a row, a phase and a channel of what is read: the image, or its staged bands.
    in_channels: int
    pitch: int
    plane: int
    channel: int
    # Rows that a phase of a band has more than there are outputs.
    shared_rows: int
    # Whether bands are staged.
    staged: int


class Operands(NamedTuple):
    """What a plan of `convolve` made."""

    staging: Staging
    weight: Floats
    bias: Floats
    # One value, which the result is raised to.
    floor: Floats
    tap_offset: Integers
    sizes: Sizes


@kernel
def convolve(part, parts, operands):
    """Bands of rows of outputs; the weights are those of `conv_impls.kernels.implicit.pack_tiles`."""
    x, y, work, at = of_call(operands)
    plan = of_plan(operands, Operands)
    sizes, source = plan.sizes, work if plan.sizes.staged else x
    groups, oc, reduction = sizes.groups, sizes.out_channels, sizes.reduction
    out_height, out_width, bands = sizes.out_height, sizes.out_width, sizes.bands
    lanes, tiles, positions = lanes_of(y), -(-oc // ROWS), sizes.out_height * sizes.out_width
    tasks = sizes.batch * groups * bands
    for task in range(part * tasks // parts, (part + 1) * tasks // parts):
        image_group, band = task // bands, task % bands
        top, bottom = band * out_height // bands, (band + 1) * out_height // bands
        first, base = image_group % groups * oc, at
        if sizes.staged:
            channels, rows = (image_group * sizes.in_channels, sizes.in_channels), bottom - top + sizes.shared_rows
            stage_band(x, channels, (top, rows), plan.staging, work, (at, sizes.channel, sizes.plane))
        else:
            base = image_group * sizes.in_channels * sizes.channel + top * sizes.pitch
        for t in range(tiles):
            m = t * oc // tiles
            rows = (t + 1) * oc // tiles - m
            a, bias = (plan.weight, (first + m) * reduction, rows), (plan.bias, first + m)
            for i in range(top, bottom):
                line, end = (image_group * oc + m) * positions + i * out_width, 0
                while end < out_width:
                    vectors = sizes.vectors
                    while vectors > 1 and vectors // 2 * lanes >= out_width - end:
                        vectors //= 2
                    # The last vectors of a row overlap those before them: AVX2 stores masked lanes slowly.
                    j = max(min(end, out_width - vectors * lanes), 0)
                    b = source, base + (i - top) * sizes.pitch + j
                    tile_by_tap((rows, vectors), reduction, a, b, (plan.tap_offset, 0), (y, line + j, positions),
                                out_width - j, bias, plan.floor[0])  # fmt: skip
                    end = j + vectors * lanes
