"""Dense layer: one output per image and channel, which depends on every pixel. Pure kernel.

    y[n, o] = sum over k of x[n, k] * weight[o, k]

Idea
    Each image is already a row of the patch matrix. With a single image each weight is used once, so only the bandwidth
    of reading the weights matters. One row is then multiplied by several panels of weights at a time, which keeps more
    loads in flight. With several images, tiles of images reuse each panel while it is in the cache.
Source
    Van Zee & van de Geijn 2015, BLIS, doi:10.1145/2764454, sec. 2; level 2 of BLAS: Dongarra et al. 1988,
    doi:10.1145/42288.42291.
Limits
    The kernel is as large as the image. No padding.
"""

from __future__ import annotations

from typing import NamedTuple

from numba import int64

from conv_impls.kernels.product import multiply
from conv_impls.kernels.runtime.compile import helper, kernel
from conv_impls.kernels.runtime.operands import Floats, of_call, of_plan
from conv_impls.kernels.simd import lanes_of
from conv_impls.kernels.tile import ROWS, START_BY_COLUMN, START_C, VECTORS
from conv_impls.kernels.tile_few import PANELS, tile_of_row
from conv_impls.kernels.transpose_block import load_rows, store_rows, transpose


class Sizes(NamedTuple):
    """Integer parameters of `convolve`. ``out_channels`` and ``reduction`` are for one group."""

    batch: int
    groups: int
    out_channels: int
    reduction: int
    k_block: int
    # Number of blocks of a group's output channels, and of the images.
    blocks: int
    image_blocks: int


class Operands(NamedTuple):
    """Data that a plan prepares for `convolve`."""

    weight: Floats
    bias: Floats
    # Lower clamp of a row before the last k block, and after it.
    clamp: Floats
    sizes: Sizes


@helper
def _pack_images(x, at, step, count, depth, target):
    """target[to + k*row + n] = x[at + n*step + k] for n < count, k < depth; ``target`` is (array, to, row)."""
    packed, to, row = target
    lanes = lanes_of(x)
    for n in range(0, count, lanes):
        for k in range(0, depth, lanes):
            block = transpose(load_rows(x, at + n * step + k, step, count - n, depth - k))
            store_rows(block, packed, to + k * row + n, row, depth - k, lanes)


@kernel
def convolve(part, parts, operands):
    """Tasks are blocks of channels and of images. `conv_impls.kernels.implicit.pack_panels` packs the weights."""
    x, y, work, at = of_call(operands)
    plan = of_plan(operands, Operands)
    batch, groups, oc, reduction, k_block, blocks, image_blocks = plan.sizes
    lanes, zero, one = lanes_of(y), int64(0), int64(1)
    width, step, tasks = VECTORS * lanes, groups * reduction, groups * blocks * image_blocks
    panels = -(-oc // width)
    for task in range(part * tasks // parts, (part + 1) * tasks // parts):
        group, block, images = task // (blocks * image_blocks), task // image_blocks % blocks, task % image_blocks
        first, last = block * panels // blocks, (block + 1) * panels // blocks
        n, count = images * batch // image_blocks, (images + 1) * batch // image_blocks - images * batch // image_blocks
        columns, out = min(last * width, oc) - first * width, (n * groups + group) * oc + first * width
        tiles, row = -(-count // ROWS), -(-count // lanes) * lanes
        for k0 in range(0, reduction, k_block):
            depth, start = min(k_block, reduction - k0), START_C if k0 else START_BY_COLUMN
            clamp = plan.clamp[1] if k0 + depth == reduction else plan.clamp[0]
            panel, bias = ((group * panels + first) * reduction + k0) * width, (group * panels + first) * width
            source = (n * groups + group) * reduction + k0
            if batch == 1:
                for j in range(0, columns, PANELS * width):
                    b = plan.weight, panel + j * reduction, width, reduction * width
                    tile_of_row(depth, (x, source, one), b, (y, out + j, zero), columns - j, (plan.bias, bias + j),
                                start, clamp)  # fmt: skip
            else:
                _pack_images(x, source, step, count, depth, (work, at, row))
                for j in range(0, columns, width):
                    b = plan.weight, panel + j * reduction, zero, width
                    multiply((count, zero, tiles, tiles), depth, (work, at, one, row, zero), b,
                             (y, out + j, groups * oc), min(width, columns - j), (plan.bias, bias + j), start, clamp,
                             (plan.weight, zero, zero, zero))  # fmt: skip
