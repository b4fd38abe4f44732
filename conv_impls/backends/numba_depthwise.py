"""Depthwise convolution by explicit vectors: along the rows of one channel, or across channels where rows are short.

See `conv_impls.kernels.depthwise_slide`, for most 3x3 layers, `conv_impls.kernels.depthwise_channel`, for narrow
images, and `conv_impls.kernels.depthwise_position`, for all others: the ideas, their sources and the loops. Here: which
of the three ways, how many rows are staged at once, and the tables that say where padding, taps and weights lie.
All ways add the products of an output in one order, that of `_heights`, so that its bits do not depend on the way.
Limits: one input channel a group; any number of output channels a group.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from math import isfinite, prod
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from conv_impls.backends._layout import effective, image_layout, round_up
from conv_impls.kernels import depthwise_channel, depthwise_position, depthwise_slide
from conv_impls.kernels.depthwise_tile import PASSES, ROWS, VECTORS
from conv_impls.kernels.runtime import target
from conv_impls.kernels.runtime.memory import aligned_zeros
from conv_impls.kernels.runtime.team import Job, address_of
from conv_impls.kernels.simd import VECTOR_BYTES
from conv_impls.kernels.simd import lanes as vector_lanes
from conv_impls.padding import source_index
from conv_impls.problem import Conv2dProblem
from conv_impls.registry import Prepared, register
from conv_impls.validation import Array

Table = NDArray[np.int64]
Way = Literal["slide", "position", "channel"]
# Bands of each thread, at the least.
BANDS = 4
# A staged band of rows is as many as fit half of L1, in tiles of several rows; but it takes no more than this: a stride
# of 47,000 on as many rows and columns would stage 270 GiB.
MOST_BAND_BYTES = 2**20
# Rows of up to this many outputs waste too much of a vector.
NARROW = 14
# So does the slide, in parts of a vector of 64 bytes: 384 channels of 14x14 take 25 us, and 38 across channels; 960 of
# 7x7 take 42 and 29. With vectors of 32 bytes it is NARROW again: 51 and 42 us at 14x14.
NARROW_SLIDE = 5 / 8


def _supports(problem: Conv2dProblem) -> str | None:
    if problem.groups == problem.in_channels:
        return None
    return f"depthwise layers only: groups must equal the {problem.in_channels} input channels, got {problem.groups}"


def _band_bytes() -> int:
    # Half of L1 for the staged band of rows; the rest is for the result and what is read ahead.
    return target.caches().l1 // 2


def _workspace(problem: Conv2dProblem, threads: int) -> int:
    problem, lanes = effective(problem), vector_lanes(problem.itemsize)
    way, band_bytes = _way(problem, lanes), _band_bytes()
    if way == "slide":
        area = _slide_cut(problem, threads, band_bytes).area
    else:
        area = _channel_cut(problem, lanes).area if way == "channel" else _position_cut(problem, lanes, band_bytes).area
    return threads * area * problem.itemsize


@register(
    "numba_depthwise",
    idea="3x3 slides down the image, others tile one channel at a time in L1; across channels where rows are short",
    source="Zhang, Lo & Lu 2020, arXiv:2001.02504, sec. 3",
    deterministic="output",
    threads="argument",
    supports=_supports,
    workspace=_workspace,
    compiled=True,
)
def prepare(problem: Conv2dProblem, weight: Array, bias: Array | None, threads: int, relu: bool) -> Prepared:
    return _prepare(problem, weight, bias, threads, relu)


def _prepare(
    problem: Conv2dProblem, weight: Array, bias: Array | None, threads: int, relu: bool,
    way: Way | None = None, band_bytes: int | None = None,
) -> Prepared:  # fmt: skip
    """`prepare`, with the choices it makes open to experiments and tests."""
    dtype, problem = np.dtype(problem.dtype), effective(problem)
    start = time.perf_counter()
    # All three are compiled, so that every later layer finds its kernel ready.
    for module in (depthwise_slide, depthwise_position, depthwise_channel):
        address_of(module.convolve, dtype)
    compile_s = time.perf_counter() - start

    lanes = vector_lanes(dtype.itemsize)
    way = way or _way(problem, lanes)
    band_bytes = band_bytes or _band_bytes()
    floor = np.array([-np.inf, 0.0 if relu else -np.inf], dtype)
    if way == "slide":
        made = _slide(problem, floor, threads, band_bytes)
    elif way == "position":
        made = _by_position(problem, floor, lanes, band_bytes)
    else:
        made = _by_channel(problem, floor, lanes)
    job = Job(made.kernel, dtype, made.operands, threads=threads, workspace=threads * made.area)
    made.pack(weight, bias)
    return Prepared(job, made.packed_bytes, job.workspace_bytes, compile_s, made.pack)


def _way(problem: Conv2dProblem, lanes: int) -> Way:
    slides = _slides(problem)
    bound = NARROW_SLIDE * lanes if slides and VECTOR_BYTES == 64 else NARROW
    narrow = problem.out_size[1] <= bound and problem.in_channels >= lanes and problem.stride[1] <= 2
    if narrow and problem.padding_mode == "zeros" and problem.out_channels == problem.in_channels:
        return "channel"
    return "slide" if slides else "position"


def _slides(problem: Conv2dProblem) -> bool:
    """Whether `conv_impls.kernels.depthwise_slide` has a loop for this kernel."""
    sh, sw = problem.stride
    return problem.kernel_size == (3, 3) and problem.dilation == (1, 1) and sh == sw <= 2


def _heights(problem: Conv2dProblem) -> list[int]:
    """Kernel rows of each pass, from the top down: the order in which every way sums an output.

    Within a pass columns go by from the left, and in each of them its rows from the top. What slides goes row by row,
    and so do kernels whose neighbouring outputs share no row; of the others, each pass is as tall as tiles are.
    """
    (kh, _), sh = problem.kernel_size, problem.stride[0]
    heights: list[int] = []
    if _shares(problem) and not _slides(problem):
        for height in (height for height, stride in PASSES if stride == sh):
            heights += [height] * ((kh - sum(heights)) // height)
    return heights or [1] * kh


def _shares(problem: Conv2dProblem) -> bool:
    """Whether outputs below each other, as far apart as the taps, see rows in common."""
    return problem.stride[0] == 1 or (problem.stride[0] == 2 and problem.dilation[0] == 1)


def _all_finite(weight: Array) -> bool:
    """Whether no weight is NaN or infinite; huge ones may count as infinite. A third of the time of `np.isfinite`."""
    return isfinite(np.vdot(weight, weight))


def _band(problem: Conv2dProblem, row_bytes: int, band_bytes: int) -> int:
    """Rows of the result whose padded rows, of so many bytes, fit ``band_bytes``; a tile at the least, if that fits."""
    extent, stride = (problem.kernel_size[0] - 1) * problem.dilation[0], problem.stride[0]
    fitting, most = ((size // row_bytes - extent - 1) // stride + 1 for size in (band_bytes, MOST_BAND_BYTES))
    return max(min(max(fitting // ROWS[0], 1) * ROWS[0], most), 1)


class SlideCut(NamedTuple):
    """Bands of rows of a channel, and elements of work of each part."""

    bands: int
    area: int


def _slide_cut(problem: Conv2dProblem, threads: int, band_bytes: int) -> SlideCut:
    rows, width = problem.out_size[0], problem.padded_size[1]
    # Few images are cut into bands, so that every thread has its share.
    bands = min(rows, -(-BANDS * threads // (problem.batch * problem.in_channels))) if threads > 1 else 1
    # Bands that are copied only where weights are not finite may be slow, but must not take much memory.
    most = band_bytes if problem.padding_mode != "zeros" else MOST_BAND_BYTES
    bands = max(bands, -(-rows // _band(problem, width * problem.itemsize, most)))
    return SlideCut(bands, round_up(((-(-rows // bands) - 1) * problem.stride[0] + 3) * width, 64))


class PositionCut(NamedTuple):
    """Bands of rows of a channel, and how a row of one is staged.

    It has ``row`` elements: one run of ``pitch`` for each stride phase, in which the image starts on a cache line,
    ``margin`` from its beginning. ``area`` are elements of work of each part.
    """

    bands: int
    row: int
    pitch: int
    margin: int
    area: int


def _position_cut(problem: Conv2dProblem, lanes: int, band_bytes: int) -> PositionCut:
    w, (oh, ow), (sh, sw), (left, right) = problem.in_size[1], problem.out_size, problem.stride, problem.padding[1]
    extent_h, extent_w = ((k - 1) * d for k, d in zip(problem.kernel_size, problem.dilation, strict=True))
    margin = round_up(left // sw + 1, lanes)
    most = max(round_up(-(-w // sw), lanes), ow + extent_w // sw, (left + w + right) // sw + 1)
    pitch = round_up(margin + most, lanes)
    row = sw * pitch
    bands = -(-oh // _band(problem, row * problem.itemsize, band_bytes))
    deep = (-(-oh // bands) - 1) * sh + extent_h + 1
    # Whole vectors are loaded behind the last tap of a row, though never used.
    return PositionCut(bands, row, pitch, margin, round_up(deep * row + VECTORS * lanes, 64))


class ChannelCut(NamedTuple):
    """Rows and columns of the transposed image, where the results begin behind it, elements of work of each part."""

    rows: int
    columns: int
    out_at: int
    area: int


def _channel_cut(problem: Conv2dProblem, lanes: int) -> ChannelCut:
    left, w, ow = problem.padding[1][0], problem.in_size[1], problem.out_size[1]
    # Without the padding at its right where no output sees it.
    seen = (ow - 1) * problem.stride[1] + (problem.kernel_size[1] - 1) * problem.dilation[1] + 1
    rows, columns = problem.padded_size[0], max(left + w, seen)
    out_at = (rows * columns + 1) * lanes
    results = round_up(prod(problem.out_size), lanes) * lanes
    return ChannelCut(rows, columns, out_at, round_up(out_at + results, 64))


class Made(NamedTuple):
    """One of the three ways, ready for one problem."""

    kernel: Callable[..., None]
    operands: NamedTuple
    # Elements of work of each part.
    area: int
    packed_bytes: int
    # (weight, bias) -> None: into the operands, a bias of -0.0 as 0.0, which leaving rows out would leave as it is.
    pack: Callable[[Array, Array | None], None]


def _slide(problem: Conv2dProblem, floor: Array, threads: int, band_bytes: int) -> Made:
    images, channels, outputs = problem.batch * problem.in_channels, problem.in_channels, problem.out_channels
    (oh, ow), stride, (padded_h, padded_w) = problem.out_size, problem.stride[0], problem.padded_size
    (top, _), (left, _) = problem.padding
    bands, area = _slide_cut(problem, threads, band_bytes)
    padded = problem.padding_mode != "zeros"
    sizes = depthwise_slide.Sizes(
        images, channels, outputs // channels, *problem.in_size, top=top, left=left, padded_h=padded_h,
        padded_w=padded_w, out_h=oh, out_w=ow, stride=stride, bands=bands, area=area,
    )  # fmt: skip
    packed, offsets = np.empty(outputs * 9, floor.dtype), np.zeros(outputs, floor.dtype)
    staged = np.zeros(1, np.int64)

    def pack(weight: Array, bias: Array | None) -> None:
        packed[:] = weight.reshape(-1)
        offsets[:] = 0 if bias is None else bias + 0
        # Rows in the padding are left out, unless they are copied.
        staged[0] = padded or not _all_finite(packed)

    # The stride is the kernel's affair: one phase, with all rows.
    staging = image_layout(problem.replace(stride=(1, 1))).staging
    operands = depthwise_slide.Operands(packed, offsets, floor, staged, staging, sizes)
    return Made(depthwise_slide.convolve, operands, area, packed.nbytes, pack)


def _by_position(problem: Conv2dProblem, floor: Array, lanes: int, band_bytes: int) -> Made:
    (h, w), (oh, ow), (kh, kw) = problem.in_size, problem.out_size, problem.kernel_size
    (sh, sw), (dh, dw), (left, right) = problem.stride, problem.dilation, problem.padding[1]
    bands, row, pitch, margin, area = _position_cut(problem, lanes, band_bytes)

    def place(column: NDArray[np.intp]) -> Table:
        phase = column % sw
        return np.asarray(phase * pitch + margin - ((phase - left) % sw + left) // sw + column // sw, np.int64)

    source = source_index(w, left, right, problem.padding_mode)
    padding = np.r_[:left, left + w : left + w + right]
    padding = padding[source[padding] >= 0]
    pads = np.stack([place(padding), source[padding]], 1)
    lines = np.asarray(source_index(h, *problem.padding[0], problem.padding_mode), np.int64)
    shared, heights = _shares(problem), _heights(problem)
    first = np.cumsum([0, *heights[:-1]])
    which = [PASSES.index((height, sh if shared else 1)) for height in heights]
    chunks = np.stack([which, first * dh * row, first * kw], 1)
    outputs = problem.out_channels
    packed, offsets = np.empty(outputs * kh * kw, floor.dtype), np.zeros(outputs, floor.dtype)

    def pack(weight: Array, bias: Array | None) -> None:
        passes = [weight[:, 0, p : p + height].transpose(0, 2, 1).reshape(outputs, -1)
                  for p, height in zip(first, heights, strict=True)]  # fmt: skip
        packed[:] = np.concatenate(passes, 1).reshape(-1)
        offsets[:] = 0 if bias is None else bias + 0

    sizes = depthwise_position.Sizes(
        images=problem.batch * problem.in_channels, channels=problem.in_channels,
        multiplier=outputs // problem.in_channels, h=h, w=w, out_h=oh, out_w=ow, kh=kh, kw=kw, stride_h=sh,
        stride_w=sw, dilation_h=dh, bands=bands, row=row, pitch=pitch, margin=margin, left=left, pads=len(pads),
        passes=len(heights), apart=dh if sh == 1 else 1, tile_row=dh * row if shared else sh * row, area=area,
    )  # fmt: skip
    taps = place(np.arange(kw) * dw)
    operands = depthwise_position.Operands(packed, offsets, floor, lines, taps, pads, chunks, sizes)
    return Made(depthwise_position.convolve, operands, area, packed.nbytes, pack)


def _by_channel(problem: Conv2dProblem, floor: Array, lanes: int) -> Made:
    (h, w), (oh, ow), (kh, kw) = problem.in_size, problem.out_size, problem.kernel_size
    (top, _), (left, _) = problem.padding
    rows, columns, out_at, area = _channel_cut(problem, lanes)
    position = np.arange(round_up(h * w, lanes))
    # What a vector holds behind the last position goes to one place behind the image.
    places = (top + position // w) * columns + left + position % w
    places = np.where(position < h * w, places, rows * columns) * lanes
    channels = problem.in_channels
    packed = aligned_zeros((-(-channels // lanes), kh * kw + 1, lanes), floor.dtype)
    every_row = np.zeros(1, np.int64)
    heights = _heights(problem)
    # Passes of one row each need no sums in memory between them: they are one pass that goes row by row.
    tall = [height for height in heights if height > 1]
    passes = [(sum(tall[:k]), height, 0) for k, height in enumerate(tall)]
    if sum(tall) < kh:
        passes.append((sum(tall), kh - sum(tall), 1))

    def pack(weight: Array, bias: Array | None) -> None:
        """For each vector of channels all taps, then the bias."""
        rows = np.zeros((packed.shape[0] * lanes, kh * kw + 1), floor.dtype)
        rows[:channels, :-1] = weight.reshape(channels, -1)
        rows[:channels, -1] = 0 if bias is None else bias + 0
        packed[...] = rows.reshape(packed.shape[0], lanes, -1).transpose(0, 2, 1)
        every_row[0] = not _all_finite(weight.reshape(-1))

    sizes = depthwise_channel.Sizes(
        problem.batch, channels, h, w, oh, ow, kh, kw, *problem.stride, *problem.dilation, top=top,
        passes=len(passes), row=columns * lanes, out_at=out_at, area=area,
    )  # fmt: skip
    operands = depthwise_channel.Operands(packed, floor, every_row, np.array(passes, np.int64), places, sizes)
    return Made(depthwise_channel.convolve, operands, area, packed.nbytes, pack)
