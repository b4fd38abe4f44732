"""Every residue of width and channels modulo vectors and tiles: where kernels have their tails, and tests few shapes.

Small images and integers, so that hundreds of shapes take a second; a kernel is compiled once for all shapes.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import product
from typing import Any

import pytest
from harness import NUMBA, check

from conv_impls import Conv2dProblem, get_backend
from conv_impls.backends import _winograd as winograd
from conv_impls.backends import numba_depthwise, numba_simd
from conv_impls.backends._depthwise import Way
from conv_impls.kernels.simd import VECTOR_BYTES
from conv_impls.kernels.tile import ROWS, VECTORS
from conv_impls.reference import TILES

WINOGRAD = [name for name in NUMBA if get_backend(name).accuracy in TILES]
# One thread runs the same code as two, on all of the work.
ON_ONE_AND_TWO_THREADS = pytest.mark.parametrize("threads", [2, pytest.param(1, marks=pytest.mark.long)])
# float64 walks through the same code with other widths: every third shape will do.
IN_BOTH_DTYPES = pytest.mark.parametrize(("dtype", "step"), [("float32", 1), ("float64", 3)])
BY_POSITION_AND_BY_CHANNEL = pytest.mark.parametrize("by_channel", [False, True])


def panel(dtype: str) -> int:
    """Columns of a register tile."""
    return VECTORS * VECTOR_BYTES // (4 if dtype == "float32" else 8)


def residues(dtype: str, kernel: int, stride: int = 1, height: int = 3) -> Iterator[Conv2dProblem]:
    """Problems with every output width, C_in and C_out modulo a panel and modulo `ROWS`, one at a time and together."""
    top = panel(dtype) + 1
    pad = kernel // 2
    sides = ((pad, pad), (pad, pad))

    def problem(width: int, channels: int, out_channels: int) -> Conv2dProblem:
        size = (height - 1) * stride + 1, (width - 1) * stride + 1
        return Conv2dProblem(1, channels, size, out_channels, (kernel, kernel), (stride, stride), sides, dtype=dtype)

    for n in range(1, top + 1):
        yield problem(n, 3, 5)
        yield problem(5, n, 3)
        # Steps that share no factor with any `top`, so that each visits all residues.
        yield problem(1 + 7 * n % top, 1 + 13 * n % top, n)
    for n in range(1, top + ROWS + 1):
        yield problem(4, 2, n)


@ON_ONE_AND_TWO_THREADS
@BY_POSITION_AND_BY_CHANNEL
@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 1), (3, 2)])
@IN_BOTH_DTYPES
def test_numba_simd_at_every_residue(
    dtype: str, step: int, kernel: int, stride: int, by_channel: bool, threads: int
) -> None:
    prepare = partial(numba_simd._prepare, by_channel=by_channel)
    for problem in list(residues(dtype, kernel, stride))[::step]:
        check(problem, "numba_simd", threads, prepare=prepare)


@ON_ONE_AND_TWO_THREADS
@pytest.mark.parametrize("backend", WINOGRAD)
@IN_BOTH_DTYPES
def test_winograd_at_every_residue(dtype: str, step: int, backend: str, threads: int) -> None:
    m = TILES[get_backend(backend).accuracy][0]
    for height in range(1, m + 2):
        for problem in list(residues(dtype, 3, height=height))[height % step :: step * m]:
            check(problem, backend, threads, relu=height % 2 == 0)
    for problem in list(residues(dtype, 3))[::step]:
        check(problem, backend, threads)


def cuts(blocks: str, shares: str) -> list[dict[str, Any]]:
    """Ways to cut the work: blocks of this size, shares of the output channels."""
    return [{blocks: size, shares: count} for size in (1, 2, 5, 1000) for count in (1, 2, 3)]


@pytest.mark.parametrize("mode", ["zeros", "reflect"])
@pytest.mark.parametrize("backend", WINOGRAD)
def test_winograd_in_blocks_that_end_within_a_row_of_tiles(backend: str, mode: str) -> None:
    m = TILES[get_backend(backend).accuracy][0]
    sides, out_channels = ((1, 1), (0, 1)), 3 * panel("float32") - 5
    problem = Conv2dProblem(2, 5, (11, 26), out_channels, (3, 3), padding=sides, padding_mode=mode)
    for cut in cuts("block", "o_parts"):
        check(problem, backend, prepare=partial(winograd.prepare, m, **cut))


@BY_POSITION_AND_BY_CHANNEL
@pytest.mark.parametrize(("kernel", "in_place"), [(1, True), (1, False), (3, True)])
@pytest.mark.parametrize("large", [False, True])
def test_numba_simd_in_parts_of_the_reduction_the_image_and_the_channels(
    kernel: int, in_place: bool, large: bool, by_channel: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if large:
        # Images and weights that no cache holds, as far as the kernels know.
        fits = numba_simd.budgets()._replace(image=0, weight=0)
        monkeypatch.setattr(numba_simd, "budgets", lambda: fits)
    problem = Conv2dProblem(2, 7, (15, 14), 2 * panel("float32") + 3, (kernel, kernel))
    for cut, panel_bytes in product(cuts("k_block", "channel_blocks"), (1, 5000)):
        prepare = partial(numba_simd._prepare, by_channel=by_channel, panel_bytes=panel_bytes, in_place=in_place, **cut)
        check(problem, "numba_simd", relu=True, prepare=prepare)


# Kernel, stride and dilation: only 3x3 slides, and by channel there are strides 1 and 2.
STEPS = [(1, 1, 1), (3, 1, 1), (3, 2, 1), (5, 1, 2), (7, 2, 1), (4, 3, 1)]
WAYS = [("position", *steps) for steps in STEPS]
WAYS += [("channel", *steps) for steps in STEPS[:5]] + [("slide", *steps) for steps in STEPS[1:3]]


@ON_ONE_AND_TWO_THREADS
@pytest.mark.parametrize(("way", "kernel", "stride", "dilation"), WAYS)
@IN_BOTH_DTYPES
def test_numba_depthwise_at_every_residue(
    dtype: str, step: int, kernel: int, stride: int, dilation: int, way: Way, threads: int
) -> None:
    prepare = partial(numba_depthwise._prepare, way=way)
    sides = ((dilation * (kernel - 1),) * 2,) * 2
    for n in range(1, panel(dtype) + 2, step):
        for channels, size in ((3, (5, n)), (n, (9, 7)), (1, (n, 4))):
            problem = Conv2dProblem(
                1,
                channels,
                size,
                channels,
                (kernel, kernel),
                (stride,) * 2,
                sides,
                (dilation,) * 2,
                channels,
                dtype=dtype,
            )
            check(problem, "numba_depthwise", threads, relu=n % 2 == 0, prepare=prepare)
