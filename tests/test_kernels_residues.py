"""Every residue of width and channels modulo vectors and tiles: where kernels have their tails, and tests few shapes.

Small images and integers, so that hundreds of shapes take a second; a kernel is compiled once for all shapes.
"""

from __future__ import annotations

from functools import partial
from itertools import product

import pytest
from harness import check
from residues import IN_BOTH_DTYPES, ON_ONE_AND_TWO_THREADS, cuts, panel, residues

from conv_impls import Conv2dProblem
from conv_impls.backends import numba_depthwise, numba_simd
from conv_impls.backends._depthwise import Way

BY_POSITION_AND_BY_CHANNEL = pytest.mark.parametrize("by_channel", [False, True])


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


@BY_POSITION_AND_BY_CHANNEL
@pytest.mark.parametrize(("kernel", "in_place"), [(1, True), (1, False), (3, False)])
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
