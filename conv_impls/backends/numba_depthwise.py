"""Depthwise convolution by explicit vectors: along the rows of one channel, or across channels where rows are short.

See `conv_impls.kernels.depthwise_slide`, for most 3x3 layers, and `conv_impls.kernels.depthwise`, for all others: the
ideas, their sources and the loops. Here: which of the three ways, how many rows are staged at once, and the tables that
say where padding, taps and weights lie.
Limits: one input channel a group; any number of output channels a group.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from math import prod
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from conv_impls.backends._layout import effective, round_up
from conv_impls.kernels import depthwise, depthwise_slide
from conv_impls.kernels.depthwise_tile import PASSES, ROWS, VECTORS
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
# (weight, bias) -> flat array as the kernel reads it.
Pack = Callable[[Array, Array], Array]
# Bands of each thread, at the least.
BANDS = 4
# Half of a 32 KiB L1 for the staged band of rows; the rest is for the result and what is read ahead. Tiles of several
# rows are worth more, until they take an L2: a stride of 47,000 on as many rows and columns would stage 270 GiB.
BAND_BYTES, MOST_BAND_BYTES = 16 * 1024, 2**20
# Rows of up to this many outputs waste too much of a vector.
NARROW = 14
# So does the slide, in parts of a vector of 64 bytes: 384 channels of 14x14 take 25 us, and 38 across channels; 960 of
# 7x7 take 42 and 29. With vectors of 32 bytes it is NARROW again: 51 and 42 us at 14x14.
NARROW_SLIDE = 5 / 8


def _supports(problem: Conv2dProblem) -> str | None:
    if problem.groups == problem.in_channels:
        return None
    return f"depthwise layers only: groups must equal the {problem.in_channels} input channels, got {problem.groups}"


def _workspace(problem: Conv2dProblem, threads: int) -> int:
    problem, lanes = effective(problem), vector_lanes(problem.itemsize)
    return threads * _area(_way(problem, lanes), problem, lanes) * problem.itemsize


@register(
    "numba_depthwise",
    idea="3x3 slides down the image, others tile one channel at a time in L1; across channels where rows are short",
    source="Zhang, Lo & Lu 2020, arXiv:2001.02504, sec. 3",
    threads="argument",
    supports=_supports,
    workspace=_workspace,
)
def prepare(problem: Conv2dProblem, weight: Array, bias: Array | None, threads: int, relu: bool) -> Prepared:
    return _prepare(problem, weight, bias, threads, relu)


def _prepare(
    problem: Conv2dProblem, weight: Array, bias: Array | None, threads: int, relu: bool,
    way: Way | None = None, band_bytes: int = BAND_BYTES,
) -> Prepared:  # fmt: skip
    """`prepare`, with the choices it makes open to experiments and tests."""
    dtype, problem = np.dtype(problem.dtype), effective(problem)
    start = time.perf_counter()
    # Both, whichever this layer takes: after one layer all others are ready.
    for module in (depthwise, depthwise_slide):
        address_of(module.convolve, dtype)
    compile_s = time.perf_counter() - start

    lanes = vector_lanes(dtype.itemsize)
    way = way or _way(problem, lanes)
    offsets = np.zeros(problem.out_channels, dtype)
    floor = np.array([-np.inf, 0.0 if relu else -np.inf], dtype)
    if way == "slide":
        packed, table = np.empty(weight.size, dtype), _slide_sizes(problem, threads)
        job = Job(depthwise_slide.convolve, dtype, threads, 1, 0, [packed, offsets, floor, table])
    else:
        pack, sizes, tables = (
            _by_channel(problem, lanes) if way == "channel" else _by_position(problem, lanes, band_bytes)
        )
        area = _area(way, problem, lanes, band_bytes)
        packed = pack(weight, offsets)
        table = np.array([way == "channel", lanes, *sizes, *[0] * (20 - len(sizes)), area], np.int64)
        job = Job(depthwise.convolve, dtype, threads, 1, threads * area, [packed, offsets, floor, table, *tables])

    def repack(weight: Array, bias: Array | None) -> None:
        offsets[:] = 0 if bias is None else bias
        packed[:] = weight.reshape(-1) if way == "slide" else pack(weight, offsets)

    repack(weight, bias)
    return Prepared(job, packed.nbytes, job.workspace_bytes, compile_s, repack)


def _way(problem: Conv2dProblem, lanes: int) -> Way:
    zeros, (sh, sw), columns = problem.padding_mode == "zeros", problem.stride, problem.out_size[1]
    slides = problem.kernel_size == (3, 3) and problem.dilation == (1, 1) and sh == sw <= 2
    bound = NARROW_SLIDE * lanes if slides and VECTOR_BYTES == 64 else NARROW
    narrow = columns <= bound and problem.in_channels >= lanes
    if zeros and narrow and sw <= 2 and problem.out_channels == problem.in_channels:
        return "channel"
    return "slide" if zeros and slides else "position"


def _slide_sizes(problem: Conv2dProblem, threads: int) -> Table:
    images = problem.batch * problem.in_channels
    # Few images are cut into bands, so that every thread has its share.
    bands = min(problem.out_size[0], -(-BANDS * threads // images)) if threads > 1 else 1
    sizes = [images, problem.in_channels, problem.out_channels // problem.in_channels, *problem.in_size,
             *problem.out_size, problem.stride[0], problem.padding[0][0], problem.padding[1][0], bands]  # fmt: skip
    return np.array(sizes, np.int64)


class Bands(NamedTuple):
    """How the rows of a channel are staged: so many bands, in each so many rows of the padded image.

    A staged row has ``row`` elements: one run of ``pitch`` for each stride phase, in which the image starts on a cache
    line, ``margin`` from its beginning.
    """

    bands: int
    deep: int
    row: int
    pitch: int
    margin: int


def _bands(problem: Conv2dProblem, lanes: int, band_bytes: int) -> Bands:
    w, (oh, ow), (sh, sw), (left, right) = problem.in_size[1], problem.out_size, problem.stride, problem.padding[1]
    extent_h, extent_w = ((k - 1) * d for k, d in zip(problem.kernel_size, problem.dilation, strict=True))
    margin = round_up(left // sw + 1, lanes)
    pitch = round_up(
        margin + max(round_up(-(-w // sw), lanes), ow + extent_w // sw, (left + w + right) // sw + 1), lanes
    )
    row = sw * pitch
    fitting, most = ((n // (row * problem.itemsize) - extent_h - 1) // sh + 1 for n in (band_bytes, MOST_BAND_BYTES))
    band = max(min(max(fitting // ROWS[0], 1) * ROWS[0], most), 1)
    bands = -(-oh // band)
    return Bands(bands, (-(-oh // bands) - 1) * sh + extent_h + 1, row, pitch, margin)


def _columns(problem: Conv2dProblem) -> int:
    """Columns of an image across channels: without the padding at its right where no output sees it."""
    (kw, sw, dw), left = (
        (size[1] for size in (problem.kernel_size, problem.stride, problem.dilation)),
        problem.padding[1][0],
    )
    return max(left + problem.in_size[1], (problem.out_size[1] - 1) * sw + (kw - 1) * dw + 1)


def _area(way: Way, problem: Conv2dProblem, lanes: int, band_bytes: int = BAND_BYTES) -> int:
    """Elements of work for each part."""
    if way == "slide":
        return 0
    if way == "channel":
        return round_up(_results_at(problem, lanes) + round_up(prod(problem.out_size), lanes) * lanes, 64)
    bands = _bands(problem, lanes, band_bytes)
    # Whole vectors are loaded behind the last tap of a row, though never used.
    return round_up(bands.deep * bands.row + VECTORS * lanes, 64)


def _results_at(problem: Conv2dProblem, lanes: int) -> int:
    """Where results across channels begin: behind the image, one place more and a row of zeros."""
    columns = _columns(problem)
    return (problem.in_size[0] * columns + 1 + columns) * lanes


def _by_position(problem: Conv2dProblem, lanes: int, band_bytes: int) -> tuple[Pack, list[int], list[Table]]:
    """How weights are packed, sizes and tables."""
    (h, w), (oh, ow), (kh, kw) = problem.in_size, problem.out_size, problem.kernel_size
    (sh, sw), (dh, dw), (left, right) = problem.stride, problem.dilation, problem.padding[1]
    bands, _, row, pitch, margin = _bands(problem, lanes, band_bytes)

    def place(column: NDArray[np.intp]) -> Table:
        phase = column % sw
        return np.asarray(phase * pitch + margin - ((phase - left) % sw + left) // sw + column // sw, np.int64)

    source = source_index(w, left, right, problem.padding_mode)
    padding = np.r_[:left, left + w : left + w + right]
    padding = padding[source[padding] >= 0]
    pads = np.array([len(padding), *np.stack([place(padding), source[padding]], 1).ravel()], np.int64)
    lines = np.asarray(source_index(h, *problem.padding[0], problem.padding_mode), np.int64)
    taps = place(np.arange(kw) * dw)
    # Where neighbouring outputs share no row, each row of the kernel is a pass of its own.
    shared = sh == 1 or (sh == 2 and dh == 1)
    apart = dh if sh == 1 else 1
    heights = _passes(kh, sh) if shared else [1] * kh
    first = np.cumsum([0, *heights[:-1]])
    which = [PASSES.index((height, sh if shared else 1)) for height in heights]
    chunks = np.stack([which, first * dh * row, first * kw], 1).ravel()

    def pack(weight: Array, bias: Array) -> Array:
        passes = [weight[:, 0, p : p + height].transpose(0, 2, 1).reshape(len(weight), -1)
                  for p, height in zip(first, heights, strict=True)]  # fmt: skip
        return np.concatenate(passes, 1).reshape(-1)

    sizes = [problem.batch * problem.in_channels, problem.in_channels, problem.out_channels // problem.in_channels,
             h, w, oh, ow, kh, kw, sh, sw, dh, bands, row, pitch, margin, left, len(heights), apart,
             dh * row if shared else sh * row]  # fmt: skip
    return pack, sizes, [lines, taps, pads, chunks]


def _passes(kernel_rows: int, stride: int) -> list[int]:
    """Kernel rows of each pass, tallest first."""
    heights: list[int] = []
    for height in (height for height, s in PASSES if s == stride):
        heights += [height] * ((kernel_rows - sum(heights)) // height)
    return heights


def _by_channel(problem: Conv2dProblem, lanes: int) -> tuple[Pack, list[int], list[Table]]:
    """As `_by_position`."""
    (h, w), (oh, ow), (kh, kw) = problem.in_size, problem.out_size, problem.kernel_size
    (top, _), (left, _) = problem.padding
    columns = _columns(problem)
    position = np.arange(round_up(h * w, lanes))
    # What a vector holds behind the last position goes to one place behind the image.
    places = np.where(position < h * w, position // w * columns + left + position % w, h * columns) * lanes
    blocks = -(-problem.in_channels // lanes)

    def pack(weight: Array, bias: Array) -> Array:
        """For each vector of channels all taps, then the bias."""
        packed = aligned_zeros((blocks * lanes, kh * kw + 1), weight.dtype)
        packed[: len(weight), :-1] = weight.reshape(len(weight), -1)
        packed[: len(weight), -1] = bias
        turned = aligned_zeros((blocks, kh * kw + 1, lanes), weight.dtype)
        turned[...] = packed.reshape(blocks, lanes, -1).transpose(0, 2, 1)
        return turned.reshape(-1)

    sizes = [problem.batch, problem.in_channels, 1, h, w, oh, ow, kh, kw, *problem.stride, *problem.dilation, top,
             columns * lanes, _results_at(problem, lanes)]  # fmt: skip
    return pack, sizes, [places]
