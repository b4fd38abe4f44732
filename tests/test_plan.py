"""What a plan promises beyond the result: no work around the kernel, no allocation, a fused or added activation."""

from __future__ import annotations

import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest

from conv_impls import Conv2dProblem, Plan, Prepared, ProblemError, conv2d, plan, register, registry
from conv_impls.kernels.runtime import job as runtime
from conv_impls.validation import Array

ROOT = Path(__file__).parent.parent

Registered = dict[str, registry.Backend]
P = Conv2dProblem(2, 3, (6, 7), 4, (3, 3), padding=((1, 1), (1, 1)))
RNG = np.random.default_rng(0)
X, W, B = (RNG.standard_normal(s).astype("f4") for s in (P.input_shape, P.weight_shape, (4,)))


def idle(problem: Any, weight: Any, bias: Any, threads: Any) -> Callable[[Array, Array], None]:
    return lambda x, out: None


def test_a_call_takes_the_short_way_to_the_kernel_and_allocates_nothing(
    registered: Registered, monkeypatch: pytest.MonkeyPatch
) -> None:
    register("idle")(idle)
    ready, out = plan(P, W, backend="idle"), np.empty(P.output_shape, "f4")
    ready(X, out=out)
    # The short way takes 1.5 us, the checks in words ten times that.
    monkeypatch.setattr(Plan, "_checked", None)
    ready(X, out=out)
    tracemalloc.start()
    ready(X, out=out)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1024


@pytest.mark.parametrize("make", [np.asfortranarray, lambda a: a.astype(">f4"), lambda a: np.flip(a.copy(), 3)])
def test_arrays_the_short_way_cannot_take_give_the_same(make: Callable[[Array], Array]) -> None:
    ready, odd = plan(P, W, B, backend="numpy_strided"), make(X)
    np.testing.assert_array_equal(ready(odd), ready(np.ascontiguousarray(odd, "f4")))


def test_out_may_overlap_x() -> None:
    problem = Conv2dProblem(1, 2, (5, 5), 2, (3, 3), padding=((1, 1), (1, 1)))
    x, w = RNG.standard_normal(problem.input_shape), RNG.standard_normal(problem.weight_shape)
    ready = plan(problem.replace(dtype="float64"), w, backend="numpy_strided")
    expected = ready(x)
    assert ready(x, out=x) is x
    np.testing.assert_array_equal(x, expected)


def test_a_wrong_shape_is_told_before_anything_is_copied() -> None:
    ready = plan(P, W, backend="numpy_strided")
    large = np.asfortranarray(np.ones((2, 3, 500, 500), "f4"))
    tracemalloc.start()
    with pytest.raises(ProblemError, match="x: expected shape"):
        ready(large)
    with pytest.raises(ProblemError, match="expected 2 input channels per group"):
        conv2d(large[:, :2].copy("F"), W)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < large.nbytes


@pytest.mark.parametrize("backend", ["numpy_strided", "numba_direct", "auto"])
def test_relu_is_the_larger_of_the_result_and_zero(backend: str) -> None:
    y = conv2d(X, W, B, padding=1, backend=backend)
    assert (y < 0).any()
    np.testing.assert_array_equal(conv2d(X, W, B, padding=1, backend=backend, activation="relu"), np.maximum(y, 0))
    np.testing.assert_array_equal(plan(P, W, B, backend=backend, activation="relu")(X), np.maximum(y, 0))


def test_relu_keeps_nan_and_reaches_problems_without_a_product() -> None:
    x = np.full((1, 3, 3), np.nan, "f4")
    assert np.isnan(conv2d(x, np.ones((1, 1, 3, 3), "f4"), activation="relu")).all()
    y = conv2d(np.empty((0, 3, 3), "f4"), np.empty((2, 0, 1, 1), "f4"), np.array([-1, 1], "f4"), activation="relu")
    np.testing.assert_array_equal(y[:, 0, 0], [0, 1])


def test_a_backend_with_a_fifth_parameter_applies_relu_itself(registered: Registered) -> None:
    seen = []

    @register("fused")
    def prepare(problem: Any, weight: Any, bias: Any, threads: Any, relu: Any) -> Prepared:
        seen.append(relu)
        return Prepared(lambda x, out: out.fill(-1))

    assert registry.get_backend("fused").fuses_relu
    assert conv2d(X, W, padding=1, backend="fused").max() == -1
    # Nothing comes after it: the -1 stays.
    assert conv2d(X, W, padding=1, backend="fused", activation="relu").max() == -1
    assert seen == [False, True]


@pytest.mark.parametrize("value", ["gelu", 1, ""])
def test_an_unknown_activation_is_refused(value: Any) -> None:
    with pytest.raises(ProblemError, match=r"activation: expected one of 'relu', got"):
        conv2d(X, W, activation=value)
    with pytest.raises(ProblemError, match=r"activation: expected one of 'relu', got"):
        plan(P, W, activation=value)


@pytest.mark.parametrize(("allowed", "left"), [(2**30, runtime.MOST_IDLE), (3, 3), (0, 1)])
def test_a_burst_of_calls_leaves_few_workspaces(allowed: int, left: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # The first layer of VGG-16.
    problem = Conv2dProblem.from_label("mb1ic3ih224oc64oh224kh3ph1")
    size = plan(problem, np.ones(problem.weight_shape, "f4"), backend="numba_simd", threads=1).workspace_bytes
    assert size is not None
    monkeypatch.setattr(runtime, "IDLE_BYTES", allowed * size)
    ready = plan(problem, np.ones(problem.weight_shape, "f4"), backend="numba_simd", threads=1)
    x, out = np.ones(problem.input_shape, "f4"), np.empty(problem.output_shape, "f4")
    gate, job = Barrier(64), runtime.Job
    # No call ends before all are under way.
    monkeypatch.setattr(runtime, "launch", lambda *operands: gate.wait(120))
    with ThreadPoolExecutor(64) as pool:
        list(pool.map(lambda _: ready(x, out), range(64)))
    assert isinstance(ready.prepared.call, job)
    assert len(ready.prepared.call._idle) == left


def test_a_chooser_hears_of_threads_and_of_how_often_the_weights_serve(registered: Registered) -> None:
    heard = []

    @register("chooser")
    def choose(problem: Any, precision: str, threads: int, eager: bool) -> str:
        heard.append((precision, threads, eager))
        return "numpy_strided"

    conv2d(X, W, backend="chooser", threads=1)
    plan(P, W, backend="chooser", threads=1, precision="strict")
    assert heard == [("standard", 1, True), ("strict", 1, False)]


# Plans by a backend without Numba, by one with it, and in a child that is forked after Numba has started its threads.
COUNTS = """
import os, sys
import numpy as np
from conv_impls import Conv2dProblem, conv2d, plan
p = Conv2dProblem.from_label("mb1ic1ih8oc16oh8kh3ph1")
x, weight = np.ones(p.input_shape, "f4"), np.ones(p.weight_shape, "f4")
counts = [plan(p, weight, backend="numpy_strided").threads]
assert "numba" not in sys.modules
counts += [plan(p, weight, backend="numba_simd", threads=n).threads for n in (None, 1, 64)]
conv2d(x, weight, padding=1, threads=64)
before = plan(p, weight, threads=64)
child = os.fork()
if child == 0:
    os._exit(10 * plan(p, weight, threads=64).threads + before.threads)
print(*counts, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.parametrize("most", ["1", ""])
def test_a_plan_says_how_many_threads_it_runs_on(most: str) -> None:
    given = {"NUMBA_NUM_THREADS": most} if most else {}
    variables = {key: value for key, value in os.environ.items() if key != "NUMBA_NUM_THREADS"} | given
    command = [sys.executable, "-c", COUNTS]
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, check=True)
    count = int(most) if most else len(os.sched_getaffinity(0))
    assert done.stdout.split() == [str(n) for n in (count, count, 1, count, 11)]
