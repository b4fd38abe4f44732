"""Every registered backend on the basic problems, in every padding mode, dtype, with and without bias and batch."""

from __future__ import annotations

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import Any

import numpy as np
import pytest
from harness import assert_right, integers
from numpy.typing import NDArray

from bench.machine.cpu import cores
from conv_impls import Conv2dProblem, UnsupportedError, conv2d, get_backend, plan, registry, workloads
from conv_impls.reference import TILES, error_bound, norm_bound, reference, sample_outputs
from conv_impls.validation import PADDING_MODES
from conv_impls.workloads import Layer

LAYERS = workloads.load("basic")
EVERY = pytest.mark.parametrize("backend", sorted(registry.sources()))
ON_EACH_LAYER = pytest.mark.parametrize("layer", LAYERS, ids=[layer.name for layer in LAYERS])


def arguments(problem: Conv2dProblem) -> dict[str, Any]:
    names = ("stride", "padding", "dilation", "groups", "padding_mode")
    return {name: getattr(problem, name) for name in names}


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


@EVERY
@ON_EACH_LAYER
@pytest.mark.parametrize("mode", PADDING_MODES)
def test_integers_come_out_exactly(backend: str, layer: Layer, mode: str) -> None:
    for dtype, with_bias, single in product(("float32", "float64"), (False, True), (False, True)):
        problem = layer.problem.replace(padding_mode=mode, dtype=dtype, batch=1 if single else layer.problem.batch)
        if not supported(backend, problem):
            continue
        x, weight, offsets = integers(problem)
        bias = offsets if with_bias else None
        comp = conv2d(x[0] if single else x, weight, bias, backend=backend, **arguments(problem))
        assert comp.dtype == dtype
        assert comp.flags.c_contiguous
        assert_right(comp[None] if single else comp, x, weight, bias, problem, chosen(backend, problem).accuracy)


@EVERY
@ON_EACH_LAYER
def test_relu_is_the_larger_of_the_result_and_zero(backend: str, layer: Layer) -> None:
    problem = layer.problem
    if supported(backend, problem):
        x, weight, bias = integers(problem)
        comp = conv2d(x, weight, bias, backend=backend, activation="relu", **arguments(problem))
        assert_right(comp, x, weight, bias, problem, chosen(backend, problem).accuracy, relu=True)


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
    assert np.linalg.norm(comp - ref) <= norm_bound(problem, accuracy) * np.linalg.norm(ref)


@EVERY
@ON_EACH_LAYER
def test_a_plan_is_right_repeats_and_keeps_its_weights(backend: str, layer: Layer) -> None:
    problem = layer.problem
    if not supported(backend, problem):
        return
    x, weight, bias = integers(problem)
    given = weight.copy(), bias.copy()
    ready = plan(problem, *given, backend=backend)
    given[0][:] = given[1][:] = 99
    out = np.full(problem.output_shape, np.nan, problem.dtype)
    assert ready(x, out=out) is out
    assert_right(out, x, weight, bias, problem, get_backend(ready.backend).accuracy)
    np.testing.assert_array_equal(ready(x), out)


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
    assert_right(comp, x, weight, bias, problem, chosen(backend, problem).accuracy)


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
def test_one_plan_is_right_from_several_threads_at_once(backend: str) -> None:
    problem = LAYERS[6].problem
    if not supported(backend, problem):
        return
    _, weight, bias = integers(problem)
    ready = plan(problem, weight, bias, backend=backend)
    inputs = [integers(problem, seed)[0] for seed in range(4)]
    alone = [ready(x) for x in inputs]
    barrier = threading.Barrier(4)

    def work(first: int) -> None:
        barrier.wait()
        for turn in range(8):
            at = (first + turn) % len(inputs)
            np.testing.assert_array_equal(ready(inputs[at]), alone[at])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))


def reached(row: int, column: int, size: int, m: int) -> NDArray[np.bool_]:
    """Outputs of a padded 3x3 layer in m x m tiles that see this pixel; m = 1 is the receptive field."""
    first = np.arange(size) // m * m - 1
    in_row, in_column = ((first <= place) & (place <= first + m + 1) for place in (row, column))
    return in_row[:, None] & in_column


@EVERY
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_nan_or_infinity_spreads_no_further_than_published(backend: str, dtype: str, value: float) -> None:
    rng = np.random.default_rng(3)
    x, weight = (rng.standard_normal(shape).astype(dtype) for shape in ((2, 3, 12, 12), (4, 3, 3, 3)))
    problem = Conv2dProblem.from_arrays(x, weight, padding=1)
    if not supported(backend, problem):
        return
    entry = chosen(backend, problem)
    for row, column in ((5, 6), (0, 0), (11, 4), (7, 11)):
        x[0, 1, row, column], kept = value, x[0, 1, row, column]
        with np.errstate(invalid="ignore"):  # NumPy's own products tell of Inf - Inf
            spoiled = ~np.isfinite(conv2d(x, weight, padding=1, backend=backend))
        x[0, 1, row, column] = kept
        window = np.zeros_like(spoiled)
        window[0] = entry.nan_spread == "image" or reached(row, column, 12, TILES.get(entry.accuracy, (1,))[0])
        assert spoiled[0, :, reached(row, column, 12, 1)].all()
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
