"""Direct convolution by tap: right at every residue, with the bits of packed panels, and taken where it should be."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import pytest
from harness import check
from residues import IN_BOTH_DTYPES, ON_ONE_AND_TWO_THREADS, bits, residues

from conv_impls import Conv2dProblem, plan
from conv_impls.backends import _by_tap, numba_simd
from conv_impls.backends._layout import effective, image_layout
from conv_impls.kernels import simd
from conv_impls.kernels.tile import ROWS
from conv_impls.kernels.tile_few import WIDTHS, most_vectors
from conv_impls.registry import Prepared
from conv_impls.validation import PADDING_MODES

# Vectors along rows or positions, and along channels.
WAYS = [partial(numba_simd._prepare, by_channel=by_channel) for by_channel in (False, True)]
BY_TAP = [partial(_by_tap.prepare, by_channel=by_channel) for by_channel in (False, True)]


def compare(problems: Iterable[Conv2dProblem], threads: int) -> None:
    """Each problem is right by tap along either axis, and has the bits of both ways that pack."""
    for number, problem in enumerate(problems):
        for way in BY_TAP:
            check(problem, "numba_simd", threads, relu=number % 2 == 0, prepare=way)
        found = bits(BY_TAP[0], problem, threads)
        for way in (BY_TAP[1], *WAYS):
            np.testing.assert_array_equal(found, bits(way, problem, threads), problem.label)


@ON_ONE_AND_TWO_THREADS
@pytest.mark.parametrize(
    ("kernel", "stride", "groups"), [((1, 1), 1, 1), ((3, 3), 1, 1), ((3, 3), 2, 2), ((5, 2), 1, 3), ((7, 7), 3, 1)]
)
@IN_BOTH_DTYPES
def test_every_residue(dtype: str, step: int, kernel: tuple[int, int], stride: int, groups: int, threads: int) -> None:
    compare(list(residues(dtype, kernel, stride, groups=groups))[::step], threads)


@ON_ONE_AND_TWO_THREADS
@IN_BOTH_DTYPES
def test_every_width_up_to_the_widest_tile_and_beyond(dtype: str, step: int, threads: int) -> None:
    lanes = simd.lanes(np.dtype(dtype).itemsize)
    widths = range(1, (WIDTHS[-1] + 2) * lanes + 2, step)
    compare(
        [
            Conv2dProblem(1, 2, (3, width + 2), out_channels, (3, 3), padding=((1, 0), (0, 0)), dtype=dtype)
            for width, out_channels in product(widths, (1, 2, 3))
        ],
        threads,
    )


@pytest.mark.parametrize("out_channels", [*range(1, ROWS + 2), 2 * ROWS + 1])
def test_every_number_of_rows_with_every_number_of_vectors(out_channels: int) -> None:
    lanes, most = simd.lanes(4), most_vectors(min(out_channels, ROWS))
    widths = [vectors * lanes + more for vectors in WIDTHS if vectors <= most for more in (-1, 0, 1)]
    compare([Conv2dProblem(1, 5, (4, width + 1), out_channels, (2, 2)) for width in widths], 2)


@pytest.mark.parametrize("mode", PADDING_MODES)
@pytest.mark.parametrize("dilation", [(1, 1), (2, 3)])
def test_every_padding_with_dilation_groups_and_strides(dilation: tuple[int, int], mode: str) -> None:
    sides = ((1, 3), (4, 0))
    compare(
        [
            Conv2dProblem(2, 6, (9, 13), 12, (3, 2), stride, sides, dilation, groups, padding_mode=mode)
            for stride, groups in product([(1, 1), (2, 2), (1, 3)], [1, 2, 6])
        ],
        2,
    )


def test_a_long_reduction_and_images_of_many_sizes_have_the_same_bits() -> None:
    problems = [
        Conv2dProblem(1, 200, (5, 23), 4, (3, 3), padding=((1, 1), (1, 1))),
        Conv2dProblem(3, 900, (1, 40), 5, (1, 1)),
    ]
    assert all(problem.reduction > numba_simd.K_BLOCK for problem in problems)
    compare(problems, 2)


def test_most_vectors_leave_room_for_operands() -> None:
    for rows in range(1, ROWS + 1):
        vectors = most_vectors(rows)
        assert vectors in WIDTHS
        assert rows * vectors + min(rows, vectors) + 1 <= simd.REGISTERS or vectors == 2
        assert vectors <= most_vectors(max(rows - 1, 1))


FEW = Conv2dProblem(1, 16, (64, 64), 4, (3, 3), padding=((1, 1), (1, 1)))
TAKEN = [(FEW, "rows"), (FEW.replace(groups=4), "rows"), (FEW.replace(in_channels=64, out_channels=64), "channels")]
# Rows of one vector and one output, whatever the vectors are.
TAKEN += [(FEW.replace(in_size=(64, 65), out_channels=200), ""), (FEW.replace(out_channels=1), "rows")]
# Rows of a 1x1 image need no packing, unless few outputs let tiles be wider.
TAKEN += [
    (FEW.replace(kernel_size=(1, 1), padding=((0, 0), (0, 0)), out_channels=out_channels), by_tap)
    for out_channels, by_tap in ((1, "rows"), (ROWS, ""), (64, ""))
]
# A 1x1 kernel with a stride has few products for each position; five columns are too few rows of a tile; with four
# strides, elements are read where they are.
TAKEN += [
    (FEW.replace(kernel_size=(1, 1), padding=((0, 0), (0, 0)), in_channels=256, out_channels=512, stride=(2, 2)), ""),
    (FEW.replace(in_size=(64, 5), out_channels=64), ""),
    (Conv2dProblem(1, 3, (64, 64), 96, (4, 4), (4, 4)), "channels"),
]
# Bands that no cache holds: a row of 16,000 pixels, rows far apart; weights of a tile that none holds.
TAKEN += [
    (Conv2dProblem(1, 64, (1, 16_000), 64, (1, 3), padding=((0, 0), (1, 1))), ""),
    (FEW.replace(in_channels=64, dilation=(40, 40), padding=((40, 40), (40, 40))), ""),
    (FEW.replace(in_channels=40_000, in_size=(2, 64)), ""),
]
# One output: by channel, vectors are full.
TAKEN += [(Conv2dProblem(1, 256, (1, 1), 24, (3, 3), padding=((1, 1), (1, 1))), "")]


@pytest.mark.parametrize(("problem", "by_tap"), TAKEN, ids=lambda value: getattr(value, "label", str(value)))
def test_a_plan_goes_by_tap_where_that_is_better(
    problem: Conv2dProblem, by_tap: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def prepare(*given: Any) -> Prepared:
        asked.append(given[0])
        return made(*given)

    made = _by_tap.prepare
    monkeypatch.setattr(_by_tap, "prepare", prepare)
    weight = np.ones(problem.weight_shape, problem.dtype)
    plan(problem, weight, backend="numba_simd", threads=1)
    assert asked == [effective(problem)] * (by_tap != "")
    assert _by_tap.better(effective(problem), 1) == by_tap


@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (3, 2), (4, 2), (4, 6), (6, 4), (5, 5)])
def test_rows_of_a_band_are_those_of_the_staged_planes(stride: int, dilation: int) -> None:
    problem = FEW.replace(kernel_size=(3, 4), stride=(1, stride), dilation=(2, dilation), in_size=(40, 90))
    sizes = image_layout(problem).staging.sizes
    planes = sizes.phases_h * sizes.phases_w * sizes.plane_w * problem.in_channels * problem.itemsize
    assert _by_tap.band_rows(problem) == (planes, sizes.plane_h - problem.out_size[0])


def test_every_thread_gets_a_row() -> None:
    assert _by_tap.better(FEW.replace(in_size=(8, 64)), 8)
    assert not _by_tap.better(FEW.replace(in_size=(7, 64)), 8)
    assert _by_tap.better(FEW.replace(in_size=(7, 64), batch=2), 8)


def test_weights_that_leave_the_cache_cost_more() -> None:
    held = FEW.replace(in_channels=16, out_channels=113)
    assert held.out_channels * held.reduction * 4 <= _by_tap.WEIGHT_BYTES < (held.out_channels + 1) * held.reduction * 4
    assert _by_tap.price(held) == 1
    assert _by_tap.price(held.replace(out_channels=114)) == _by_tap.price(held.replace(dtype="float64")) > 1


@pytest.mark.parametrize(
    "label",
    [
        "mb1ic4ih20oc8oh20kh3ph1", "mb1ic4ih20oc8oh10kh3sh2ph1", "mb1ic4ih21oc8oh9kh3sh2ph0dh1",
        "mb1ic4ih24oc8oh8kh3sh3ph3dh2", "mb1ic4ih64oc8oh4kh3sh16ph0", "mb1ic4ih56oc8oh28kh1sh2ph0",
        "g2mb1ic4ih16iw48oc8oh1ow3kh16kw16sh16sw16ph0pw0",
    ],
)  # fmt: skip
def test_the_rows_that_staging_writes_are_counted(label: str) -> None:
    problem = Conv2dProblem.from_label(label)
    sizes = image_layout(problem).staging.sizes
    rows, width, shared = _by_tap.staged_rows(problem)
    assert rows == problem.in_channels // problem.groups * sizes.phases_h * sizes.phases_w
    assert (problem.out_size[0] + shared, width) == (sizes.plane_h, sizes.plane_w)
