"""Direct convolution that reads the image in place: no patch is packed, each tap is one shift. Pure kernel.

    y[o, i, j] = sum over k of weight[o, k] * image[i*pitch + j + tap_offset[k]]

Idea
    Staged planes (`conv_impls.kernels.stage`) have no stride: for one tap, the inputs of a row of outputs are
    contiguous. A table gives the start of each tap. There are two ways to use it:
    `convolve`     vectors are outputs of a row; a register tile multiplies a few output channels by them
    `by_channel`   vectors are output channels; the rows of a tile are outputs of a row, read element by element, so
                   that an image without padding needs no staging, whatever the stride
    If few output channels use a patch, there are too few products to pay for packing it. Bands of rows are staged one
    by one. A band fits L2, so the padded image is never written to memory.
Source
    Zhang, Franchetti & Low 2018, arXiv:1809.10170, sec. 3.
Limits
    A vector or a tile of `by_channel` does not cross the end of a row. If a row is a little longer than whole vectors,
    part of the last vector is wasted. The rows that two bands share are staged twice. `by_channel` reads the weights of
    a panel again for each row of outputs.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from conv_impls.kernels.runtime.compile import kernel
from conv_impls.kernels.runtime.operands import Floats, Integers, of_call, of_plan
from conv_impls.kernels.simd import lanes_of
from conv_impls.kernels.stage import Staging, stage_band
from conv_impls.kernels.tile import ROWS, VECTORS
from conv_impls.kernels.tile_few import tile_at_strided_taps, tile_at_taps, tile_by_tap
from conv_impls.kernels.transpose_block import load_rows, store_rows, transpose


class Sizes(NamedTuple):
    """Integer parameters of `convolve`. ``out_channels`` and ``reduction`` are for one group."""

    batch: int
    groups: int
    out_channels: int
    reduction: int
    out_height: int
    out_width: int
    bands: int
    # Vectors of a tile.
    vectors: int
    # Channels of a group; elements of a row, a phase and a channel of the source (the image, or its staged bands).
    in_channels: int
    pitch: int
    plane: int
    channel: int
    # Rows of a phase of a band minus its output rows.
    shared_rows: int
    # 1 if bands are staged.
    staged: int
    # By channel: elements between the inputs of two rows and of two columns of outputs; maximum outputs of a tile; rows
    # whose results are transposed together; elements of the planes before these results.
    row_step: int
    column_step: int
    tile_rows: int
    result_rows: int
    planes: int


class Operands(NamedTuple):
    """Data that a plan prepares for `convolve`."""

    staging: Staging
    weight: Floats
    bias: Floats
    # One value: the lower clamp of the result.
    clamp: Floats
    tap_offset: Integers
    sizes: Sizes


@kernel
def convolve(part, parts, operands):
    """Tasks are bands of output rows. The weights are packed by `conv_impls.kernels.implicit.pack_tiles`."""
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
                    # The last vectors of a row overlap the previous ones: masked stores are slow on AVX2.
                    j = max(min(end, out_width - vectors * lanes), 0)
                    b = source, base + (i - top) * sizes.pitch + j
                    tile_by_tap((rows, vectors), reduction, a, b, (plan.tap_offset, 0), (y, line + j, positions),
                                out_width - j, bias, plan.clamp[0])  # fmt: skip
                    end = j + vectors * lanes


@cache
def by_channel_of(strided):
    """`by_channel` for images with a column step of 1, or with any: plans compile only the variant that they need."""
    tile = tile_at_strided_taps if strided else tile_at_taps

    @kernel
    def by_channel(part, parts, operands):
        """As `convolve`, with vectors along output channels: the image is read element by element.

        Rows of a tile are outputs of one row of the image. The results of some rows and one panel of channels, whose
        weights are packed by `conv_impls.kernels.implicit.pack_panels`, are transposed into y.
        """
        x, y, work, at = of_call(operands)
        plan = of_plan(operands, Operands)
        sizes, source = plan.sizes, work if plan.sizes.staged else x
        groups, oc, reduction = sizes.groups, sizes.out_channels, sizes.reduction
        out_height, out_width, bands = sizes.out_height, sizes.out_width, sizes.bands
        lanes, tiles, positions = lanes_of(y), -(-out_width // sizes.tile_rows), sizes.out_height * sizes.out_width
        width, results = VECTORS * lanes_of(y), at + sizes.planes
        tasks, panels = sizes.batch * groups * bands, -(-oc // width)
        for task in range(part * tasks // parts, (part + 1) * tasks // parts):
            image_group, band = task // bands, task % bands
            top, bottom = band * out_height // bands, (band + 1) * out_height // bands
            first, base = image_group % groups * panels, at
            if sizes.staged:
                channels, rows = (image_group * sizes.in_channels, sizes.in_channels), bottom - top + sizes.shared_rows
                stage_band(x, channels, (top, rows), plan.staging, work, (at, sizes.channel, sizes.plane))
            else:
                base = image_group * sizes.in_channels * sizes.channel + top * sizes.row_step
            for panel in range(panels):
                o = panel * width
                # Whole vectors: the lanes after the last channel are zeros.
                columns = min(width, -(-(oc - o) // lanes) * lanes)
                b, bias = (
                    (plan.weight, (first + panel) * reduction * width, width),
                    (plan.bias, (first + panel) * width),
                )
                for above in range(top, bottom, sizes.result_rows):
                    below = min(above + sizes.result_rows, bottom)
                    for i in range(above, below):
                        for t in range(tiles):
                            j = t * out_width // tiles
                            rows = (t + 1) * out_width // tiles - j
                            a = source, base + (i - top) * sizes.row_step + j * sizes.column_step, sizes.column_step
                            c = work, results + ((i - above) * out_width + j) * width, width
                            tile(rows, reduction, a, b, (plan.tap_offset, 0), c, columns, bias, plan.clamp[0])
                    count, line = (below - above) * out_width, (image_group * oc + o) * positions + above * out_width
                    for p in range(0, count, lanes):
                        for v in range(0, columns, lanes):
                            block = load_rows(work, results + p * width + v, width, lanes, lanes)
                            store_rows(transpose(block), y, line + v * positions + p, positions, oc - o - v, count - p)

    return by_channel
