"""Direct convolution by explicit vectors: register tiles of a matrix product that is packed panel by panel, in cache.

Any kernel size, stride, dilation, groups and padding mode; see `conv_impls.kernels.implicit` for the idea, its source
and the loops. Here: along which axis the vectors run, how large the panels are, and how the weights are packed.
Limits: groups with few output channels fill the tiles badly; depthwise layers have a backend of their own.
"""

from __future__ import annotations

import time
from math import prod
from typing import NamedTuple

import numpy as np

from conv_impls.backends._layout import effective, image_layout, round_up
from conv_impls.kernels import implicit
from conv_impls.kernels.panels import Window
from conv_impls.kernels.runtime import target
from conv_impls.kernels.runtime.memory import aligned_zeros
from conv_impls.kernels.runtime.team import Job, address_of
from conv_impls.kernels.simd import lanes as vector_lanes
from conv_impls.kernels.tile import ROWS, VECTORS
from conv_impls.problem import Conv2dProblem
from conv_impls.registry import Prepared, register
from conv_impls.validation import Array

# Steps of the reduction between two visits of an accumulator, whatever the caches. A visit goes on from what the last
# one stored, in the dtype, so that not even these change the bits of a sum.
STEPS = 768
# 384 rows 12 KB apart were read at half speed in some places of memory, more pages than the TLB holds.
IN_PLACE_BYTES = 4 * 2**20
# Larger caches gained nothing from larger panels and results; panels of 128 KiB, a quarter of an L2 of 512, cost 3 to
# 10% at 7x7.
PANEL_BYTES, RESULT_BYTES = 256 * 2**10, 128 * 2**10
# From so many bytes on, prefetching the image and using weights panel by panel gain where L2 would hold them, too.
IMAGE_BYTES, WEIGHT_BYTES = 512 * 2**10, 768 * 2**10
# Vectors run along channels where an image has fewer positions than this many panels: rows of 49 waste a quarter of
# four vectors. Up to the second number, where the transpose of the result is small beside a long reduction.
SMALL_PANELS, MEDIUM_PANELS, LONG_REDUCTION = 4, 8, 1024
# Strides that need no staging, and how many taps a channel may have for that: 7x7 stride 2 on 3 channels gains 14% by
# staging, 3x3 stride 1 on 3 channels 19%; 3x3 stride 2 and 4x4 stride 4 lose as much.
UNSTAGED = {1: 2, 2: 6, 4: 6}


class Budgets(NamedTuple):
    """Bytes that follow the caches; none of them splits a sum."""

    # A packed panel.
    panel: int
    # A 1x1 panel is the image itself where the image of a group is no larger: packing made 384 -> 96 at 56x56 8%
    # faster; with up to 256 rows it costs 5 to 14%.
    in_place: int
    # Results by channel before their transpose: 1x1 512 -> 2048 at 7x7 gains 15% on two threads.
    result: int
    # Images that are larger are prefetched before they are packed or read (512 -> 64 at 56x56: 60 to 73% of the peak);
    # larger weights are used panel by panel, each for all positions (768 -> 3072 at 7x7 +11%).
    image: int
    weight: int


def budgets() -> Budgets:
    """For the caches of this machine."""
    _, l2, l3 = target.caches()
    return Budgets(
        panel=min(l2 // 2, PANEL_BYTES),
        in_place=min(l3 // 2, IN_PLACE_BYTES),
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
    return _prepare(problem, weight, bias, threads, relu)


def _prepare(
    problem: Conv2dProblem, weight: Array, bias: Array | None, threads: int, relu: bool,
    by_channel: bool | None = None, steps: int = STEPS, panel_bytes: int | None = None, o_parts: int | None = None,
    in_place: bool = True,
) -> Prepared:  # fmt: skip
    """`prepare`, with the choices it makes open to experiments and tests."""
    dtype, problem = np.dtype(problem.dtype), effective(problem)
    start = time.perf_counter()
    for kernel in (implicit.pack_weights, implicit.convolve):
        address_of(kernel, dtype)
    compile_s = time.perf_counter() - start

    fits = budgets()
    lanes, g, taps = vector_lanes(dtype.itemsize), problem.groups, problem.reduction
    oc, (oh, ow) = problem.out_channels // g, problem.out_size
    positions, width = oh * ow, VECTORS * lanes
    layout = image_layout(problem)
    if by_channel is None:
        panels = SMALL_PANELS if taps < LONG_REDUCTION else MEDIUM_PANELS
        by_channel = positions < panels * width and oc >= lanes
    # The kernels mask zero padding and shuffle these strides while they pack, tap by tap; all else is staged first,
    # and so are images of few channels under large kernels, where the masks would cost more than the copy.
    few = UNSTAGED.get(problem.stride[1], 0) if problem.padding_mode == "zeros" else 0
    staged = layout.staged and prod(problem.kernel_size) > few * problem.in_channels // g
    in_rows = problem.kernel_size == (1, 1) and not layout.staged
    in_place = in_place and in_rows and (by_channel or taps * positions * dtype.itemsize <= fits.in_place)
    area = prod(problem.kernel_size)
    steps = min(max(steps // area, 1) * area, taps)
    row_tiles, channel_panels = -(-oc // ROWS), -(-oc // width)
    # Positions are cut into blocks whose panels fit the cache, for threads too unless channels share out more evenly.
    unit, o_units = (ROWS, channel_panels) if by_channel else (width, row_tiles)
    p_units = -(-positions // unit)
    fitting = max(1, (panel_bytes or fits.panel) // (steps * dtype.itemsize * unit))
    p_parts = -(-p_units // fitting)
    if o_parts is None:
        by_o, by_p = _idle(o_units, threads), _idle(problem.batch * g * p_units, threads)
        o_parts = threads if by_o < by_p or (by_channel and by_o == by_p) else 1
    if o_parts == 1 and problem.batch * g % threads:
        p_parts = min(round_up(p_parts, threads), p_units)
    o_parts = min(o_parts, o_units)
    p_block = -(-positions // p_parts) if by_channel else -(-p_units // p_parts) * width
    p_parts = -(-positions // p_block)
    # Nothing is packed twice for it in place, so that results waiting to be transposed can be kept few.
    while (
        in_place
        and by_channel
        and o_parts < channel_panels
        and p_block * -(-channel_panels // o_parts) * width * dtype.itemsize > fits.result
    ):
        o_parts *= 2
    planes = problem.batch * problem.in_channels * layout.channel if staged else 0
    # Behind the planes, vectors may be loaded, though never used.
    planes = round_up(planes + width, 64)
    room = round_up(p_block, lanes) * steps
    if by_channel:
        room += p_block * -(-channel_panels // o_parts) * width
    room = round_up(room + lanes, 64)
    channel = layout.channel if staged else prod(problem.in_size)
    sizes = implicit.Sizes(
        batch=problem.batch, groups=g, out_channels=oc, positions=positions, out_width=ow, pitch=layout.pitch,
        group_elements=problem.in_channels // g * channel, reduction=taps, k_block=steps, block_positions=p_block,
        position_blocks=p_parts, channel_blocks=o_parts, work_start=planes, work_per_part=room, by_channel=by_channel,
        staged=staged, in_rows=in_rows, in_place=in_place,
        prefetch_image=in_rows and taps * positions * dtype.itemsize > fits.image,
        by_panel=steps * -(-channel_panels // o_parts) * width * dtype.itemsize > fits.weight,
    )  # fmt: skip
    (top, _), (left, _) = problem.padding
    window = Window(*problem.in_size, *problem.kernel_size, *problem.stride, *problem.dilation, top, left)
    channels = channel_panels * width if by_channel else oc
    packed, offsets = aligned_zeros((g * taps * channels,), dtype), np.zeros((g, channels), dtype)
    floor = np.array([-np.inf, 0.0 if relu else -np.inf], dtype)
    operands = implicit.Operands(packed, offsets, floor, layout.tap_offset, layout.staging, window, sizes)
    job = Job(
        implicit.convolve, dtype, operands, threads=threads, phases=2 if staged else 1,
        workspace=planes + threads * room,
    )  # fmt: skip
    packing = implicit.PackOperands(implicit.Packing(g, oc, taps, by_channel))
    pack = Job(implicit.pack_weights, dtype, packing, threads=threads)

    def repack(weight: Array, bias: Array | None) -> None:
        pack(weight.reshape(-1), packed)
        offsets[:, :oc] = 0 if bias is None else bias.reshape(g, oc)

    repack(weight, bias)
    return Prepared(job, packed.nbytes, job.workspace_bytes, compile_s, repack)


def _idle(units: int, threads: int) -> float:
    """Part of their time that threads wait when so many equal units are shared out."""
    return 1 - units / round_up(units, threads)
