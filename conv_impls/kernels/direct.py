"""Direct convolution as shifted multiply-adds that LLVM vectorises. Pure kernel.

Idea
    `conv_impls.kernels.stage` removes padding and stride. Then every tap of a convolution reads the same run of
    positions with a different shift:

        sums[m, j] += weight[m, k] * image[offset[k] + j]          j = 0 .. n-1, unit stride

    `_update_4x6` does that for 4 rows and 6 taps at once, so each loaded value is used several times. The formula is
    symmetric. For large images the unit-stride axis ``j`` is positions and ``m`` is output channels; for small images
    it is the reverse. `_convolve_part` only swaps the operands.
Source
    Direct convolution without im2col: Zhang, Franchetti & Low 2018, arXiv:1809.10170, sec. 3. Blocking of the
    reduction for the caches: Goto & van de Geijn 2008, doi:10.1145/1356052.1356053, sec. 4.
Order
    Each sum starts at 0, adds its taps in the order (channel, row, column), one multiply-add each, and adds the bias
    last. Tails, blocks and orientation do not change this order, so equal windows give equal bits at every position.
Limits
    The sums are in L1: plain Numba cannot keep an array in registers. `conv_impls.kernels.tile` can.

Operands are tuples; all indices count elements of flat arrays:

    vectors  (array, base, steps)              of tap k, element j:  array[base + steps[k] + j]
    factors  (array, base, places, steps)      of row m, tap k:      array[base + places[m] + steps[k]]
    sums     (array, at)                       of row m, element j:  array[at + m*BLOCK + j]
"""

from __future__ import annotations

from typing import NamedTuple

from numba import uintp

from conv_impls.kernels.runtime import target
from conv_impls.kernels.runtime.compile import helper, kernel
from conv_impls.kernels.runtime.operands import Floats, Integers, of_call, of_plan
from conv_impls.kernels.stage import Staging

# Elements of one row of sums. 256 float32 = 1 KiB: 4 rows of sums and 6 rows of operands fit L1.
BLOCK = 256
# Rows are computed in whole chunks of 16, so no vector width up to 16 needs a scalar tail. LLVM knows that the trip
# count is a multiple of 16; it drops the tail and the register spills with it (81 -> 95 GFLOP/s in L1).
LANES = 16
# Maximum rows of a task: 64 rows * 1 KiB of sums stay in L2.
ROWS = 64
# Taps added per pass over a row of sums; a multiple of 6. Values from 18 to 96 differ only by noise.
TAPS = 66

# 24 factors + 6 operands + 1 sum need 32 registers; 4x3 fits 16.
WIDE = target.registers() == 32

# "contract" lets LLVM fuse a*b + c. All other IEEE rules hold, so NaN and Inf are correct. `_accumulate` sets it for
# all updates, which are inlined: a call would pass some 50 words on the stack.
FASTMATH = {"contract"}


class Sizes(NamedTuple):
    """Integer parameters of `convolve`. A group is one of ``groups`` of channels."""

    # Images times groups; groups; output channels of a group; products per output.
    images: int
    groups: int
    out_channels: int
    taps: int
    # Positions of one result image; length of its rows; distance of these rows in the source.
    positions: int
    out_width: int
    pitch: int
    # Elements of one group in one source image, and in the weights.
    image: int
    weight: int
    # 1 if vectors run along channels; total elements and rows; elements and rows of a task.
    by_channel: int
    across: int
    down: int
    block: int
    rows: int
    # 1 if staged planes are read.
    staged: int


class Operands(NamedTuple):
    """Data that a plan prepares for `convolve`."""

    staging: Staging
    # (group, output channel, tap); by channel: (group, tap, output channel).
    weight: Floats
    bias: Floats
    # One number: the lower clamp of each final sum.
    clamp: Floats
    # Offset of each tap in the image and in the weights, and start of each row of factors.
    offsets: Integers
    steps: Integers
    places: Integers
    sizes: Sizes


@helper(inline="always")
def _update_4x6(sums, m, chunks, vectors, factors, k):
    """sums[m+i, j] += sum over t of factors[m+i, k+t] * vectors[k+t, j] for i < 4, t < 6, j < 16*chunks.

    108 GFLOP/s in L1; the FMA peak is 122, 4x3 reaches 97.
    """
    (c, at), (v, v0, v_step), (s, s0, place, s_step) = sums, vectors, factors
    k0, k1, k2 = s0 + s_step[k], s0 + s_step[k + 1], s0 + s_step[k + 2]
    k3, k4, k5 = s0 + s_step[k + 3], s0 + s_step[k + 4], s0 + s_step[k + 5]
    m0, m1, m2, m3 = place[m], place[m + 1], place[m + 2], place[m + 3]
    a00, a01, a02, a03, a04, a05 = s[m0 + k0], s[m0 + k1], s[m0 + k2], s[m0 + k3], s[m0 + k4], s[m0 + k5]
    a10, a11, a12, a13, a14, a15 = s[m1 + k0], s[m1 + k1], s[m1 + k2], s[m1 + k3], s[m1 + k4], s[m1 + k5]
    a20, a21, a22, a23, a24, a25 = s[m2 + k0], s[m2 + k1], s[m2 + k2], s[m2 + k3], s[m2 + k4], s[m2 + k5]
    a30, a31, a32, a33, a34, a35 = s[m3 + k0], s[m3 + k1], s[m3 + k2], s[m3 + k3], s[m3 + k4], s[m3 + k5]
    # Unsigned indices avoid the branch for negative ones, which prevents vectorisation by LLVM (15 -> 81 GFLOP/s).
    u0, u1, u2 = uintp(v0 + v_step[k]), uintp(v0 + v_step[k + 1]), uintp(v0 + v_step[k + 2])
    u3, u4, u5 = uintp(v0 + v_step[k + 3]), uintp(v0 + v_step[k + 4]), uintp(v0 + v_step[k + 5])
    r0 = uintp(at + m * BLOCK)
    r1, r2, r3 = r0 + uintp(BLOCK), r0 + uintp(2 * BLOCK), r0 + uintp(3 * BLOCK)
    for j in range(uintp(chunks) * uintp(LANES)):
        b0, b1, b2, b3, b4, b5 = v[u0 + j], v[u1 + j], v[u2 + j], v[u3 + j], v[u4 + j], v[u5 + j]
        c[r0 + j] = c[r0 + j] + a00 * b0 + a01 * b1 + a02 * b2 + a03 * b3 + a04 * b4 + a05 * b5
        c[r1 + j] = c[r1 + j] + a10 * b0 + a11 * b1 + a12 * b2 + a13 * b3 + a14 * b4 + a15 * b5
        c[r2 + j] = c[r2 + j] + a20 * b0 + a21 * b1 + a22 * b2 + a23 * b3 + a24 * b4 + a25 * b5
        c[r3 + j] = c[r3 + j] + a30 * b0 + a31 * b1 + a32 * b2 + a33 * b3 + a34 * b4 + a35 * b5


@helper(inline="always")
def _update_4x3(sums, m, chunks, vectors, factors, k):
    """`_update_4x6` with three taps: for 16 registers, and for the rest of the taps."""
    (c, at), (v, v0, v_step), (s, s0, place, s_step) = sums, vectors, factors
    k0, k1, k2 = s0 + s_step[k], s0 + s_step[k + 1], s0 + s_step[k + 2]
    m0, m1, m2, m3 = place[m], place[m + 1], place[m + 2], place[m + 3]
    a00, a01, a02 = s[m0 + k0], s[m0 + k1], s[m0 + k2]
    a10, a11, a12 = s[m1 + k0], s[m1 + k1], s[m1 + k2]
    a20, a21, a22 = s[m2 + k0], s[m2 + k1], s[m2 + k2]
    a30, a31, a32 = s[m3 + k0], s[m3 + k1], s[m3 + k2]
    u0, u1, u2 = uintp(v0 + v_step[k]), uintp(v0 + v_step[k + 1]), uintp(v0 + v_step[k + 2])
    r0 = uintp(at + m * BLOCK)
    r1, r2, r3 = r0 + uintp(BLOCK), r0 + uintp(2 * BLOCK), r0 + uintp(3 * BLOCK)
    for j in range(uintp(chunks) * uintp(LANES)):
        b0, b1, b2 = v[u0 + j], v[u1 + j], v[u2 + j]
        c[r0 + j] = c[r0 + j] + a00 * b0 + a01 * b1 + a02 * b2
        c[r1 + j] = c[r1 + j] + a10 * b0 + a11 * b1 + a12 * b2
        c[r2 + j] = c[r2 + j] + a20 * b0 + a21 * b1 + a22 * b2
        c[r3 + j] = c[r3 + j] + a30 * b0 + a31 * b1 + a32 * b2


@helper(inline="always")
def _update_1x3(sums, m, chunks, vectors, factors, k):
    """One row, three taps: for the rest of the rows, and for depthwise convolution."""
    (c, at), (v, v0, v_step), (s, s0, place, s_step) = sums, vectors, factors
    m0 = s0 + place[m]
    a0, a1, a2 = s[m0 + s_step[k]], s[m0 + s_step[k + 1]], s[m0 + s_step[k + 2]]
    u0, u1, u2 = uintp(v0 + v_step[k]), uintp(v0 + v_step[k + 1]), uintp(v0 + v_step[k + 2])
    r0 = uintp(at + m * BLOCK)
    for j in range(uintp(chunks) * uintp(LANES)):
        c[r0 + j] = c[r0 + j] + a0 * v[u0 + j] + a1 * v[u1 + j] + a2 * v[u2 + j]


@helper(inline="always")
def _update_1x1(sums, m, chunks, vectors, factors, k):
    """One row, one tap: for the remaining taps if their number is not a multiple of 3."""
    (c, at), (v, v0, v_step), (s, s0, place, s_step) = sums, vectors, factors
    a0, u0, r0 = s[s0 + place[m] + s_step[k]], uintp(v0 + v_step[k]), uintp(at + m * BLOCK)
    for j in range(uintp(chunks) * uintp(LANES)):
        c[r0 + j] = c[r0 + j] + a0 * v[u0 + j]


@helper(fastmath=FASTMATH)
def _accumulate(sums, count, chunks, taps, vectors, factors):
    """sums[m, j] = sum over k of factors[m, k] * vectors[k, j], for m < count, k < taps and j < 16*chunks."""
    array, at = sums
    for m in range(count):
        for j in range(uintp(chunks) * uintp(LANES)):
            array[uintp(at + m * BLOCK) + j] = 0
    fours = count // 4 * 4
    for first in range(0, taps, TAPS):
        last = min(first + TAPS, taps)
        triples = first + (last - first) // 3 * 3
        sixes = first + (last - first) // 6 * 6 if WIDE else first
        for m in range(0, fours, 4):
            for k in range(first, sixes, 6):
                _update_4x6(sums, m, chunks, vectors, factors, k)
            for k in range(sixes, triples, 3):
                _update_4x3(sums, m, chunks, vectors, factors, k)
        for m in range(fours, count):
            for k in range(first, triples, 3):
                _update_1x3(sums, m, chunks, vectors, factors, k)
        for m in range(count):
            for k in range(triples, last):
                _update_1x1(sums, m, chunks, vectors, factors, k)


@helper
def _store_positions(sums, span, y, sizes, bias, clamp):
    """Store one row of sums, positions ``span`` (first, last), into an image, without the gaps between its rows.

    ``sums``, ``y`` and ``bias`` are (array, at).
    """
    (row, at), (image, to), (offsets, channel), (first, last) = sums, y, bias, span
    offset, p = offsets[channel], first
    i, j = p // sizes.pitch, p % sizes.pitch
    while p < last:
        here, there = uintp(at + p - first), uintp(to + i * sizes.out_width + j)
        for q in range(uintp(max(min(sizes.out_width - j, last - p), 0))):
            total = row[here + q] + offset
            image[there + q] = clamp if total < clamp else total
        p += sizes.pitch - j
        i, j = i + 1, 0


@helper
def _store_channels(sums, count, lanes, y, bias, clamp):
    """Store row m, element j of the sums at position m of channel j. ``y`` is (array, at, elements of a channel)."""
    (array, at), (image, to, positions), (offsets, channel) = sums, y, bias
    for j in range(lanes):
        offset, here, there = offsets[channel + j], uintp(at + j), uintp(to + j * positions)
        for m in range(uintp(count)):
            total = array[here + m * uintp(BLOCK)] + offset
            image[there + m] = clamp if total < clamp else total


@helper
def _convolve_part(part, parts, source, y, sums, plan):
    """Run the tasks of this part: blocks of at most ``rows`` rows and ``block`` elements, of one group of one image."""
    sizes, clamp = plan.sizes, plan.clamp[0]
    blocks, strips = -(-sizes.across // sizes.block), -(-sizes.down // sizes.rows)
    tasks, (work, at) = sizes.images * blocks * strips, sums
    for task in range(part * tasks // parts, (part + 1) * tasks // parts):
        image, block, strip = task // (strips * blocks), task // strips % blocks, task % strips
        first, m0 = block * sizes.block, strip * sizes.rows
        lanes, count = min(sizes.block, sizes.across - first), min(sizes.rows, sizes.down - m0)
        x_base, w_base = image * sizes.image, image % sizes.groups * sizes.weight
        if sizes.by_channel:
            vectors = plan.weight, w_base + first, plan.steps
            factors = source, x_base, plan.places[m0:], plan.offsets
        else:
            vectors = source, x_base + first, plan.offsets
            factors = plan.weight, w_base, plan.places[m0:], plan.steps
        _accumulate(sums, count, -(-lanes // LANES), sizes.taps, vectors, factors)
        if sizes.by_channel:
            to = (image * sizes.out_channels + first) * sizes.positions + m0
            bias = plan.bias, image % sizes.groups * sizes.out_channels + first
            _store_channels(sums, count, lanes, (y, to, sizes.positions), bias, clamp)
        else:
            for m in range(m0, m0 + count):
                row, to = (work, at + (m - m0) * BLOCK), (image * sizes.out_channels + m) * sizes.positions
                bias = plan.bias, image % sizes.groups * sizes.out_channels + m
                _store_positions(row, (first, first + lanes), (y, to), sizes, bias, clamp)


@kernel
def convolve(part, parts, operands):
    """Convolve from the image, or from its planes if it was staged."""
    x, y, work, at = of_call(operands)
    plan = of_plan(operands, Operands)
    _convolve_part(part, parts, work if plan.sizes.staged else x, y, (work, at), plan)
