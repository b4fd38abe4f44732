"""Choices for a depthwise problem: one of three ways, the order of summation, and the rows of a band.

For `conv_impls.backends.numba_depthwise`, and to predict its workspace. All ways add the products of an output in the
same order, that of `heights`, so its bits do not depend on the way.
"""

from __future__ import annotations

from math import prod
from typing import Literal, NamedTuple

from conv_impls.backends._layout import effective, round_up
from conv_impls.kernels.depthwise_tile import PASSES, ROWS, VECTORS
from conv_impls.kernels.runtime import target
from conv_impls.kernels.simd import VECTOR_BYTES
from conv_impls.kernels.simd import lanes as vector_lanes
from conv_impls.problem import Conv2dProblem

Way = Literal["slide", "position", "channel"]
# Minimum number of bands for each thread.
BANDS = 4
# A staged band has as many rows as fit half of L1, rounded to tiles of several rows. The rounding makes it no larger
# than this: a stride of 47,000 on as many rows and columns would stage 270 GiB.
MOST_BAND_BYTES = 2**20
# Rows of up to this many outputs leave too many lanes of a vector empty.
NARROW = 14
# Kernels that do not slide are faster across channels for longer rows, too. With vectors of 32 bytes, across channels
# and along rows: 5x5 with 120 channels at 28x28 takes 93 and 126 us, with stride 2 and 72 channels 96 and 167, 7x7 with
# 192 channels 215 and 307. At 56x56 both take the same time.
NARROW_OTHERS, FULL = 28, 0.75
# The same bound for the slide with vectors of 64 bytes, as a fraction of the lanes. Slide and across channels: 384
# channels of 14x14 take 25 and 38 us; 960 of 7x7 take 42 and 29. With vectors of 32 bytes the bound is NARROW: 51 and
# 42 us at 14x14.
NARROW_SLIDE = 5 / 8


def supports(problem: Conv2dProblem) -> str | None:
    if problem.groups == problem.in_channels:
        return None
    return f"depthwise layers only: groups must equal the {problem.in_channels} input channels, got {problem.groups}"


def usual_band_bytes() -> int:
    # Half of L1 for the staged band of rows; the rest is for the result and prefetched data.
    return target.caches().l1 // 2


def workspace(problem: Conv2dProblem, threads: int) -> int:
    cut = cut_of(effective(problem), vector_lanes(problem.itemsize), threads)
    return min(threads, cut.tasks) * cut.area * problem.itemsize


def cut_of(
    problem: Conv2dProblem, lanes: int, threads: int, way: Way | None = None, band_bytes: int | None = None
) -> SlideCut | PositionCut | ChannelCut:
    """How an `effective` problem is divided into tasks, for the way expected to be fastest or for a given one."""
    way, band_bytes = way or way_of(problem, lanes), band_bytes or usual_band_bytes()
    if way == "slide":
        return slide_cut(problem, threads, band_bytes)
    return channel_cut(problem, lanes) if way == "channel" else position_cut(problem, lanes, band_bytes)


def way_of(problem: Conv2dProblem, lanes: int) -> Way:
    sliding = slides(problem)
    bound: float = NARROW if sliding else NARROW_OTHERS
    if sliding and VECTOR_BYTES == 64:
        bound = NARROW_SLIDE * lanes
    along = 0 if by_columns(problem) else 1
    narrow = problem.out_size[1] <= bound and problem.in_channels >= lanes and problem.stride[along] <= 2
    # Longer rows: only if the transposed image of a vector of channels fits L2 and few lanes are empty.
    if problem.out_size[1] > NARROW:
        narrow &= lanes * prod(problem.padded_size) * problem.itemsize <= target.caches().l2
        narrow &= FULL * round_up(problem.in_channels, lanes) <= problem.in_channels
    if narrow and problem.padding_mode == "zeros" and problem.out_channels == problem.in_channels:
        return "channel"
    return "slide" if sliding else "position"


def slides(problem: Conv2dProblem) -> bool:
    """Whether `conv_impls.kernels.depthwise_slide` has a loop for this kernel."""
    sh, sw = problem.stride
    return problem.kernel_size == (3, 3) and problem.dilation == (1, 1) and sh == sw <= 2


def heights(problem: Conv2dProblem) -> list[int]:
    """Kernel rows of each pass, from top to bottom: the order in which every way sums an output.

    A pass goes over columns from the left, and over the rows of each column from the top. Sliding kernels go row by
    row, and so do kernels whose neighbouring outputs share no row. For other kernels, a pass is as tall as a tile.
    """
    (kh, _), sh = problem.kernel_size, problem.stride[0]
    found: list[int] = []
    if shares(problem) and not slides(problem):
        for height in (height for height, stride in PASSES if stride == sh):
            found += [height] * ((kh - sum(found)) // height)
    return found or [1] * kh


def shares(problem: Conv2dProblem) -> bool:
    """Whether outputs below each other, at the distance of the taps, read some of the same rows."""
    return problem.stride[0] == 1 or (problem.stride[0] == 2 and problem.dilation[0] == 1)


def by_columns(problem: Conv2dProblem) -> bool:
    """Whether at least one pass sums by kernel columns."""
    return max(heights(problem)) > 1


def across_channels(problem: Conv2dProblem) -> Conv2dProblem:
    """The problem as stored for the way across channels: rows and columns exchanged if sums go by columns.

    Tiles run along rows there, and kernel rows that are completely in the padding are skipped.
    """
    if not by_columns(problem):
        return problem
    pairs = ("in_size", "kernel_size", "stride", "padding", "dilation")
    return problem.replace(**{name: getattr(problem, name)[::-1] for name in pairs})


def _band(problem: Conv2dProblem, row_bytes: int, band_bytes: int) -> int:
    """Rows of the result whose padded rows, of ``row_bytes`` each, fit ``band_bytes``; at least a tile, if that fits.

    Also enough rows that those under a kernel, which the next band stages again, are at most half of the staged rows:
    with one row of the result in a band, 3x3 kernels with dilation 300 took three times as long.
    """
    extent, stride = (problem.kernel_size[0] - 1) * problem.dilation[0], problem.stride[0]
    fitting, most = ((size // row_bytes - extent - 1) // stride + 1 for size in (band_bytes, MOST_BAND_BYTES))
    return max(min(max(fitting // ROWS[0], 1) * ROWS[0], most), extent // stride if most < ROWS[0] else 0, 1)


class SlideCut(NamedTuple):
    """Number of tasks, bands of rows of a channel, and elements of workspace of each thread."""

    tasks: int
    bands: int
    area: int


def slide_cut(problem: Conv2dProblem, threads: int, band_bytes: int) -> SlideCut:
    rows, width, images = problem.out_size[0], problem.padded_size[1], problem.batch * problem.in_channels
    # If there are few images, they are cut into bands, so that every thread gets work.
    bands = min(rows, -(-BANDS * threads // images)) if threads > 1 else 1
    # With zero padding, bands are copied only if weights are not finite: may be slow, but must not use much memory.
    most = band_bytes if problem.padding_mode != "zeros" else MOST_BAND_BYTES
    bands = max(bands, -(-rows // _band(problem, width * problem.itemsize, most)))
    return SlideCut(images * bands, bands, round_up(((-(-rows // bands) - 1) * problem.stride[0] + 3) * width, 64))


class PositionCut(NamedTuple):
    """Tasks, bands of rows of a channel, and the layout of a staged row.

    A row has ``row`` elements: one run of ``pitch`` elements for each stride phase. In a run the image starts on a
    cache line, at offset ``margin``. ``area`` is the workspace of each thread, in elements.
    """

    tasks: int
    bands: int
    row: int
    pitch: int
    margin: int
    area: int


def position_cut(problem: Conv2dProblem, lanes: int, band_bytes: int) -> PositionCut:
    w, (oh, ow), (sh, sw), (left, right) = problem.in_size[1], problem.out_size, problem.stride, problem.padding[1]
    extent_h, extent_w = ((k - 1) * d for k, d in zip(problem.kernel_size, problem.dilation, strict=True))
    margin = round_up(left // sw + 1, lanes)
    most = max(round_up(-(-w // sw), lanes), ow + extent_w // sw, (left + w + right) // sw + 1)
    pitch = round_up(margin + most, lanes)
    row = sw * pitch
    bands = -(-oh // _band(problem, row * problem.itemsize, band_bytes))
    deep = (-(-oh // bands) - 1) * sh + extent_h + 1
    tasks = problem.batch * problem.in_channels * bands
    # Whole vectors may be loaded past the last tap of a row, but are never used.
    return PositionCut(tasks, bands, row, pitch, margin, round_up(deep * row + VECTORS * lanes, 64))


class ChannelCut(NamedTuple):
    """Tasks; rows and columns of the transposed image; offset of the results after it; workspace elements a thread."""

    tasks: int
    rows: int
    columns: int
    out_at: int
    area: int


def channel_cut(problem: Conv2dProblem, lanes: int) -> ChannelCut:
    problem = across_channels(problem)
    left, w, ow = problem.padding[1][0], problem.in_size[1], problem.out_size[1]
    # Without the padding at the right if no output reads it.
    seen = (ow - 1) * problem.stride[1] + (problem.kernel_size[1] - 1) * problem.dilation[1] + 1
    rows, columns = problem.padded_size[0], max(left + w, seen)
    out_at = (rows * columns + 1) * lanes
    results = round_up(prod(problem.out_size), lanes) * lanes
    return ChannelCut(
        problem.batch * -(-problem.in_channels // lanes), rows, columns, out_at, round_up(out_at + results, 64)
    )
