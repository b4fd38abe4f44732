"""Planned gradients: exact on integers for every problem and backend, values like plans, errors name the argument."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from math import prod
from typing import Any

import numpy as np
import pytest
from effort import Effort

from bench.run.check import Expected
from bench.run.directions import as_forward
from conv_impls import (
    Conv2dProblem,
    DTypeError,
    InputPlan,
    ProblemError,
    UnsupportedError,
    conv2d_input,
    conv2d_weight,
    get_backend,
    plan_input,
    plan_weight,
)
from conv_impls.adjoint import phases
from conv_impls.kernels.runtime import target
from conv_impls.kernels.runtime.target import Caches
from conv_impls.padding import NO_PADDING
from conv_impls.patches import columns, scatter
from conv_impls.prepared_gradients import weight_problem
from conv_impls.reference import TILES, reference
from conv_impls.validation import PADDING_MODES, Array, Pair

# Exact on small integers.
DIRECT = "numba_simd", "numba_direct", "numpy_strided", "numba_winograd_f2"
P = Conv2dProblem(2, 8, (9, 10), 12, (3, 3), padding=((1, 1), (0, 2)))


def integers(problem: Conv2dProblem, seed: int = 0) -> tuple[Array, Array, Array]:
    """Image, weight and gradient of the output."""
    rng = np.random.default_rng(seed)
    shapes = problem.input_shape, problem.weight_shape, problem.output_shape
    x, weight, dy = (rng.integers(-3, 4, shape).astype(problem.dtype) for shape in shapes)
    return x, weight, dy


def expected_input(problem: Conv2dProblem, weight: Array, dy: Array) -> Array:
    """W^T dy, each column added to its window."""
    n, g, positions = problem.batch, problem.groups, prod(problem.out_size)
    kernels = weight.reshape(g, problem.out_channels // g, problem.reduction)
    return scatter(kernels.swapaxes(1, 2) @ dy.reshape(n, g, problem.out_channels // g, positions), problem)


def expected_weight(problem: Conv2dProblem, x: Array, dy: Array) -> Array:
    """dy times the columns of the image, transposed."""
    n, g, positions = problem.batch, problem.groups, prod(problem.out_size)
    patches = columns(x, problem).reshape(n, g, problem.reduction, positions)
    summed: Array = (dy.reshape(n, g, problem.out_channels // g, positions) @ patches.swapaxes(2, 3)).sum(0)
    return summed.reshape(problem.weight_shape)


def assert_exact(problem: Conv2dProblem, seed: int = 0, **how: Any) -> None:
    x, weight, dy = integers(problem, seed)
    for found, expected in (
        (plan_input(problem, weight, **how)(dy), expected_input(problem, weight, dy)),
        (plan_weight(problem, **how)(x, dy), expected_weight(problem, x, dy)),
    ):
        np.testing.assert_array_equal(found, expected, f"{problem} {how}")


def drawn(rng: np.random.Generator) -> Conv2dProblem:
    """Any problem, small."""
    groups = int(rng.choice([1, 1, 2, 3]))
    in_channels, out_channels = (int(rng.choice([1, 2, 5, 17])) for _ in range(2))
    if rng.random() < 0.2:
        groups, in_channels = int(rng.choice([1, 4, 18])), 1
    kernel, stride, dilation = (tuple(map(int, rng.integers(1, most, 2))) for most in (5, 4, 4))
    mode = str(rng.choice(["zeros", *PADDING_MODES]))
    size = tuple(int(rng.integers(d * (k - 1) + 1, 24)) for k, d in zip(kernel, dilation, strict=True))
    most = [n - 1 if mode != "zeros" else 6 for n in size]
    top, bottom, left, right = (int(rng.integers(0, min(4, most[i // 2]) + 1)) for i in range(4))
    return Conv2dProblem(
        int(rng.integers(1, 4)), groups * in_channels, (size[0], size[1]), groups * out_channels,
        (kernel[0], kernel[1]), (stride[0], stride[1]), ((top, bottom), (left, right)), (dilation[0], dilation[1]),
        groups, padding_mode=mode, dtype=str(rng.choice(["float32", "float64"])),
    )  # fmt: skip


def test_gradients_of_any_problem_are_exact_on_integers(effort: Effort) -> None:
    rng = np.random.default_rng(effort.seed)
    for number in range(max(60, effort.examples)):
        problem = drawn(rng)
        assert_exact(problem, number, precision="strict", threads=1 + number % 2)
        for backend in DIRECT[number % len(DIRECT) :][:1]:
            parts = [phase.problem for phase in phases(problem)] if problem.padding_mode == "zeros" else []
            if parts and all(get_backend(backend).supports(part) is None for part in parts):
                _x, weight, dy = integers(problem, number)
                found = plan_input(problem, weight, backend=backend)(dy)
                np.testing.assert_array_equal(found, expected_input(problem, weight, dy), f"{problem} {backend}")


@pytest.mark.parametrize("backend", ["python_loops", "numpy_im2col", "numpy_strided", "numba_direct", "scipy_fft"])
def test_backends_without_kernels_for_gradients_compute_them_as_convolutions(backend: str) -> None:
    for problem in (
        P.replace(in_channels=4, out_channels=6, groups=2, stride=(2, 1)),
        P.replace(in_channels=2, out_channels=3, dilation=(2, 1), padding_mode="circular"),
    ):
        x, weight, dy = integers(problem)
        made = plan_weight(problem, backend=backend)
        assert made.backend == backend
        np.testing.assert_array_equal(np.rint(made(x, dy)), expected_weight(problem, x, dy))
        planned = plan_input(problem, weight, backend=backend)
        assert set(planned.backend.split("+")) == {backend}
        np.testing.assert_array_equal(np.rint(planned(dy)), expected_input(problem, weight, dy))


@pytest.mark.parametrize("stride", [(1, 1), (2, 2), (3, 2), (2, 3), (4, 4)])
@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (7, 2)])
def test_every_phase_has_its_pixels_and_all_phases_the_products_of_the_convolution(
    kernel: tuple[int, int], stride: tuple[int, int]
) -> None:
    problem = Conv2dProblem(1, 2, (21, 26), 3, kernel, stride)
    found = phases(problem)
    assert sum(prod(phase.problem.kernel_size) for phase in found) == prod(kernel)
    pixels = np.zeros(problem.in_size, int)
    for phase in found:
        pixels[phase.first[0] :: stride[0], phase.first[1] :: stride[1]] += 1
        assert phase.cut == NO_PADDING
    assert pixels.max() == 1


def test_a_padding_wider_than_the_kernel_cuts_the_gradient() -> None:
    wide = P.replace(kernel_size=(1, 2), padding=((2, 3), (4, 0)))
    assert [phase.cut for phase in phases(wide)] == [((2, 3), (3, 0))]
    assert_exact(wide, precision="strict")


def test_no_output_reads_the_image() -> None:
    problem = Conv2dProblem(1, 2, (1, 1), 3, (1, 1), (2, 2), ((2, 0), (2, 0)))
    assert weight_problem(problem.replace(stride=(3, 3))) is None
    for stride in ((2, 2), (3, 3)):
        assert_exact(problem.replace(stride=stride), precision="strict")
        assert_exact(problem.replace(stride=stride), backend="numpy_strided")


@pytest.mark.parametrize("problem", [P, P.replace(out_channels=8, groups=8)], ids=["dense", "depthwise"])
def test_bits_of_the_weights_depend_neither_on_threads_nor_on_caches(
    problem: Conv2dProblem, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = problem.replace(batch=5, in_size=(40, 33), out_channels=problem.out_channels * 4)
    rng = np.random.default_rng(0)
    x, dy = (rng.standard_normal(shape, np.float32) for shape in (problem.input_shape, problem.output_shape))
    whole = plan_weight(problem, threads=1)(x, dy)
    for threads in (1, 2):
        for kib in ((32, 1024, 8192), (8, 64, 1024)):
            monkeypatch.setattr(target, "caches", lambda kib=kib: Caches(*(size * 1024 for size in kib)))
            again = plan_weight(problem, threads=threads)(x, dy)
            assert again.tobytes() == whole.tobytes()


def test_a_nan_after_the_row_reaches_no_other_output() -> None:
    problem = Conv2dProblem(1, 16, (6, 18), 16, (3, 3), groups=16)
    x, _, dy = integers(problem)
    x[0, 3] = np.nan
    spoiled = np.isnan(plan_weight(problem)(x, dy)).any((1, 2, 3))
    assert spoiled.tolist() == [channel == 3 for channel in range(16)]


def plans() -> list[Any]:
    _, weight, _ = integers(P)
    return [
        (plan_input(P.replace(stride=(2, 2)), weight, threads=2), P.replace(stride=(2, 2))),
        (plan_weight(P, threads=1), P), (plan_input(P, weight, backend="numpy_strided"), P),
        (plan_weight(P, backend="numpy_strided"), P),
    ]  # fmt: skip


@pytest.mark.parametrize("number", range(4))
def test_plans_of_gradients_are_values(number: int) -> None:
    ready, problem = plans()[number]
    x, _, dy = integers(problem)
    inputs = (dy,) if isinstance(ready, InputPlan) else (x, dy)
    right = ready(*inputs)
    assert copy.copy(ready) is copy.deepcopy(ready) is ready
    again = pickle.loads(pickle.dumps(ready))
    assert again == ready
    assert hash(again) == hash(ready)
    assert again.backend == ready.backend
    assert type(again) is type(ready)
    assert again(*inputs).tobytes() == right.tobytes()
    others = [other for index, (other, _) in enumerate(plans()) if index != number]
    assert ready not in others
    with pytest.raises(AttributeError, match=f"^an? {type(ready).__name__} is immutable"):
        ready.threads = 3
    out = np.full(right.shape, np.nan, right.dtype)
    assert ready(*inputs, out=out) is out
    assert out.tobytes() == right.tobytes()
    with ThreadPoolExecutor(4) as pool:
        assert all(found.tobytes() == right.tobytes() for found in pool.map(lambda _: ready(*inputs), range(40)))
    assert problem.label in repr(ready)


def test_one_image_and_an_output_that_overlaps() -> None:
    problem = P.replace(batch=1, out_channels=8, padding=((1, 1), (1, 1)))
    x, weight, dy = integers(problem)
    ready, right = plan_input(problem, weight), expected_input(problem, weight, dy)
    np.testing.assert_array_equal(ready(dy[0]), right[0])
    assert dy.shape == right.shape
    assert ready(dy, out=dy) is dy
    np.testing.assert_array_equal(dy, right)
    dy = integers(problem)[2]
    np.testing.assert_array_equal(plan_weight(problem)(x[0], dy[0]), expected_weight(problem, x, dy))


def test_functions_take_a_backend_threads_and_out() -> None:
    x, weight, dy = integers(P)
    out = np.empty_like(x)
    how: dict[str, Any] = {"padding": P.padding, "backend": "numba_direct", "threads": 1, "precision": "strict"}
    assert conv2d_input(x.shape, weight, dy, out=out, **how) is out
    np.testing.assert_array_equal(out, expected_input(P, weight, dy))
    gradient = np.empty_like(weight)
    assert conv2d_weight(x, weight.shape, dy, out=gradient, **how) is gradient
    np.testing.assert_array_equal(gradient, expected_weight(P, x, dy))


def test_wrong_arguments_are_named() -> None:
    x, weight, dy = integers(P)
    ready, of_weight = plan_input(P, weight), plan_weight(P)
    shape = rf"\({', '.join(map(str, P.output_shape))}\)"
    with pytest.raises(ProblemError, match=rf"^plan_input: grad_output: expected shape {shape}, got \(2, 8, 9, 10\)"):
        ready(x)
    with pytest.raises(ProblemError, match=rf"^plan_weight: grad_output: expected shape {shape}"):
        of_weight(x, x)
    with pytest.raises(ProblemError, match=r"^plan_weight: x: expected shape \(2, 8, 9, 10\), got \(8, 9, 10\)"):
        of_weight(x[0], dy)
    with pytest.raises(DTypeError, match=r"^plan_input: grad_output: expected dtype float32, got float64"):
        ready(dy.astype(np.float64))
    with pytest.raises(DTypeError, match=r"^plan_input: weight: expected dtype float32 like the problem, got float64"):
        plan_input(P, weight.astype(np.float64))
    with pytest.raises(ProblemError, match=r"^plan_input: weight: expected shape \(12, 8, 3, 3\)"):
        plan_input(P, weight[1:])
    with pytest.raises(DTypeError, match=r"^plan_weight: problem: expected a Conv2dProblem, got str"):
        plan_weight("mb1")  # type: ignore[arg-type]
    with pytest.raises(ProblemError, match=r"^plan_weight: precision: expected one of"):
        plan_weight(P, precision="exact")
    with pytest.raises(ProblemError, match=r"^plan_input: out: expected shape \(2, 8, 9, 10\)"):
        ready(dy, out=np.empty((1, 2), np.float32))
    with pytest.raises(UnsupportedError, match=r"^plan_input: backend 'numba_winograd_f4' cannot do mb2ic12"):
        plan_input(P.replace(stride=(2, 2)), weight, backend="numba_winograd_f4")


@pytest.mark.parametrize(
    ("stride", "dilation"), [((1, 1), (1, 1)), ((2, 2), (1, 1)), ((2, 3), (1, 2)), ((4, 1), (2, 2))]
)
def test_bounds_of_an_image_gradient_are_those_of_the_tiles_of_its_phases(stride: Pair, dilation: Pair) -> None:
    problem = Conv2dProblem(1, 3, (19, 22), 4, (3, 3), stride, ((1, 1), (1, 1)), dilation)
    forward = as_forward(problem, "bwd_d")
    expected = Expected(forward, 0, every=stride)
    magnitudes = np.abs(expected.x), np.abs(expected.weight)
    sums, m = reference(*magnitudes, None, forward), TILES["tile4"][0]
    largest = np.zeros_like(sums)
    for phase in phases(problem):
        (top, left), (dh, dw) = phase.first, phase.problem.dilation
        of_phase = sums[:, :, top :: stride[0], left :: stride[1]]
        found = largest[:, :, top :: stride[0], left :: stride[1]]
        for i, j in product(range(of_phase.shape[2]), range(of_phase.shape[3])):
            rows = slice(i // (m * dh) * m * dh + i % dh, i // (m * dh) * m * dh + m * dh, dh)
            columns = slice(j // (m * dw) * m * dw + j % dw, j // (m * dw) * m * dw + m * dw, dw)
            found[:, :, i, j] = of_phase[:, :, rows, columns].max((2, 3))
    seen = largest > 0
    ratio = expected.bounds("tile4")[seen] / largest[seen]
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-5)
    plain = Expected(forward, 0, every=stride)
    plain._spacing = (1, 1)
    changed = plain.bounds("tile4") != expected.bounds("tile4")
    assert changed.any() == (stride != (1, 1) or dilation != (1, 1))
