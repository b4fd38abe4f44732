"""Plans of the gradient of the weights by direct summation.

See `conv_impls.kernels.weight_gradient` and `conv_impls.kernels.weight_gradient_depthwise` for the ideas.

Limits: padding of zeros; other padding is applied before, by the caller.
"""

from __future__ import annotations

from math import prod
from typing import cast

import numpy as np

from conv_impls.backends._layout import image_layout, round_up
from conv_impls.kernels import weight_gradient, weight_gradient_depthwise
from conv_impls.kernels.runtime import target
from conv_impls.kernels.runtime.job import Job, compiled_s
from conv_impls.kernels.simd import lanes as vector_lanes
from conv_impls.kernels.tile import AHEAD, ROWS, VECTORS
from conv_impls.problem import Conv2dProblem
from conv_impls.registry import Call, Prepared
from conv_impls.validation import Array

# Pixels of a block: at least so many, for the loads and stores of the sums, unless the image of a block is too large.
PIXELS = 256


def prepare(problem: Conv2dProblem, threads: int) -> Prepared:
    """``call(x, dy, dw)`` of a problem with padding of zeros; it has no weights, so ``repack`` does nothing."""
    depthwise = problem.groups == problem.in_channels
    job, compile_s = _depthwise(problem, threads) if depthwise else _dense(problem, threads)

    # Unlike the call of a convolution, it has two inputs.
    def call(x: Array, dy: Array, out: Array) -> None:
        job(x, out, dy)

    return Prepared(cast(Call, call), 0, job.workspace_bytes, compile_s, lambda weight, bias: None)


def _dense(problem: Conv2dProblem, threads: int) -> tuple[Job, float]:
    dtype, g, lanes = np.dtype(problem.dtype), problem.groups, vector_lanes(problem.itemsize)
    ic, oc, (h, w), (oh, ow) = problem.in_channels // g, problem.out_channels // g, problem.in_size, problem.out_size
    (kh, kw), (sh, sw), (dh, dw), ((top, _), (left, _)) = (
        problem.kernel_size, problem.stride, problem.dilation, problem.padding,
    )  # fmt: skip
    columns = (ow - 1) * sw + (kw - 1) * dw + 1
    merged = dw == 1
    taps, run = (kh, kw * ic) if merged else (kh * kw, ic)
    extent = (kh - 1) * dh + 1
    row_bytes, half = columns * ic * dtype.itemsize, target.caches().l2 // 2
    rows = min(oh, max(1, -(-PIXELS // ow)))
    while rows > 1 and ((rows - 1) * sh + extent) * row_bytes > half:
        rows -= 1
    in_rows, images = (rows - 1) * sh + extent, 1
    if rows == oh:
        fitting = max(1, half // (in_rows * row_bytes))
        images = min(problem.batch, fitting, max(1, -(-PIXELS // (oh * ow))))
    pixels = rows * ow
    tiles = -(-oc // ROWS)
    o_blocks = min(tiles, threads) if g % threads else 1
    pixel = np.arange(pixels)
    places = (pixel // ow * sh * columns + pixel % ow * sw) * ic
    places = (np.arange(images)[:, None] * in_rows * columns * ic + places).ravel()
    if merged:
        offsets = np.arange(kh) * dh * columns * ic
    else:
        offsets = ((np.arange(kh) * dh)[:, None] * columns + np.arange(kw) * dw).ravel() * ic
    width = VECTORS * lanes
    image_room = round_up(images * in_rows * columns * ic + width, lanes)
    dy_room = round_up(images * pixels * ROWS + lanes * ROWS, lanes)
    most_rows = max(
        (b + 1) * tiles // o_blocks * oc // tiles - b * tiles // o_blocks * oc // tiles for b in range(o_blocks)
    )
    own = image_room + dy_room + most_rows * taps * round_up(run, lanes) + width
    sizes = weight_gradient.Sizes(
        batch=problem.batch, groups=g, in_channels=ic, out_channels=oc, h=h, w=w, top=top, left=left, out_h=oh,
        out_w=ow, stride_h=sh, columns=columns, kh=kh, taps=taps, run=run, kw=kw, images=images, rows=rows,
        in_rows=in_rows, o_blocks=o_blocks, image_room=image_room, dy_room=dy_room,
    )  # fmt: skip
    compile_s = compiled_s([weight_gradient.convolve], dtype)
    operands = weight_gradient.Operands(np.pad(places, (0, AHEAD), mode="edge"), offsets, sizes)
    job = Job([weight_gradient.convolve], dtype, operands, threads=threads, units=g * o_blocks, own=own)
    return job, compile_s


def _depthwise(problem: Conv2dProblem, threads: int) -> tuple[Job, float]:
    dtype, lanes, layout = np.dtype(problem.dtype), vector_lanes(problem.itemsize), image_layout(problem)
    staging, taps = layout.staging, prod(problem.kernel_size)
    outputs, plane = problem.out_channels // problem.groups, staging.sizes.plane_h * staging.sizes.plane_w
    # Vectors may be staged past the end of the planes.
    planes = round_up(staging.sizes.phases_h * staging.sizes.phases_w * plane + lanes, lanes)
    sizes = weight_gradient_depthwise.Sizes(
        batch=problem.batch, channels=problem.in_channels, outputs=outputs, taps=taps, out_h=problem.out_size[0],
        out_w=problem.out_size[1], pitch=layout.pitch, plane=plane, planes=planes, plane_rows=staging.sizes.plane_h,
    )  # fmt: skip
    convolve = weight_gradient_depthwise.convolve
    compile_s = compiled_s([convolve], dtype)
    operands = weight_gradient_depthwise.Operands(staging, layout.tap_offset, sizes)
    own = planes + outputs * taps * lanes
    return Job([convolve], dtype, operands, threads=threads, units=problem.in_channels, own=own), compile_s
