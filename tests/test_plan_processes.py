"""A plan in another process: spawned, forked, a worker of joblib or Dask; it computes the same bits there."""

from __future__ import annotations

import copy
import operator
import os
import pickle
from pathlib import Path

import dask.array
import joblib
import numpy as np
import pytest
from dask.base import tokenize
from distributed import Client, LocalCluster
from harness import apart
from joblib.externals.loky import get_reusable_executor
from plans import P, arrays, assert_same, differences, planned_with

from conv_impls import Plan
from conv_impls.validation import Array

# What a limit ends would hang.
LIMIT_S = 120


def elsewhere() -> tuple[list[Plan], Array, list[Array]]:
    """Plans with one and with two threads, an image, and what each makes of it here."""
    plans = [planned_with("numba_simd", threads=1), planned_with("numba_winograd_f2", threads=2, activation="relu")]
    x = arrays(P, 1)[0]
    return plans, x, [ready(x) for ready in plans]


def test_a_spawned_process_gets_plans_and_sends_them_back() -> None:
    plans, x, expected = elsewhere()
    *results, back = apart(operator.call, [*((ready, x) for ready in plans), (copy.copy, {"plans": plans})])
    assert_same(results, expected)
    assert back["plans"] == plans


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_process_plans_again_and_has_those_of_its_parent() -> None:
    plans, x, expected = elsewhere()
    pickled = pickle.dumps(plans)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            assert_same([ready(x) for ready in (*plans, *pickle.loads(pickled))], expected * 2)
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_workers_of_joblib_get_plans() -> None:
    plans, x, expected = elsewhere()
    tasks = [*plans, lambda image: [ready(image) for ready in plans]]
    try:
        # Arrays of 100 bytes and more reach the workers as files mapped to memory.
        parallel = joblib.Parallel(n_jobs=2, backend="loky", timeout=LIMIT_S, max_nbytes=100)
        *results, several = parallel(joblib.delayed(task)(x) for task in tasks)
    finally:
        get_reusable_executor().shutdown(wait=True)
    assert_same([*results, *several], expected * 2)


def test_joblib_stores_plans_and_knows_equal_ones(tmp_path: Path) -> None:
    ready = planned_with()
    joblib.dump([ready], tmp_path / "plans.joblib", compress=3)
    (loaded,) = joblib.load(tmp_path / "plans.joblib")
    assert not differences(loaded, ready)
    assert joblib.hash(loaded) == joblib.hash(ready) != joblib.hash(planned_with(activation="relu"))


def test_workers_of_dask_get_plans(tmp_path: Path) -> None:
    plans, x, expected = elsewhere()
    assert tokenize(plans) == tokenize(pickle.loads(pickle.dumps(plans)))
    with (
        dask.config.set({"distributed.comm.timeouts.connect": LIMIT_S}),
        LocalCluster(
            n_workers=1, threads_per_worker=2, processes=True, dashboard_address=None, local_directory=str(tmp_path)
        ) as cluster,
        Client(cluster) as client,
    ):
        here = client.submit(os.getpid).result(LIMIT_S)
        assert_same(client.gather([client.submit(ready, x) for ready in plans]), expected)
        # A plan as an argument, in a container, and as what a task returns.
        sent = client.scatter({"plans": plans})["plans"]
        assert client.submit(copy.copy, sent).result(LIMIT_S) == plans
        images = dask.array.from_array(np.concatenate([x, 2 * x]), chunks=(2, -1, -1, -1))
        chunks = images.map_blocks(plans[0], dtype=x.dtype, chunks=((2, 2), *((n,) for n in P.output_shape[1:])))
        np.testing.assert_array_equal(chunks.compute()[:2], expected[0])
    assert here != os.getpid()
