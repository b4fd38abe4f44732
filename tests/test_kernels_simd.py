"""Vectors and register tiles, apart from any convolution: every primitive, every tile size, every lane.

Lanes are told apart by distinct values, so that a shuffle which repeats one half of a vector cannot pass.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from conv_impls.kernels import product, simd, transpose_block
from conv_impls.kernels.runtime.compile import entry
from conv_impls.kernels.tile import (
    ROWS,
    START_BY_COLUMN,
    START_BY_ROW,
    START_C,
    START_ZERO,
    VECTORS,
    tile,
    tile_by_lane,
)
from conv_impls.validation import Array

BOTH = pytest.mark.parametrize("dtype", ["float32", "float64"])
NAN = float("nan")


def _copy_lanes(source: Any, target: Any, low: int, high: int) -> None:
    simd.store(simd.load_lanes(source, 0, low, high), target, 0)


def _store_lanes(source: Any, target: Any, count: int) -> None:
    simd.store_lanes(simd.load(source, 0), target, 1, count)


def _elementwise(a: Any, b: Any, c: Any, target: Any, lanes: int) -> None:
    """Row i of target: the i-th of the operations."""
    p, q, r = simd.load(a, 0), simd.load(b, 0), simd.load(c, 0)
    simd.store(p + q, target, 0)
    simd.store(p - q, target, lanes)
    simd.store(p * q, target, 2 * lanes)
    simd.store(simd.fma(p, q, r), target, 3 * lanes)
    simd.store(simd.at_least(p, q), target, 4 * lanes)
    simd.store(simd.evens(p, q), target, 5 * lanes)
    simd.store(simd.odds(p, q), target, 6 * lanes)
    simd.store(simd.splat(a, 1), target, 7 * lanes)
    simd.store(simd.constant(a, 0.1), target, 8 * lanes)


def _transpose(source: Any, target: Any, step: int, count: int, width: int) -> None:
    """Reads ``count`` rows of ``width``, writes ``width`` rows of ``count``."""
    rows = transpose_block.load_rows(source, 0, step, count, width)
    transpose_block.store_rows(transpose_block.transpose(rows), target, 0, step, width, count)


def _epilogue(source: Any, target: Any, bias: Any, count: int, clamp: Any, lanes: int) -> None:
    rows = transpose_block.load_rows(source, 0, lanes, lanes, lanes)
    transpose_block.store_rows(transpose_block.epilogue(rows, bias, 1, count, clamp), target, 0, lanes, lanes, lanes)


def _tiles(by_lane: bool, rows: int, k: int, a: Any, a_step: int, b: Any, b_step: int, c: Any, c_at: int, c_step: int,
           columns: int, bias: Any, start: int, clamp: Any) -> None:  # fmt: skip
    left, right, result = (a, 0, a_step), (b, 0, b_step), (c, c_at, c_step)
    if by_lane:
        tile_by_lane(rows, k, left, right, result)
    else:
        tile(rows, k, left, right, result, columns, (bias, 1), start, clamp, (a, 0, 1))


copy_lanes, store_lanes, elementwise, transpose, finish = (
    entry()(f) for f in (_copy_lanes, _store_lanes, _elementwise, _transpose, _epilogue)
)
tiles = entry()(_tiles)
multiply, multiply_by_panel = (entry()(f.py_func) for f in (product.multiply, product.multiply_by_panel))


def vector(dtype: str, first: float = 1) -> Array:
    """The elements of one vector, all different."""
    return np.arange(first, first + simd.lanes(np.dtype(dtype).itemsize)).astype(dtype)


@BOTH
def test_only_the_lanes_asked_for_are_loaded(dtype: str) -> None:
    source, n = vector(dtype), simd.lanes(np.dtype(dtype).itemsize)
    # Bounds of more than 32 bits as well, whose low bits say something else.
    for low, high in itertools.product([*range(-2, n + 3), -(2**33), 2**31 + 5, 2**32 + 2], repeat=2):
        target = np.full(n, NAN, dtype)
        copy_lanes(source, target, low, high)
        lane = np.arange(n)
        np.testing.assert_array_equal(target, np.where((lane >= low) & (lane < high), source, 0))


@BOTH
def test_only_the_first_lanes_are_stored(dtype: str) -> None:
    source, n = vector(dtype), simd.lanes(np.dtype(dtype).itemsize)
    for count in [*range(-2, n + 3), 2**31 + 5, 2**32 + 1]:
        target = np.full(n + 2, -1, dtype)
        store_lanes(source, target, count)
        held = min(max(count, 0), n)
        np.testing.assert_array_equal(target, [-1, *source[:held], *[-1] * (n + 1 - held)])


@BOTH
def test_arithmetic_lane_by_lane(dtype: str) -> None:
    a, b, c = vector(dtype), vector(dtype, 100)[::-1].copy(), vector(dtype, 1000)
    b[::3] = -b[::3]
    target = np.full((9, len(a)), NAN, dtype)
    elementwise(a, b, c, target.reshape(-1), len(a))
    evens, odds = np.concatenate([a, b])[::2], np.concatenate([a, b])[1::2]
    tenth = np.full(len(a), 0.1, dtype)
    expected = [a + b, a - b, a * b, a * b + c, np.maximum(a, b), evens, odds, np.full(len(a), a[1]), tenth]
    np.testing.assert_array_equal(target, expected)


@BOTH
def test_the_larger_of_nan_and_a_floor_is_nan(dtype: str) -> None:
    a, clamp = vector(dtype), np.zeros_like(vector(dtype))
    a[1::3], a[2::3] = NAN, -1
    target = np.zeros((9, len(a)), dtype)
    elementwise(a, clamp, clamp, target.reshape(-1), len(a))
    np.testing.assert_array_equal(target[4], np.maximum(a, 0))
    assert np.isnan(target[4, 1::3]).all()


@BOTH
def test_a_transpose_moves_every_lane_and_respects_partial_squares(dtype: str) -> None:
    n = len(vector(dtype))
    source = np.arange(1, n * n + 1).astype(dtype).reshape(n, n)
    for count, width in itertools.product(range(1, n + 1), repeat=2):
        target = np.full((n, n), -1, dtype)
        transpose(source.reshape(-1), target.reshape(-1), n, count, width)
        expected = np.full((n, n), -1, dtype)
        expected[:width, :count] = source[:count, :width].T
        np.testing.assert_array_equal(target, expected)


@BOTH
@pytest.mark.parametrize("clamp", [-np.inf, 0.0])
def test_the_epilogue_adds_the_bias_and_clamps_and_keeps_nan(dtype: str, clamp: float) -> None:
    n = len(vector(dtype))
    source = (np.arange(n * n) - n * n / 2).astype(dtype).reshape(n, n)
    source[n // 2, n // 3] = NAN
    for count in range(1, n + 1):
        bias, target = np.full(n + 1, NAN, dtype), np.full((n, n), -1, dtype)
        bias[1 : count + 1] = np.arange(1, count + 1) * 1000
        finish(source.reshape(-1), target.reshape(-1), bias, count, np.dtype(dtype).type(clamp), n)
        expected = source.copy()
        expected[:count] += bias[1 : count + 1, None]
        np.testing.assert_array_equal(target, np.maximum(expected, clamp))


class Product:
    """Operands of one tile: A and B of small integers, distinct in every lane; C inside an array full of -1."""

    def __init__(self, dtype: str, by_lane: bool, rows: int, columns: int) -> None:
        self.lanes = len(vector(dtype))
        self.by_lane, self.rows, self.columns, self.k = by_lane, rows, columns, self.lanes * 2 if by_lane else 5
        rng = np.random.default_rng(rows * 100 + columns)
        self.a = rng.integers(-4, 5, (self.k, rows)).astype(dtype)
        self.b = rng.permutation(self.k * VECTORS * self.lanes).reshape(self.k, -1).astype(dtype)
        self.bias = rng.integers(-500, 500, max(rows, VECTORS * self.lanes) + 1).astype(dtype)
        self.c = rng.integers(-500, 500, (rows + 2, columns + 2)).astype(dtype)

    def run(self, start: int, clamp: float) -> Array:
        """The array around C afterwards."""
        c = self.c.copy()
        a, a_step = self.a, self.rows
        if self.by_lane:  # (k / lanes, row, k % lanes)
            a, a_step = a.reshape(-1, self.lanes, self.rows).swapaxes(1, 2), self.rows * self.lanes
        tiles(self.by_lane, self.rows, self.k, np.ascontiguousarray(a).reshape(-1), a_step, self.b.reshape(-1),
              self.b.shape[1], c.reshape(-1), c.shape[1] + 1, c.shape[1], self.columns, self.bias, start,
              c.dtype.type(clamp))  # fmt: skip
        return c

    def expected(self, start: int, clamp: float) -> Array:
        """The same in NumPy."""
        c = self.c.copy()
        inner = c[1:-1, 1:-1]
        bias = self.bias[1:]
        by_row, by_column = bias[: self.rows, None], bias[: self.columns]
        first = {START_ZERO: 0, START_BY_ROW: by_row, START_BY_COLUMN: by_column, START_C: inner}[start]
        inner[...] = np.maximum(first + (self.a.T @ self.b)[:, : self.columns], clamp)
        return c


@BOTH
def test_every_size_of_a_tile_by_lane(dtype: str) -> None:
    for rows in range(1, ROWS + 1):
        case = Product(dtype, True, rows, VECTORS * len(vector(dtype)))
        np.testing.assert_array_equal(case.run(START_ZERO, -np.inf), case.expected(START_ZERO, -np.inf))


@BOTH
def test_every_tile_size_every_masked_column_and_every_start(dtype: str) -> None:
    for rows, columns in itertools.product(range(1, ROWS + 1), range(1, VECTORS * len(vector(dtype)) + 1)):
        case = Product(dtype, False, rows, columns)
        for start, clamp in itertools.product((START_ZERO, START_BY_ROW, START_BY_COLUMN, START_C), (-np.inf, 0.0)):
            np.testing.assert_array_equal(case.run(start, clamp), case.expected(start, clamp))


@BOTH
@pytest.mark.parametrize(
    ("by_lane", "start", "clamp"), [(False, START_BY_ROW, 0.0), (True, START_ZERO, -np.inf)], ids=["tile", "by lane"]
)
def test_a_nan_stays_in_its_row_or_column_whatever_the_floor(
    dtype: str, by_lane: bool, start: int, clamp: float
) -> None:
    width = VECTORS * len(vector(dtype))
    for column in range(width):
        case = Product(dtype, by_lane, ROWS, width)
        case.b[3, column] = case.a[2, ROWS // 2] = NAN
        got = case.run(start, clamp)
        np.testing.assert_array_equal(got, case.expected(start, clamp))
        assert np.isnan(got[1:-1, 1 + column]).all()


@BOTH
def test_rows_are_shared_out_among_tiles_without_gap_or_overlap(dtype: str) -> None:
    n, k = VECTORS * len(vector(dtype)), 3
    rng = np.random.default_rng(0)
    for rows, columns in itertools.product((1, ROWS, ROWS + 1, 2 * ROWS + 3, 64), (1, n - 1, n, 2 * n, 2 * n + 5)):
        panels, shares = -(-columns // n), -(-rows // ROWS)
        a = rng.integers(-4, 5, (rows, k)).astype(dtype)
        b = rng.integers(-4, 5, (panels, k, n)).astype(dtype)
        right = np.concatenate(list(b), axis=1)[:, :columns]
        bias = rng.integers(-500, 500, max(rows, panels * n)).astype(dtype)
        left, next_block, none = a.T.copy().reshape(-1), (a.reshape(-1), 0, 1, 3), a.dtype.type(-np.inf)
        panel = b.reshape(-1), 0, k * n, n
        by_row, by_column = a @ right + bias[:rows, None], a @ right + bias[:columns]
        for start, expected in ((START_BY_ROW, by_row), (START_BY_COLUMN, by_column)):
            c = np.full((rows, columns), NAN, dtype)
            multiply((rows, 0, shares, shares), k, (left, 0, 1, rows, 0), panel, (c.reshape(-1), 0, columns), columns,
                     (bias, 0), start, none, next_block)  # fmt: skip
            np.testing.assert_array_equal(c, expected)
        if columns % n == 0:
            c = np.full((rows, columns), NAN, dtype)
            multiply_by_panel((rows, shares, panels), k, (left, 0, 1, rows, 0), panel, (c.reshape(-1), 0, columns),
                              (bias, 0), START_BY_COLUMN, none)  # fmt: skip
            np.testing.assert_array_equal(c, by_column)
