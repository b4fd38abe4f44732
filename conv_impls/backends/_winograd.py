"""What the Winograd backends share: which problems they take, how tiles are cut into blocks, weights into panels.

See `conv_impls.kernels.winograd` for the idea and its source. A block of tiles is as many as the caches hold of both
its transformed image and its products, but enough of them to use each transformed weight for many products.
Limits: tiles start at the first output, so the bits of an output depend on its position.
"""

from __future__ import annotations

from math import prod
from typing import NamedTuple

import numpy as np

from conv_impls.backends._layout import image_layout, round_up, share
from conv_impls.kernels.runtime import target
from conv_impls.problem import Conv2dProblem
from conv_impls.registry import Prepared
from conv_impls.validation import Array

# Transformed image and products of a block fit L2, and a half of one of 1 MiB; fewer than 28 tiles would read the
# weights too often. A half of an L2 of 512 KiB cost VGG's conv1_2 5%.
BLOCK_BYTES, BLOCK_TILES = 512 * 2**10, 28


def supports(problem: Conv2dProblem) -> str | None:
    """None, or why F(m x m, 3x3) does not apply."""
    if problem.kernel_size != (3, 3):
        return f"kernel {problem.kernel_size[0]}x{problem.kernel_size[1]}; only 3x3"
    if problem.stride != (1, 1) or problem.dilation != (1, 1):
        return f"stride {problem.stride}, dilation {problem.dilation}; only 1"
    if problem.groups != 1:
        return f"{problem.groups} groups; only 1"
    return None


def tiles_across(problem: Conv2dProblem, m: int) -> tuple[int, int]:
    """Tiles down and across one image."""
    return -(-problem.out_size[0] // m), -(-problem.out_size[1] // m)


class Cut(NamedTuple):
    """Blocks of tiles, tiles of each; elements of the workspace: the staged image, and the rest for each thread."""

    blocks: int
    block: int
    planes: int
    area: int


def cut(m: int, problem: Conv2dProblem, threads: int, lanes: int, width: int, most: int | None = None) -> Cut:
    """How a problem is cut into blocks of ``most`` tiles, and what that takes; panels are ``width`` channels wide."""
    down, across = tiles_across(problem, m)
    points, tiles, deep = (m + 2) ** 2, problem.batch * down * across, round_up(problem.in_channels, lanes)
    if most is None:
        most = max(BLOCK_TILES, min(target.caches().l2, BLOCK_BYTES) // (points * (deep + width) * problem.itemsize))
    blocks = share(-(-tiles // most), tiles, threads)
    block = -(-tiles // blocks)
    # Rows of the image with lanes of channels; transformed tiles; products.
    area = round_up((m + 2) * (across * m + 2 + lanes) * lanes + lanes * lanes + points * block * (deep + width), 64)
    # Zeros around the image are masked; other padding is staged, and vectors may be loaded behind it.
    image = problem.batch * problem.in_channels * prod(problem.padded_size)
    return Cut(blocks, block, round_up(image + width, 64) if problem.padding_mode != "zeros" else 0, area)


def workspace(m: int, problem: Conv2dProblem, threads: int) -> int:
    """Bytes of workspace of each call."""
    # Imported here: numba is slow to import, and `supports` needs none of it.
    from conv_impls.kernels.simd import lanes as vector_lanes
    from conv_impls.kernels.tile import VECTORS

    lanes = vector_lanes(problem.itemsize)
    found = cut(m, problem, threads, lanes, VECTORS * lanes)
    return (found.planes + threads * found.area) * problem.itemsize


def prepare(
    m: int, problem: Conv2dProblem, weight: Array, bias: Array | None, threads: int, relu: bool,
    block: int | None = None, o_parts: int | None = None,
) -> Prepared:  # fmt: skip
    """F(m x m, 3x3) of one problem, weights transformed; ``block`` and ``o_parts`` are for experiments."""
    # Imported here: numba is slow to import, and `supports` needs none of it.
    from conv_impls.kernels import winograd as kernels
    from conv_impls.kernels.runtime.job import Job, compiled_s
    from conv_impls.kernels.runtime.memory import aligned_zeros
    from conv_impls.kernels.simd import lanes as vector_lanes
    from conv_impls.kernels.stage import stage
    from conv_impls.kernels.tile import VECTORS

    dtype = np.dtype(problem.dtype)
    lanes, points = vector_lanes(dtype.itemsize), (m + 2) ** 2
    width, ic, oc = VECTORS * lanes, problem.in_channels, problem.out_channels
    deep, panels = round_up(ic, lanes), -(-oc // width)
    layout, staged = image_layout(problem), problem.padding_mode != "zeros"
    convolve, transform_weights = kernels.KERNELS[m]
    phases = [stage, convolve][not staged :]
    compile_s = compiled_s([transform_weights, *phases], dtype)
    (h, w), (top, _), (left, _) = problem.in_size, *problem.padding
    pitch, channel = w, h * w
    if staged:
        (h, w), top, left, pitch, channel = problem.padded_size, 0, 0, layout.pitch, layout.channel
    blocks, block, planes, area = cut(m, problem, threads, lanes, width, block)
    if o_parts is None:
        o_parts = 1 if blocks % threads == 0 else min(threads, panels)
    sizes = kernels.Sizes(
        batch=problem.batch, in_channels=ic, out_channels=oc, h=h, w=w, pitch=pitch, channel=channel, top=top,
        left=left, out_h=problem.out_size[0], out_w=problem.out_size[1], block=block, blocks=blocks, o_parts=o_parts,
        staged=staged,
    )  # fmt: skip
    packed = aligned_zeros((panels * points * deep * width,), dtype)
    bias_values = np.zeros(oc, dtype)
    floor = np.array([0.0 if relu else -np.inf], dtype)
    operands = kernels.Operands(layout.staging, packed, bias_values, floor, sizes)
    job = Job(
        phases, dtype, operands, threads=threads, units=blocks, shared=planes, own=area
    )  # fmt: skip
    room = 2 * lanes * max(lanes, 9)
    transform = Job(
        [transform_weights], dtype, kernels.TransformOperands(kernels.Transform(ic, oc)),
        threads=threads, own=room,
    )  # fmt: skip

    def repack(weight: Array, bias: Array | None) -> None:
        transform(weight.reshape(-1), packed)
        bias_values[:] = 0 if bias is None else bias

    repack(weight, bias)
    # Products of the tiles, those cut at the edges included; the transforms, additions mostly, are not counted.
    executed = 2.0 * points * problem.batch * prod(tiles_across(problem, m)) * ic * oc
    return Prepared(job, packed.nbytes, job.workspace_bytes, compile_s, repack, executed_flops=executed)
