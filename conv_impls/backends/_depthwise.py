"""How a depthwise problem is computed: which of the three ways, in which order, and in bands of how many rows.

For `conv_impls.backends.numba_depthwise`, and for whoever asks what its workspace will take. All ways add the products
of an output in one order, that of `heights`, so that its bits do not depend on the way.
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
# Bands of each thread, at the least.
BANDS = 4
# A staged band of rows is as many as fit half of L1, in tiles of several rows; but tiles make it no larger than this: a
# stride of 47,000 on as many rows and columns would stage 270 GiB.
MOST_BAND_BYTES = 2**20
# Rows of up to this many outputs waste too much of a vector.
NARROW = 14
# Other kernels than those that slide are faster across channels for longer rows, too: with vectors of 32 bytes 5x5 with
# 120 channels at 28x28 takes 93 us and 126 along rows, with stride 2 and 72 channels 96 and 167, 7x7 with 192 channels
# 215 and 307. At 56x56 both take the same time.
NARROW_OTHERS, FULL = 28, 0.75
# So does the slide, in parts of a vector of 64 bytes: 384 channels of 14x14 take 25 us, and 38 across channels; 960 of
# 7x7 take 42 and 29. With vectors of 32 bytes it is NARROW again: 51 and 42 us at 14x14.
NARROW_SLIDE = 5 / 8


def supports(problem: Conv2dProblem) -> str | None:
    if problem.groups == problem.in_channels:
        return None
    return f"depthwise layers only: groups must equal the {problem.in_channels} input channels, got {problem.groups}"


def usual_band_bytes() -> int:
    # Half of L1 for the staged band of rows; the rest is for the result and what is read ahead.
    return target.caches().l1 // 2


def workspace(problem: Conv2dProblem, threads: int) -> int:
    cut = cut_of(effective(problem), vector_lanes(problem.itemsize), threads)
    return min(threads, cut.tasks) * cut.area * problem.itemsize


def cut_of(
    problem: Conv2dProblem, lanes: int, threads: int, way: Way | None = None, band_bytes: int | None = None
) -> SlideCut | PositionCut | ChannelCut:
    """How an `effective` problem is shared out, by the way that should be fastest for it or by another one."""
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
    # For longer rows, the transposed image of a vector of channels stays in L2, and few lanes are empty.
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
    """Kernel rows of each pass, from the top down: the order in which every way sums an output.

    Within a pass columns go by from the left, and in each of them its rows from the top. What slides goes row by row,
    and so do kernels whose neighbouring outputs share no row; of the others, each pass is as tall as tiles are.
    """
    (kh, _), sh = problem.kernel_size, problem.stride[0]
    found: list[int] = []
    if shares(problem) and not slides(problem):
        for height in (height for height, stride in PASSES if stride == sh):
            found += [height] * ((kh - sum(found)) // height)
    return found or [1] * kh


def shares(problem: Conv2dProblem) -> bool:
    """Whether outputs below each other, as far apart as the taps, see rows in common."""
    return problem.stride[0] == 1 or (problem.stride[0] == 2 and problem.dilation[0] == 1)


def by_columns(problem: Conv2dProblem) -> bool:
    """Whether sums go by kernel columns, in one pass at least."""
    return max(heights(problem)) > 1


def across_channels(problem: Conv2dProblem) -> Conv2dProblem:
    """The problem as it is stored across channels: rows and columns exchanged if sums go by columns.

    Tiles run along rows there, and whole rows of a kernel are left out where they are in the padding.
    """
    if not by_columns(problem):
        return problem
    pairs = ("in_size", "kernel_size", "stride", "padding", "dilation")
    return problem.replace(**{name: getattr(problem, name)[::-1] for name in pairs})


def _band(problem: Conv2dProblem, row_bytes: int, band_bytes: int) -> int:
    """Rows of the result whose padded rows, of so many bytes, fit ``band_bytes``; a tile at the least, if that fits.

    And so many that the rows under a kernel, which the next band stages again, are half of those staged at most: with
    one row of the result a band, 3x3 kernels with dilation 300 took three times as long.
    """
    extent, stride = (problem.kernel_size[0] - 1) * problem.dilation[0], problem.stride[0]
    fitting, most = ((size // row_bytes - extent - 1) // stride + 1 for size in (band_bytes, MOST_BAND_BYTES))
    return max(min(max(fitting // ROWS[0], 1) * ROWS[0], most), extent // stride if most < ROWS[0] else 0, 1)


class SlideCut(NamedTuple):
    """Tasks that threads share out, bands of rows of a channel, and elements of work of each thread."""

    tasks: int
    bands: int
    area: int


def slide_cut(problem: Conv2dProblem, threads: int, band_bytes: int) -> SlideCut:
    rows, width, images = problem.out_size[0], problem.padded_size[1], problem.batch * problem.in_channels
    # Few images are cut into bands, so that every thread has its share.
    bands = min(rows, -(-BANDS * threads // images)) if threads > 1 else 1
    # Bands that are copied only where weights are not finite may be slow, but must not take much memory.
    most = band_bytes if problem.padding_mode != "zeros" else MOST_BAND_BYTES
    bands = max(bands, -(-rows // _band(problem, width * problem.itemsize, most)))
    return SlideCut(images * bands, bands, round_up(((-(-rows // bands) - 1) * problem.stride[0] + 3) * width, 64))


class PositionCut(NamedTuple):
    """Tasks, bands of rows of a channel, and how a row of one is staged.

    It has ``row`` elements: one run of ``pitch`` for each stride phase, in which the image starts on a cache line,
    ``margin`` from its beginning. ``area`` are elements of work of each thread.
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
    # Whole vectors are loaded behind the last tap of a row, though never used.
    return PositionCut(tasks, bands, row, pitch, margin, round_up(deep * row + VECTORS * lanes, 64))


class ChannelCut(NamedTuple):
    """Tasks; rows and columns of the transposed image; where the results begin behind it; elements of work a thread."""

    tasks: int
    rows: int
    columns: int
    out_at: int
    area: int


def channel_cut(problem: Conv2dProblem, lanes: int) -> ChannelCut:
    problem = across_channels(problem)
    left, w, ow = problem.padding[1][0], problem.in_size[1], problem.out_size[1]
    # Without the padding at its right where no output sees it.
    seen = (ow - 1) * problem.stride[1] + (problem.kernel_size[1] - 1) * problem.dilation[1] + 1
    rows, columns = problem.padded_size[0], max(left + w, seen)
    out_at = (rows * columns + 1) * lanes
    results = round_up(prod(problem.out_size), lanes) * lanes
    return ChannelCut(
        problem.batch * -(-problem.in_channels // lanes), rows, columns, out_at, round_up(out_at + results, 64)
    )
