"""The algorithms of Winograd along one axis are exact: with fractions, outputs are those of the strided correlation."""

from __future__ import annotations

from fractions import Fraction
from itertools import product

import pytest

from conv_impls.kernels.winograd_axes import (
    MOST_TAPS,
    POINTS,
    Axis,
    Tile,
    axes,
    axis,
    first_output,
    pieces,
    points,
    tiles_along,
)

# What has interpolation points enough for its longest piece; one output or one tap needs none.
SIZES = [
    (m, taps, stride)
    for m, taps, stride in product(range(1, 8), range(1, 10), range(1, 4))
    if m == 1 or max(map(len, pieces(taps, stride))) - 1 <= len(POINTS) + 1 - m
]
EACH = pytest.mark.parametrize("stride", [1, 2, 3])


def departures(made: Axis, m: int, taps: int, stride: int) -> list[tuple[int, int, int]]:
    """The (output, tap, input) whose part in the outputs is not that of a correlation.

    Both sides are linear in weights and inputs, so all pairs of one weight and one input say everything.
    """
    found = []
    for output, tap, place in product(range(m), range(taps), range(made.span)):
        terms = zip(made.at[output], made.g, made.bt, strict=True)
        part = sum(a * g[tap] * b[place] for a, g, b in terms)
        if part != (place == output * stride + tap):
            found.append((output, tap, place))
    return found


@EACH
def test_every_size_computes_the_strided_correlation_exactly(stride: int) -> None:
    sizes = [(m, taps) for m, taps, step in SIZES if step == stride]
    assert len(sizes) >= 30
    for m, taps in sizes:
        made = axis(m, taps, stride)
        assert departures(made, m, taps, stride) == [], (m, taps)
        assert all(isinstance(value, Fraction) for row in (*made.bt, *made.g, *made.at) for value in row)


@EACH
def test_points_are_those_of_the_axis_and_of_its_pieces(stride: int) -> None:
    for m, taps in [(m, taps) for m, taps, step in SIZES if step == stride]:
        made = axis(m, taps, stride)
        assert points(m, taps, stride) == made.points == len(made.g) == len(made.at[0])
        assert (made.span, made.step) == ((m - 1) * stride + taps, m * stride)
        assert points(m, taps, stride) <= m * taps


@EACH
def test_pieces_have_every_tap_once_and_no_more_than_may_be(stride: int) -> None:
    for taps in range(1, 40):
        found = pieces(taps, stride)
        assert sorted(tap for of in found for tap in of) == list(range(taps))
        assert all(1 <= len(of) <= MOST_TAPS and of.step == stride for of in found)
        # Parts of one phase are as equal as can be.
        for phase in range(min(stride, taps)):
            lengths = [len(of) for of in found if of.start % stride == phase]
            assert max(lengths) - min(lengths) <= 1


def test_products_that_are_known() -> None:
    # F(2, 3) and F(4, 3) of Lavin & Gray; 3 taps at stride 2 as F(2, 2) and two products; 7 taps as 3 and 4.
    known = {(2, 3, 1): 4, (4, 3, 1): 6, (6, 3, 1): 8, (2, 5, 1): 6, (2, 3, 2): 5, (4, 3, 2): 9, (2, 7, 1): 9}
    assert {sizes: points(*sizes) for sizes in known} == known
    assert points(1, 3, 1) == points(3, 1, 1) == 3


def test_the_matrices_of_f_2_3_are_those_of_lavin_and_gray_but_for_signs() -> None:
    half = Fraction(1, 2)
    bt, g, at, _ = axis(2, 3, 1)
    assert bt == [[-1, 0, 1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, -1, 0, 1]]
    assert g == [[-1, 0, 0], [half, half, half], [half, -half, half], [0, 0, 1]]
    assert at == [[1, 1, 1, 0], [0, 1, -1, 1]]


def test_both_axes_of_a_tile_are_made_of_their_own_numbers() -> None:
    tile = Tile((1, 4), (1, 3), (2, 2))
    assert axes(tile) == (axis(1, 1, 2), axis(4, 3, 2))
    assert tile.name == "f1x4_k1x3_s2x2"
    assert tile._replace(dilated=True).name == "f1x4_k1x3_s2x2_d"


@pytest.mark.parametrize("m", [1, 2, 4])
@pytest.mark.parametrize("dilation", [1, 2, 3, 7])
def test_tiles_of_a_dilated_axis_contain_every_output_once(m: int, dilation: int) -> None:
    for outputs in range(1, 3 * m * dilation + 2):
        tiles = range(tiles_along(outputs, m, dilation))
        firsts = [first_output(tile, m, dilation) for tile in tiles]
        found = [first + step * dilation for first in firsts for step in range(m)]
        assert sorted(output for output in found if output < outputs) == list(range(outputs))
        # No tile is empty.
        assert max(firsts) < outputs


@pytest.mark.parametrize("which", ["bt", "g", "at"])
@pytest.mark.parametrize(("m", "taps", "stride"), [(2, 3, 1), (4, 3, 2), (2, 7, 1)])
def test_one_wrong_number_of_a_matrix_is_seen(m: int, taps: int, stride: int, which: str) -> None:
    right = axis(m, taps, stride)
    matrix = getattr(right, which)
    seen = 0
    for i, j in product(range(len(matrix)), range(len(matrix[0]))):
        wrong = [list(row) for row in matrix]
        wrong[i][j] += Fraction(1, 1000)
        seen += departures(Axis(**right._asdict() | {which: wrong}), m, taps, stride) != []
    assert seen == len(matrix) * len(matrix[0])


def test_the_points_of_another_stride_are_seen() -> None:
    assert departures(axis(2, 4, 1), 2, 4, 2)
    assert departures(axis(2, 4, 2), 2, 4, 1)
