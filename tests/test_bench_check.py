"""The judge of outputs: it accepts right ones with room to spare, and each kind of wrong output is fed to it once."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest

from bench.run.check import EXACT, EXPONENT, INTEGERS, Expected, Verdict, scales
from conv_impls import Conv2dProblem, conv2d
from conv_impls.reference import TILES, reference
from conv_impls.validation import Array

PROBLEM = Conv2dProblem.from_label('mb1ic8ih12oc8oh12kh3ph1n"layer"')
DEEP = Conv2dProblem.from_label("mb1ic64ih14oc8oh14kh3ph1")
CLASSES = ("direct", "image", *TILES)
ROUNDED = tuple(accuracy for accuracy in CLASSES if accuracy not in EXACT)
EACH_CLASS = pytest.mark.parametrize("accuracy", CLASSES)
BOTH_KINDS = pytest.mark.parametrize("integers", [True, False], ids=["integers", "normal"])


def right(expected: Expected) -> Array:
    """The outputs of a backend that rounds once."""
    return expected.y.astype(expected.problem.dtype)


def bfloat16(array: Array) -> Array:
    """Rounded to the nearest bfloat16."""
    bits = array.astype(np.float32).view(np.uint32)
    return ((bits + np.uint32(0x8000)) & np.uint32(0xFFFF0000)).view(np.float32)


def float16(array: Array) -> Array:
    return array.astype(np.float16).astype(array.dtype)


@EACH_CLASS
@BOTH_KINDS
def test_right_outputs_pass(accuracy: str, integers: bool) -> None:
    expected = Expected(PROBLEM, 0, integers=integers)
    verdict = expected.whole(right(expected), accuracy)
    assert verdict.problem == ""
    assert verdict == Verdict("") if integers and accuracy in EXACT else 0 <= (verdict.error or 0.0) < 1e-6


@EACH_CLASS
def test_the_verdict_has_the_largest_error_of_the_output_and_of_the_bound(accuracy: str) -> None:
    expected = Expected(PROBLEM.replace(dtype="float64"), 0)
    y, bounds = expected.y.copy(), expected.bounds(accuracy)
    assert bounds.shape == y.shape
    y[0, 3, 4, 5] += bounds[0, 3, 4, 5] / 2
    verdict = expected.whole(y, accuracy)
    assert verdict.problem == ""
    assert verdict.error_over_bound == pytest.approx(0.5, rel=1e-2)
    assert verdict.error == pytest.approx(bounds[0, 3, 4, 5] / 2 / np.abs(expected.y).max(), rel=1e-2)


@pytest.mark.parametrize("accuracy", EXACT)
def test_integers_must_be_exact_for_direct_methods_and_the_smallest_tile(accuracy: str) -> None:
    expected = Expected(PROBLEM, 0, integers=True)
    y = right(expected)
    y[0, 7, 11, 11] += 1e-5
    wrong = expected.whole(y, accuracy).problem
    assert wrong.startswith("integer inputs: 1 of 1152 outputs differ, first at (0, 7, 11, 11)")


@pytest.mark.parametrize("accuracy", ROUNDED)
def test_integers_must_be_right_after_rounding_for_all_other_methods(accuracy: str) -> None:
    expected = Expected(PROBLEM, 0, integers=True)
    bounds = expected.bounds(accuracy)
    assert bounds.max() < 0.5, "within its bound a result has one integer to be rounded to"
    sign = np.where(np.random.default_rng(0).random(bounds.shape) < 0.5, -1, 1)
    assert expected.whole((expected.y + 0.9 * sign * bounds).astype(np.float32), accuracy).problem == ""
    assert "integer inputs: 1152 of 1152 outputs beyond" in expected.whole(right(expected) + 1, accuracy).problem


@EACH_CLASS
@BOTH_KINDS
def test_one_wrong_output_is_seen_wherever_it_is(accuracy: str, integers: bool) -> None:
    expected = Expected(PROBLEM, 0, integers=integers)
    y, bounds = right(expected), expected.bounds(accuracy)
    for at in np.ndindex(y.shape):
        kept = y[at]
        y[at] += 1 if integers else 2 * bounds[at]
        problem = expected.whole(y, accuracy).problem
        assert problem.startswith(f"{'integer' if integers else 'normal'} inputs: 1 of 1152 outputs"), at
        assert f"at {at}: got {y[at]:.8g}"[:20] in problem
        y[at] = kept
    assert expected.whole(y, accuracy).problem == ""


@EACH_CLASS
@BOTH_KINDS
@pytest.mark.parametrize("spoil", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_seen(accuracy: str, integers: bool, spoil: float) -> None:
    expected = Expected(PROBLEM, 0, integers=integers)
    y = right(expected)
    y[0, 5, 0, 7] = spoil
    problem = expected.whole(y, accuracy).problem
    assert "at (0, 5, 0, 7)" in problem
    assert f"got {spoil}" in problem


@EACH_CLASS
@pytest.mark.parametrize("round_off", [float16, bfloat16])
@pytest.mark.parametrize("rounded", [("x",), ("weight",), ("x", "weight")], ids=["x", "weight", "both"])
@pytest.mark.parametrize("label", ["mb1ic64ih14oc8oh14kh3ph1", "mb1ic3ih16oc8oh16kh3ph1", "mb1ic16ih12oc8kh1"])
def test_operands_of_half_precision_are_seen(
    accuracy: str, round_off: Callable[[Array], Array], rounded: tuple[str, ...], label: str
) -> None:
    expected = Expected(Conv2dProblem.from_label(label), 0)
    x = round_off(expected.x) if "x" in rounded else expected.x
    weight = round_off(expected.weight) if "weight" in rounded else expected.weight
    y = reference(x, weight, None, expected.problem).astype(np.float32)
    assert expected.whole(y, accuracy).problem.startswith("normal inputs: ")


@EACH_CLASS
def test_operands_of_single_precision_are_seen_in_double(accuracy: str) -> None:
    expected = Expected(DEEP.replace(dtype="float64"), 0)
    x = expected.x.astype(np.float32).astype(np.float64)
    assert expected.whole(right(expected), accuracy).problem == ""
    assert expected.whole(reference(x, expected.weight, None, expected.problem), accuracy).problem


@EACH_CLASS
def test_the_norm_sees_what_the_bound_at_each_output_does_not(accuracy: str) -> None:
    expected = Expected(DEEP.replace(dtype="float64"), 0)
    sign = np.where(np.random.default_rng(0).random(expected.y.shape) < 0.5, -1, 1)
    y = expected.y + 0.9 * sign * expected.bounds(accuracy)
    assert expected.whole(y, accuracy).problem.startswith("normal inputs: relative L2 error")


@EACH_CLASS
@BOTH_KINDS
def test_a_wrong_shape_or_dtype_is_seen(accuracy: str, integers: bool) -> None:
    expected = Expected(PROBLEM, 0, integers=integers)
    y = right(expected)
    for wrong in (y[:, :7], y[0], y.swapaxes(2, 3)[..., :11], y.astype(np.float64), y.astype(np.int32)):
        problem = expected.whole(wrong, accuracy).problem
        assert problem == f"got {wrong.shape} {wrong.dtype}, expected (1, 8, 12, 12) float32"


@EACH_CLASS
@pytest.mark.parametrize("scale", [1.0, -1.0, 2.0**EXPONENT, -(2.0**-EXPONENT)])
def test_a_scaled_image_has_the_scaled_result_and_no_other(accuracy: str, scale: float) -> None:
    expected = Expected(PROBLEM, 0)
    y = right(expected) * np.float32(scale)
    assert expected.whole(y, accuracy, scale) == expected.whole(right(expected), accuracy)
    for other in (2 * scale, scale / 2, -scale):
        wrong = int(expected.whole(y, accuracy, other).problem.split()[2])
        assert wrong > 1140, "an output near zero may pass"


@EACH_CLASS
def test_a_few_outputs_are_judged_by_the_scale_of_their_image(accuracy: str) -> None:
    expected = Expected(PROBLEM, 0)
    at = np.random.default_rng(0).integers(0, expected.y.size, 16)
    values = right(expected).reshape(-1)[at].astype(np.float64)
    drawn = scales(0)
    for scale, later in pairwise(drawn):
        assert expected.some(values * scale, at, accuracy, scale) == Verdict("")
        stale = expected.some(values * scale, at, accuracy, later).problem
        assert stale.startswith("at (0, "), "what was right for another image is wrong"
        assert "of a new image: got" in stale


@EACH_CLASS
@pytest.mark.parametrize("place", [0, 7, 15])
def test_one_wrong_output_among_a_few_is_seen(accuracy: str, place: int) -> None:
    expected = Expected(PROBLEM, 0)
    at = np.arange(3, 3 + 16 * 70, 70)
    values = right(expected).reshape(-1)[at].astype(np.float64)
    where = tuple(int(i) for i in np.unravel_index(at[place], expected.y.shape))
    for wrong in (values[place] + 2 * expected.bounds(accuracy)[where], np.nan, np.inf):
        spoiled = values.copy()
        spoiled[place] = wrong
        problem = expected.some(-4 * spoiled, at, accuracy, -4.0).problem
        assert problem.startswith(f"at {where} of a new image: got "), problem


def test_scales_are_powers_of_two_and_all_different() -> None:
    drawn = scales(3)
    mantissas, exponents = np.frexp(np.abs(drawn))
    assert set(mantissas) == {0.5}
    assert len(set(drawn)) == len(drawn) == 2 * len(set(exponents))
    assert max(map(abs, drawn)) == 2.0**EXPONENT
    assert (scales(3), scales(4) != drawn) == (drawn, True)


@pytest.mark.parametrize("backend", ["numpy_im2col", "numba_direct", "numba_winograd_f4"])
def test_a_scale_changes_the_result_of_a_backend_by_itself_bit_for_bit(backend: str) -> None:
    expected = Expected(PROBLEM, 0)
    y = conv2d(expected.x, expected.weight, padding=1, backend=backend)
    for scale in (2.0**EXPONENT, -(2.0**EXPONENT), 2.0**-EXPONENT, -8.0):
        scaled = conv2d(expected.x * np.float32(scale), expected.weight, padding=1, backend=backend)
        np.testing.assert_array_equal(scaled, y * np.float32(scale))


def test_integer_sums_are_exact_in_float32() -> None:
    most = max(abs(v) for v in (INTEGERS[0], INTEGERS[1] - 1)) ** 2
    assert 2**22 * most <= 2**24
    expected = Expected(DEEP, 0, integers=True)
    assert {*np.unique(expected.x), *np.unique(expected.weight)} == set(range(*INTEGERS))


def test_data_follow_the_seed_and_rows_between_are_zero() -> None:
    once, again, other = Expected(PROBLEM, 0), Expected(PROBLEM, 0), Expected(PROBLEM, 1)
    np.testing.assert_array_equal(once.x, again.x)
    assert (once.x != other.x).all()
    sparse = Expected(PROBLEM, 0, every=(2, 3)).x
    np.testing.assert_array_equal(sparse[:, :, ::2, ::3], once.x[:, :, ::2, ::3])
    assert np.count_nonzero(sparse) == sparse.size // 6
