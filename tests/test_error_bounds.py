"""The bounds of results: right ones keep them with room, and every kind of wrong one breaks them."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from harness import EXACT, integers
from must import MUST

from conv_impls import Conv2dProblem, get_backend, plan
from conv_impls.padding import padded
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

PROBLEM = Conv2dProblem(1, 32, (19, 22), 16, (3, 3), padding=((1, 1), (1, 1)))
CLASSES = ("direct", "image", *TILES)
EACH_TILE = pytest.mark.parametrize("accuracy", TILES)
EACH_CLASS = pytest.mark.parametrize("accuracy", CLASSES)


def form(kernel: tuple[int, int], stride: int = 1, groups: int = 1) -> Conv2dProblem:
    """`PROBLEM` with another kernel, padded by half of it."""
    padding = tuple((k // 2, k // 2) for k in kernel)
    return PROBLEM.replace(kernel_size=kernel, stride=(stride, stride), padding=padding, groups=groups)


FORMS = {
    "3x3": PROBLEM, "3x3 stride 2": form((3, 3), 2), "3x3 in groups": form((3, 3), groups=4),
    "3x3 stride 2 in groups": form((3, 3), 2, groups=4), "5x5": form((5, 5)), "2x2": form((2, 2)), "1x3": form((1, 3)),
    "5x5 stride 2": form((5, 5), 2), "7x7": form((7, 7)), "7x7 stride 2": form((7, 7), 2), "1x7": form((1, 7)),
    "7x1": form((7, 1)),
}  # fmt: skip
# Of each backend, by its class, the forms that it must take.
TAKEN: dict[str, tuple[str, list[str]]] = {
    get_backend(backend).accuracy: (backend, [name for name, problem in FORMS.items() if must(problem)])
    for backend, must in MUST.items()
    if backend.startswith("numba_winograd_")
}
# The form of the negative tests.
FIRST: dict[str, Conv2dProblem] = {accuracy: FORMS[names[0]] for accuracy, (_, names) in TAKEN.items()}
# Compiled for other tests, too; of the others the short form has float32, and none by F(6x6).
COMMON = [name for name in FORMS if "3x3" in name or name == "5x5"]


def cases(dtypes: tuple[str, ...]) -> pytest.MarkDecorator:
    """A case for each class, each form that its backend takes, and each dtype."""
    found = []
    for accuracy, (backend, names) in TAKEN.items():
        for name, dtype in product(names, dtypes):
            rare = name not in COMMON and (dtype == "float64" or accuracy == "tile6")
            problem, marks = FORMS[name].replace(dtype=dtype), [pytest.mark.long] if rare else []
            found.append(pytest.param(backend, problem, marks=marks, id=f"{backend}-{name}-{dtype}"))
    return pytest.mark.parametrize(("backend", "problem"), found)


def data(kind: str, problem: Conv2dProblem) -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    draw = rng.random if kind == "uniform" else rng.standard_normal
    x, weight = (draw(shape).astype(problem.dtype) for shape in (problem.input_shape, problem.weight_shape))
    if kind == "a huge pixel":
        x[0, 5, 8, 9] *= 1e4
    return x, weight


def convolve(backend: str, problem: Conv2dProblem, x: Array, weight: Array) -> Array:
    return plan(problem, weight, backend=backend)(x)


def over_bounds(
    y: Array | Float64, x: Array, weight: Array, accuracy: str, problem: Conv2dProblem
) -> tuple[float, float]:
    """The largest error in units of its bound, and the relative L2 error in units of its own."""
    expected = reference(x, weight, None, problem)
    error = np.abs(y - expected)
    relative = float(np.linalg.norm(error) / np.linalg.norm(expected))
    worst = float((error / error_bounds(x, weight, None, problem, accuracy)).max())
    return worst, relative / norm_bound(problem, accuracy)


@cases(("float32", "float64"))
@pytest.mark.parametrize("kind", ["normal", "uniform", "a huge pixel"])
def test_right_results_keep_their_bounds_with_room(backend: str, problem: Conv2dProblem, kind: str) -> None:
    x, weight = data(kind, problem)
    y = convolve(backend, problem, x, weight)
    # The reference of float64 is itself rounded: its own error counts here.
    worst, relative = over_bounds(y, x, weight, get_backend(backend).accuracy, problem)
    assert worst < (1 if kind == "a huge pixel" else 0.5)
    assert relative < 0.5


@cases(("float32",))
def test_one_wrong_tap_is_seen(backend: str, problem: Conv2dProblem) -> None:
    x, weight = data("normal", problem)
    lacking = weight.copy()
    lacking[3, 7, -1, 0] = 0
    y = convolve(backend, problem, x, lacking)
    assert over_bounds(y, x, weight, get_backend(backend).accuracy, problem)[0] > 10


@cases(("float32",))
def test_what_is_exact_on_small_integers_says_so(backend: str, problem: Conv2dProblem) -> None:
    x, weight, _ = integers(problem)
    wrong = np.count_nonzero(convolve(backend, problem, x, weight) != reference(x, weight, None, problem))
    assert (wrong == 0) == (get_backend(backend).accuracy in EXACT)


def test_every_class_of_tiles_has_its_backend_and_every_form_one() -> None:
    assert TAKEN.keys() == TILES.keys()
    assert {name for _, names in TAKEN.values() for name in names} == FORMS.keys()


@EACH_TILE
def test_sums_in_half_precision_are_seen(accuracy: str) -> None:
    problem = FIRST[accuracy]
    x, weight = data("normal", problem)
    image = padded(x, problem.padding, "zeros")
    y = np.zeros(problem.output_shape, np.float16)
    for c, p, q in product(range(32), *map(range, problem.kernel_size)):
        y += weight[None, :, c, p, q, None, None] * image[:, c : c + 1, p : p + 19, q : q + 22]
    assert over_bounds(y, x, weight, accuracy, problem)[0] > 1


@EACH_TILE
def test_inputs_in_half_precision_are_seen_by_the_norm(accuracy: str) -> None:
    problem = FIRST[accuracy]
    x, weight = data("normal", problem)
    y = convolve(TAKEN[accuracy][0], problem, x.astype(np.float16).astype(np.float32), weight)
    assert over_bounds(y, x, weight, accuracy, problem)[1] > 5


@EACH_TILE
def test_the_bound_is_that_of_the_largest_magnitude_in_the_tile(accuracy: str) -> None:
    problem = FIRST[accuracy]
    m, x, weight = TILES[accuracy][0], *data("normal", problem)
    at = sample_outputs(problem, 100)
    magnitude = reference(np.abs(x), np.abs(weight), None, problem)
    largest = [magnitude[n, o, i // m * m : (i // m + 1) * m, j // m * m : (j // m + 1) * m].max() for n, o, i, j in at]
    ratio = error_bound(x, weight, None, problem, accuracy, at) / largest
    np.testing.assert_allclose(ratio, ratio[0])


@EACH_TILE
def test_the_outputs_of_a_tile_of_a_dilated_kernel_are_as_far_apart(accuracy: str) -> None:
    (dh, dw), m = (2, 3), TILES[accuracy][0]
    rows, columns = ((d * (k - 1) // 2,) * 2 for d, k in zip((dh, dw), FIRST[accuracy].kernel_size, strict=True))
    problem = FIRST[accuracy].replace(dilation=(dh, dw), padding=(rows, columns))
    x, weight = data("normal", problem)
    at = sample_outputs(problem, 100)
    magnitude = reference(np.abs(x), np.abs(weight), None, problem)

    def phase(index: int, d: int) -> slice:
        return slice(index // (m * d) * m * d + index % d, index // (m * d) * m * d + m * d, d)

    largest = [magnitude[n, o, phase(i, dh), phase(j, dw)].max() for n, o, i, j in at]
    ratio = error_bound(x, weight, None, problem, accuracy, at) / largest
    np.testing.assert_allclose(ratio, ratio[0])
    whole = error_bounds(x, weight, None, problem, accuracy)[tuple(at.T)] / largest
    np.testing.assert_allclose(whole, 1.001 * ratio, rtol=1e-5)


@pytest.mark.parametrize("accuracy", [name for name in TILES if name != "tile2"])
def test_a_huge_pixel_breaks_the_bound_of_direct_sums(accuracy: str) -> None:
    problem = FIRST[accuracy]
    x, weight = data("a huge pixel", problem)
    y = convolve(TAKEN[accuracy][0], problem, x, weight)
    assert over_bounds(y, x, weight, "direct", problem)[0] > 1


def test_an_unknown_class_is_refused() -> None:
    with pytest.raises(ValueError, match="no bound known for accuracy class 'tile3'"):
        error_bound(*data("normal", PROBLEM), None, PROBLEM, "tile3", sample_outputs(PROBLEM, 1))


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
