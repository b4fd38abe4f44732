"""The bounds of results: right ones keep them with room, and every kind of wrong one breaks them."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from conv_impls import Conv2dProblem, conv2d
from conv_impls.reference import (
    TILES,
    Float64,
    error_bound,
    error_bounds,
    norm_bound,
    reference,
    sample_outputs,
)
from conv_impls.validation import Array

BACKENDS = {"tile2": "numba_winograd_f2", "tile4": "numba_winograd_f4", "tile6": "numba_winograd_f6"}
CLASSES = ("direct", "image", *TILES)
EACH_TILE = pytest.mark.parametrize("accuracy", TILES)
EACH_CLASS = pytest.mark.parametrize("accuracy", CLASSES)
PROBLEM = Conv2dProblem(1, 32, (19, 22), 16, (3, 3), padding=((1, 1), (1, 1)))


def data(kind: str, dtype: str) -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    draw = rng.standard_normal if kind == "normal" else rng.random
    return draw(PROBLEM.input_shape).astype(dtype), draw(PROBLEM.weight_shape).astype(dtype)


def over_bounds(y: Array | Float64, x: Array, weight: Array, accuracy: str) -> tuple[float, float]:
    """The largest error in units of its bound, and the relative L2 error in units of its own."""
    problem = PROBLEM.replace(dtype=str(x.dtype))
    expected = reference(x, weight, None, problem)
    error = np.abs(y - expected)
    relative = float(np.linalg.norm(error) / np.linalg.norm(expected))
    worst = float((error / error_bounds(x, weight, None, problem, accuracy)).max())
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
        error_bound(*data("normal", "float32"), None, PROBLEM, "tile3", sample_outputs(PROBLEM, 1))


LABELS = {
    "plain": "mb2ic8ih13iw11oc5kh3kw3ph1pw1",
    "first layer": "mb1ic3ih21oc4oh10kh7sh2ph2",
    "uneven padding": "mb1ic4ih8oc4oh8kh4ph1",
    "dilation": "mb1ic4ih14iw12oc3kh3kw3dh1dw1ph2pw2",
    "groups": "g2mb1ic6ih9oc4kh3ph1",
    "depthwise": "g8mb1ic8ih9oc8kh3ph1",
    "one output": "mb1ic5ih4oc3kh4",
    "reflected": 'mb1ic3ih9oc4oh9kh3ph1pm"reflect"',
}


@EACH_CLASS
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("label", LABELS.values(), ids=LABELS)
def test_the_bounds_of_all_outputs_are_those_of_each(accuracy: str, dtype: str, biased: bool, label: str) -> None:
    problem = Conv2dProblem.from_label(label).replace(dtype=dtype)
    rng = np.random.default_rng(0)
    x, weight = (rng.standard_normal(shape).astype(dtype) for shape in (problem.input_shape, problem.weight_shape))
    bias = rng.standard_normal(problem.out_channels).astype(dtype) if biased else None
    at = np.argwhere(np.ones(problem.output_shape)).astype(np.intp)
    whole = np.broadcast_to(error_bounds(x, weight, bias, problem, accuracy), problem.output_shape)
    ratio = whole[tuple(at.T)] / error_bound(x, weight, bias, problem, accuracy, at)
    # Sums in float32 are made larger by a thousandth, so that none comes out too small.
    assert ratio.min() >= 1 - 1e-12
    assert ratio.max() <= 1.002


@EACH_CLASS
@pytest.mark.parametrize(
    "label", ["mb1ic3ih20oc8kh3ph1", "mb1ic64ih14oc8kh3ph1", "mb1ic512ih7oc64kh7", "mb1ic16ih9oc8kh1"]
)
@pytest.mark.parametrize("operand", ["x", "weight"])
def test_one_operand_in_half_precision_breaks_the_norm_of_every_class(accuracy: str, label: str, operand: str) -> None:
    problem = Conv2dProblem.from_label(label)
    rng = np.random.default_rng(0)
    x, weight = (rng.standard_normal(shape, np.float32) for shape in (problem.input_shape, problem.weight_shape))
    expected = reference(x, weight, None, problem)
    halved = [a.astype(np.float16).astype(np.float32) if n == operand else a for n, a in (("x", x), ("weight", weight))]
    error = np.linalg.norm(reference(halved[0], halved[1], None, problem) - expected) / np.linalg.norm(expected)
    bound = norm_bound(problem, accuracy)
    assert 0 < bound < np.inf
    assert error > 3 * bound


@pytest.mark.parametrize("kind", ["normal", "uniform"])
def test_an_honest_sum_of_25088_products_in_sequence_keeps_its_bounds(kind: str) -> None:
    problem = Conv2dProblem.from_label("mb1ic512ih7oc64kh7")
    assert problem.reduction == 25088
    rng = np.random.default_rng(0)
    draw = rng.standard_normal if kind == "normal" else rng.random
    x, weight = (draw(shape).astype(np.float32) for shape in (problem.input_shape, problem.weight_shape))
    products = x.reshape(1, -1) * weight.reshape(64, -1)
    y = np.cumsum(products, axis=1, dtype=np.float32)[:, -1].reshape(problem.output_shape)
    error = np.abs(y - (expected := reference(x, weight, None, problem)))
    assert (error <= error_bounds(x, weight, None, problem, "direct")).all()
    if kind == "normal":
        assert np.linalg.norm(error) <= norm_bound(problem, "direct") * np.linalg.norm(expected)
        rounded = np.cumsum(products.astype(np.float16), axis=1, dtype=np.float16)[:, -1].reshape(y.shape)
        assert np.linalg.norm(rounded - expected) > norm_bound(problem, "direct") * np.linalg.norm(expected)
