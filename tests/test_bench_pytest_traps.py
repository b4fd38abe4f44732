"""The traps of pytest-benchmark that could bite here, each sprung once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench import measure
from bench.machine import VOLATILE, environment, thread_variables
from bench.run import make_cases
from bench.store import Case, Run
from conv_impls import register, registry
from conv_impls.workloads import load

ROOT = Path(__file__).parent.parent
LABEL = 'mb1ic2ih6oc2oh6kh3ph1n"layer"'
PLUGIN = """
import gc, json, os, time
import numpy as np
from conv_impls import register
from conv_impls.reference import reference
log = open(os.environ["SPY_LOG"], "a")
@register("spy")
def prepare(problem, weight, bias, threads):
    time.sleep(0.3)
    def call(x, out):
        facts = {"rows": problem.output_shape[2], "gc": gc.isenabled(), "threads": os.environ.get("NUMBA_NUM_THREADS")}
        log.write(json.dumps(facts) + "\\n"); log.flush()
        if os.environ.get("SPY_DIES") and sum(1 for _ in open(os.environ["SPY_LOG"])) > int(os.environ["SPY_DIES"]):
            os._exit(9)
        out[...] = reference(x, weight, bias, problem) + (os.environ.get("SPY_LIES") == "yes")
    return call
"""


def child(
    tmp_path: Path, backends: list[str], labels: str = LABEL, enable: str = "--benchmark-enable", **variables: str
) -> tuple[Run, Any]:
    """Run the benchmark file itself, as `bench.run` does, on a prepared folder; the run and the process."""
    (tmp_path / "spy_plugin.py").write_text(PLUGIN)
    cases = make_cases(load(labels), backends, [1], 1)
    config = {"command": "", "seed": 0, "timeout_s": 2.0, "budget_s": 60, "cases": [vars(case) for case in cases]}
    run = Run.create(tmp_path / "run", config, environment())
    command = [sys.executable, "-m", "pytest", str(ROOT / "bench" / "test_bench_conv2d.py"), "-q", f"--rootdir={ROOT}"]
    command += [enable, "--benchmark-disable-gc", "-p", "no:cacheprovider", f"--bench-run={run.folder}"]
    command += [f"--benchmark-json={tmp_path / 'out.json'}"]
    own = {"PYTHONPATH": f"{tmp_path}:{ROOT}", "PYTEST_PLUGINS": "spy_plugin", "SPY_LOG": str(tmp_path / "log")}
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | thread_variables(1) | own | variables, capture_output=True, text=True
    )
    return run, done


def calls(tmp_path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]


def test_preparing_and_compiling_are_in_no_sample_and_no_rounds_are_lost_to_them(tmp_path: Path) -> None:
    run, done = child(tmp_path, ["spy"])
    assert done.returncode == 0, done.stdout
    (record,) = run.records()
    assert record.prepare_s is not None
    assert record.prepare_s > 0.3
    assert max(record.samples_s) < 0.1
    # Timed with the 0.3 s, there would be room for one round; how many there are beyond that, the load decides.
    assert len(record.samples_s) > measure.MIN_ROUNDS


def test_no_call_is_made_that_was_not_asked_for(registered: dict[str, registry.Backend]) -> None:
    made: list[int] = []

    @register("counted")
    def run(x: Any, weight: Any, bias: Any, problem: Any) -> Any:
        from conv_impls.reference import reference

        made.append(problem.output_shape[2])
        return reference(x, weight, bias, problem).astype(x.dtype)

    asked: list[int] = []

    def timer(call: Callable[[], object], warmup: int, rounds: int, iterations: int) -> list[float]:
        before = len(made)
        call()
        asked.append(len(made) - before)
        return [1.0] * rounds

    tall = LABEL.replace("ih6oc2oh6", "ih40iw6oc2oh40ow6")
    record = measure.measure(Case("w", "l", tall, 1, "counted", 1), measure.Limits(), 0, "", timer)
    assert record.status == "ok", record.reason
    assert asked == [1]
    # Whole layer: integers, first, one to choose the rounds by, one from the timer. The rest are cut to a few rows.
    assert made.count(40) == 4
    assert len(made) == 4 + 2


def test_rounds_iterations_and_garbage_collection_in_a_real_run(tmp_path: Path) -> None:
    run, _ = child(tmp_path, ["spy"])
    (record,) = run.records()
    seen = calls(tmp_path)
    whole = [c for c in seen if c["rows"] == 6]
    # 3 checks and probes, then warm-up and rounds of `iterations` calls, and one for the result when iterations > 1.
    timed = (1 + len(record.samples_s)) * record.iterations + (record.iterations > 1)
    assert len(whole) == 3 + timed
    assert not any(c["gc"] for c in whole[4 : 4 + len(record.samples_s) * record.iterations])
    assert {c["threads"] for c in seen} == {"1"}


def test_a_wrong_result_leaves_no_time_anywhere(tmp_path: Path) -> None:
    run, _ = child(tmp_path, ["spy"], SPY_LIES="yes")
    (record,) = run.records()
    assert (record.status, record.samples_s) == ("wrong_result", [])
    # pytest-benchmark writes an empty file, or none, where nothing was timed.
    out = tmp_path / "out.json"
    assert not out.exists() or not out.read_text() or json.loads(out.read_text())["benchmarks"] == []


def test_parameters_are_strings_and_nothing_is_unserializable(tmp_path: Path) -> None:
    run, done = child(tmp_path, ["spy", "numpy_strided"])
    assert done.returncode == 0, done.stdout
    text = (tmp_path / "out.json").read_text()
    assert "UNSERIALIZABLE" not in text
    for entry in json.loads(text)["benchmarks"]:
        assert all(isinstance(value, str) for value in entry["params"].values())
        assert entry["extra_info"]["label"] == LABEL
        assert entry["options"]["timer"] == "perf_counter"
        assert len(entry["stats"]["data"]) <= measure.MAX_ROUNDS
    assert len(run.records()) == 2


def test_records_survive_a_process_that_dies_in_the_middle(tmp_path: Path) -> None:
    labels = tmp_path / "two.txt"
    labels.write_text(f"{LABEL}\n{LABEL.replace('layer', 'second')}\n")
    run, done = child(tmp_path, ["numpy_strided", "spy"], str(labels), SPY_DIES="2")
    assert done.returncode == 9
    assert [record.case.backend for record in run.records()] == ["numpy_strided"]
    assert [note.read_text() for note in run.folder.glob("running-*")] == ["two/layer/spy/t1/fwd/r1"]


def test_the_machine_is_known_by_what_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    first = environment()
    time.sleep(0.01)
    monkeypatch.setattr(os, "getloadavg", lambda: (99.0, 0.0, 0.0))
    second = environment()
    assert first["id"] == second["id"]
    assert not [key for key in first if "hz" in key.lower()]
    monkeypatch.setattr("bench.machine._cpu_model", lambda: "another")
    assert environment()["id"] != first["id"]
    assert set(VOLATILE) <= set(first)


def test_a_run_outside_the_working_directory_is_no_matter(tmp_path: Path) -> None:
    run, done = child(tmp_path, ["numpy_strided"])
    assert not run.folder.is_relative_to(ROOT)
    assert done.returncode == 0, done.stdout


def test_a_disabled_benchmark_is_an_error_in_a_run_not_a_silent_zero(tmp_path: Path) -> None:
    run, _ = child(tmp_path, ["numpy_strided"], enable="--benchmark-disable")
    (record,) = run.records()
    assert record.status == "error"
    assert "disabled" in record.reason


def test_records_are_known_by_their_label_not_by_the_name_of_the_test() -> None:
    case = Case("w", "layer", LABEL, 1, "b", 2)
    assert "test_" not in case.key
    assert LABEL in case.repro
