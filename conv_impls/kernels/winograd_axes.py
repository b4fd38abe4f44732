"""Winograd convolution along one axis: the matrices of F(m, taps), for any stride.

Idea
    y = A^T [(G w) * (B^T x)] computes m outputs from one product per point of the matrices. With stride 1 the matrices
    follow from interpolation points (Toom-Cook). With stride s the axis splits into s phases, each a convolution of
    stride 1. Outputs are the sum of all phases, so the points of the phases are concatenated: 3 taps at stride 2 need
    2m + 1 points instead of 3m products. A kernel of more than `MOST_TAPS` taps is split into pieces in the same way.
    The point counts of the two axes multiply.
    With dilation d, outputs d apart use inputs d apart. So each of the d output phases is a convolution without
    dilation, and a tile has m outputs of one phase. Tiles of all phases take turns: their outputs fill m * d columns.
Source
    Lavin & Gray 2016, arXiv:1509.09308, sec. 4; Toom-Cook matrices: Barabasz et al. 2018, arXiv:1803.10986, sec. 2.
    Phases of a strided convolution: Vaidyanathan 1993, Multirate Systems and Filter Banks, sec. 4.3 (polyphase).
Limits
    At most 7 finite points per piece: the error grows with the number of points.
"""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from itertools import pairwise
from typing import NamedTuple

# Interpolation points: the first ones are used; infinity is always one more. Rows of p and -p share half of their work.
# For more than `PAIRED_TAPS` taps, 2 and -1/2 instead of 2 and -2 halve the largest errors (decision 0022). F(4, 3)
# keeps the pairs, because its transforms take a larger part of the time.
POINTS = (0, 1, -1, 2, -2, Fraction(1, 2), Fraction(-1, 2))
ACCURATE_POINTS, PAIRED_TAPS = (0, 1, -1, 2, Fraction(-1, 2), -2, Fraction(1, 2)), 3
# Maximum taps of a piece. With more, two outputs would need points whose powers reduce accuracy.
MOST_TAPS = 5


class Tile(NamedTuple):
    """Outputs of a tile, taps of the kernel and stride, each (down, across), and whether the kernel is dilated."""

    m: tuple[int, int]
    taps: tuple[int, int]
    stride: tuple[int, int]
    dilated: bool = False

    @property
    def name(self) -> str:
        """A unique text for this tile, used as part of a name."""
        numbers = zip("fks", (self.m, self.taps, self.stride), strict=True)
        return "_".join(f"{kind}{down}x{across}" for kind, (down, across) in numbers) + "_d" * self.dilated


class Axis(NamedTuple):
    """B^T, G and A^T as lists of rows of fractions, and the input distance between neighbouring tiles."""

    bt: list[list[Fraction]]
    g: list[list[Fraction]]
    at: list[list[Fraction]]
    step: int

    @property
    def points(self) -> int:
        """Number of products of a tile."""
        return len(self.bt)

    @property
    def span(self) -> int:
        """Number of inputs of a tile."""
        return len(self.bt[0])


@cache
def axes(tile: Tile) -> tuple[Axis, Axis]:
    """The algorithms (down, across)."""
    down, across = (axis(*numbers) for numbers in zip(tile.m, tile.taps, tile.stride, strict=True))
    return down, across


def tiles_along(outputs: int, m: int, dilation: int) -> int:
    """Number of tiles of m outputs, ``dilation`` apart, that cover an axis; kernels compile this function, too.

    >>> [tiles_along(*sizes) for sizes in ((8, 4, 1), (9, 4, 1), (8, 4, 2), (9, 4, 2), (3, 4, 2), (1, 4, 2))]
    [2, 3, 2, 3, 2, 1]
    """
    groups = -(-outputs // (m * dilation))
    # The last group has one tile for each phase that it contains.
    return (groups - 1) * dilation + min(dilation, outputs - (groups - 1) * m * dilation)


def first_output(tile: int, m: int, dilation: int) -> int:
    """The first output of a tile along an axis; the others follow ``dilation`` apart.

    >>> [first_output(tile, 4, 2) for tile in range(4)], [first_output(tile, 4, 1) for tile in range(3)]
    ([0, 1, 8, 9], [0, 4, 8])
    """
    return tile // dilation * m * dilation + tile % dilation


def pieces(taps: int, stride: int) -> list[range]:
    """The taps of each piece: the taps of one phase, or a part of them."""
    found = []
    for phase in range(min(stride, taps)):
        of_phase = range(phase, taps, stride)
        parts = -(-len(of_phase) // MOST_TAPS)
        cuts = [part * len(of_phase) // parts for part in range(parts + 1)]
        found += [of_phase[first:last] for first, last in pairwise(cuts)]
    return found


def points(m: int, taps: int, stride: int) -> int:
    """Number of products of one tile along an axis.

    >>> [points(*sizes) for sizes in ((4, 3, 1), (2, 5, 1), (2, 3, 2), (2, 7, 2), (2, 7, 1), (1, 3, 1))]
    [6, 6, 5, 9, 9, 3]
    """
    # With one output or one tap nothing is saved.
    return sum(m + len(of) - 1 if m > 1 and len(of) > 1 else m * len(of) for of in pieces(taps, stride))


def axis(m: int, taps: int, stride: int) -> Axis:
    """F(m, taps) with this stride: the points of its pieces are concatenated."""
    span = (m - 1) * stride + taps
    bt, g, at = list[list[Fraction]](), list[list[Fraction]](), [list[Fraction]() for _ in range(m)]
    for of in pieces(taps, stride):
        part_bt, part_g, part_at = matrices(m, len(of))
        bt += [_spread(row, of.start, stride, span) for row in part_bt]
        g += [_spread(row, of.start, stride, taps) for row in part_g]
        for row, more in zip(at, part_at, strict=True):
            row += more
    return Axis(bt, g, at, m * stride)


def _spread(row, first, stride, length):
    """Expand a row of a piece to the full length: its elements are ``stride`` apart, the others are zero."""
    whole = [Fraction(0)] * length
    whole[first : first + stride * (len(row) - 1) + 1 : stride] = row
    return whole


def matrices(m, taps):
    """(B^T, G, A^T) of F(m, taps) as lists of rows of fractions; the last point is infinity."""
    if m == 1 or taps == 1:
        # Nothing to save: each output is one product, or the only output is the sum of all products.
        one = [[Fraction(int(i == j)) for j in range(m * taps)] for i in range(m * taps)]
        ones = [[Fraction(1)] * (m * taps)]
        return (one, one, ones) if m == 1 else (one, [[Fraction(1)]] * m, one)
    chosen = POINTS if taps <= PAIRED_TAPS else ACCURATE_POINTS
    points = [Fraction(p) for p in chosen[: m + taps - 2]]
    b, g = [], []
    for i, p in enumerate(points):
        others = points[:i] + points[i + 1 :]
        scale = Fraction(1)
        for q in others:
            scale *= p - q
        b.append([*_polynomial(others), Fraction(0)])
        g.append([p**k / scale for k in range(taps)])
    b.append(_polynomial(points))
    g.append([Fraction(int(k == taps - 1)) for k in range(taps)])
    a = [[p**k for p in points] + [Fraction(int(k == m - 1))] for k in range(m)]
    return b, g, a


def _polynomial(roots):
    """Coefficients of prod (x - root), lowest power first."""
    result = [Fraction(1)]
    for root in roots:
        shifted = [Fraction(0), *result]
        result = [s - root * r for s, r in zip(shifted, [*result, Fraction(0)], strict=True)]
    return result
