"""Padding of zeros takes part in every sum: 0 times a weight that is NaN or infinite is NaN, from every backend.

Expected is the definition on an image that NumPy padded. Limits: Winograd and FFT spread an infinite weight over more
outputs than its own, as they do with pixels; for them NaN alone is held to the rule.
"""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from conv_impls import Conv2dProblem, get_backend, plan, register, registry
from conv_impls.backends import numba_depthwise
from conv_impls.backends._depthwise import Way
from conv_impls.padding import padded
from conv_impls.registry import Backend
from conv_impls.validation import PADDING_MODES, Array

BACKENDS = sorted(registry.sources())
# Those that sum directly, and `auto` where it may choose no other.
DIRECT = [name for name in BACKENDS if name == "auto" or get_backend(name).accuracy == "direct"]

# The short form has every fifth problem.
EVERY = pytest.mark.parametrize("every", [5, pytest.param(1, marks=pytest.mark.long)], ids=["short", "long"])


def expected(problem: Conv2dProblem, x: Array, weight: Array) -> Array:
    """The definition, tap by tap, in the order of the taps."""
    image = padded(x, problem.padding, problem.padding_mode)
    (oh, ow), (sh, sw), (dh, dw) = problem.out_size, problem.stride, problem.dilation
    y = np.zeros(problem.output_shape, problem.dtype)
    each = problem.in_channels // problem.groups
    for o, c, p, q in np.ndindex(problem.weight_shape):
        channel = o // (problem.out_channels // problem.groups) * each + c
        rows, columns = (slice(k * d, k * d + (n - 1) * s + 1, s) for k, d, n, s in ((p, dh, oh, sh), (q, dw, ow, sw)))
        with np.errstate(invalid="ignore"):
            y[:, o] += weight[o, c, p, q] * image[:, channel, rows, columns]
    return y


def problems() -> list[Conv2dProblem]:
    """Taps that meet only padding, rows and columns of it, and taps that meet it here and there."""
    found = []
    for (size, padding), mode, step, dtype in product(
        [((1, 1), ((1, 1), (1, 1))), ((5, 18), ((2, 1), (0, 3))), ((2, 9), ((4, 0), (2, 2)))],
        PADDING_MODES, (1, 2), ("float32", "float64"),
    ):  # fmt: skip
        if mode == "zeros" or max(map(max, padding)) < min(size):
            found.append(Conv2dProblem(1, 16, size, 16, (3, 3), (step, step), padding, (1, 1), 16, mode, dtype))
    wide = ((4, 4), (4, 4))
    for kernel, stride, dilation in product([(3, 3), (5, 2), (9, 3)], ((1, 1), (2, 1), (3, 2)), ((1, 1), (1, 2))):
        found.append(Conv2dProblem(2, 16, (4, 7), 16, kernel, stride, wide, dilation, 16))
    found += [p.replace(groups=1, in_channels=2, out_channels=9) for p in found[::3]]
    found += [p.replace(batch=1, groups=4, out_channels=32) for p in found[:12:2]]
    return found


def spoiled(problem: Conv2dProblem, tap: tuple[int, int], infinite: bool) -> tuple[Array, Array]:
    """Positive integers, so that infinities have signs, and in some channels one weight that is not finite."""
    rng = np.random.default_rng(0)
    x, weight = (
        rng.integers(1, 5, shape).astype(problem.dtype) for shape in (problem.input_shape, problem.weight_shape)
    )
    weight[1:8:3, 0, tap[0] - 1, tap[1] - 1] = (np.nan, np.inf, -np.inf) if infinite else np.nan
    return x, weight


def broken(backend: str, taps: list[tuple[int, int]], every: int = 1, direct: bool = True) -> list[str]:
    """Problems where a backend departs from the definition; of one that is not ``direct``, only NaN are compared."""
    found, precision = [], "strict" if direct else "standard"
    for problem, tap in product(problems()[::every], taps):
        if get_backend(backend).supports(problem) is None:
            x, weight = spoiled(problem, tap, direct)
            with np.errstate(invalid="ignore"):
                y = plan(problem, weight, backend=backend, precision=precision, threads=1)(x)
            right = expected(problem, x, weight)
            pair = (y, right) if direct else (np.isnan(y), np.isnan(right))
            if not np.array_equal(*pair, equal_nan=True):
                found.append(f"{problem.label}: tap {tap}")
    return found


@pytest.mark.parametrize("backend", DIRECT)
@EVERY
def test_weights_that_are_not_finite_meet_padding(backend: str, every: int) -> None:
    assert broken(backend, [(1, 1), (3, 2), (2, 2)], every) == []


@pytest.mark.parametrize("backend", sorted(set(BACKENDS) - set(DIRECT)))
@EVERY
def test_a_weight_that_is_nan_spoils_its_channel_from_every_backend(backend: str, every: int) -> None:
    assert broken(backend, [(1, 1)], every, direct=False) == []


@pytest.mark.parametrize("way", ["slide", "position", "channel"])
def test_weights_that_are_packed_again_bring_their_own_rule(way: Way) -> None:
    problem = Conv2dProblem(1, 16, (4, 5), 16, (3, 3), padding=((1, 1), (1, 1)), groups=16)
    x, nan = spoiled(problem, (1, 1), True)
    finite = np.where(np.isfinite(nan), nan, 7)
    prepared, y = numba_depthwise._prepare(problem, finite, None, 1, False, way), np.empty(problem.output_shape, "f4")
    assert prepared.repack is not None
    for weight in (finite, nan, finite):
        prepared.repack(weight, None)
        prepared.call(x, y)
        np.testing.assert_array_equal(y, expected(problem, x, weight))


def test_a_backend_that_leaves_padding_out_is_seen(registered: dict[str, Backend]) -> None:
    def skip(x: Array, weight: Array, bias: Array | None, problem: Conv2dProblem) -> Array:
        y = expected(problem, x, weight)
        return np.where(np.isnan(y), expected(problem, x, np.where(np.isfinite(weight), weight, 0)), y)

    register("skips")(skip)
    assert len(broken("skips", [(1, 1)], 5)) == len(problems()[::5])
