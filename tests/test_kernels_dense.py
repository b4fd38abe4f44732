"""Layers of one output an image: right at every residue, and with the bits of packed panels."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import pytest
from harness import check
from residues import IN_BOTH_DTYPES, ON_ONE_AND_TWO_THREADS, bits, panel

from conv_impls import Conv2dProblem
from conv_impls.backends import _dense, numba_simd
from conv_impls.kernels import implicit
from conv_impls.kernels.tile_few import PANELS

# Blocks of the reduction that end within it; one image takes no blocks.
PREPARE = [partial(_dense.prepare, k_block=k_block) for k_block in (7, 10_000)]


def dense(batch: int, channels: int, out_channels: int, kernel: int, groups: int, dtype: str) -> Conv2dProblem:
    size = (kernel, kernel)
    return Conv2dProblem(batch, groups * channels, size, groups * out_channels, size, groups=groups, dtype=dtype)


def problems(dtype: str) -> Iterator[Conv2dProblem]:
    """Every number of columns behind whole panels and blocks, every number of images in a tile, long and short sums."""
    wide = PANELS * panel(dtype)
    for more in range(-panel(dtype), panel(dtype) + 1, 3):
        yield dense(1, 11, wide + more, 1, 1, dtype)
        yield dense(3, 5, wide + more, 1, 2, dtype)
    for batch in range(1, 18):
        yield dense(batch, 19, panel(dtype) + batch, 1, 1, dtype)
    # More images than are packed at a time.
    yield dense(2 * _dense.IMAGES + 1, 9, panel(dtype) + 3, 1, 2, dtype)
    for kernel, groups in ((2, 1), (3, 2)):
        yield dense(1, 7, panel(dtype) + 1, kernel, groups, dtype)
        yield dense(4, 7, panel(dtype) + 1, kernel, groups, dtype)


@ON_ONE_AND_TWO_THREADS
@IN_BOTH_DTYPES
def test_every_residue(dtype: str, step: int, threads: int) -> None:
    for number, problem in enumerate(list(problems(dtype))[::step]):
        assert _dense.covers(problem)
        prepare = PREPARE[number % 2]
        check(problem, "numba_simd", threads, relu=number % 3 == 0, prepare=prepare)
        packed = bits(partial(numba_simd._prepare, by_channel=number % 2 == 0), problem, threads)
        np.testing.assert_array_equal(bits(prepare, problem, threads), packed, problem.label)


def test_weights_that_lie_elsewhere_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = dense(1, 11, 2 * PANELS * panel("float32"), 1, 1, "float32")
    check(problem, "numba_simd", prepare=PREPARE[1])
    # The weights of each panel are packed one step too near.
    packing = implicit.Packing
    monkeypatch.setattr(implicit, "Packing", lambda groups, oc, reduction: packing(groups, oc, reduction - 1))
    with pytest.raises(AssertionError):
        check(problem, "numba_simd", prepare=PREPARE[1])


def test_only_kernels_as_large_as_the_image_are_dense() -> None:
    layer = dense(2, 5, 40, 3, 1, "float32")
    assert _dense.covers(layer)
    for change in (
        {"in_size": (4, 3)}, {"padding": ((1, 0), (0, 0)), "in_size": (2, 3)}, {"out_channels": 3},
        {"kernel_size": (2, 2)},
    ):  # fmt: skip
        assert not _dense.covers(layer.replace(**change))
