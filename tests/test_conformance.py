"""Every registered backend on the basic problems, in every padding mode, dtype, with and without bias and batch."""

from __future__ import annotations

import re
from itertools import product
from typing import Any

import numpy as np
import pytest

from bench.conftest import built_in
from bench.machine import cores
from conv_impls import Conv2dProblem, UnsupportedError, conv2d, get_backend, plan, registry, workloads
from conv_impls.reference import error_bound, reference, sample_outputs
from conv_impls.validation import PADDING_MODES, Array
from conv_impls.workloads import Layer

LAYERS = workloads.load("basic")
EVERY = pytest.mark.parametrize("backend", built_in())
ON_EACH_LAYER = pytest.mark.parametrize("layer", LAYERS, ids=[layer.name for layer in LAYERS])


def arguments(problem: Conv2dProblem) -> dict[str, Any]:
    names = ("stride", "padding", "dilation", "groups", "padding_mode")
    return {name: getattr(problem, name) for name in names}


def integers(problem: Conv2dProblem, seed: int = 0) -> tuple[Array, Array, Array]:
    rng = np.random.default_rng(seed)
    shapes = problem.input_shape, problem.weight_shape, (problem.out_channels,)
    x, weight, bias = (rng.integers(-4, 5, shape).astype(problem.dtype) for shape in shapes)
    return x, weight, bias


def supported(backend: str, problem: Conv2dProblem) -> bool:
    """Whether the backend takes the problem; where it does not, asking all the same must raise its reason."""
    reason = get_backend(backend).supports(problem)
    if reason is None:
        return True
    with pytest.raises(UnsupportedError, match=re.escape(reason)):
        conv2d(*integers(problem), backend=backend, **arguments(problem))
    return False


def chosen(backend: str, problem: Conv2dProblem, precision: str = "standard") -> registry.Backend:
    """What `conv2d` runs under this name."""
    return registry.resolve("test", backend, problem, precision, cores(), eager=True)


def is_direct(backend: str, problem: Conv2dProblem) -> bool:
    return chosen(backend, problem).accuracy == "direct"


@EVERY
@ON_EACH_LAYER
@pytest.mark.parametrize("mode", PADDING_MODES)
def test_integers_come_out_exactly(backend: str, layer: Layer, mode: str) -> None:
    for dtype, with_bias, single in product(("float32", "float64"), (False, True), (False, True)):
        problem = layer.problem.replace(padding_mode=mode, dtype=dtype, batch=1 if single else layer.problem.batch)
        if not supported(backend, problem):
            continue
        x, weight, bias = integers(problem)
        ref = reference(x, weight, bias if with_bias else None, problem)
        given = x[0] if single else x
        comp = conv2d(given, weight, bias if with_bias else None, backend=backend, **arguments(problem))
        assert comp.dtype == dtype
        assert comp.flags.c_contiguous
        rounded = comp if is_direct(backend, problem) else np.rint(comp)
        np.testing.assert_array_equal(rounded, ref[0] if single else ref)


@EVERY
@ON_EACH_LAYER
def test_real_data_stay_within_the_published_bound(backend: str, layer: Layer) -> None:
    problem = layer.problem
    if not supported(backend, problem):
        return
    rng = np.random.default_rng(1)
    x, weight = (rng.standard_normal(s, "float32") for s in (problem.input_shape, problem.weight_shape))
    at = sample_outputs(problem, 64)
    accuracy = chosen(backend, problem).accuracy
    bound = error_bound(x, weight, None, problem, accuracy, at)
    ref = reference(x, weight, None, problem)[tuple(at.T)]
    comp = conv2d(x, weight, backend=backend, **arguments(problem))[tuple(at.T)]
    assert (np.abs(comp - ref) <= bound).all()


@EVERY
@ON_EACH_LAYER
def test_a_plan_gives_what_the_call_gives_and_keeps_its_weights(backend: str, layer: Layer) -> None:
    problem = layer.problem
    if not supported(backend, problem):
        return
    x, weight, bias = integers(problem)
    expected = conv2d(x, weight, bias, backend=backend, **arguments(problem))
    ready = plan(problem, weight, bias, backend=backend)
    weight[:] = 99
    bias[:] = 99
    out = np.full(problem.output_shape, np.nan, problem.dtype)
    assert ready(x, out=out) is out
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(ready(x), expected)


@EVERY
@pytest.mark.parametrize("dilation", [(1, 2), (3, 2)])
@pytest.mark.parametrize("stride", [(1, 1), (2, 3)])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_dilation_with_stride_and_groups(
    backend: str, groups: int, stride: tuple[int, int], dilation: tuple[int, int]
) -> None:
    sides = ((3, 1), (0, 4))
    problem = Conv2dProblem(2, 4, (11, 12), 8, (3, 2), stride, sides, dilation, groups)
    if not supported(backend, problem):
        return
    x, weight, bias = integers(problem)
    comp = conv2d(x, weight, bias, backend=backend, **arguments(problem))
    rounded = comp if is_direct(backend, problem) else np.rint(comp)
    np.testing.assert_array_equal(rounded, reference(x, weight, bias, problem))


@EVERY
def test_inputs_are_left_alone_and_calls_repeat(backend: str) -> None:
    problem = LAYERS[0].problem
    if not supported(backend, problem):
        return
    x, weight, bias = integers(problem)
    copies = x.copy(), weight.copy(), bias.copy()
    first = conv2d(x, weight, bias, backend=backend, padding=1)
    second = conv2d(x, weight, bias, backend=backend, padding=1)
    for array, copy in zip((x, weight, bias), copies, strict=True):
        np.testing.assert_array_equal(array, copy)
    assert get_backend(backend).deterministic
    np.testing.assert_array_equal(first, second)


@EVERY
@pytest.mark.parametrize("threads", [1, 2, 64])
def test_the_number_of_threads_changes_no_bit(backend: str, threads: int) -> None:
    problem = LAYERS[7].problem
    if not supported(backend, problem):
        return
    rng = np.random.default_rng(2)
    x, weight = (rng.standard_normal(s, "float32") for s in (problem.input_shape, problem.weight_shape))
    one = conv2d(x, weight, backend=backend, threads=1, **arguments(problem))
    np.testing.assert_array_equal(conv2d(x, weight, backend=backend, threads=threads, **arguments(problem)), one)


@EVERY
def test_a_nan_spreads_no_further_than_published(backend: str) -> None:
    rng = np.random.default_rng(3)
    x, weight = rng.standard_normal((2, 3, 12, 12)), rng.standard_normal((4, 3, 3, 3))
    x[0, 1, 5, 6] = np.nan
    spoiled = np.isnan(conv2d(x, weight, padding=1, backend=backend))
    window = np.zeros_like(spoiled)
    window[0, :, 4:7, 5:8] = True
    if chosen(backend, Conv2dProblem.from_arrays(x, weight, padding=1)).nan_spread == "image":
        window[0] = True
    assert spoiled[0, :, 4:7, 5:8].all()
    assert not (spoiled & ~window).any()


@EVERY
def test_strict_precision_means_direct_summation_or_a_refusal(backend: str) -> None:
    x, weight = np.ones((1, 5, 5)), np.ones((1, 1, 3, 3))
    problem = Conv2dProblem.from_arrays(x, weight)
    if backend == "auto" or get_backend(backend).accuracy == "direct":
        assert chosen(backend, problem, "strict").accuracy == "direct"
        assert conv2d(x, weight, backend=backend, precision="strict")[0, 0, 0] == 9
    else:
        with pytest.raises(UnsupportedError, match="direct summation only; use precision='standard'"):
            conv2d(x, weight, backend=backend, precision="strict")
