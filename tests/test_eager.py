"""What `conv2d` keeps between two calls: right whatever changes, bounded, of no one but the call that uses it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from threading import Barrier
from typing import Any

import numpy as np
import pytest
from effort import Effort
from plans import taken

from conv_impls import (
    Conv2dProblem,
    DTypeError,
    Prepared,
    backends,
    clear_cache,
    conv2d,
    eager,
    register,
    registry,
)
from conv_impls.kernels.runtime import job as runtime
from conv_impls.reference import reference
from conv_impls.validation import Array

Registered = dict[str, registry.Backend]
P = Conv2dProblem(2, 8, (9, 10), 8, (3, 3), padding=((1, 1), (1, 1)))
COMPILED = [name for name in backends() if name.startswith("numba_")]


@pytest.fixture(autouse=True)
def empty() -> Iterator[None]:
    clear_cache()
    yield
    clear_cache()


def arrays(problem: Conv2dProblem, seed: int) -> tuple[Array, Array, Array]:
    rng = np.random.default_rng(seed)
    shapes = problem.input_shape, problem.weight_shape, (problem.out_channels,)
    x, w, b = (rng.integers(-3, 4, shape).astype(problem.dtype) for shape in shapes)
    return x, w, b


def assert_follows(problem: Conv2dProblem, backend: str, seed: int, threads: int = 1) -> None:
    """Four calls with arrays of this seed, with and without bias and relu."""
    x, w, b = arrays(problem, seed)
    for bias, activation in product((b, None), ("relu", None)):
        y = conv2d(
            x, w, bias, padding=problem.padding, groups=problem.groups, backend=backend, threads=threads,
            activation=activation,
        )  # fmt: skip
        expected = reference(x, w, bias, problem)
        # Integers: Winograd rounds, and never by this much.
        np.testing.assert_allclose(y, np.maximum(expected, 0) if activation else expected, atol=0.05)


@pytest.mark.parametrize("backend", COMPILED)
def test_results_follow_the_weights_of_each_call(backend: str) -> None:
    problem = taken(backend, P)
    for seed in range(3):
        assert_follows(problem, backend, seed)
    # One entry with relu, one without.
    chosen = registry.resolve("test", backend, problem, "standard", 1, True)
    kept = chosen.prepare(problem, *arrays(problem, 0)[1:], 1).repack is not None
    assert eager._store.entries == (2 if kept else 0)


def test_dtype_threads_and_names_of_the_problem_are_told_apart() -> None:
    for dtype, threads in product(("float32", "float64"), (1, 2)):
        assert_follows(P.replace(dtype=dtype), "numba_simd", 0, threads)
    assert eager._store.entries == 4 * (2 if len(os.sched_getaffinity(0)) > 1 else 1)


def test_nan_and_infinity_do_not_stay() -> None:
    x, w, b = arrays(P, 0)
    for bad in (np.nan, np.inf):
        y = conv2d(np.full_like(x, bad), np.full_like(w, bad), b, padding=1, backend="numba_simd")
        assert not np.isfinite(y).all()
        assert_follows(P, "numba_simd", 1)


def test_every_thread_gets_its_own(effort: Effort) -> None:
    seeds = range(effort.seed, effort.seed + 6 * effort.rounds)
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda seed: assert_follows(P, "numba_simd", seed), seeds))
    assert eager._store.entries <= 2 * eager.MAX_PER_KEY


def test_a_burst_of_calls_leaves_few_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    assert_follows(P, "numba_simd", 0)
    clear_cache()
    x, w, b = arrays(P, 0)
    gate = Barrier(64)
    with monkeypatch.context() as patch:
        # No call ends before all are under way.
        patch.setattr(runtime, "launch", lambda *operands: gate.wait(120))
        with ThreadPoolExecutor(64) as pool:
            list(pool.map(lambda _: conv2d(x, w, b, padding=1, backend="numba_simd", threads=1), range(64)))
    assert eager._store.entries == eager.MAX_PER_KEY
    assert 0 < eager._store.bytes <= eager.MAX_BYTES
    assert_follows(P, "numba_simd", 1)


def test_an_entry_in_use_is_out_of_the_store(registered: Registered) -> None:
    seen = []

    @register("nested")
    def prepare(problem: Any, weight: Any, bias: Any, threads: Any) -> Prepared:
        values = {"weight": weight.copy()}

        def call(x: Array, out: Array) -> None:
            seen.append(eager._store.entries)
            if len(seen) < 3:
                conv2d(x, 2 * w, backend="nested")
            out[...] = values["weight"]

        def repack(weight: Array, bias: Array | None) -> None:
            values["weight"] = weight.copy()

        return Prepared(call, 0, 0, 0.0, repack)

    x, w = np.ones((1, 1, 1, 1)), np.ones((1, 1, 1, 1))
    assert conv2d(x, w, backend="nested") == 1
    assert seen == [0, 0, 0]
    assert conv2d(x, 5 * w, backend="nested") == 5
    assert eager._store.entries == 3


def keeper(packed_bytes: int | None = 1) -> list[str]:
    """Registers a backend that notes what is asked of it, and fails where the first weight is negative."""
    asked: list[str] = []

    @register("keeper")
    def prepare(problem: Any, weight: Any, bias: Any, threads: Any) -> Prepared:
        asked.append("prepare")

        def repack(weight: Array, bias: Array | None) -> None:
            asked.append("repack")
            if weight.flat[0] == -1:
                raise RuntimeError("repack")

        def call(x: Array, out: Array) -> None:
            asked.append("call")
            if x.flat[0] == -1:
                raise RuntimeError("call")
            out[...] = 0

        return Prepared(call, packed_bytes, 0, 0.0, repack)

    return asked


def run(size: int = 1, x: float = 1, weight: float = 1) -> None:
    conv2d(np.full((1, size, size), float(x)), np.full((1, 1, 1, 1), float(weight)), backend="keeper")


@pytest.mark.parametrize(("x", "weight", "asked"), [(-1, 1, ["repack", "call"]), (1, -1, ["repack"])])
def test_what_raised_does_not_serve_again(registered: Registered, x: float, weight: float, asked: list[str]) -> None:
    seen = keeper()
    run()
    with pytest.raises(RuntimeError):
        run(x=x, weight=weight)
    assert eager._store.entries == eager._store.bytes == 0
    run()
    assert seen == ["prepare", "call", *asked, "prepare", "call"]


def test_the_least_recently_used_go_first(registered: Registered) -> None:
    seen = keeper(eager.MAX_BYTES // 3)
    for size in (1, 2, 3, 1, 4):
        run(size)
    assert eager._store.bytes == 3 * (eager.MAX_BYTES // 3)
    seen.clear()
    run(1)
    assert "prepare" not in seen
    run(2)
    assert "prepare" in seen


def test_the_number_of_entries_is_bounded(registered: Registered) -> None:
    keeper(0)
    for size in range(1, eager.MAX_ENTRIES + 10):
        run(size)
    assert eager._store.entries == eager.MAX_ENTRIES


@pytest.mark.parametrize("packed_bytes", [None, eager.MAX_BYTES + 1])
def test_what_is_too_large_or_does_not_tell_pushes_nothing_out(
    registered: Registered, packed_bytes: int | None
) -> None:
    assert_follows(P, "numba_simd", 0)
    keeper(packed_bytes)
    run()
    assert eager._store.entries == 2


@pytest.mark.parametrize("backend", COMPILED)
def test_nothing_of_the_caller_stays_alive(backend: str) -> None:
    problem = taken(backend, P)
    given = arrays(problem, 0)
    before = [sys.getrefcount(array) for array in given]
    y = conv2d(*given, padding=1, groups=problem.groups, backend=backend)
    assert [sys.getrefcount(array) for array in given] == before
    assert sys.getrefcount(y) == 2
    assert y.base is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_child_of_fork_starts_empty_and_right() -> None:
    assert_follows(P, "numba_simd", 0)
    with eager._store._lock:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                assert eager._store.entries == 0
                assert_follows(P, "numba_simd", 1)
                code = 0
            finally:
                os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert eager._store.entries == 2


@pytest.mark.parametrize("spoiled", [True, (True, True), 1.0, (1.0, 1)])
def test_what_equals_a_good_argument_is_still_refused(spoiled: Any) -> None:
    x, w, _ = arrays(P, 0)
    for good in (1, (1, 1)):
        conv2d(x, w, stride=good, padding=good, backend="numpy_strided")
    for argument in ("stride", "padding", "dilation"):
        with pytest.raises(DTypeError, match=f"{argument}: expected an integer"):
            conv2d(x, w, backend="numpy_strided", **{argument: spoiled})


def test_arguments_that_are_no_keys_are_welcome() -> None:
    x, w, _ = arrays(P, 0)
    expected = conv2d(x, w, padding=1, backend="numpy_strided")
    spellings: tuple[Any, ...] = ([1, 1], np.array([1, 1]), [[1, 1], [1, 1]], np.int64(1))
    for padding in spellings:
        np.testing.assert_array_equal(conv2d(x, w, padding=padding, backend="numpy_strided"), expected)
