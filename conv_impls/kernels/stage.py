"""Lay the padded image out so that stride disappears: one plane a stride phase. Pure kernel.

Idea
    Row ``a`` of phase ``r`` is padded row ``a*sh + r``, and the same along columns. Every tap of the kernel then reads the
    same run of positions, only shifted, whatever the padding mode, stride and dilation: `conv_impls.layout` says by how
    much.
Source
    Zhang, Franchetti & Low 2018, arXiv:1809.10170, sec. 3, for the direct convolution that reads such planes.
Limits
    One read and one write of the image: about 5% of a dense layer, which is why layers without padding and stride skip it.
"""

from __future__ import annotations

from numba import njit, uintp


@njit(error_model="numpy")
def stage_part(part, parts, x, row_source, col_source, inner, stride_w, planes):
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
