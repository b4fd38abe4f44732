"""Depthwise convolution by explicit vectors: along the rows of one channel, or across channels where rows are short.

For the ideas, their sources and the loops see `conv_impls.kernels.depthwise_slide` (most 3x3 layers),
`conv_impls.kernels.depthwise_channel` (narrow images) and `conv_impls.kernels.depthwise_position` (all others).
`conv_impls.backends._depthwise` chooses among them, and the number of rows staged at once. This file makes the tables
with the positions of padding, taps and weights.
Limits: one input channel a group; any number of output channels a group.
"""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from conv_impls.backends import _depthwise as cuts
from conv_impls.backends._layout import effective, image_layout, round_up
from conv_impls.kernels import depthwise_channel, depthwise_position, depthwise_slide
from conv_impls.kernels.depthwise_tile import PASSES
from conv_impls.kernels.runtime.job import Job, compiled_s
from conv_impls.kernels.runtime.memory import aligned_zeros
from conv_impls.kernels.simd import lanes as vector_lanes
from conv_impls.padding import source_at, source_index
from conv_impls.problem import Conv2dProblem
from conv_impls.registry import Prepared, register
from conv_impls.validation import Array

Table = NDArray[np.int64]


@register(
    "numba_depthwise",
    idea="3x3 slides down the image, others tile one channel at a time in L1; across channels where rows are short",
    source="Zhang, Lo & Lu 2020, arXiv:2001.02504, sec. 3",
    deterministic="output",
    threads="argument",
    supports=cuts.supports,
    workspace=cuts.workspace,
    compiled=True,
)
def prepare(problem: Conv2dProblem, weight: Array, bias: Array | None, threads: int, relu: bool) -> Prepared:
    return _prepare(problem, weight, bias, threads, relu)


def _prepare(
    problem: Conv2dProblem, weight: Array, bias: Array | None, threads: int, relu: bool,
    way: cuts.Way | None = None, band_bytes: int | None = None,
) -> Prepared:  # fmt: skip
    """`prepare`, with the choices it makes open to experiments and tests."""
    dtype, problem = np.dtype(problem.dtype), effective(problem)
    lanes = vector_lanes(dtype.itemsize)
    cut = cuts.cut_of(problem, lanes, threads, way, band_bytes)
    clamp = np.array([-np.inf, 0.0 if relu else -np.inf], dtype)
    match cut:
        case cuts.SlideCut():
            made = _slide(problem, clamp, cut)
        case cuts.PositionCut():
            made = _by_position(problem, clamp, cut)
        case cuts.ChannelCut():
            made = _by_channel(problem, clamp, cut, lanes)
    compile_s = compiled_s([made.kernel], dtype)
    # No more threads than tasks: a thread without a task would still get a workspace.
    job = Job([made.kernel], dtype, made.operands, threads=min(threads, cut.tasks), units=cut.tasks, own=cut.area)
    made.pack(weight, bias)
    return Prepared(job, made.packed_bytes, job.workspace_bytes, compile_s, made.pack)


def _all_finite(weight: Array) -> bool:
    """Whether no weight is NaN or infinite; huge weights may count as infinite. Takes 1/3 of `np.isfinite`'s time."""
    return isfinite(np.vdot(weight, weight))


class Made(NamedTuple):
    """One of the three ways, ready for one problem."""

    kernel: Callable[..., None]
    operands: NamedTuple
    packed_bytes: int
    # (weight, bias) -> None: packs into the operands. Changes a bias of -0.0 to 0.0: skipped rows would leave it -0.0.
    pack: Callable[[Array, Array | None], None]


def _slide(problem: Conv2dProblem, clamp: Array, cut: cuts.SlideCut) -> Made:
    images, channels, outputs = problem.batch * problem.in_channels, problem.in_channels, problem.out_channels
    (oh, ow), stride, (padded_h, padded_w) = problem.out_size, problem.stride[0], problem.padded_size
    (top, _), (left, _) = problem.padding
    padded = problem.padding_mode != "zeros"
    sizes = depthwise_slide.Sizes(
        images, channels, outputs // channels, *problem.in_size, top=top, left=left, padded_h=padded_h,
        padded_w=padded_w, out_h=oh, out_w=ow, stride=stride, bands=cut.bands,
    )  # fmt: skip
    packed, bias_values = np.empty(outputs * 9, clamp.dtype), np.zeros(outputs, clamp.dtype)
    staged = np.zeros(1, np.int64)

    def pack(weight: Array, bias: Array | None) -> None:
        packed[:] = weight.reshape(-1)
        bias_values[:] = 0 if bias is None else bias + 0
        # Rows in the padding are skipped, unless the band is copied (staged).
        staged[0] = padded or not _all_finite(packed)

    # The kernel handles the stride itself: staging has one phase, with all rows.
    staging = image_layout(problem.replace(stride=(1, 1))).staging
    operands = depthwise_slide.Operands(packed, bias_values, clamp, staged, staging, sizes)
    return Made(depthwise_slide.convolve, operands, packed.nbytes, pack)


def _by_position(problem: Conv2dProblem, clamp: Array, cut: cuts.PositionCut) -> Made:
    (h, w), (oh, ow), (kh, kw) = problem.in_size, problem.out_size, problem.kernel_size
    (sh, sw), (dh, dw), (left, right) = problem.stride, problem.dilation, problem.padding[1]
    _, bands, row, pitch, margin, _ = cut

    def place(column: NDArray[np.intp]) -> Table:
        phase = column % sw
        return np.asarray(phase * pitch + margin - ((phase - left) % sw + left) // sw + column // sw, np.int64)

    pads = np.empty((0, 2), np.int64)
    if problem.padding_mode != "zeros":
        padding = np.r_[:left, left + w : left + w + right]
        pads = np.stack([place(padding), source_at(padding - left, w, problem.padding_mode)], 1)
    lines = np.asarray(source_index(h, *problem.padding[0], problem.padding_mode), np.int64)
    shared, heights = cuts.shares(problem), cuts.heights(problem)
    first = np.cumsum([0, *heights[:-1]])
    which = [PASSES.index((height, sh if shared else 1)) for height in heights]
    chunks = np.stack([which, first * dh * row, first * kw], 1)
    outputs = problem.out_channels
    packed, bias_values = np.empty(outputs * kh * kw, clamp.dtype), np.zeros(outputs, clamp.dtype)

    def pack(weight: Array, bias: Array | None) -> None:
        passes = [weight[:, 0, p : p + height].transpose(0, 2, 1).reshape(outputs, -1)
                  for p, height in zip(first, heights, strict=True)]  # fmt: skip
        packed[:] = np.concatenate(passes, 1).reshape(-1)
        bias_values[:] = 0 if bias is None else bias + 0

    sizes = depthwise_position.Sizes(
        images=problem.batch * problem.in_channels, channels=problem.in_channels,
        multiplier=outputs // problem.in_channels, h=h, w=w, out_h=oh, out_w=ow, kh=kh, kw=kw, stride_h=sh,
        stride_w=sw, dilation_h=dh, bands=bands, row=row, pitch=pitch, margin=margin, left=left, pads=len(pads),
        passes=len(heights), apart=dh if sh == 1 else 1, tile_row=dh * row if shared else sh * row,
    )  # fmt: skip
    taps = place(np.arange(kw) * dw)
    operands = depthwise_position.Operands(packed, bias_values, clamp, lines, taps, pads, chunks, sizes)
    return Made(depthwise_position.convolve, operands, packed.nbytes, pack)


def _by_channel(problem: Conv2dProblem, clamp: Array, cut: cuts.ChannelCut, lanes: int) -> Made:
    (h, w), (oh, ow), (kh, kw) = problem.in_size, problem.out_size, problem.kernel_size
    channels, heights = problem.in_channels, cuts.heights(problem)
    exchange, turned = cuts.by_columns(problem), cuts.across_channels(problem)
    (top, _), (left, _) = turned.padding
    _, rows, columns, out_at, _ = cut
    row, column = np.divmod(np.arange(round_up(h * w, lanes)), w)
    out_row, out_column = np.divmod(np.arange(max(oh * ow, lanes)), ow)
    if exchange:
        row, column, out_row, out_column = column, row, out_column, out_row
    # Lanes after the last position are stored in one dummy place after the image.
    places = np.where(np.arange(len(row)) < h * w, (top + row) * columns + left + column, rows * columns) * lanes
    out_places = np.where(np.arange(len(out_row)) < oh * ow, out_row * turned.out_size[1] + out_column, 0) * lanes
    packed = aligned_zeros((-(-channels // lanes), kh * kw + 1, lanes), clamp.dtype)
    # For each row of the result, the kernel rows that read the image, or one that reads zeros; NaN times zero is NaN.
    (size, _), (taps, _), (step, _), (apart, _) = turned.in_size, turned.kernel_size, turned.stride, turned.dilation
    above = np.arange(turned.out_size[0]) * step - top
    low = np.clip(-(above // apart), 0, taps)
    high = np.clip((size - 1 - above) // apart + 1, low, taps)
    seeing = np.stack([np.where(low < high, low, 0), np.maximum(high - low, 1)], 1)
    seen = np.empty_like(seeing)
    # Passes of one row each need no sums in memory between them, so they are merged into one pass that goes row by row.
    tall = [height for height in heights if height > 1]
    passes = [(sum(tall[:k]), height, 0) for k, height in enumerate(tall)]
    if not exchange:
        passes = [(0, kw, 0)]
    elif sum(tall) < kh:
        passes.append((sum(tall), kh - sum(tall), 1))

    def pack(weight: Array, bias: Array | None) -> None:
        """Pack, for each vector of channels, all taps, then the bias."""
        rows = np.zeros((packed.shape[0] * lanes, kh * kw + 1), clamp.dtype)
        rows[:channels, :-1] = (weight.swapaxes(2, 3) if exchange else weight).reshape(channels, -1)
        rows[:channels, -1] = 0 if bias is None else bias + 0
        packed[...] = rows.reshape(packed.shape[0], lanes, -1).transpose(0, 2, 1)
        seen[:] = seeing if _all_finite(weight.reshape(-1)) else (0, taps)

    sizes = depthwise_channel.Sizes(
        problem.batch, channels, *turned.in_size, *turned.out_size, *turned.kernel_size, *turned.stride,
        *turned.dilation, passes=len(passes), row=columns * lanes, out_at=out_at,
    )  # fmt: skip
    operands = depthwise_channel.Operands(
        packed, clamp, seen, np.array(passes, np.int64), places, out_places, sizes
    )  # fmt: skip
    return Made(depthwise_channel.convolve, operands, packed.nbytes, pack)
