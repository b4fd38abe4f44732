"""The backend is found by its name, is right within its bound, and says what it cannot do."""

import numpy as np
import pytest

from conv_impls import Conv2dProblem, UnsupportedError, backends, conv2d, get_backend
from conv_impls.reference import error_bounds, reference


def test_the_entry_point_makes_the_backend_known():
    assert "fft_rows" in backends()


@pytest.mark.parametrize("label", ["mb2ic3ih9iw20oc4oh9ow20kh3kw7ph1pw3", "ic8ih12oc8oh10kh3", "ic1ih5oc1oh5kh1"])
def test_results_stay_within_the_error_bound(label):
    problem = Conv2dProblem.from_label(label)
    rng = np.random.default_rng(0)
    x, weight = (rng.standard_normal(shape, np.float32) for shape in (problem.input_shape, problem.weight_shape))
    y = conv2d(x, weight, padding=problem.padding, backend="fft_rows")
    bound = error_bounds(x, weight, None, problem, get_backend("fft_rows").accuracy)
    assert (np.abs(y - reference(x, weight, None, problem)) <= bound).all()


def test_a_problem_that_it_cannot_do_is_refused_with_the_reason():
    with pytest.raises(UnsupportedError, match="stride 1 and dilation 1 only"):
        conv2d(np.ones((1, 8, 8)), np.ones((1, 1, 3, 3)), stride=2, backend="fft_rows")
