"""Cost model: predicted seconds of each fast backend on one problem, from the measured limits of the machine.

The unit of work is one multiply-add of a vector. The cost of a backend is a sum of such units (products, packing,
transforms), divided by the measured peak. If weights must stream from memory, their bytes divided by the measured
bandwidth are added. The constants are cycles counted in the assembly, adjusted to measurements of the layers of four
networks; docs/decisions/0006 has the fit and its regret. Source: the roofline model, Williams, Waterman & Patterson
2009, doi:10.1145/1498765.1498785. Limits: accurate to about 20%, which is enough to rank algorithms that differ by
more; `conv_impls.plan` can measure instead.
"""

from __future__ import annotations

from functools import lru_cache
from math import log2, prod
from typing import TYPE_CHECKING

from conv_impls.choice.limits import limits
from conv_impls.choice.probes import l3_bytes
from conv_impls.kernels import winograd_axes
from conv_impls.problem import Conv2dProblem

if TYPE_CHECKING:
    from conv_impls.backend import Backend

# The backends that `estimates` covers.
WINOGRAD = "numba_winograd_f2", "numba_winograd_f4", "numba_winograd_f2_5x5"
MODELLED = ("numba_simd", "numba_depthwise", *WINOGRAD, "scipy_fft")
# Fraction of the peak that register tiles reach on long reductions.
TILE_EFFICIENCY = 0.92
# Units per vector: packing weights or a 1x1 image, storing and transposing a result.
PACK, STORE, TRANSPOSE = 3, 4, 8
# Units per vector of channels and tile, for each point (image, result) and for each output (result); per point of one
# transformed weight pair, for eager calls.
IMAGE, RESULT, OUTPUT, WEIGHT = 12, 4, 9, 10
# Of products and the stream of their weights, the part of the shorter one that the other does not hide: 0 to 1.
WAITING = 0.5
# Rows of a tile whose products hide their latency.
LEAST_ROWS = 4
# Relative cost of the loads of a single row, added to its products by tap: 64 -> 1, 3 and 8 channels take 3.2, 1.6 and
# 1.3 times the time of the products.
FEW_ROWS = 2
# Rows of a tile with 16 registers; larger tiles differ little here.
TILE_ROWS = 6
# Lane units per point and level of a transformed plane, and per point of a product of two planes (slower in groups).
FFT_PLANE, FFT_PRODUCT, FFT_GROUPED_PRODUCT = 17, 90, 300
# Fraction of a product's cost for the second and later tiles of a call; tile sizes as multiples of the kernel's extent.
FFT_REUSE = 0.1
FFT_TILES = 1.5, 2.0, 3.0, 4.0, 6.0
FFT_THREADS = 1.0, 0.8
FFT_CALL_S = 5e-5
# With fewer taps FFT never won, so its module, slow to import, is not used.
FFT_TAPS = 25
# Upper bound of the time to start the threads of a kernel, if they have cores to run on.
START_S = 2e-5
# Units of a depthwise product.
DEPTHWISE_UNIT = 1.3


# Maximum workspace of a backend: a multiple of the bytes of the problem's arrays, plus a constant.
WORKSPACE_TIMES, WORKSPACE_BYTES = 4, 256 * 2**20


def workspace_bound(problem: Conv2dProblem) -> int:
    """Maximum workspace in bytes of a backend that `auto` selects, even if it should be the fastest."""
    arrays = sum(map(prod, (problem.input_shape, problem.weight_shape, problem.output_shape)))
    return WORKSPACE_TIMES * arrays * problem.itemsize + WORKSPACE_BYTES


# Cached, because eager calls check this each time if a winner of tuning is known.
@lru_cache(maxsize=4096)
def fits(backend: Backend, problem: Conv2dProblem, threads: int) -> bool:
    """Whether a backend's predicted workspace is within that bound; without a prediction, the answer is yes.

    Problems without a product need no workspace, so no backend predicts it for them.
    """
    if backend.workspace is None or not problem.macs:
        return True
    return backend.workspace(problem, threads) <= workspace_bound(problem)


def estimates(problem: Conv2dProblem, threads: int, eager: bool) -> dict[str, float]:
    """Predicted seconds of one call, for each backend of the cost model that supports the problem.

    Parameters
    ----------
    problem : Conv2dProblem
    threads : int
    eager : bool
        Whether the weights are packed within the call.
    """
    machine = limits(threads, problem.dtype)
    # Imported here, because they import numba.
    from conv_impls.backends import _winograd
    from conv_impls.kernels.simd import lanes as vector_lanes

    lanes = vector_lanes(problem.itemsize)
    unit_s = 2 * lanes / machine.flops_per_s
    # Measured while another program held a core, a start once seemed to take 7 milliseconds.
    start_s = min(machine.call_s, START_S)
    found = {"numba_simd": _direct(problem, lanes, threads, eager)}
    if problem.in_channels == problem.groups:
        found["numba_depthwise"] = _depthwise(problem, lanes)
    seconds = {name: units * unit_s + start_s for name, units in found.items()}
    if prod(problem.kernel_size) >= FFT_TAPS:
        # Its threads help the transforms and do little for the products, which are many and small. The share of one
        # thread in the limits of all: numbers measured at another moment would weigh it by another scale.
        fft_s = _fft(problem, eager) * 2 * threads / machine.flops_per_s
        seconds["scipy_fft"] = FFT_THREADS[threads > 1] * fft_s + FFT_CALL_S
    for name in WINOGRAD:
        if _winograd.supports(*_winograd.FORMS[name], problem) is not None:
            continue
        products, rest, weight_bytes = _winograd_units(problem, _winograd.FORMS[name][0], lanes, eager)
        rate = machine.l3_bytes_per_s if weight_bytes <= l3_bytes() else machine.memory_bytes_per_s
        stream_s = weight_bytes / rate
        first, second = sorted((products * unit_s, stream_s))
        seconds[name] = second + WAITING * first + rest * unit_s + start_s
        if eager:
            seconds[name] += stream_s
    return seconds


def _direct(problem: Conv2dProblem, lanes: int, threads: int, eager: bool) -> float:
    """Units of `conv_impls.backends.numba_simd`, in the way that it takes."""
    from conv_impls.backends import _by_tap, _dense, numba_simd
    from conv_impls.backends._layout import seen_taps
    from conv_impls.kernels.tile import VECTORS

    problem, _ = seen_taps(problem)
    n, g, oc = problem.batch, problem.groups, problem.out_channels // problem.groups
    positions, taps = prod(problem.out_size), problem.reduction
    across = -(-positions // lanes)
    # With few rows, a tile has more loads than products.
    loads = max(1.0, (oc + 2) / (2 * max(oc, 1)))
    pack = _by_tap.pack_units(problem, lanes)
    if _by_tap.in_rows(problem):
        in_place = numba_simd._in_place(problem, numba_simd._by_channel(problem, lanes))
        pack = 0 if in_place else PACK * taps * across
    by_position = taps * oc * loads / TILE_EFFICIENCY * across + pack + STORE * oc * across
    vectors = VECTORS * -(-oc // (VECTORS * lanes))
    by_channel = taps * positions * vectors / TILE_EFFICIENCY + pack + TRANSPOSE * oc * across
    # Few rows need more loads for each product here, too: vectors of the image, half of which cross a cache line.
    rows = max(oc, 1) / -(-max(oc, 1) // TILE_ROWS)
    products, staging = _by_tap.units(problem, lanes)
    by_tap = {"rows": products * (1 + FEW_ROWS / rows**1.5) + staging + STORE * oc * across}
    products, staging = _by_tap.channel_units(problem, lanes)
    by_tap["channels"] = products / TILE_EFFICIENCY + staging
    if _dense.covers(problem):
        units = n * g * taps * -(-oc // lanes) / TILE_EFFICIENCY
    else:
        packed = by_channel if numba_simd._by_channel(problem, lanes) else by_position
        units = n * g * by_tap.get(_by_tap.better(problem, threads), packed)
    if eager:
        units += 2 * PACK * prod(problem.weight_shape) / lanes
    return units


def _winograd_units(problem: Conv2dProblem, m: int, lanes: int, eager: bool) -> tuple[float, float, int]:
    """Units of products, units of everything else, and bytes of the transformed weights."""
    from conv_impls.backends import _winograd

    tile = _winograd.tile_of(m, problem)
    points = prod(axis.points for axis in winograd_axes.axes(tile))
    outputs, tiles = tile.m, problem.batch * prod(_winograd.tiles_across(problem, tile))
    g = problem.groups
    ic, oc = -(-problem.in_channels // g // lanes), -(-problem.out_channels // g // (2 * lanes)) * 2
    products = g * points * max(tiles, LEAST_ROWS) * ic * lanes * oc / TILE_EFFICIENCY
    rest = g * tiles * (ic * IMAGE * points + oc * (RESULT * points + OUTPUT * prod(outputs)))
    if eager:
        rest += WEIGHT * points * problem.in_channels * oc
    return products, rest, g * points * ic * oc * lanes * lanes * problem.itemsize


def _depthwise(problem: Conv2dProblem, lanes: int) -> float:
    # Vectors run along rows or across channels; use the way with fewer empty lanes.
    full = max(n / (-(-n // lanes) * lanes) for n in (problem.out_size[1], problem.groups))
    return (DEPTHWISE_UNIT * problem.macs / full + STORE * prod(problem.output_shape)) / lanes


def fft_size(problem: Conv2dProblem) -> tuple[int, int]:
    """Rows and columns of the transforms of `conv_impls.backends.scipy_fft` that should be fastest for this problem."""
    return min(_fft_sizes(problem), key=lambda size: _fft_units(problem, size, False))


def _fft_sizes(problem: Conv2dProblem) -> list[tuple[int, int]]:
    """The whole padded image, and tiles of some multiples of the kernel's extent that are smaller."""
    from scipy.fft import next_fast_len

    whole = tuple(next_fast_len(length, real=True) for length in problem.padded_size)
    sizes = [whole]
    for multiple in FFT_TILES:
        extents = [d * (k - 1) + 1 for d, k in zip(problem.dilation, problem.kernel_size, strict=True)]
        tile = [min(w, next_fast_len(int(e * multiple) + 1, real=True)) for w, e in zip(whole, extents, strict=True)]
        sizes.append(tuple(tile))
    return [(rows, columns) for rows, columns in sizes]


def _fft(problem: Conv2dProblem, eager: bool) -> float:
    return min(_fft_units(problem, size, eager) for size in _fft_sizes(problem))


def _fft_units(problem: Conv2dProblem, size: tuple[int, int], eager: bool) -> float:
    """Lane units of FFT convolution by tiles of this size; planned weights are transformed before.

    Source: the operation counts of Mathieu, Henaff & LeCun 2014, arXiv:1312.5851, sec. 2.
    """
    g, tiles = problem.groups, problem.batch
    for length, out, k, d, s in zip(
        size, problem.out_size, problem.kernel_size, problem.dilation, problem.stride, strict=True
    ):
        tiles *= -(-out // ((length - d * (k - 1) - 1) // s + 1))
    pairs = problem.in_channels * problem.out_channels // g
    points = prod(size)
    planes = tiles * (problem.in_channels + problem.out_channels) + (pairs if eager else 0)
    product = FFT_PRODUCT if g == 1 else FFT_GROUPED_PRODUCT
    # The product of one tile waits for the spectra of the kernels; each further one uses them again.
    products = pairs * (1 + (tiles - 1) * FFT_REUSE)
    return points * (FFT_PLANE * planes * log2(max(points, 2)) + product * products)
