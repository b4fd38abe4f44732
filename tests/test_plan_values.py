"""A plan is a value: its copy and its pickle compute the same, equal plans are equal."""

from __future__ import annotations

import copy
import gc
import io
import operator
import pickle
import threading
from collections.abc import Callable
from typing import Any

import cloudpickle
import numpy as np
import pytest
from effort import Effort
from plans import P, arrays, assert_same, differences, planned_with

import conv_impls
from conv_impls import (
    Conv2dProblem,
    Plan,
    ProblemError,
    UnknownBackendError,
    backends,
    plan,
    planned,
    register,
    registry,
)
from conv_impls.validation import Array

Registered = dict[str, registry.Backend]
CONCRETE = [name for name in backends() if name in registry.sources() and name != "auto"]


class Reader(pickle.Unpickler):
    """Notes what a pickle imports."""

    def __init__(self, pickled: bytes) -> None:
        super().__init__(io.BytesIO(pickled))
        self.names: set[str] = set()

    def find_class(self, module: str, name: str) -> Any:
        self.names.add(f"{module}.{name}")
        return super().find_class(module, name)


def foreign(pickled: bytes) -> set[str]:
    """What a pickle imports besides `planned.restore`, and what arrays and bytes are made with."""
    reader = Reader(pickled)
    reader.load()
    known = {"conv_impls.planned.restore", "_codecs.encode"}
    return {name for name in reader.names - known if not name.startswith("numpy.")}


@pytest.mark.parametrize("backend", CONCRETE)
def test_copies_compute_the_same_when_the_original_is_gone(backend: str) -> None:
    ready = planned_with(backend)
    x = arrays(ready.problem, 1)[0]
    expected = ready(x)
    copies = copy.copy(ready), copy.deepcopy(ready), copy.deepcopy({"a": [ready]})["a"][0]
    del ready
    gc.collect()
    # Whatever was freed is overwritten.
    rubbish = [np.full(n, 7, np.float32) for n in (10, 100, 576, 1000, 4096, 10000) for _ in range(50)]
    assert_same([each(x) for each in copies], [expected] * 3)
    del rubbish


def test_a_copy_and_its_original_serve_two_threads(effort: Effort) -> None:
    ready = planned_with("numba_simd", threads=1)
    x = arrays(ready.problem, 1)[0]
    expected, wrong = {scale: ready(scale * x) for scale in (1, 3)}, []

    def call(mine: Plan, scale: int) -> None:
        for _ in range(5 * effort.rounds):
            if not np.array_equal(mine(scale * x), expected[scale]):
                wrong.append(scale)

    threads = [threading.Thread(target=call, args=pair) for pair in ((ready, 1), (copy.deepcopy(ready), 3))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("change", [lambda p: setattr(p, "threads", 3), lambda p: delattr(p, "problem")])
def test_a_plan_cannot_be_changed(change: Callable[[Plan], None]) -> None:
    with pytest.raises(AttributeError, match="a Plan is immutable"):
        change(planned_with())


@pytest.mark.parametrize("backend", [*CONCRETE, "auto"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_pickle_makes_the_same_plan(backend: str, dtype: str) -> None:
    problem = P.replace(dtype=dtype, name="a layer")
    for how in ({"threads": 1}, {"threads": 2, "activation": "relu"}):
        ready = planned_with(backend, problem, **how)
        for loaded in (pickle.loads(pickle.dumps(ready)), cloudpickle.loads(cloudpickle.dumps(ready))):
            assert not differences(loaded, ready)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_protocol_carries_a_plan_and_nothing_of_its_process(protocol: int) -> None:
    ready = planned_with(threads=1)
    pickled = pickle.dumps({"deep": [(ready, ready)]}, protocol)
    first, second = pickle.loads(pickled)["deep"][0]
    assert first is second
    assert not differences(first, ready)
    assert not foreign(pickle.dumps(ready, protocol))
    # Another plan lies at other addresses.
    assert pickle.dumps(planned_with(threads=1), protocol) == pickle.dumps(ready, protocol)
    buffers: list[pickle.PickleBuffer] = []
    if protocol >= 5:
        outside = pickle.dumps(ready, protocol, buffer_callback=buffers.append)
        assert not differences(pickle.loads(outside, buffers=[bytes(b) for b in buffers]), ready)


def test_a_function_or_an_address_in_a_pickle_would_be_seen() -> None:
    for protocol in (2, 5):
        assert foreign(pickle.dumps([np.ones(3), operator.call], protocol)) == {"_operator.call"}
    assert differences(planned_with(threads=1, activation="relu"), planned_with(threads=1)) == {"value", "bits"}
    assert "backend" in differences(planned_with("numba_simd"), planned_with("numba_winograd_f4"))


def test_only_the_weights_themselves_travel() -> None:
    x, weight, bias = arrays(P)
    wide, long = np.zeros((8, 8, 3, 300), "f4"), np.zeros(800, ">f4")
    wide[..., ::100], long[::100] = weight, bias
    ready = plan(P, wide[..., ::100], long[::100])
    wide[...], long[...] = 7, 7
    pickled = pickle.dumps(ready)
    assert len(pickled) < weight.nbytes + bias.nbytes + 1500
    loaded = pickle.loads(pickled)
    assert loaded == plan(P, weight, bias)
    np.testing.assert_array_equal(loaded(x), plan(P, weight, bias)(x))


def test_a_plan_inside_a_closure_travels_with_it() -> None:
    ready, x = planned_with(), arrays(P, 1)[0]
    twice = cloudpickle.loads(cloudpickle.dumps(lambda image: 2 * ready(image)))
    np.testing.assert_array_equal(twice(x), 2 * ready(x))
    bound = pickle.loads(pickle.dumps(ready.__call__))
    np.testing.assert_array_equal(bound(x), ready(x))


@pytest.mark.parametrize(
    "problem", [P.replace(batch=0), P.replace(out_channels=0), P.replace(in_channels=0)], ids=lambda p: p.label
)
def test_a_problem_without_a_product_travels(problem: Conv2dProblem) -> None:
    x, weight, bias = arrays(problem)
    ready = plan(problem, weight, bias, activation="relu")
    assert (ready.packed_bytes, ready.workspace_bytes) == (weight.nbytes + bias.nbytes, 0)
    assert not differences(pickle.loads(pickle.dumps(ready)), ready)
    np.testing.assert_array_equal(ready(x), np.broadcast_to(np.maximum(bias, 0)[:, None, None], problem.output_shape))


def test_the_threads_asked_for_travel_not_those_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    all_cores, many = planned_with(), planned_with(threads=64)
    before = all_cores.threads
    monkeypatch.setattr(planned, "thread_count", lambda fn, threads: 3 if threads is None else min(threads, 5))
    monkeypatch.setattr(planned, "usable", lambda threads: threads)
    for ready, there in ((all_cores, 3), (many, 5)):
        moved = pickle.loads(pickle.dumps(ready))
        assert moved.threads == there
        assert moved == ready
    monkeypatch.undo()
    # And on from there.
    assert pickle.loads(pickle.dumps(moved)).threads == many.threads
    assert pickle.loads(pickle.dumps(all_cores)).threads == before


def test_plans_are_equal_where_they_compute_the_same_bits() -> None:
    _, weight, bias = arrays(P)
    ready = plan(P, weight, bias, backend="numpy_strided", threads=1)
    assert ready == plan(P.replace(name="x"), weight.copy(), bias, backend="numpy_strided", threads=np.int64(1))  # type: ignore[arg-type]
    spoiled = np.full_like(weight, np.nan)
    assert plan(P, spoiled) == plan(P, spoiled)
    others = [
        plan(P, weight, backend="numpy_strided", threads=1), plan(P, weight, bias, backend="numba_simd", threads=1),
        plan(P, weight, bias, backend="numpy_strided"), plan(P, -weight, bias, backend="numpy_strided", threads=1),
        plan(P, weight, bias, backend="numpy_strided", threads=1, activation="relu"), "a plan",
    ]  # fmt: skip
    assert ready not in others
    assert len({ready, pickle.loads(pickle.dumps(ready)), *others}) == 1 + len(others)
    assert len({plan(P, 0 * weight), plan(P, -0.0 * abs(weight))}) == 2


def test_packed_bytes_count_the_weights_kept_for_the_journey() -> None:
    _, weight, bias = arrays(P)
    for backend in CONCRETE:
        ready = planned_with(backend)
        packed = ready.prepared.packed_bytes
        kept = sum(array.nbytes for array in arrays(ready.problem)[1:])
        assert ready.packed_bytes == (None if packed is None else packed + kept)
    assert plan(P, weight, backend="numpy_strided").packed_bytes == weight.nbytes
    assert plan(P, weight, bias, backend="numpy_strided").packed_bytes == weight.nbytes + bias.nbytes


def test_a_backend_that_is_missing_there_is_named(registered: Registered) -> None:
    @register("mine")
    def run(x: Any, weight: Any, bias: Any, problem: Any) -> Array:
        return np.zeros(problem.output_shape, x.dtype)

    pickled = pickle.dumps(planned_with("mine"))
    assert pickle.loads(pickled).backend == "mine"
    del registered["mine"]
    with pytest.raises(UnknownBackendError, match=r"'mine', which is not registered.* import .*'test_plan_values'"):
        pickle.loads(pickled)


def test_the_pickle_of_another_version_is_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planned, "FORMAT", 99)
    pickled = pickle.dumps(planned_with())
    monkeypatch.undo()
    words = f"plan: pickle: expected format 1, got 99 .written by conv_impls {conv_impls.__version__}"
    with pytest.raises(ProblemError, match=words):
        pickle.loads(pickled)


@pytest.mark.parametrize("backend", ["numba_simd", "numpy_strided", "scipy_fft"])
def test_what_a_backend_prepared_stays_in_its_process(backend: str) -> None:
    prepared = planned_with(backend).prepared
    assert copy.copy(prepared) is prepared
    assert copy.deepcopy(prepared) is prepared
    for dumps in (pickle.dumps, cloudpickle.dumps):
        with pytest.raises(TypeError, match="pickle the Plan"):
            dumps(prepared)
    job = planned_with("numba_simd").prepared.call
    with pytest.raises(TypeError, match="pickle the Plan"):
        pickle.dumps(job)
