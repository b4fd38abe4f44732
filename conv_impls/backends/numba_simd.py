"""Direct convolution by explicit vectors: register tiles of a matrix product that is packed panel by panel, in cache.

Any kernel size, stride, dilation, groups and padding mode. See `conv_impls.kernels.implicit` for the idea, its source
and the loops. This file chooses the axis of the vectors, the panel sizes and the packing of the weights. If few output
channels share a panel, `conv_impls.kernels.by_tap` reads the image in place.
Limits: groups with few output channels and short rows fill the tiles badly. Depthwise layers have their own backend.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import NamedTuple

import numpy as np

from conv_impls.backends import _by_tap, _dense
from conv_impls.backends._layout import PAGE_BYTES, effective, image_layout, round_up, seen_taps, together
from conv_impls.kernels import implicit
from conv_impls.kernels.panels import Window
from conv_impls.kernels.runtime import target
from conv_impls.kernels.runtime.job import Job, compiled_s
from conv_impls.kernels.runtime.memory import aligned_zeros
from conv_impls.kernels.simd import lanes as vector_lanes
from conv_impls.kernels.tile import ROWS, VECTORS
from conv_impls.problem import Conv2dProblem
from conv_impls.registry import Prepared, register
from conv_impls.validation import Array

# Products added to a sum between two writes of it, independent of the caches. The next block continues from the written
# value, in the same dtype, so the blocks do not change the bits.
K_BLOCK = 768
# An L2 of at least this size holds a block of a 1x1 image whose rows are far apart. Reading it in place then gains 1 to
# 10% (Zen 5, vectors of 512 and 256 bits) over packing, unless rows are whole pages apart.
ROOMY_BYTES = 2**20
# With a smaller L2, packing a 1x1 image gains if many output channels use it: 2 to 27% with 256 (Zen 3); with 16 it
# loses up to 30%. 384 rows 12 KB apart were read at half speed in some places of memory.
PACKED_CHANNELS, IN_PLACE_BYTES = 128, 4 * 2**20
# If rows map to the same cache set, packing gains more: 16 -> 64 channels at 96 x 96 a factor of 3.0 on Zen 3, 1.2 on
# Zen 5. With fewer products for each element it loses: 256 -> 16 at 56 x 56 30%.
CROWDED = 48
# Block of packed rows, which are written and read again: its positions, and its minimum bytes. With 64 channels at
# 128 x 128, blocks of 64 KiB gain 30% over 256 KiB; with 256 channels at 32 x 32 they lose 2%.
PACKED_POSITIONS, PACKED_BYTES = 256, 64 * 2**10
# Larger caches gained nothing from larger panels and results; panels of 128 KiB, a quarter of an L2 of 512, cost 3 to
# 10% at 7x7.
PANEL_BYTES, RESULT_BYTES = 256 * 2**10, 128 * 2**10
# Above these sizes, prefetching the image and using weights panel by panel gain even if L2 could hold them.
IMAGE_BYTES, WEIGHT_BYTES = 512 * 2**10, 768 * 2**10
# Vectors run along channels if vectors along positions have so many empty lanes that the transpose of the result costs
# less (TRANSPOSE products for each vector of the result). Not if more positions than MOST_POSITIONS must be packed: the
# weights would be read again for each block, and 5x5 stride 3, 64 -> 64 channels, 19x19 outputs, lost 10%.
TRANSPOSE, MOST_POSITIONS = 8, 256
# Strides that need no staging, and the maximum ratio of taps to channels for that: 7x7 stride 2 on 3 channels gains 14%
# by staging, 3x3 stride 1 on 3 channels 19%; 3x3 stride 2 and 4x4 stride 4 lose as much.
UNSTAGED = {1: 2, 2: 6, 4: 6}


class Budgets(NamedTuple):
    """Sizes in bytes that depend on the caches; none of them splits a sum."""

    # A packed panel.
    panel: int
    # Results by channel before their transpose: 1x1 512 -> 2048 at 7x7 gains 15% on two threads.
    result: int
    # Larger images are prefetched before they are packed or read (512 -> 64 at 56x56: 60 to 73% of the peak). Larger
    # weights are used panel by panel, each for all positions (768 -> 3072 at 7x7 +11%).
    image: int
    weight: int


def budgets() -> Budgets:
    """The sizes for the caches of this machine."""
    l2 = target.caches().l2
    return Budgets(
        panel=min(l2 // 2, PANEL_BYTES),
        result=min(l2 // 4, RESULT_BYTES),
        image=min(l2, IMAGE_BYTES),
        weight=min(l2, WEIGHT_BYTES),
    )


@register(
    "numba_simd",
    idea="implicit GEMM by register tiles of explicit vectors, panels packed in cache",
    source="Goto & van de Geijn 2008, doi:10.1145/1356052.1356053, sec. 4-5",
    deterministic="output",
    threads="argument",
    compiled=True,
)
def prepare(problem: Conv2dProblem, weight: Array, bias: Array | None, threads: int, relu: bool) -> Prepared:
    seen, (rows, columns) = seen_taps(problem)
    if seen is problem:
        return _prepare_best(effective(problem), weight, bias, threads, relu)

    def cut(weight: Array, bias: Array | None) -> tuple[Array, Array]:
        """Weights of the taps that see the image. The others add zero, or NaN if a weight is not finite."""
        unseen = weight.copy()
        unseen[:, :, rows, columns] = 0
        with np.errstate(invalid="ignore"):
            zeros = (0 * unseen).sum((1, 2, 3))
        return np.ascontiguousarray(weight[:, :, rows, columns]), zeros if bias is None else bias + zeros

    made = _prepare_best(effective(seen), *cut(weight, bias), threads, relu)
    repack = made.repack
    assert repack is not None
    return replace(made, repack=lambda weight, bias: repack(*cut(weight, bias)))


def _prepare_best(problem: Conv2dProblem, weight: Array, bias: Array | None, threads: int, relu: bool) -> Prepared:
    """The way that should be fastest for an `effective` problem."""
    if _dense.covers(problem):
        return _dense.prepare(problem, weight, bias, threads, relu, K_BLOCK)
    if along := _by_tap.better(problem, threads):
        return _by_tap.prepare(problem, weight, bias, threads, relu, along == "channels")
    return _prepare(problem, weight, bias, threads, relu)


def _prepare(
    problem: Conv2dProblem, weight: Array, bias: Array | None, threads: int, relu: bool,
    by_channel: bool | None = None, k_block: int = K_BLOCK, panel_bytes: int | None = None,
    channel_blocks: int | None = None, in_place: bool | None = None,
) -> Prepared:  # fmt: skip
    """Packed panels of an `effective` problem, with the choices it makes open to experiments and tests."""
    dtype = np.dtype(problem.dtype)
    fits = budgets()
    lanes, g, reduction = vector_lanes(dtype.itemsize), problem.groups, problem.reduction
    oc, (oh, ow) = problem.out_channels // g, problem.out_size
    positions, width = oh * ow, VECTORS * lanes
    layout = image_layout(problem)
    if by_channel is None:
        by_channel = _by_channel(problem, lanes)
    # The kernels mask zero padding and shuffle these strides while they pack, tap by tap. Other padding and strides are
    # staged first, and so are images of few channels with large kernels: the masks would cost more than the copy.
    few = UNSTAGED.get(problem.stride[1], 0) if problem.padding_mode == "zeros" else 0
    staged = layout.staged and prod(problem.kernel_size) > few * problem.in_channels // g
    in_rows = problem.kernel_size == (1, 1) and not layout.staged
    in_place = in_rows and (_in_place(problem, by_channel) if in_place is None else in_place)
    kernel_area = prod(problem.kernel_size)
    # Whole channels, the same number in each block.
    in_channels = reduction // kernel_area
    k_block = -(-in_channels // -(-in_channels // max(k_block // kernel_area, 1))) * kernel_area
    row_tiles, channel_panels = -(-oc // ROWS), -(-oc // width)
    # Positions are cut into blocks whose panels fit the cache, and among threads, unless channels divide more evenly.
    unit, o_units = (ROWS, channel_panels) if by_channel else (width, row_tiles)
    p_units = -(-positions // unit)
    if panel_bytes is None:
        panel_bytes = fits.panel
        if in_rows and not in_place and not by_channel:
            panel_bytes = min(panel_bytes, max(PACKED_BYTES, PACKED_POSITIONS * k_block * dtype.itemsize))
    fitting = max(1, panel_bytes // (k_block * dtype.itemsize * unit))
    position_blocks = -(-p_units // fitting)
    if channel_blocks is None:
        by_o, by_p = _idle(o_units, threads), _idle(problem.batch * g * p_units, threads)
        # If threads divide the channels, each of them stages the same rows again.
        equal = by_channel and by_o == by_p and not (staged and problem.batch * g % threads == 0)
        channel_blocks = threads if by_o < by_p or equal else 1
    if channel_blocks == 1 and problem.batch * g % threads:
        position_blocks = min(round_up(position_blocks, threads), p_units)
    channel_blocks = min(channel_blocks, o_units)
    block_positions = -(-positions // position_blocks) if by_channel else -(-p_units // position_blocks) * width
    position_blocks = -(-positions // block_positions)
    # Smaller blocks of channels keep the results before the transpose small; little is packed twice for this.
    while (
        in_rows
        and by_channel
        and channel_blocks < channel_panels
        and block_positions * -(-channel_panels // channel_blocks) * width * dtype.itemsize > fits.result
    ):
        channel_blocks *= 2
    pack, convolve = (implicit.pack_tiles, implicit.pack_panels)[by_channel], implicit.kernels_of(staged)[by_channel]
    compile_s = compiled_s([pack, convolve], dtype)
    # Vectors may be loaded past the end of the planes, but are never used.
    planes = round_up(problem.in_channels // g * layout.channel + width, width) if staged else 0
    # A vector may be written past the last row of a packed block.
    own = planes + round_up(block_positions, lanes) * k_block + lanes
    if by_channel:
        own += block_positions * (-(-channel_panels // channel_blocks) * width + lanes)
    sizes = implicit.Sizes(
        batch=problem.batch, groups=g, out_channels=oc, positions=positions, out_width=ow, pitch=layout.pitch,
        in_channels=in_channels, group_elements=in_channels * prod(problem.in_size), planes=planes,
        reduction=reduction, k_block=k_block,
        block_positions=block_positions, position_blocks=position_blocks, channel_blocks=channel_blocks,
        together=together(prod(problem.in_size) * dtype.itemsize), in_rows=in_rows,
        in_place=in_place, prefetch_image=in_rows and reduction * positions * dtype.itemsize > fits.image,
        by_panel=k_block * -(-channel_panels // channel_blocks) * width * dtype.itemsize > fits.weight,
    )  # fmt: skip
    (top, _), (left, _) = problem.padding
    window = Window(*problem.in_size, *problem.kernel_size, *problem.stride, *problem.dilation, top, left)
    channels = channel_panels * width if by_channel else oc
    packed, bias_values = aligned_zeros((g * reduction * channels,), dtype), np.zeros((g, channels), dtype)
    clamp = np.array([-np.inf, 0.0 if relu else -np.inf], dtype)
    operands = implicit.Operands(layout.staging, packed, bias_values, clamp, layout.tap_offset, window, sizes)
    job = Job(
        [convolve], dtype, operands, threads=threads, units=problem.batch * g * position_blocks * channel_blocks,
        own=own,
    )  # fmt: skip
    packing = Job([pack], dtype, implicit.PackOperands(implicit.Packing(g, oc, reduction)), threads=threads)

    def repack(weight: Array, bias: Array | None) -> None:
        packing(weight.reshape(-1), packed)
        bias_values[:, :oc] = 0 if bias is None else bias.reshape(g, oc)

    repack(weight, bias)
    return Prepared(job, packed.nbytes, job.workspace_bytes, compile_s, repack)


def _by_channel(problem: Conv2dProblem, lanes: int) -> bool:
    """Whether vectors run along output channels, not along positions: 49 positions fill three of four vectors."""
    oc, positions, reduction = problem.out_channels // problem.groups, prod(problem.out_size), problem.reduction
    across = -(-positions // lanes)
    if positions > MOST_POSITIONS and not _by_tap.in_rows(problem):
        return False
    by_position = reduction * oc * across
    vectors = VECTORS * -(-oc // (VECTORS * lanes))
    return reduction * positions * vectors + TRANSPOSE * oc * across < by_position


def _in_place(problem: Conv2dProblem, by_channel: bool) -> bool:
    """Whether the rows of a 1x1 image are read in place (True), or packed once for all channels that use them."""
    oc, reduction = problem.out_channels // problem.groups, problem.reduction
    _, l2, l3 = target.caches()
    roomy = l2 >= ROOMY_BYTES
    if by_channel:
        return roomy or oc < PACKED_CHANNELS // 2 or reduction < PACKED_CHANNELS
    row_bytes = prod(problem.out_size) * problem.itemsize
    # Rows that map to the same cache set; with few channels they are not read often enough to pay for packing.
    places = together(row_bytes)
    crowded = reduction > places and oc * reduction > CROWDED * places
    if roomy:
        return oc <= ROWS or not (crowded and row_bytes % PAGE_BYTES == 0)
    fits = reduction * row_bytes <= min(l3 // 2, IN_PLACE_BYTES)
    return fits and (oc <= ROWS or (oc < PACKED_CHANNELS and not crowded))


def _idle(units: int, threads: int) -> float:
    """Fraction of the time that threads are idle with this many equal units of work."""
    return 1 - units / round_up(units, threads)
