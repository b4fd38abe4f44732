"""Common code of the Winograd backends: supported problems, blocks of tiles, panels of weights.

See `conv_impls.kernels.winograd` for the idea and its source. The transformed image and the products of a block of
tiles fit the caches, but a block has enough tiles to use each transformed weight for many products.
Limits: tiles start at the first output, so the bits of an output depend on its position.
"""

from __future__ import annotations

from math import prod
from typing import NamedTuple

import numpy as np

from conv_impls.backends._layout import image_layout, round_up, share
from conv_impls.kernels.runtime import target
from conv_impls.kernels.winograd_axes import Tile, axes, first_output, pieces, points, tiles_along
from conv_impls.problem import Conv2dProblem
from conv_impls.registry import Prepared
from conv_impls.validation import Array

# Transformed image and products of a block fit L2, or half of an L2 of 1 MiB. Fewer than 28 tiles would read the
# weights too often. Using only half of an L2 of 512 KiB cost VGG's conv1_2 5%.
BLOCK_BYTES, BLOCK_TILES = 512 * 2**10, 28


# Outputs of a tile along an axis, and the taps that its longest piece may have, by backend.
FORMS = {
    "numba_winograd_f2": (2, range(2, 4)),
    "numba_winograd_f4": (4, range(2, 4)),
    "numba_winograd_f6": (6, range(2, 4)),
    "numba_winograd_f2_5x5": (2, range(4, 6)),
}
# Maximum points of an axis, and strides that networks use. A transform is straight-line code for all points of both
# axes, compiled for each kernel size and stride.
MOST_POINTS, STRIDES = 9, (1, 2)

# Minimum channels of a group, because lanes are channels. With 4, direct summation is still 2.8 times as fast; with 1,
# F(4x4) may exceed the error bound of its class (decision 0004).
LEAST_CHANNELS = 4


def supports(m: int, taps: range, problem: Conv2dProblem) -> str | None:
    """None, or the reason why F(m x m) for kernels or phases with ``taps`` taps does not apply."""
    (kh, kw), (sh, sw) = problem.kernel_size, problem.stride
    if max(problem.stride) > 1 and dilation_of(problem) != (1, 1):
        return f"stride {problem.stride} with dilation {problem.dilation}; one of them must be 1"
    if sh != sw or sh not in STRIDES:
        return f"stride {problem.stride}; only 1 and 2, the same along both axes"
    if kh != kw and min(kh, kw) > 1:
        return f"kernel {kh}x{kw}; only square ones and rows or columns"
    if problem.groups > 1 and problem.in_channels < LEAST_CHANNELS * problem.groups:
        return (
            f"{problem.in_channels // problem.groups} channels in a group; at least {LEAST_CHANNELS}, which are lanes"
        )
    longest = max(len(of) for of in pieces(max(kh, kw), sh))
    if longest not in taps or points(m, max(kh, kw), sh) > MOST_POINTS:
        return (
            f"kernel {kh}x{kw}, stride {sh}; F({m}x{m}) of {taps[0]} to {taps[-1]} taps, {MOST_POINTS} points an axis"
        )
    return None


def tile_of(m: int, problem: Conv2dProblem) -> Tile:
    """Tiles of m outputs along each axis; one output if the kernel has one tap along it."""
    taps = problem.kernel_size
    down, across = (m if k > 1 else 1 for k in taps)
    return Tile((down, across), taps, problem.stride, dilation_of(problem) != (1, 1))


def dilation_of(problem: Conv2dProblem) -> tuple[int, int]:
    """The dilation, 1 along an axis with one tap."""
    down, across = (d if k > 1 else 1 for d, k in zip(problem.dilation, problem.kernel_size, strict=True))
    return down, across


def tiles_across(problem: Conv2dProblem, tile: Tile) -> tuple[int, int]:
    """Tiles down and across one image."""
    down, across = map(tiles_along, problem.out_size, tile.m, dilation_of(problem))
    return down, across


def _padded(problem: Conv2dProblem) -> Conv2dProblem:
    """The problem with stride 1, whose staged image is the padded image itself: the transforms apply the strides."""
    return problem.replace(stride=(1, 1))


class Cut(NamedTuple):
    """Number of blocks, tiles of a block; workspace elements of the staged image, and of each thread (rows, total)."""

    blocks: int
    block: int
    planes: int
    rows: int
    area: int


def cut(tile: Tile, problem: Conv2dProblem, threads: int, lanes: int, width: int, most: int | None = None) -> Cut:
    """Blocks of at most ``most`` tiles for a problem, and their workspace; panels are ``width`` channels wide."""
    (down_axis, across_axis), (_, step) = axes(tile), dilation_of(problem)
    down, across = tiles_across(problem, tile)
    products, units = down_axis.points * across_axis.points, problem.batch * down * -(-across // step)
    deep = round_up(problem.in_channels // problem.groups, lanes)
    if most is None:
        most = max(BLOCK_TILES, min(target.caches().l2, BLOCK_BYTES) // (products * (deep + width) * problem.itemsize))
    # Tiles that a block cannot divide: one of each phase of the columns.
    blocks = share(-(-units // max(1, most // step)), units, threads)
    block = -(-units // blocks) * step
    # Rows of the image with channels as lanes, reused for the rows of the result; transformed tiles; products.
    last = first_output(across - 1, tile.m[1], step)
    image = down_axis.span * (last * tile.stride[1] + (across_axis.span - 1) * step + 1 + lanes)
    rows = round_up(max(image, tile.m[0] * (last + (tile.m[1] - 1) * step + 1 + lanes)) * lanes, lanes)
    area = round_up(rows + products * block * (deep + width), 64)
    # Zero padding is done by masks. Other padding is staged, and vectors may be loaded past its end.
    planes = 0
    if problem.padding_mode != "zeros":
        planes = round_up(problem.batch * problem.in_channels * image_layout(_padded(problem)).channel + width, 64)
    return Cut(blocks, block, planes, rows, area)


def workspace(m: int, problem: Conv2dProblem, threads: int) -> int:
    """Bytes of workspace of each call."""
    # Imported here: numba is slow to import, and `supports` needs none of it.
    from conv_impls.kernels.simd import lanes as vector_lanes
    from conv_impls.kernels.tile import VECTORS

    lanes = vector_lanes(problem.itemsize)
    found = cut(tile_of(m, problem), problem, threads, lanes, VECTORS * lanes)
    return (found.planes + threads * found.area) * problem.itemsize


def prepare(
    m: int, problem: Conv2dProblem, weight: Array, bias: Array | None, threads: int, relu: bool,
    block: int | None = None, o_parts: int | None = None,
) -> Prepared:  # fmt: skip
    """F(m x m) of one problem, weights transformed; ``block`` and ``o_parts`` are for experiments."""
    # Imported here: numba is slow to import, and `supports` needs none of it.
    from conv_impls.kernels import winograd as kernels
    from conv_impls.kernels.runtime.job import Job, compiled_s
    from conv_impls.kernels.runtime.memory import aligned_zeros
    from conv_impls.kernels.simd import lanes as vector_lanes
    from conv_impls.kernels.stage import stage
    from conv_impls.kernels.tile import VECTORS

    dtype, tile = np.dtype(problem.dtype), tile_of(m, problem)
    lanes, products = vector_lanes(dtype.itemsize), prod(one.points for one in axes(tile))
    groups, width, taps = problem.groups, VECTORS * lanes, prod(problem.kernel_size)
    ic, oc = problem.in_channels // groups, problem.out_channels // groups
    deep, panels = round_up(ic, lanes), -(-oc // width)
    staged = problem.padding_mode != "zeros"
    layout = image_layout(_padded(problem))
    convolve, transform_weights = kernels.kernels_of(tile)
    phases = [stage, convolve][not staged :]
    compile_s = compiled_s([transform_weights, *phases], dtype)
    (h, w), (top, _), (left, _) = problem.in_size, *problem.padding
    pitch, channel = w, h * w
    if staged:
        (h, w), top, left, pitch, channel = problem.padded_size, 0, 0, layout.pitch, layout.channel
    blocks, block, planes, rows, area = cut(tile, problem, threads, lanes, width, block)
    if o_parts is None:
        o_parts = 1 if blocks * groups % threads == 0 else min(threads, panels)
    sizes = kernels.Sizes(
        batch=problem.batch, groups=groups, in_channels=ic, out_channels=oc, h=h, w=w, pitch=pitch, channel=channel,
        top=top, left=left, out_h=problem.out_size[0], out_w=problem.out_size[1],
        dilation_h=dilation_of(problem)[0], dilation_w=dilation_of(problem)[1], rows=rows, block=block, blocks=blocks,
        o_parts=o_parts, staged=staged,
    )  # fmt: skip
    packed = aligned_zeros((groups * panels * products * deep * width,), dtype)
    bias_values = np.zeros(groups * oc, dtype)
    clamp = np.array([0.0 if relu else -np.inf], dtype)
    operands = kernels.Operands(layout.staging, packed, bias_values, clamp, sizes)
    job = Job(phases, dtype, operands, threads=threads, units=blocks * groups, shared=planes, own=area)
    transform = Job(
        [transform_weights], dtype, kernels.TransformOperands(kernels.Transform(groups, ic, oc)),
        threads=threads, own=lanes * round_up(taps, lanes),
    )  # fmt: skip

    def repack(weight: Array, bias: Array | None) -> None:
        transform(weight.reshape(-1), packed)
        bias_values[:] = 0 if bias is None else bias

    repack(weight, bias)
    # Products of all tiles, including tiles cut at the edges. The transforms, mostly additions, are not counted.
    executed = 2.0 * products * problem.batch * prod(tiles_across(problem, tile)) * ic * oc * groups
    return Prepared(job, packed.nbytes, job.workspace_bytes, compile_s, repack, executed_flops=executed)
