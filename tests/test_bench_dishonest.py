"""No backend of tests/dishonest.py ends ok, forward or backward; an honest one in the same run does."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import dishonest
import pytest
from msgspec import structs

from bench.run.driver import Driver, make_cases
from bench.run.options import read_layers
from bench.run.worker import PLUGIN
from bench.store.folder import Run
from bench.store.records import Direction, Record

# Half a millisecond forward; tall enough that some of its outputs are not in the layer cut to a few rows.
LAYER = 'mb1ic16ih48oc16oh48kh3ph1n"layer"'
HONEST = "numpy_strided"


def measured(folder: Path, backends: list[str], direction: Direction) -> dict[str, Record]:
    cases = make_cases(read_layers(LAYER), [HONEST, *backends], [1], 1, [direction], ["warm"])
    config: dict[str, Any] = {
        "seed": 0, "timeout_s": 5.0, "budget_s": 300.0, "seconds": 0.06, "fresh_cache": False, "rotate_bytes": 0,
        "variables": {PLUGIN: "dishonest", "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent)])},
        "cases": [structs.asdict(case) for case in cases],
    }  # fmt: skip
    run = Run.create(folder, config, {"id": "here"})
    with Driver(run, cases) as driver:
        return {case.backend: record for case in cases if (record := driver.record(case))}


@pytest.fixture(scope="module", params=["fwd", "bwd_d", "bwd_w"])
def records(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Record]:
    return measured(tmp_path_factory.mktemp("run") / "run", dishonest.DISHONEST, request.param)


def test_an_honest_backend_among_them_is_ok(records: dict[str, Record]) -> None:
    assert records[HONEST].status == "ok", records[HONEST].reason


@pytest.mark.parametrize("backend", dishonest.DISHONEST)
def test_a_dishonest_backend_is_not_ok(records: dict[str, Record], backend: str) -> None:
    record = records[backend]
    assert record.status in ("wrong_result", "too_fast", "crashed"), f"{record.status}: {record.reason}"
    assert record.samples_s == []
