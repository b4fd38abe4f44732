"""Winograd F(4x4, 3x3): 36 products where direct convolution needs 144."""
from __future__ import annotations

import time
from functools import cache

import numpy as np

from conv_impls.kernels import winograd
from conv_impls.kernels.memory import aligned_zeros
from conv_impls.kernels.simd import lanes as vector_lanes
from conv_impls.kernels.team import Job
from conv_impls.kernels.tile import VECTORS
from conv_impls.layout import image_layout
from conv_impls.problem import Conv2dProblem
from conv_impls.registry import Prepared, register
from conv_impls.validation import Array

V_BYTES = 512*1024

def _prepare(problem, weight, bias, threads, relu, compile_s, m=4, block=None, o_parts=None):
    if problem.kernel_size != (3, 3) or problem.stride != (1, 1) or problem.groups != 1: raise NotImplementedError
    dtype = np.dtype(problem.dtype)
    lanes = vector_lanes(dtype.itemsize)
    width, a = VECTORS * lanes, m + 2
    ic, oc = problem.in_channels, problem.out_channels
    deep, panels = -(-ic // lanes) * lanes, -(-oc // width)
    (h, w), (oh, ow) = problem.in_size, problem.out_size
    (top, _), (left, _) = problem.padding
    layout = image_layout(problem)
    staged = problem.padding_mode != "zeros"
    pitch, channel = w, h * w
    if staged:
        (h, w), top, left, pitch, channel = problem.padded_size, 0, 0, layout.pitch, layout.channel
    across, down = -(-ow // m), -(-oh // m)
    tiles = problem.batch * across * down
    if block is None:
        block = max(28, V_BYTES // (a * a * (deep+width) * dtype.itemsize))
    blocks = -(-tiles // block)
    if blocks % threads and blocks > 1:
        blocks = min(tiles, -(-blocks // threads) * threads)
    block = -(-tiles // blocks)
    if o_parts is None:
        o_parts = 1 if blocks % threads == 0 else min(threads, panels)
    area = a * (across * m + 2 + lanes) * lanes + lanes * lanes + a * a * block * (deep + width) + 64
    area = -(-area // 64) * 64
    planes = -(-(problem.batch * ic * channel + width if staged else 0) // 64) * 64
    packed = aligned_zeros((panels * a * a * deep * width,), dtype)
    room = 2 * lanes * max(lanes, 9)
    Job(winograd.transform_weights, dtype, threads, 1, threads * room, [np.array([m, ic, oc, lanes, room])])(np.ascontiguousarray(weight).reshape(-1), packed)
    sizes = np.array([m, problem.batch, ic, h, w, pitch, channel, top, left, oc, oh, ow, block, blocks, o_parts, lanes, staged, planes, area], np.int64)
    offsets = np.zeros(oc, dtype) if bias is None else bias
    floor = np.array([-np.inf, 0.0 if relu else -np.inf], dtype)
    job = Job(winograd.convolve, dtype, threads, 1 + staged, planes + threads * area, [packed, offsets, floor, layout.stage, sizes])
    return Prepared(job, packed.nbytes, job.workspace_bytes, compile_s)

@cache
def _compile(dtype: str, parallel: bool) -> None:
    problem = Conv2dProblem(1, 1, (3, 3), 1, (3, 3), padding=((1, 1), (1, 1)), dtype=dtype)
    _prepare(problem, np.ones((1, 1, 3, 3), dtype), None, 2 if parallel else 1, False, 0.0).call(np.ones((1, 1, 3, 3), dtype), np.empty(problem.output_shape, dtype))
