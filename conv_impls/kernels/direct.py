"""Direct convolution as shifted multiply-adds that LLVM vectorises. Pure kernels: no validation, no allocation.

Idea
    `stage_*` lays the padded image out so that stride disappears: one plane a stride phase, row ``a`` of phase ``r``
    being padded row ``a*sh + r``. Every tap then reads the same run of positions, only shifted:

        y[m, j] += w[m, k] * x[tap_offset[k] + j]          j = 0 .. n-1, unit stride

    `_update_4x6` does that for 4 rows and 6 taps at once. The formula is symmetric, so the unit-stride axis ``j``
    may be positions (large images) or output channels (small images): the two ``_part`` functions swap operands.
Source
    Direct convolution without im2col: Zhang, Franchetti & Low 2018, arXiv:1809.10170, sec. 3. Blocking of the
    reduction for the caches: Goto & van de Geijn 2008, doi:10.1145/1356052.1356053, sec. 4.
Limits
    Accumulators live in L1: plain Numba cannot keep an array in registers. Explicit SIMD tiles will go further.

ic, oc are channels, oh, ow output sizes, as in benchdnn; offsets count elements of flat arrays.
"""

from numba import njit, prange, uintp

from conv_impls.kernels.runtime import target
from conv_impls.kernels.runtime.cache import kernel

# Positions (or channels) in one accumulator row. 256 float32 = 1 KiB: 4 accumulator and 6 operand rows fit L1.
BLOCK = 256
# Rows are stored for whole groups of 16, so that no vector width up to 16 needs a scalar tail: with the trip count
# known to be a multiple of 16, LLVM drops the tail and, with it, the register spills (81 -> 95 GFLOP/s in L1).
LANES = 16
# Rows of a task at most: 64 rows * 1 KiB of accumulators stay in L2.
ROWS = 64
# Taps between two visits of an accumulator row; a multiple of 6. From 18 to 96 nothing changed beyond noise.
TAPS = 66

# 24 coefficients + 6 operands + 1 accumulator want 32 registers; with 16, 4x3 is what fits.
WIDE = target.registers() == 32

# "contract" lets LLVM fuse a*b + c; nothing else of IEEE is given up, so NaN and Inf behave.
FASTMATH = {"contract"}


@njit(fastmath=FASTMATH, error_model="numpy")
def _update_4x6(acc, row, groups, v, v_base, v_step, s, s0, s1, s2, s3, s_step, k):
    """acc[row+m, j] += sum over t of s[s_m + s_step[k+t]] * v[v_base + v_step[k+t] + j], m in 0..3, t in 0..5.

    j runs over 0 .. 16*groups-1. 108 GFLOP/s in L1 where the FMA peak is 122 and 4x3 gets 97.
    """
    k0, k1, k2 = s_step[k], s_step[k + 1], s_step[k + 2]
    k3, k4, k5 = s_step[k + 3], s_step[k + 4], s_step[k + 5]
    a00, a01, a02, a03, a04, a05 = s[s0 + k0], s[s0 + k1], s[s0 + k2], s[s0 + k3], s[s0 + k4], s[s0 + k5]
    a10, a11, a12, a13, a14, a15 = s[s1 + k0], s[s1 + k1], s[s1 + k2], s[s1 + k3], s[s1 + k4], s[s1 + k5]
    a20, a21, a22, a23, a24, a25 = s[s2 + k0], s[s2 + k1], s[s2 + k2], s[s2 + k3], s[s2 + k4], s[s2 + k5]
    a30, a31, a32, a33, a34, a35 = s[s3 + k0], s[s3 + k1], s[s3 + k2], s[s3 + k3], s[s3 + k4], s[s3 + k5]
    # Unsigned indices spare the branch for negative ones, without which LLVM does not vectorise (15 -> 81 GFLOP/s).
    u0, u1, u2 = uintp(v_base + v_step[k]), uintp(v_base + v_step[k + 1]), uintp(v_base + v_step[k + 2])
    u3, u4, u5 = uintp(v_base + v_step[k + 3]), uintp(v_base + v_step[k + 4]), uintp(v_base + v_step[k + 5])
    r0 = uintp(row * BLOCK)
    r1, r2, r3 = r0 + uintp(BLOCK), r0 + uintp(2 * BLOCK), r0 + uintp(3 * BLOCK)
    for j in range(uintp(groups) * uintp(LANES)):
        b0, b1, b2, b3, b4, b5 = v[u0 + j], v[u1 + j], v[u2 + j], v[u3 + j], v[u4 + j], v[u5 + j]
        acc[r0 + j] = acc[r0 + j] + a00 * b0 + a01 * b1 + a02 * b2 + a03 * b3 + a04 * b4 + a05 * b5
        acc[r1 + j] = acc[r1 + j] + a10 * b0 + a11 * b1 + a12 * b2 + a13 * b3 + a14 * b4 + a15 * b5
        acc[r2 + j] = acc[r2 + j] + a20 * b0 + a21 * b1 + a22 * b2 + a23 * b3 + a24 * b4 + a25 * b5
        acc[r3 + j] = acc[r3 + j] + a30 * b0 + a31 * b1 + a32 * b2 + a33 * b3 + a34 * b4 + a35 * b5


@njit(fastmath=FASTMATH, error_model="numpy")
def _update_4x3(acc, row, groups, v, v_base, v_step, s, s0, s1, s2, s3, s_step, k):
    """`_update_4x6` with three taps: for 16 registers, and for the rest of the taps."""
    k0, k1, k2 = s_step[k], s_step[k + 1], s_step[k + 2]
    a00, a01, a02 = s[s0 + k0], s[s0 + k1], s[s0 + k2]
    a10, a11, a12 = s[s1 + k0], s[s1 + k1], s[s1 + k2]
    a20, a21, a22 = s[s2 + k0], s[s2 + k1], s[s2 + k2]
    a30, a31, a32 = s[s3 + k0], s[s3 + k1], s[s3 + k2]
    u0, u1, u2 = uintp(v_base + v_step[k]), uintp(v_base + v_step[k + 1]), uintp(v_base + v_step[k + 2])
    r0 = uintp(row * BLOCK)
    r1, r2, r3 = r0 + uintp(BLOCK), r0 + uintp(2 * BLOCK), r0 + uintp(3 * BLOCK)
    for j in range(uintp(groups) * uintp(LANES)):
        b0, b1, b2 = v[u0 + j], v[u1 + j], v[u2 + j]
        acc[r0 + j] = acc[r0 + j] + a00 * b0 + a01 * b1 + a02 * b2
        acc[r1 + j] = acc[r1 + j] + a10 * b0 + a11 * b1 + a12 * b2
        acc[r2 + j] = acc[r2 + j] + a20 * b0 + a21 * b1 + a22 * b2
        acc[r3 + j] = acc[r3 + j] + a30 * b0 + a31 * b1 + a32 * b2


@njit(fastmath=FASTMATH, error_model="numpy")
def _update_1x3(acc, row, groups, v, v_base, v_step, s, s0, s_step, k):
    """One row, three taps: row tails and depthwise convolution."""
    a0, a1, a2 = s[s0 + s_step[k]], s[s0 + s_step[k + 1]], s[s0 + s_step[k + 2]]
    u0, u1, u2 = uintp(v_base + v_step[k]), uintp(v_base + v_step[k + 1]), uintp(v_base + v_step[k + 2])
    r = uintp(row * BLOCK)
    for j in range(uintp(groups) * uintp(LANES)):
        acc[r + j] = acc[r + j] + a0 * v[u0 + j] + a1 * v[u1 + j] + a2 * v[u2 + j]


@njit(fastmath=FASTMATH, error_model="numpy")
def _update_1x1(acc, row, groups, v, v0, a0):
    """One row, one tap: what is left when the number of taps is no multiple of 3."""
    u0 = uintp(v0)
    r = uintp(row * BLOCK)
    for j in range(uintp(groups) * uintp(LANES)):
        acc[r + j] = acc[r + j] + a0 * v[u0 + j]


@njit(error_model="numpy")
def _accumulate(acc, rows, groups, v, v_base, v_step, s, s_base, s_row, s_step):
    """acc[m, j] = sum over k of s[s_base + s_row[m] + s_step[k]] * v[v_base + v_step[k] + j]."""
    taps = v_step.shape[0]
    acc[: rows * BLOCK] = 0
    fours = rows // 4 * 4
    for first in range(0, taps, TAPS):
        last = min(first + TAPS, taps)
        triples = first + (last - first) // 3 * 3
        sixes = first + (last - first) // 6 * 6 if WIDE else first
        for m in range(0, fours, 4):
            s0, s1, s2, s3 = s_base + s_row[m], s_base + s_row[m + 1], s_base + s_row[m + 2], s_base + s_row[m + 3]
            for k in range(first, sixes, 6):
                _update_4x6(acc, m, groups, v, v_base, v_step, s, s0, s1, s2, s3, s_step, k)
            for k in range(sixes, triples, 3):
                _update_4x3(acc, m, groups, v, v_base, v_step, s, s0, s1, s2, s3, s_step, k)
        for m in range(fours, rows):
            for k in range(first, triples, 3):
                _update_1x3(acc, m, groups, v, v_base, v_step, s, s_base + s_row[m], s_step, k)
        for m in range(rows):
            for k in range(triples, last):
                _update_1x1(acc, m, groups, v, v_base + v_step[k], s[s_base + s_row[m] + s_step[k]])


@njit(error_model="numpy")
def _positions_part(
    part, parts, planes, image, pitch, weight, bias, y, acc, tap_offset, tap_step, row_base, groups, lanes, rows
):
    """Unit stride along positions: ``planes`` is the vector side, ``weight`` (oc * taps,) the scalar side."""
    mb, oc, oh, ow = y.shape
    oc_group = oc // groups
    span = (oh - 1) * pitch + ow
    v_blocks, m_blocks = -(-span // lanes), -(-oc_group // rows)
    tasks = mb * groups * v_blocks * m_blocks
    flat = y.reshape(mb, oc, oh * ow)
    for task in range(part * tasks // parts, (part + 1) * tasks // parts):
        ng, first, m0 = task // (m_blocks * v_blocks), task // m_blocks % v_blocks * lanes, task % m_blocks * rows
        n, o0 = ng // groups, ng % groups * oc_group + m0
        last, here = min(first + lanes, span), min(rows, oc_group - m0)
        chunks = -(-(last - first) // LANES)
        base = ng * image + first
        _accumulate(acc[part], here, chunks, planes, base, tap_offset, weight, 0, row_base[o0:], tap_step)
        for m in range(here):
            _store_row(flat[n, o0 + m], acc[part, m * BLOCK :], bias[o0 + m], first, last, ow, pitch)


@njit(error_model="numpy")
def _store_row(image, row, offset, first, last, ow, pitch):
    """Positions ``first`` to ``last`` of a row of accumulators, less the gaps between image rows, plus the bias."""
    if pitch == ow:
        for q in range(uintp(last - first)):
            image[uintp(first) + q] = row[q] + offset
        return
    i, j, q = first // pitch, first % pitch, 0
    while first + q < last:
        to, count = i * ow + j, min(ow - j, last - first - q)
        for step in range(uintp(max(count, 0))):
            image[uintp(to) + step] = row[uintp(q) + step] + offset
        q += pitch - j
        i, j = i + 1, 0


@njit(error_model="numpy")
def _channels_part(
    part, parts, planes, image, pitch, weight, bias, y, acc, tap_offset, tap_step, row_base, groups, lanes, rows
):
    """Unit stride along output channels: ``weight`` (groups * taps * oc_padded,) is the vector side."""
    mb, oc, oh, ow = y.shape
    oc_group, packed = oc // groups, weight.shape[0] // groups
    v_blocks, m_blocks = -(-oc_group // lanes), -(-oh * ow // rows)
    tasks = mb * groups * v_blocks * m_blocks
    flat = y.reshape(mb, oc, oh * ow)
    for task in range(part * tasks // parts, (part + 1) * tasks // parts):
        ng, first, p0 = task // (m_blocks * v_blocks), task // m_blocks % v_blocks * lanes, task % m_blocks * rows
        n, g = ng // groups, ng % groups
        last, here = min(first + lanes, oc_group), min(rows, oh * ow - p0)
        chunks = -(-(last - first) // LANES)
        base = g * packed + first
        _accumulate(acc[part], here, chunks, weight, base, tap_step, planes, ng * image, row_base[p0:], tap_offset)
        for j in range(last - first):
            o = g * oc_group + first + j
            for m in range(here):
                flat[n, o, p0 + m] = acc[part, m * BLOCK + j] + bias[o]


@njit(error_model="numpy")
def _stage_part(part, parts, x, row_source, col_source, inner, stride_w, planes):
    """Copy this part's channels into stride phases; a source index of -1 is a zero of the padding.

    ``inner[s]`` is the range of columns of phase ``s`` that lie inside the image, at equal steps of ``stride_w``.
    """
    mb, ic, _, _ = x.shape
    phases_h, plane_h = row_source.shape
    phases_w, plane_w = col_source.shape
    channel = phases_h * phases_w * plane_h * plane_w
    for nc in range(part * mb * ic // parts, (part + 1) * mb * ic // parts):
        n, c, to = nc // ic, nc % ic, nc * channel
        for r in range(phases_h):
            for s in range(phases_w):
                low, high = inner[s, 0], inner[s, 1]
                for a in range(plane_h):
                    row = row_source[r, a]
                    if row < 0:
                        planes[to : to + plane_w] = 0
                    else:
                        for b in range(low):
                            col = col_source[s, b]
                            planes[to + b] = x[n, c, row, col] if col >= 0 else 0
                        _copy_row(planes, to + low, x[n, c, row], col_source[s, low], stride_w, high - low)
                        for b in range(high, plane_w):
                            col = col_source[s, b]
                            planes[to + b] = x[n, c, row, col] if col >= 0 else 0
                    to += plane_w


@njit(error_model="numpy")
def _copy_row(planes, to, row, first, stride, count):
    """A loop for each common stride, so that LLVM vectorises it: the general gather took a third of some layers."""
    start = uintp(to)
    if stride == 1:
        for b in range(uintp(count)):
            planes[start + b] = row[uintp(first) + b]
    elif stride == 2:
        for b in range(uintp(count)):
            planes[start + b] = row[uintp(first) + b * uintp(2)]
    else:
        for b in range(uintp(count)):
            planes[start + b] = row[uintp(first) + b * uintp(stride)]


@kernel()
def stage_serial(parts, *operands):
    _stage_part(0, 1, *operands)


@kernel(parallel=True)
def stage_parallel(parts, *operands):
    for part in prange(parts):
        _stage_part(part, parts, *operands)


@kernel()
def convolve_serial(parts, by_channel, *operands):
    if by_channel:
        _channels_part(0, 1, *operands)
    else:
        _positions_part(0, 1, *operands)


@kernel(parallel=True)
def convolve_parallel(parts, by_channel, *operands):
    for part in prange(parts):
        if by_channel:
            _channels_part(part, parts, *operands)
        else:
            _positions_part(part, parts, *operands)
