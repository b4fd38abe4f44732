"""What tests of kernels share: shapes at every residue of width and channels modulo tiles, and ways to cut work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from conv_impls import Conv2dProblem
from conv_impls.kernels.simd import VECTOR_BYTES
from conv_impls.kernels.tile import ROWS, VECTORS
from conv_impls.registry import Prepared
from conv_impls.validation import Array

# One thread runs the same code as two, on all of the work.
ON_ONE_AND_TWO_THREADS = pytest.mark.parametrize("threads", [2, pytest.param(1, marks=pytest.mark.long)])
# float64 walks through the same code with other widths: every third shape will do.
IN_BOTH_DTYPES = pytest.mark.parametrize(("dtype", "step"), [("float32", 1), ("float64", 3)])


def panel(dtype: str) -> int:
    """Columns of a register tile."""
    return VECTORS * VECTOR_BYTES // (4 if dtype == "float32" else 8)


def residues(
    dtype: str, kernel: int | tuple[int, int], stride: int = 1, height: int = 3, groups: int = 1
) -> Iterator[Conv2dProblem]:
    """Problems with every output width, C_in and C_out modulo a panel and modulo `ROWS`, one at a time and together.

    Channels are those of a group.
    """
    top = panel(dtype) + 1
    down, across = (kernel, kernel) if isinstance(kernel, int) else kernel
    sides = ((down // 2, (down - 1) // 2), (across // 2, (across - 1) // 2))

    def problem(width: int, channels: int, out_channels: int) -> Conv2dProblem:
        # Some images have columns behind those that the last output sees.
        size = (height - 1) * stride + 1, width * stride - channels % stride
        return Conv2dProblem(
            1, groups * channels, size, groups * out_channels, (down, across), (stride, stride), sides, groups=groups,
            dtype=dtype,
        )  # fmt: skip

    for n in range(1, top + 1):
        yield problem(n, 3, 5)
        yield problem(5, n, 3)
        # Steps that share no factor with any `top`, so that each visits all residues.
        yield problem(1 + 7 * n % top, 1 + 13 * n % top, n)
    for n in range(1, top + ROWS + 1):
        yield problem(4, 2, n)


def cuts(blocks: str, shares: str) -> list[dict[str, Any]]:
    """Ways to cut the work: blocks of this size, shares of the output channels."""
    return [{blocks: size, shares: count} for size in (1, 2, 5, 1000) for count in (1, 2, 3)]


def bits(prepare: Callable[..., Prepared], problem: Conv2dProblem, threads: int) -> Array:
    """The result of one call on real numbers, as integers."""
    rng = np.random.default_rng(0)
    shapes = problem.input_shape, problem.weight_shape, (problem.out_channels,)
    x, weight, bias = (rng.standard_normal(shape).astype(problem.dtype) for shape in shapes)
    y = np.full(problem.output_shape, np.nan, problem.dtype)
    prepare(problem, weight, bias, threads, False).call(x, y)
    return y.view(f"i{y.itemsize}")
