"""Winograd's bounds: right results keep them with room, and every kind of wrong one breaks them."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from conv_impls import Conv2dProblem, conv2d
from conv_impls.reference import TILES, Float64, Index, error_bound, norm_bound, reference, sample_outputs
from conv_impls.validation import Array

BACKENDS = {"tile2": "numba_winograd_f2", "tile4": "numba_winograd_f4", "tile6": "numba_winograd_f6"}
EACH_TILE = pytest.mark.parametrize("accuracy", TILES)
PROBLEM = Conv2dProblem(1, 32, (19, 22), 16, (3, 3), padding=((1, 1), (1, 1)))
EVERYWHERE = np.argwhere(np.ones(PROBLEM.output_shape)).astype(np.intp)[::5]


def data(kind: str, dtype: str) -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    draw = rng.standard_normal if kind == "normal" else rng.random
    return draw(PROBLEM.input_shape).astype(dtype), draw(PROBLEM.weight_shape).astype(dtype)


def over_bounds(
    y: Array | Float64, x: Array, weight: Array, accuracy: str, at: Index = EVERYWHERE
) -> tuple[float, float]:
    """The largest error in units of its bound, and the relative L2 error in units of its own."""
    problem = PROBLEM.replace(dtype=str(x.dtype))
    expected = reference(x, weight, None, problem)[tuple(at.T)]
    error = np.abs(y[tuple(at.T)] - expected)
    relative = float(np.linalg.norm(error) / np.linalg.norm(expected))
    worst = float((error / error_bound(x, weight, None, problem, accuracy, at)).max())
    return worst, relative / norm_bound(problem, accuracy)


@EACH_TILE
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", ["normal", "uniform"])
def test_right_results_use_less_than_half_of_their_bounds(accuracy: str, dtype: str, kind: str) -> None:
    x, weight = data(kind, dtype)
    y = conv2d(x, weight, padding=1, backend=BACKENDS[accuracy])
    # The reference of float64 is itself rounded: its own error counts here.
    assert max(over_bounds(y, x, weight, accuracy)) < 0.5


@EACH_TILE
def test_one_wrong_tap_is_seen(accuracy: str) -> None:
    x, weight = data("normal", "float32")
    lacking = weight.copy()
    lacking[3, 7, 2, 0] = 0
    y = conv2d(x, lacking, padding=1, backend=BACKENDS[accuracy])
    assert over_bounds(y, x, weight, accuracy)[0] > 10


@EACH_TILE
def test_sums_in_half_precision_are_seen(accuracy: str) -> None:
    x, weight = data("normal", "float32")
    image = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    y = np.zeros(PROBLEM.output_shape, np.float16)
    for c, p, q in product(range(32), range(3), range(3)):
        y += weight[None, :, c, p, q, None, None] * image[:, c : c + 1, p : p + 19, q : q + 22]
    assert over_bounds(y, x, weight, accuracy)[0] > 1


@EACH_TILE
def test_inputs_in_half_precision_are_seen_by_the_norm(accuracy: str) -> None:
    x, weight = data("normal", "float32")
    y = conv2d(x.astype(np.float16).astype(np.float32), weight, padding=1, backend=BACKENDS[accuracy])
    assert over_bounds(y, x, weight, accuracy)[1] > 5


@EACH_TILE
def test_the_bound_is_that_of_the_largest_magnitude_in_the_tile(accuracy: str) -> None:
    m, x, weight = TILES[accuracy][0], *data("normal", "float32")
    at = sample_outputs(PROBLEM, 100)
    magnitude = reference(np.abs(x), np.abs(weight), None, PROBLEM)
    largest = [magnitude[n, o, i // m * m : (i // m + 1) * m, j // m * m : (j // m + 1) * m].max() for n, o, i, j in at]
    ratio = error_bound(x, weight, None, PROBLEM, accuracy, at) / largest
    np.testing.assert_allclose(ratio, ratio[0])


@EACH_TILE
def test_a_huge_pixel_spoils_its_tiles_and_no_others(accuracy: str) -> None:
    x, weight = data("normal", "float32")
    x[0, 5, 8, 9] *= 1e4
    y = conv2d(x, weight, padding=1, backend=BACKENDS[accuracy])
    assert over_bounds(y, x, weight, accuracy)[0] < 1
    if accuracy != "tile2":
        assert over_bounds(y, x, weight, "direct")[0] > 1


def test_an_unknown_class_is_refused() -> None:
    with pytest.raises(ValueError, match="no bound known for accuracy class 'tile3'"):
        error_bound(*data("normal", "float32"), None, PROBLEM, "tile3", EVERYWHERE)
