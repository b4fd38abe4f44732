"""No backend of tests/dishonest.py ends ok, forward or backward; an honest one in the same run does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from bench.run.driver import Driver, make_cases
from bench.run.options import read_layers
from bench.run.worker import PLUGIN
from bench.store.folder import Run
from bench.store.records import Direction, Record
from conv_impls import backends

# Half a millisecond forward; tall enough that some of its outputs are not in the layer cut to a few rows. Its arrays
# are small: looking up an answer by content takes a twentieth of the time of computing it. With 16 channels of 48x48 it
# took a quarter, too near the third above which a lookup is not recognised.
LAYER = 'mb1ic32ih48iw6oc64oh48ow6kh3kw3ph1pw1n"layer"'
HONEST = "numpy_strided"
# By name: importing them would register them for all tests of this process.
DISHONEST = [
    "remembers_by_id", "remembers_by_shape", "remembers_by_content", "remembers_by_a_few_numbers", "marks_its_output",
    "skips_what_is_there", "every_second_call", "lazy", "asynchronous", "asynchronous_until_read",
    "wrong_at_one_output", "wrong_at_one_output_after_forty_calls", "wrong_after_forty_calls", "float16_both",
    "float16_image", "bfloat16_both", "bfloat16_image", "float16_tiles", "float16_fft", "slows_the_clock",
    "stops_the_clock", "answers_for_the_harness", "replaces_the_harness", "zeros_elsewhere",
]  # fmt: skip


def measured(folder: Path, backends: list[str], direction: Direction) -> dict[str, Record]:
    cases = make_cases(read_layers(LAYER), [HONEST, *backends], [1], 1, [direction], ["warm"])
    config: dict[str, Any] = {
        "seed": 0, "timeout_s": 60.0, "budget_s": 900.0, "seconds": 0.06, "fresh_cache": False, "rotate_bytes": 0,
        "variables": {PLUGIN: "dishonest", "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent)])},
        "cases": [structs.asdict(case) for case in cases],
    }  # fmt: skip
    run = Run.create(folder, config, {"id": "here"})
    with Driver(run, cases) as driver:
        return {case.backend: record for case in cases if (record := driver.record(case))}


# A gradient is measured as a forward convolution, by the same code.
@pytest.fixture(scope="module", params=["fwd", *(pytest.param(d, marks=pytest.mark.long) for d in ("bwd_d", "bwd_w"))])
def records(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Record]:
    return measured(tmp_path_factory.mktemp("run") / "run", DISHONEST, request.param)


def test_an_honest_backend_among_them_is_ok(records: dict[str, Record]) -> None:
    assert records[HONEST].status == "ok", records[HONEST].reason


@pytest.mark.parametrize("backend", DISHONEST)
def test_a_dishonest_backend_is_not_ok(records: dict[str, Record], backend: str) -> None:
    record = records[backend]
    assert record.status in ("wrong_result", "too_fast", "crashed"), f"{record.status}: {record.reason}"
    assert record.samples_s == []


def test_every_backend_of_the_plug_in_is_measured() -> None:
    code = "import dishonest\nfrom conv_impls import registry\nprint(*sorted(registry._registered))"
    folder = Path(__file__).parent
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    assert set(DISHONEST) == set(done.stdout.split()) - {"numpy_strided"}


def test_no_plug_in_of_the_tests_is_imported_by_the_process_of_the_tests() -> None:
    assert not {"dishonest", "paced"} & sys.modules.keys()
    assert not {*DISHONEST, "paced"} & set(backends())
