"""Every registered backend on the basic problems: it accepts what it must, refuses the rest in words, and is right.

`must.MUST` states what each backend must accept. The computing tests run on exactly that and never ask ``supports``, so
a backend that refuses what it must accept fails them. Limits: a backend without a row there is held to its own
``supports``, which must accept one of the problems at least.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import Any

import numpy as np
import pytest
from effort import Effort
from harness import assert_right, integers
from must import BACKENDS, MUST, Limits, depthwise, everything, limits
from numpy.typing import NDArray

from bench.machine.cpu import cores
from conv_impls import Conv2dProblem, UnsupportedError, conv2d, get_backend, plan, register, registry, workloads
from conv_impls.reference import TILES, error_bound, norm_bound, reference, sample_outputs
from conv_impls.validation import PADDING_MODES

LAYERS = {layer.name: layer.problem for layer in workloads.load("basic")}
DILATED = {
    f"groups {groups}, stride {stride}, dilation {dilation}": Conv2dProblem(
        2, 4, (11, 12), 8, (3, 2), stride, ((3, 1), (0, 4)), dilation, groups
    )
    for groups, stride, dilation in product((1, 2, 4), ((1, 1), (2, 3)), ((1, 2), (3, 2)))
}
# A dense layer, a depthwise one for those that take nothing else, one with a stride and one with a larger kernel.
SPOILED = Conv2dProblem(2, 3, (12, 12), 4, (3, 3), padding=((1, 1), (1, 1)))
SPOILABLE = {
    "dense": SPOILED,
    "depthwise": SPOILED.replace(out_channels=3, groups=3),
    "strided": SPOILED.replace(stride=(2, 2)),
    "5x5": SPOILED.replace(kernel_size=(5, 5), padding=((2, 2), (2, 2))),
    "dilated": SPOILED.replace(padding=((2, 2), (3, 3)), dilation=(2, 3)),
}
PROBLEMS = [*LAYERS.values(), *DILATED.values(), *SPOILABLE.values()]
# What the limits of some backends are about: kernels of every shape, strides, dilation, groups.
KERNELS = [(k, k) for k in range(1, 10)] + [(1, k) for k in range(2, 10)] + [(k, 1) for k in range(2, 10)]
KERNELS += [(2, 3), (3, 2), (5, 3), (3, 7)]
STEPS = [(1, 1), (2, 2), (3, 3), (1, 2), (2, 1)]
SHAPES = [
    Conv2dProblem(1, 8, (19, 18), 12, kernel, stride, dilation=dilation, groups=groups)
    for kernel, stride, (dilation, groups) in product(
        KERNELS, STEPS, [((1, 1), 1), ((1, 1), 2), ((1, 1), 4), ((2, 2), 1)]
    )
]


def accepted(problems: dict[str, Conv2dProblem]) -> pytest.MarkDecorator:
    """A case for each backend and each of the problems that it must accept."""
    found = [
        pytest.param(backend, problem, id=f"{backend}-{name}")
        for backend in BACKENDS
        for name, problem in problems.items()
        if limits(backend)(problem)
    ]
    return pytest.mark.parametrize(("backend", "problem"), found)


EVERY = pytest.mark.parametrize("backend", BACKENDS)
ON_EACH_LAYER = accepted(LAYERS)


def fitting(backend: str, *preferred: Conv2dProblem) -> Conv2dProblem:
    """The first of these problems, of the basic ones and of those above that the backend must accept."""
    problems = [*preferred, *LAYERS.values(), *SPOILABLE.values()]
    return next(problem for problem in problems if limits(backend)(problem))


def arguments(problem: Conv2dProblem) -> dict[str, Any]:
    names = ("stride", "padding", "dilation", "groups", "padding_mode")
    return {name: getattr(problem, name) for name in names}


def chosen(backend: str, problem: Conv2dProblem, precision: str = "standard") -> registry.Backend:
    """What `conv2d` runs under this name."""
    return registry.resolve("test", backend, problem, precision, cores(), eager=True)


def broken_limits(backend: str, must: Limits, problems: Iterable[Conv2dProblem]) -> list[str]:
    """Where ``supports`` departs from the limits; a refusal must be words, which `conv2d` and `plan` raise."""
    found, taken = [], 0
    for problem in problems:
        reason = get_backend(backend).supports(problem)
        taken += reason is None
        if must(problem) != (reason is None):
            found.append(f"{'refuses' if reason else 'accepts'} {problem.label}")
        if reason is None:
            continue
        if not reason.strip():
            found.append(f"has no words for {problem.label}")
            continue
        x, weight, bias = integers(problem)
        with pytest.raises(UnsupportedError, match=re.escape(reason)):
            conv2d(x, weight, bias, backend=backend, **arguments(problem))
        with pytest.raises(UnsupportedError, match=re.escape(reason)):
            plan(problem, weight, bias, backend=backend)
    return found if taken else [*found, "accepts nothing"]


@EVERY
def test_a_backend_accepts_what_it_must_and_refuses_all_else_in_words(backend: str) -> None:
    forms = product(PROBLEMS, PADDING_MODES, ("float32", "float64"))
    problems = [problem.replace(padding_mode=mode, dtype=dtype) for problem, mode, dtype in forms]
    assert broken_limits(backend, limits(backend), [*problems, *SHAPES]) == []


def test_every_row_is_of_a_backend_that_is_there() -> None:
    assert MUST.keys() <= set(BACKENDS)


@pytest.mark.parametrize("must", [everything, depthwise, MUST["numba_winograd_f4"], None])
def test_a_backend_that_refuses_everything_is_seen(registered: Any, must: Limits | None) -> None:
    register("lazy", supports=lambda problem: "not today")(lambda x, weight, bias, problem: None)
    found = broken_limits("lazy", must or limits("lazy"), PROBLEMS)
    assert found[-1] == "accepts nothing"
    assert len(found) - 1 == (sum(map(must, PROBLEMS)) if must else 0)


def test_a_backend_that_accepts_too_much_or_refuses_without_words_is_seen(registered: Any) -> None:
    register("bold")(lambda x, weight, bias, problem: None)
    found = broken_limits("bold", depthwise, PROBLEMS)
    assert found == [f"accepts {problem.label}" for problem in PROBLEMS if not depthwise(problem)]
    register("silent", supports=lambda problem: None if depthwise(problem) else "")(lambda x, weight, bias, problem: 0)
    found = broken_limits("silent", depthwise, PROBLEMS)
    assert found == [f"has no words for {problem.label}" for problem in PROBLEMS if not depthwise(problem)]


# (padding mode, dtype, with a bias, one image without a batch): all, and eight among which every pair of values is.
ALL = [*product(PADDING_MODES, ("float32", "float64"), (False, True), (False, True))]
PAIRS = [
    (PADDING_MODES[2 * a + b], ("float32", "float64")[c], bool(a ^ c), bool(b ^ c))
    for a, b, c in product((0, 1), repeat=3)
]


def test_the_short_form_has_every_pair_of_values() -> None:
    for i, j in product(range(4), repeat=2):
        assert {(form[i], form[j]) for form in PAIRS} == {(form[i], form[j]) for form in ALL}


@ON_EACH_LAYER
@pytest.mark.parametrize("forms", [PAIRS, pytest.param(ALL, marks=pytest.mark.long)], ids=["short", "long"])
def test_integers_come_out_exactly(backend: str, problem: Conv2dProblem, forms: list[Any]) -> None:
    for mode, dtype, with_bias, single in forms:
        given = problem.replace(padding_mode=mode, dtype=dtype, batch=1 if single else problem.batch)
        x, weight, offsets = integers(given)
        bias = offsets if with_bias else None
        comp = conv2d(x[0] if single else x, weight, bias, backend=backend, **arguments(given))
        assert comp.dtype == dtype
        assert comp.flags.c_contiguous
        assert_right(comp[None] if single else comp, x, weight, bias, given, chosen(backend, given).accuracy)


@ON_EACH_LAYER
def test_relu_is_the_larger_of_the_result_and_zero(backend: str, problem: Conv2dProblem) -> None:
    x, weight, bias = integers(problem)
    comp = conv2d(x, weight, bias, backend=backend, activation="relu", **arguments(problem))
    assert_right(comp, x, weight, bias, problem, chosen(backend, problem).accuracy, relu=True)


@ON_EACH_LAYER
def test_real_data_stay_within_the_published_bound(backend: str, problem: Conv2dProblem) -> None:
    rng = np.random.default_rng(1)
    x, weight = (rng.standard_normal(s, "float32") for s in (problem.input_shape, problem.weight_shape))
    at = sample_outputs(problem, 64)
    accuracy = chosen(backend, problem).accuracy
    bound = error_bound(x, weight, None, problem, accuracy, at)
    ref = reference(x, weight, None, problem)[tuple(at.T)]
    comp = conv2d(x, weight, backend=backend, **arguments(problem))[tuple(at.T)]
    assert (np.abs(comp - ref) <= bound).all()
    assert np.linalg.norm(comp - ref) <= norm_bound(problem, accuracy) * np.linalg.norm(ref)


@ON_EACH_LAYER
def test_a_plan_is_right_repeats_and_keeps_its_weights(backend: str, problem: Conv2dProblem) -> None:
    x, weight, bias = integers(problem)
    given = weight.copy(), bias.copy()
    ready = plan(problem, *given, backend=backend)
    given[0][:] = given[1][:] = 99
    out = np.full(problem.output_shape, np.nan, problem.dtype)
    assert ready(x, out=out) is out
    assert_right(out, x, weight, bias, problem, get_backend(ready.backend).accuracy)
    np.testing.assert_array_equal(ready(x), out)


@accepted(DILATED)
def test_dilation_with_stride_and_groups(backend: str, problem: Conv2dProblem) -> None:
    x, weight, bias = integers(problem)
    comp = conv2d(x, weight, bias, backend=backend, **arguments(problem))
    assert_right(comp, x, weight, bias, problem, chosen(backend, problem).accuracy)


@EVERY
def test_inputs_are_left_alone_and_calls_repeat(backend: str) -> None:
    problem = fitting(backend)
    x, weight, bias = integers(problem)
    copies = x.copy(), weight.copy(), bias.copy()
    first = conv2d(x, weight, bias, backend=backend, **arguments(problem))
    second = conv2d(x, weight, bias, backend=backend, **arguments(problem))
    for array, copy in zip((x, weight, bias), copies, strict=True):
        np.testing.assert_array_equal(array, copy)
    # What "auto" picks may change with the threads; within a process it picks the same again.
    assert get_backend(backend).deterministic in ({"no"} if backend == "auto" else {"output", "call"})
    np.testing.assert_array_equal(first, second)


# One that chooses may choose another for more threads.
@pytest.mark.parametrize("backend", [name for name in BACKENDS if get_backend(name).kind != "choose"])
def test_the_number_of_threads_changes_no_bit(backend: str) -> None:
    problem = fitting(backend, LAYERS["3x3_tail"])
    rng = np.random.default_rng(2)
    x, weight = (rng.standard_normal(s, "float32") for s in (problem.input_shape, problem.weight_shape))
    one, two, many = (conv2d(x, weight, backend=backend, threads=n, **arguments(problem)) for n in (1, 2, 64))
    np.testing.assert_array_equal(two, one)
    np.testing.assert_array_equal(many, one)


@EVERY
def test_one_plan_is_right_from_several_threads_at_once(backend: str, effort: Effort) -> None:
    problem = fitting(backend, LAYERS["3x3"])
    _, weight, bias = integers(problem)
    ready = plan(problem, weight, bias, backend=backend)
    inputs = [integers(problem, effort.seed + number)[0] for number in range(4)]
    alone = [ready(x) for x in inputs]
    barrier = threading.Barrier(4)

    def work(first: int) -> None:
        barrier.wait()
        for turn in range(effort.rounds):
            at = (first + turn) % len(inputs)
            np.testing.assert_array_equal(ready(inputs[at]), alone[at])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))


def reached(problem: Conv2dProblem, row: int, column: int, m: int) -> NDArray[np.bool_]:
    """Outputs in m x m tiles that see this pixel; m = 1 is the receptive field."""
    seen = []
    for axis, place in enumerate((row, column)):
        stride, kernel, dilation = problem.stride[axis], problem.kernel_size[axis], problem.dilation[axis]
        output = np.arange(problem.out_size[axis])
        # The outputs of a tile are ``dilation`` apart, and so are its inputs if the stride is 1.
        first = (output // (m * dilation) * m * dilation + output % dilation) * stride - problem.padding[axis][0]
        steps = (place - first) / dilation
        seen.append((steps % 1 == 0) & (steps >= 0) & (steps < (m - 1) * stride + kernel))
    found: NDArray[np.bool_] = seen[0][:, None] & seen[1]
    return found


@accepted(SPOILABLE)
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_nan_or_infinity_spreads_no_further_than_published(
    backend: str, problem: Conv2dProblem, dtype: str, value: float
) -> None:
    problem = problem.replace(dtype=dtype)
    rng = np.random.default_rng(3)
    x, weight = (rng.standard_normal(shape).astype(dtype) for shape in (problem.input_shape, problem.weight_shape))
    entry = chosen(backend, problem)
    # The outputs of the group that channel 1 belongs to.
    each = problem.out_channels // problem.groups
    first = 1 // (problem.in_channels // problem.groups) * each
    own = slice(first, first + each)
    for row, column in ((5, 6), (0, 0), (11, 4), (7, 11)):
        x[0, 1, row, column], kept = value, x[0, 1, row, column]
        # Silently: whoever calls reads it from the result.
        with np.errstate(all="raise"):
            spoiled = ~np.isfinite(conv2d(x, weight, backend=backend, **arguments(problem)))
        x[0, 1, row, column] = kept
        window = np.zeros_like(spoiled)
        tile = TILES.get(entry.accuracy, (1,))[0]
        window[0, own] = entry.nan_spread == "image" or reached(problem, row, column, tile)
        assert spoiled[0, own, reached(problem, row, column, 1)].all()
        assert not (spoiled & ~window).any()


@EVERY
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_no_value_raises_a_floating_point_error(backend: str, dtype: str) -> None:
    problem = fitting(backend, *SPOILABLE.values()).replace(dtype=dtype)
    about = np.finfo(dtype)
    for value in (np.nan, np.inf, -np.inf, about.max, about.tiny, about.smallest_subnormal):
        for spoiled in range(3):
            arrays: list[Any] = [a.astype(dtype) for a in integers(problem)]
            arrays[spoiled].reshape(-1)[1] = value
            with np.errstate(all="raise"):
                y = conv2d(*arrays, backend=backend, **arguments(problem))
                rectified = conv2d(*arrays, backend=backend, activation="relu", **arguments(problem))
            assert value == about.max or np.isfinite(y).all() == np.isfinite(value)
            np.testing.assert_array_equal(rectified, np.maximum(y, 0))


@EVERY
def test_strict_precision_means_direct_summation_or_a_refusal(backend: str) -> None:
    shape = fitting(backend, *(Conv2dProblem(1, 1, (5, 5), 1, (k, k), dtype="float64") for k in (3, 5)))
    x, weight = np.ones((1, 5, 5)), np.ones(shape.weight_shape)
    problem = Conv2dProblem.from_arrays(x, weight)
    if backend == "auto" or get_backend(backend).accuracy == "direct":
        assert chosen(backend, problem, "strict").accuracy == "direct"
        assert conv2d(x, weight, backend=backend, precision="strict")[0, 0, 0] == weight.size
    else:
        with pytest.raises(UnsupportedError, match="direct summation only; use precision='standard'"):
            conv2d(x, weight, backend=backend, precision="strict")
