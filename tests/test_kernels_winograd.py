"""The kernels of Winograd at every residue of sizes modulo tiles and vectors: strides, groups, kernels of every shape.

Small images and integers. Each kernel size, stride and dtype is compiled for itself, so the short form has few of them.
"""

from __future__ import annotations

from functools import partial
from itertools import product

import pytest
from harness import NUMBA, check
from residues import IN_BOTH_DTYPES, ON_ONE_AND_TWO_THREADS, cuts, panel, residues

from conv_impls import Conv2dProblem, get_backend
from conv_impls.backends import _winograd as winograd
from conv_impls.reference import TILES

WINOGRAD = [name for name in NUMBA if get_backend(name).accuracy in TILES]
# Of each backend the kernel that it is named after, and the strides.
NAMED = [(name, 5 if "5x5" in name else 3) for name in WINOGRAD]
STRIDED = [("numba_winograd_f2", 3), ("numba_winograd_f4", 3), ("numba_winograd_f2_5x5", 7)]
# Kernel, stride, groups.
FORMS = [
    ("numba_winograd_f2", (3, 3), 2, 1), ("numba_winograd_f2", (3, 3), 2, 3), ("numba_winograd_f4", (3, 3), 1, 2),
    ("numba_winograd_f4", (3, 3), 2, 1), ("numba_winograd_f2_5x5", (5, 5), 1, 2),
]  # fmt: skip
RARE = [
    ("numba_winograd_f2", (2, 2), 1, 1), ("numba_winograd_f2", (1, 3), 1, 1), ("numba_winograd_f2", (5, 5), 2, 1),
    ("numba_winograd_f2_5x5", (1, 7), 1, 1), ("numba_winograd_f2_5x5", (7, 1), 1, 1),
    ("numba_winograd_f2_5x5", (7, 7), 2, 1),
]  # fmt: skip
VERY_RARE = [
    ("numba_winograd_f2", (1, 3), 2, 1), ("numba_winograd_f2", (6, 6), 1, 1), ("numba_winograd_f2", (1, 4), 2, 2),
    ("numba_winograd_f2_5x5", (4, 4), 1, 1), ("numba_winograd_f4", (3, 1), 2, 1), ("numba_winograd_f4", (2, 2), 1, 1),
    ("numba_winograd_f6", (3, 3), 1, 2), ("numba_winograd_f6", (1, 2), 1, 1),
]  # fmt: skip
LONG = [*((*form, "float64", 3) for form in RARE), *((*form, "float32", 1) for form in VERY_RARE)]
CASES = [
    *((*form, dtype, step) for form in FORMS for dtype, step in (("float32", 1), ("float64", 3))),
    *((*form, "float32", 1) for form in RARE),
    *(pytest.param(*case, marks=pytest.mark.long) for case in LONG),
]


@ON_ONE_AND_TWO_THREADS
@pytest.mark.parametrize(("backend", "kernel"), NAMED)
@IN_BOTH_DTYPES
def test_every_residue(dtype: str, step: int, backend: str, kernel: int, threads: int) -> None:
    m = TILES[get_backend(backend).accuracy][0]
    for height in range(1, m + 2):
        for problem in list(residues(dtype, kernel, height=height))[height % step :: step * m]:
            check(problem, backend, threads, relu=height % 2 == 0)
    for problem in list(residues(dtype, kernel))[::step]:
        check(problem, backend, threads)


@ON_ONE_AND_TWO_THREADS
@pytest.mark.parametrize(("backend", "kernel", "stride", "groups", "dtype", "step"), CASES)
def test_every_residue_of_other_kernels_strides_and_groups(
    backend: str, kernel: tuple[int, int], stride: int, groups: int, dtype: str, step: int, threads: int
) -> None:
    m = TILES[get_backend(backend).accuracy][0]
    for height in range(1, 2 * m + 2):
        problems = list(residues(dtype, kernel, stride, height, groups))
        for problem in problems[height % 3 :: 3 * step]:
            check(problem, backend, threads, relu=height % 2 == 0)


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
@pytest.mark.parametrize(("backend", "kernel"), STRIDED)
def test_padding_that_shows_the_image_with_strides(backend: str, kernel: int, mode: str) -> None:
    pad = kernel // 2
    for height, width, groups in product(range(5, 9), (6, 7, 19, 32, 33), (1, 2)):
        for sides in (((pad, pad), (pad, pad)), ((0, pad), (pad, 1)), ((pad, 0), (0, pad))):
            check(
                Conv2dProblem(
                    2, 3 * groups, (height, width), 5 * groups, (kernel, kernel), (2, 2), sides, groups=groups,
                    padding_mode=mode,
                ),
                backend,
            )  # fmt: skip


DILATIONS = [(1, 2), (2, 1), (3, 2), (5, 9)]


@ON_ONE_AND_TWO_THREADS
@pytest.mark.parametrize(("backend", "kernel"), NAMED)
@IN_BOTH_DTYPES
def test_every_size_modulo_the_tiles_of_dilated_kernels(
    dtype: str, step: int, backend: str, kernel: int, threads: int
) -> None:
    m, width = TILES[get_backend(backend).accuracy][0], panel(dtype)
    for dilation in DILATIONS[:: 1 if step == 1 else 3]:
        for n in range(1, 2 * m * max(dilation) + 2, step):
            # Steps that share no factor with the sizes, so that each visits all residues.
            size, channels = (1 + 5 * n % (2 * m * dilation[0] + 1), n), (1 + 13 * n % width, 1 + 7 * n % width)
            top, left = ((d * (kernel - 1) // 2 + n % 2, (d * (kernel - 1) + 1) // 2) for d in dilation)
            problem = Conv2dProblem(
                1 + n % 2, channels[0], size, channels[1], (kernel, kernel), (1, 1), (top, left), dilation, dtype=dtype
            )
            check(problem, backend, threads, relu=n % 2 == 0)


@pytest.mark.parametrize("mode", ["zeros", "circular"])
@pytest.mark.parametrize(("backend", "kernel"), NAMED)
def test_blocks_of_dilated_kernels_contain_whole_groups_of_tiles(backend: str, kernel: int, mode: str) -> None:
    m = TILES[get_backend(backend).accuracy][0]
    for dilation, groups in product(DILATIONS, (1, 2)):
        rows, columns = ((min(d * (kernel - 1) // 2, 9),) * 2 for d in dilation)
        height, width = (d * (kernel - 1) + 1 + n for d, n in zip(dilation, (4, 21), strict=True))
        problem = Conv2dProblem(
            2,
            5 * groups,
            (height, width),
            40 * groups,
            (kernel, kernel),
            (1, 1),
            (rows, columns),
            dilation,
            groups,
            padding_mode=mode,
        )
        for cut in cuts("block", "o_parts")[::2]:
            check(problem, backend, prepare=partial(winograd.prepare, m, **cut))


@pytest.mark.parametrize("mode", ["zeros", "reflect"])
@pytest.mark.parametrize(
    ("backend", "kernel", "stride", "groups"),
    [*((*named, 1, 1) for named in NAMED), *((*named, 2, 2) for named in STRIDED)],
)
def test_blocks_that_end_within_a_row_of_tiles(backend: str, kernel: int, stride: int, groups: int, mode: str) -> None:
    m = TILES[get_backend(backend).accuracy][0]
    sides, out_channels = ((1, 1), (0, 1)), (3 * panel("float32") - 5) * groups
    problem = Conv2dProblem(
        2, 5 * groups, (11, 26), out_channels, (kernel, kernel), (stride, stride), sides, groups=groups,
        padding_mode=mode,
    )  # fmt: skip
    for cut in cuts("block", "o_parts"):
        check(problem, backend, prepare=partial(winograd.prepare, m, **cut))
