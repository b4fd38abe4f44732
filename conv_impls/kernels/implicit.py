"""Convolution as a matrix product whose right-hand side is never stored completely: implicit GEMM. Pure kernels.

    y[o, p] = bias[o] + sum over k of weight[o, k] * source[tap_offset[k] + place(p)]      k over taps (c, kh, kw)
    place(p) = p // out_width * pitch + p % out_width                                      p over output positions

Idea
    The sum is a matrix product C = A B: A is the weights (channels by k), B the patch matrix of im2col (k by
    positions). GEMM (general matrix-matrix product) libraries split such a product into blocks for the caches and tiles
    for the registers. Here each block of the patch matrix is packed when it is needed:

        for each k block
            for each channel block, image and group, position block        these are the tasks that threads share
                pack the patches of this k block and position block        `_fill`, `pack_rows`
                multiply all row tiles by all panels                       `conv_impls.kernels.product.multiply`

    panel        `VECTORS` vectors of columns of B, one row for each k
    tile         up to `ROWS` rows of A by one panel; its sums are in registers
    k block      the k that a tile sums before it writes its sums to C; the next k block starts from these sums
    others       position block: the panels that fit a part of L2; channel block: output channels that share a task

    If an image has few outputs, positions cannot fill vectors. Then `by_channel` computes the transposed product: A is
    the patches (positions by k), B the weights (k by output channels). C is transposed into y at the end of each task,
    so there the k blocks are the inner loop.
    In both kernels a sum starts from the bias and adds its products in the order of k, so both give the same bits.

    The source is the image itself if padding is zero or absent and the column stride is 1, 2 or 4: packing masks the
    padding and removes the stride by shuffles. All other images, and those where the plan expects a gain, are first
    copied into padded planes (`conv_impls.kernels.stage`); there the formula holds from the first channel of image and
    group. Each thread stages the rows that it needs: reading rows from the cache of another core is slow.
    A 1x1 kernel without padding and stride needs no packing: B is the image. It is packed where that is faster.
Source
    Implicit GEMM: Chetlur et al. 2014, cuDNN, arXiv:1410.0759, sec. 3.1. Packing and blocking: Goto & van de Geijn
    2008, doi:10.1145/1356052.1356053, sec. 4.
Limits
    Threads that split channels each stage and pack the same panels. Threads that split positions stage the rows that
    two of them need twice. Each image of a staged batch reads all weights. Groups with few output channels leave the
    tiles half empty.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from numba import int64

from conv_impls.kernels.panels import Window, pack_image, pack_planes, pack_rows, pack_tile
from conv_impls.kernels.product import PACKED_BY_TILE, multiply, multiply_by_panel
from conv_impls.kernels.runtime.compile import helper, kernel
from conv_impls.kernels.runtime.operands import Floats, Integers, of_call, of_plan
from conv_impls.kernels.simd import lanes_of
from conv_impls.kernels.stage import Staging, stage_band
from conv_impls.kernels.tile import ROWS, START_BY_COLUMN, START_BY_ROW, START_C, VECTORS
from conv_impls.kernels.transpose_block import load_rows, store_rows, transpose


class Sizes(NamedTuple):
    """Integer parameters of `by_position` and `by_channel`. ``out_channels`` and ``reduction`` are for one group."""

    batch: int
    groups: int
    out_channels: int
    # Output pixels of one image, and of one row; elements between rows of the staged planes.
    positions: int
    out_width: int
    pitch: int
    # Channels of a group; elements of one group of one image; elements of its planes if it is staged, else 0.
    in_channels: int
    group_elements: int
    planes: int
    # Number of k in total, and in a k block (whole channels if the image is not staged).
    reduction: int
    k_block: int
    # Positions of a block, blocks of an image, blocks of the output channels.
    block_positions: int
    position_blocks: int
    channel_blocks: int
    # If the image is not staged: number of channels that are packed together, tap by tap.
    together: int
    # Flags. 1x1 without stride and padding: rows of B are rows of the image.
    in_rows: int
    # These rows are read in place, not packed (``in_rows`` holds).
    in_place: int
    # The next position block of a large image is prefetched; by position only.
    prefetch_image: int
    # By channel, weights too large for L2: each panel is multiplied by all tiles before the next panel.
    by_panel: int


class Operands(NamedTuple):
    """Data that a plan prepares for `by_position` or `by_channel`."""

    # Unused if nothing is staged.
    staging: Staging
    # In the layout of `pack_tiles` or `pack_panels`.
    weight: Floats
    # The output channels of each group; for `by_channel`, padded with zeros to a whole panel.
    bias: Floats
    # Lower clamp of sums: clamp[0], between two k blocks, is -inf; clamp[1], at the end, is 0 with ReLU, else -inf.
    clamp: Floats
    # Offset of each k in the staged planes, from the first channel of its group.
    tap_offset: Integers
    window: Window
    sizes: Sizes


class Packing(NamedTuple):
    """Integer parameters of `pack_tiles` and `pack_panels`, as in `Sizes`."""

    groups: int
    out_channels: int
    reduction: int


class PackOperands(NamedTuple):
    """Data that a plan prepares for `pack_tiles` and `pack_panels`."""

    sizes: Packing


@helper
def stage_positions(x, image_group, p_block, blocks, plan, work, at):
    """Stage the rows that ``blocks`` position blocks of an image and group read, each at its place in the planes."""
    sizes, counts = plan.sizes, plan.staging.sizes
    first = p_block * sizes.block_positions
    last = min(first + blocks * sizes.block_positions, sizes.positions) - 1
    top, bottom = first // sizes.out_width, last // sizes.out_width + 1
    rows = bottom - top + counts.plane_h - sizes.positions // sizes.out_width
    target = at + top * counts.plane_w, counts.channel, counts.plane_h * counts.plane_w
    stage_band(x, (image_group * sizes.in_channels, sizes.in_channels), (top, rows), plan.staging, work, target)


@cache
def kernels_of(staged):
    """`by_position` and `by_channel`, for staged images or not. Most layers then compile only one of the variants."""

    @helper
    def _fill(source, k_range, span, plan, target):
        """Pack ``k_range`` = (first, count) of ``span`` = (first position, count) into ``target`` = (array, at, row).

        ``plan`` is the `Operands`. If the image is not staged, both numbers of ``k_range`` are multiples of kh * kw.
        """
        if staged:
            pack_planes(source, plan.tap_offset, k_range, span, (plan.sizes.out_width, plan.sizes.pitch), target)
        else:
            taps, (panel, at, row) = plan.window.kh * plan.window.kw, target
            first, end = k_range[0] // taps, (k_range[0] + k_range[1]) // taps
            for c in range(first, end, plan.sizes.together):
                channels, to = (c, min(plan.sizes.together, end - c)), at + (c - first) * taps * row
                pack_image(source, channels, span, plan.window, plan.sizes.out_width, (panel, to, row))

    @kernel
    def by_position(part, parts, operands):
        """Vectors along positions: packed weights (`pack_tiles`) times panels of positions, stored directly to y.

        Arguments of `multiply`: share (rows, first tile, last tile, tiles), A (array, at, row, step, skipped steps), B
        (array, at, panel, step), C (array, at, row), bias (array, at), prefetch target (array, at, step, vectors).
        """
        x, y, work, work_at = of_call(operands)
        plan = of_plan(operands, Operands)
        sizes, lanes, source = plan.sizes, lanes_of(y), work if staged else x
        groups, oc, positions, reduction = sizes.groups, sizes.out_channels, sizes.positions, sizes.reduction
        p_blocks, o_blocks, image_groups = sizes.position_blocks, sizes.channel_blocks, sizes.batch * sizes.groups
        width, tiles, packed_by_tile = VECTORS * lanes, -(-oc // ROWS), int64(PACKED_BY_TILE)
        tasks = image_groups * p_blocks * o_blocks
        # Channel blocks are the outermost loop: the weights of one stay in the cache for all position blocks. All
        # position blocks use one k block of the weights before the next, so weights are read from memory once. With
        # staging these are only the blocks of the staged planes, so each image of a batch reads the weights again.
        first_task, end_task, packed_at = part * tasks // parts, (part + 1) * tasks // parts, work_at + sizes.planes
        while first_task < end_task:
            mine = end_task - first_task
            if staged:
                # Tasks of one group of one image. This thread stages their rows.
                mine = min(mine, p_blocks - first_task % p_blocks)
                stage_positions(
                    x, first_task // p_blocks % image_groups, first_task % p_blocks, mine, plan, work, work_at
                )
            for turn in range(-(-reduction // sizes.k_block) * mine):
                task, k0 = first_task + turn % mine, turn // mine * sizes.k_block
                p_block, image_group = task % p_blocks, task // p_blocks % image_groups
                o_block = task // (p_blocks * image_groups)
                base = work_at if staged else image_group * sizes.group_elements
                p0, first_channel = p_block * sizes.block_positions, image_group % groups * oc
                count = min(sizes.block_positions, positions - p0)
                share = oc, o_block * tiles // o_blocks, (o_block + 1) * tiles // o_blocks, tiles
                # B is read in whole vectors. The last panel of the last position block may be incomplete: it is packed,
                # because a vector could read past the end of the image.
                inside = count // width * width if sizes.in_place else 0
                out = image_group * oc * positions + p0
                depth = min(sizes.k_block, reduction - k0)
                start = START_C if k0 else START_BY_ROW
                clamp = plan.clamp[1] if k0 + depth == reduction else plan.clamp[0]
                a = plan.weight, first_channel * reduction, reduction, packed_by_tile, k0
                bias = plan.bias, first_channel
                # The products prefetch the next position block. After the last block of an image the prefetch is
                # useless but harmless.
                next_at = base + k0 * positions + p0 + sizes.block_positions
                vectors_ahead = -(-count // lanes) if sizes.prefetch_image else 0
                if inside:
                    b = source, base + k0 * positions + p0, width, positions
                    multiply(share, depth, a, b, (y, out, positions), inside, bias, start, clamp,
                             (source, next_at, positions, vectors_ahead))  # fmt: skip
                if inside < count:
                    remaining, k_range = count - inside, (k0, depth)
                    if sizes.in_rows:
                        pack_rows((source, base), k_range, (p0 + inside, remaining), positions, (work, packed_at))
                    else:  # not in place either, so ``inside`` is 0
                        for j in range(0, count, width):
                            span, panel = (p0 + j, min(width, count - j)), (work, packed_at + j * depth, width)
                            _fill((source, base), k_range, span, plan, panel)
                    b = work, packed_at, width * depth, width
                    # If ``inside``, the product above prefetched the next block.
                    multiply(share, depth, a, b, (y, out + inside, positions), remaining, bias, start, clamp,
                             (source, next_at, positions, 0 if inside else vectors_ahead))  # fmt: skip
            first_task += mine

    @kernel
    def by_channel(part, parts, operands):
        """Transposed product: rows of A are positions, columns of B are channels. Results are transposed into y."""
        x, y, work, work_at = of_call(operands)
        plan = of_plan(operands, Operands)
        sizes, lanes, source = plan.sizes, lanes_of(y), work if staged else x
        batch, groups, oc = sizes.batch, sizes.groups, sizes.out_channels
        positions, reduction = sizes.positions, sizes.reduction
        p_blocks, o_blocks = sizes.position_blocks, sizes.channel_blocks
        # Typed values: Numba compiles a function again for literal arguments.
        zero, one = int64(0), int64(1)
        # ``width``: channels of a panel of weights. The results before their transpose are stored after the packed
        # positions and one more vector, which packing may overwrite.
        width = VECTORS * lanes
        panels, packed_at = -(-oc // width), work_at + sizes.planes
        result_at = packed_at
        if not sizes.in_place:
            result_at += -(-sizes.block_positions // lanes) * lanes * sizes.k_block + lanes
        tasks = batch * groups * p_blocks * o_blocks
        # Group and channel block are the outer loops: images share the weights of one.
        for task in range(part * tasks // parts, (part + 1) * tasks // parts):
            p_block, n, group_block = task % p_blocks, task // p_blocks % batch, task // (p_blocks * batch)
            group, o_block, p0 = group_block // o_blocks, group_block % o_blocks, p_block * sizes.block_positions
            image_group = n * groups + group
            base = work_at if staged else image_group * sizes.group_elements
            if staged:
                stage_positions(x, image_group, p_block, one, plan, work, work_at)
            first, last = o_block * panels // o_blocks, (o_block + 1) * panels // o_blocks
            count, columns = min(sizes.block_positions, positions - p0), (last - first) * width
            tiles = -(-count // ROWS)
            for k0 in range(0, reduction, sizes.k_block):
                depth, start = min(sizes.k_block, reduction - k0), START_C if k0 else START_BY_COLUMN
                b = plan.weight, ((group * panels + first) * reduction + k0) * width, reduction * width, width
                c, bias = (work, result_at, columns + lanes), (plan.bias, (group * panels + first) * width)
                clamp = plan.clamp[1] if k0 + depth == reduction else plan.clamp[0]
                a = source, base + k0 * positions + p0, one, positions, zero
                if not sizes.in_place:
                    for t in range(tiles):
                        m = t * count // tiles
                        rows = (t + 1) * count // tiles - m
                        tile = work, packed_at + m * depth, rows
                        if sizes.in_rows:
                            pack_tile((source, base + k0 * positions + p0 + m), depth, positions, tile)
                        else:
                            _fill((source, base), (k0, depth), (p0 + m, rows), plan, tile)
                    a = work, packed_at, depth, int64(PACKED_BY_TILE), zero
                if sizes.by_panel:
                    multiply_by_panel((count, tiles, last - first), depth, a, b, c, bias, start, clamp)
                else:
                    nothing_ahead = plan.weight, zero, zero, zero
                    multiply((count, zero, tiles, tiles), depth, a, b, c, columns, bias, start, clamp, nothing_ahead)
            for channel in range(first * width, min(last * width, oc), lanes):
                here = min(lanes, oc - channel)
                for first_position in range(0, count, lanes):
                    # The last vector overlaps the previous one: masked stores are slow on AVX2.
                    j = max(min(first_position, count - lanes), 0)
                    at = result_at + j * (columns + lanes) + channel - first * width
                    block = load_rows(work, at, columns + lanes, count - j, lanes)
                    store_rows(
                        transpose(block),
                        y,
                        (image_group * oc + channel) * positions + p0 + j,
                        positions,
                        here,
                        count - j,
                    )

    return by_position, by_channel


@kernel
def pack_tiles(part, parts, operands):
    """weight (group, o, k) -> for each group and tile of rows: (k, row), the order in which `tile` reads them."""
    weight, packed, _, _ = of_call(operands)
    sizes = of_plan(operands, PackOperands).sizes
    groups, oc, reduction = sizes.groups, sizes.out_channels, sizes.reduction
    lanes, tiles = lanes_of(weight), -(-oc // ROWS)
    for task in range(part * groups * tiles // parts, (part + 1) * groups * tiles // parts):
        t = task % tiles
        # The same split of rows as in `multiply`.
        first_row = task // tiles * oc + t * oc // tiles
        rows = (t + 1) * oc // tiles - t * oc // tiles
        for m in range(0, rows, lanes):
            for k in range(0, reduction, lanes):
                block = load_rows(weight, (first_row + m) * reduction + k, reduction, rows - m, reduction - k)
                to, here = first_row * reduction + k * rows + m, min(lanes, rows - m)
                store_rows(transpose(block), packed, to, rows, reduction - k, here)


@kernel
def pack_panels(part, parts, operands):
    """weight (group, o, k) -> for each group and panel of channels: (k, channel), zeros after the last channel."""
    weight, packed, _, _ = of_call(operands)
    sizes = of_plan(operands, PackOperands).sizes
    groups, oc, reduction = sizes.groups, sizes.out_channels, sizes.reduction
    lanes = lanes_of(weight)
    width = VECTORS * lanes
    panels = -(-oc // width)
    for task in range(part * groups * panels // parts, (part + 1) * groups * panels // parts):
        group, first = task // panels, task % panels * width
        for o in range(first, first + width, lanes):
            # Rows after the last channel are loaded as zeros.
            for k in range(0, reduction, lanes):
                block = load_rows(weight, (group * oc + o) * reduction + k, reduction, oc - o, reduction - k)
                to = (task * reduction + k) * width + o - first
                store_rows(transpose(block), packed, to, width, reduction - k, lanes)
