"""Packing: every element in its place, nothing around it changed, and channels that meet in one set of the cache."""

from __future__ import annotations

from functools import partial
from itertools import product
from typing import Any

import numpy as np
import pytest
from harness import check

from conv_impls import Conv2dProblem
from conv_impls.backends import numba_simd
from conv_impls.backends._layout import image_layout, spread, together
from conv_impls.kernels import panels, simd
from conv_impls.kernels.panels import Window
from conv_impls.kernels.runtime import target
from conv_impls.kernels.runtime.compile import entry
from conv_impls.kernels.tile import ROWS, VECTORS
from conv_impls.padding import padded
from conv_impls.validation import Array

BOTH = pytest.mark.parametrize("dtype", ["float32", "float64"])
GUARD = -77


def _blend(source: Any, target: Any, count: int) -> None:
    simd.blend_lanes(simd.load(source, 0), target, 1, count)


blend = entry()(_blend)
pack_planes, pack_rows, pack_image = (
    entry()(f.py_func) for f in (panels.pack_planes, panels.pack_rows, panels.pack_image)
)


def lanes(dtype: str) -> int:
    return simd.lanes(np.dtype(dtype).itemsize)


def numbered(shape: tuple[int, ...], dtype: str) -> Array:
    """All different, and none of them zero or the guard."""
    return np.arange(1, np.prod(shape) + 1).reshape(shape).astype(dtype)


@BOTH
def test_lanes_behind_stay_as_they_were(dtype: str) -> None:
    n = lanes(dtype)
    source = numbered((n,), dtype)
    # Bounds of more than 32 bits as well, whose low bits say something else.
    for count in [*range(-2, n + 3), 2**31 + 5, 2**32 + 1]:
        target = -numbered((n + 2,), dtype)
        before, held = target.copy(), min(max(count, 0), n)
        blend(source, target, count)
        np.testing.assert_array_equal(target, [before[0], *source[:held], *before[1 + held :]])


@BOTH
def test_a_nan_behind_stays_a_nan_and_does_not_spread(dtype: str) -> None:
    target = np.full(lanes(dtype) + 2, np.nan, dtype)
    blend(numbered((lanes(dtype),), dtype), target, 2)
    np.testing.assert_array_equal(target[:4], [np.nan, 1, 2, np.nan])


class Panel:
    """Room for ``depth`` rows of one panel, and a vector behind it, full of guard values."""

    def __init__(self, dtype: str, depth: int, row: int) -> None:
        self.at, self.row, self.depth = 3, row, depth
        self.memory = np.full(self.at + depth * row + lanes(dtype), GUARD, dtype)
        self.target = self.memory, self.at, row

    def holds(self, expected: Array, *, anything_behind: bool = False) -> bool:
        """Whether ``expected``, row below row, is all that was written; or else columns behind it and the vector behind
        the last row may hold anything.
        """
        right = self.memory.copy() if anything_behind else np.full_like(self.memory, GUARD)
        right[: self.at] = GUARD
        rows = right[self.at : self.at + self.depth * self.row].reshape(self.depth, self.row)
        rows[:, : expected.shape[1]] = expected
        return np.array_equal(self.memory, right, equal_nan=True)


def spans(positions: int, width: int) -> list[tuple[int, int]]:
    """Every first position, with every count that a panel has room for."""
    return [(p0, count) for p0 in range(positions) for count in range(1, min(width, positions - p0) + 1)]


@BOTH
def test_planes_are_packed_in_place_and_nothing_in_front_is_changed(dtype: str) -> None:
    width, pitch, out_width, channels = VECTORS * lanes(dtype), 13, 9, 3
    planes = numbered((channels, 8, pitch), dtype)
    offsets = np.array([c * 8 * pitch + i * pitch + j for c, i, j in product(range(channels), (0, 2), (0, 1, 4))])
    at = np.arange(6)[:, None] * pitch + np.arange(out_width)
    taken = planes.reshape(-1)[offsets[:, None] + at.reshape(-1)]
    memory = np.concatenate([planes.reshape(-1), np.full(lanes(dtype), np.nan, dtype)])
    for (p0, count), (k0, depth) in product(spans(54, width)[::7], [(0, len(offsets)), (2, 5)]):
        panel = Panel(dtype, depth, width)
        pack_planes((memory, 0), offsets, (k0, depth), (p0, count), (out_width, pitch), panel.target)
        assert panel.holds(taken[k0 : k0 + depth, p0 : p0 + count], anything_behind=True), (p0, count, k0)


@BOTH
@pytest.mark.parametrize("stride", [1, 2, 4])
@pytest.mark.parametrize("kernel", [1, 3])
def test_images_are_packed_in_place_and_nothing_behind_is_changed(kernel: int, stride: int, dtype: str) -> None:
    width, channels, pad, size = VECTORS * lanes(dtype), 5, kernel - 1, (6, 23)
    sides = ((pad, 1), (pad, 2))
    image = numbered((1, channels, *size), dtype)
    problem = Conv2dProblem(1, channels, size, 1, (kernel, kernel), (1, stride), sides, dtype=dtype)
    (oh, ow), around = problem.out_size, padded(image, sides, "zeros")[0]
    taken = np.stack([
        around[c, i : i + oh, j : j + (ow - 1) * stride + 1 : stride].reshape(-1)
        for c, i, j in product(range(channels), range(kernel), range(kernel))
    ])  # fmt: skip
    window = Window(*size, kernel, kernel, 1, stride, 1, 1, pad, pad)
    for (p0, count), (c, here) in product(spans(oh * ow, width)[::11], [(0, channels), (2, 2)]):
        panel = Panel(dtype, here * kernel**2, width)
        pack_image((image.reshape(-1), 0), (c, here), (p0, count), window, ow, panel.target)
        expected = taken[c * kernel**2 : (c + here) * kernel**2, p0 : p0 + count]
        assert panel.holds(expected), (p0, count, c)


@BOTH
def test_rows_are_packed_in_place_with_zeros_up_to_a_whole_vector(dtype: str) -> None:
    width, positions, channels = VECTORS * lanes(dtype), 3 * VECTORS * lanes(dtype) + 5, 4
    image = numbered((channels, positions), dtype)
    for p0, count, (k0, depth) in product((0, 3), range(1, positions - 3), [(0, channels), (1, 2)]):
        blocks, whole = -(-count // width), -(-count // lanes(dtype)) * lanes(dtype)
        memory = np.full(blocks * depth * width + lanes(dtype), GUARD, dtype)
        right = memory.copy()
        rows = np.full((depth, blocks * width), GUARD, dtype)
        rows[:, :whole] = 0
        rows[:, :count] = image[k0 : k0 + depth, p0 : p0 + count]
        right[: rows.size] = rows.reshape(depth, blocks, width).swapaxes(0, 1).reshape(-1)
        pack_rows((image.reshape(-1), 0), (k0, depth), (p0, count), positions, (memory, 0))
        np.testing.assert_array_equal(memory, right)


def test_channels_that_meet_in_one_set_are_packed_a_few_at_a_time() -> None:
    # A page apart, half a page, many pages, 56 x 56 and 7 x 7 floats.
    assert [together(apart) for apart in (4096, 2048, 64 * 4096, 4 * 56 * 56, 4 * 49)] == [8, 16, 8, 128, 8192]


def test_channels_that_would_meet_in_one_set_are_spread_by_a_line() -> None:
    assert [spread(elements, 4) for elements in (1024, 512, 256, 1000, 3 * 512)] == [1040, 528, 256, 1000, 1552]
    assert [spread(elements, 8) for elements in (512, 256, 128, 500)] == [520, 264, 128, 500]


def test_staged_channels_are_spread_and_those_of_the_image_are_where_they_are() -> None:
    problem = Conv2dProblem(1, 3, (30, 30), 2, (3, 3), padding=((1, 1), (1, 1)))
    layout = image_layout(problem)
    assert (layout.channel, layout.pitch, layout.staging.sizes.channel) == (1040, 32, 1040)
    assert layout.tap_offset.tolist() == [
        c * 1040 + i * 32 + j for c, i, j in product(range(3), range(3), range(3))
    ]  # fmt: skip
    assert image_layout(problem.replace(in_size=(32, 32), padding=((0, 0), (0, 0)))).channel == 1024


@pytest.mark.parametrize(("size", "dtype"), [((32, 32), "float32"), ((64, 64), "float32"), ((16, 32), "float64")])
@pytest.mark.parametrize("by_channel", [False, True])
def test_images_whose_channels_are_pages_apart(size: tuple[int, int], dtype: str, by_channel: bool) -> None:
    for channels, kernel, stride, mode in product((7, 8, 9, 17), (1, 3), (1, 2), ("zeros", "circular")):
        pad = kernel // 2
        problem = Conv2dProblem(
            2, channels, size, ROWS + 1, (kernel, kernel), (stride, stride), ((pad, pad), (pad, pad)),
            padding_mode=mode, dtype=dtype,
        )  # fmt: skip
        for in_place in (False, True) if kernel == stride == 1 else (None,):
            prepare = partial(numba_simd._prepare, by_channel=by_channel, in_place=in_place)
            check(problem, "numba_simd", prepare=prepare)


def in_place(channels: int, side: int, out_channels: int, by_channel: bool = False) -> bool:
    problem = Conv2dProblem(1, channels, (side, side), out_channels, (1, 1))
    return numba_simd._in_place(problem, by_channel)


def test_images_of_1x1_are_read_in_place_unless_many_use_them_or_their_rows_meet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(target, "caches", lambda: target.Caches(32 * 2**10, 512 * 2**10, 32 * 2**20))
    assert in_place(256, 28, 64)
    assert not in_place(256, 28, 128)
    # Rows 4 KiB apart, of which 8 fit a set of the cache; with few channels, packing is not worth while.
    assert in_place(8, 32, 127)
    assert not in_place(9, 32, 64)
    assert in_place(9, 32, 42)
    # Rows 1 KiB apart: 32 fit.
    assert in_place(32, 112, 64)
    assert not in_place(64, 112, 64)
    assert not in_place(256, 80, 6)
    assert in_place(256, 7, 63, by_channel=True)
    assert not in_place(256, 7, 64, by_channel=True)
    assert in_place(127, 7, 64, by_channel=True)


def test_with_a_roomy_l2_images_of_1x1_are_packed_only_where_rows_are_pages_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(target, "caches", lambda: target.Caches(48 * 2**10, 2**20, 32 * 2**20))
    assert in_place(256, 28, 1024)
    assert in_place(64, 112, 64)
    assert in_place(1024, 112, 256)
    assert not in_place(64, 128, 64)
    assert in_place(8, 32, 127)
    assert in_place(256, 7, 2048, by_channel=True)


def test_vectors_run_along_channels_where_those_along_positions_would_be_empty() -> None:
    def by_channel(channels: int, side: int, out_channels: int, lanes: int) -> bool:
        problem = Conv2dProblem(1, channels, (side, side), out_channels, (1, 1))
        return numba_simd._by_channel(problem, lanes)

    assert by_channel(256, 7, 256, 16)
    assert by_channel(256, 14, 256, 16)
    # A short reduction does not pay for the transpose, and 256 positions fill their vectors.
    assert not by_channel(64, 14, 256, 16)
    assert not by_channel(256, 16, 256, 16)
    # One channel of sixteen.
    assert not by_channel(256, 7, 1, 16)
