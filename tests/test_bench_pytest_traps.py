"""The traps of pytest-benchmark that could bite its harness, each sprung once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.machine.environment import environment
from bench.store.benchmark_json import import_run

ROOT = Path(__file__).parent.parent
LABEL = 'mb1ic2ih6oc2oh6kh3ph1n"layer"'
# A backend that is slow to prepare, logs its calls, lies when told to, and counts the outputs still alive at the end.
PLUGIN = """
import gc, json, os, time, weakref
import numpy as np
from conv_impls import register
from conv_impls.reference import reference
log, outputs = open(os.environ["SPY_LOG"], "a"), []
@register("spy")
def prepare(problem, weight, bias, threads):
    time.sleep(0.3)
    made = []
    def call(x, out):
        made.append(None)
        if len(made) == 1:
            outputs.append(weakref.ref(out))
        log.write(json.dumps({"rows": problem.output_shape[2], "gc": gc.isenabled()}) + "\\n"); log.flush()
        lies = len(made) > int(os.environ.get("SPY_LIES_AFTER", 10**9))
        out[...] = reference(x, weight, bias, problem) + lies
    return call
def pytest_sessionfinish():
    gc.collect()
    print("alive:", sum(ref() is not None for ref in outputs), "of", len(outputs))
"""


def harness(
    tmp_path: Path, *options: str, backends: str = "spy", labels: str = LABEL, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run the benchmark file as a user does, with a plug-in."""
    (tmp_path / "spy_plugin.py").write_text(PLUGIN)
    command = [sys.executable, "-m", "pytest", "bench/test_bench_conv2d.py", "-q", "-s", "-p", "no:cacheprovider"]
    command += [f"--bench-workload={labels}", f"--bench-backends={backends}", *options]
    own = {"PYTHONPATH": str(tmp_path), "PYTEST_PLUGINS": "spy_plugin", "SPY_LOG": str(tmp_path / "log")}
    return subprocess.run(command, cwd=ROOT, env=os.environ | own | variables, capture_output=True, text=True)


def timed(tmp_path: Path, **arguments: Any) -> tuple[subprocess.CompletedProcess[str], list[dict[str, Any]]]:
    """The process and the benchmarks of its JSON."""
    out = tmp_path / "out.json"
    done = harness(tmp_path, "--benchmark-only", f"--benchmark-json={out}", **arguments)
    # pytest-benchmark writes an empty file, or none, where nothing was timed.
    return done, json.loads(out.read_text())["benchmarks"] if out.exists() and out.read_text() else []


def calls(tmp_path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]


@pytest.fixture(scope="module")
def spied(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, dict[str, Any]]:
    """Folder, output and the one benchmark of a run that is looked at from several sides."""
    folder = tmp_path_factory.mktemp("spied")
    done, entries = timed(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    (entry,) = entries
    return folder, done.stdout, entry


def test_preparing_is_in_no_round_and_costs_none(spied: tuple[Path, str, dict[str, Any]]) -> None:
    _, _, entry = spied
    assert entry["extra_info"]["prepare_s"] > 0.3
    assert max(entry["stats"]["data"]) < 0.1
    # Timed with the 0.3 s, there would be room for the fewest rounds only.
    assert len(entry["stats"]["data"]) > 6


def test_rounds_are_warmed_up_and_without_garbage_collection(spied: tuple[Path, str, dict[str, Any]]) -> None:
    folder, _, entry = spied
    rounds, iterations = entry["stats"]["rounds"], entry["stats"]["iterations"]
    collected = [call["gc"] for call in calls(folder) if call["rows"] == 6]
    assert collected.count(False) >= rounds * iterations
    assert collected[0] is True
    assert entry["options"]["timer"] == "perf_counter"


def test_parameters_are_strings_and_no_array_outlives_its_test(spied: tuple[Path, str, dict[str, Any]]) -> None:
    folder, printed, entry = spied
    assert "UNSERIALIZABLE" not in (folder / "out.json").read_text()
    assert all(isinstance(value, str) for value in entry["params"].values())
    assert "alive: 0 of" in printed


def test_its_json_is_a_run_of_this_machine(spied: tuple[Path, str, dict[str, Any]], tmp_path: Path) -> None:
    folder, _, entry = spied
    run, left_out = import_run(folder / "out.json", tmp_path / "run")
    (record,) = run.records()
    assert left_out == []
    assert (record.case.label, record.case.backend, record.case.threads) == (LABEL, "spy", 1)
    assert record.samples_s == entry["stats"]["data"]
    assert record.fma_peak_gflops
    assert run.environment["id"] == environment()["id"]


def test_compiling_is_in_no_round(tmp_path: Path) -> None:
    done, (entry,) = timed(tmp_path, backends="numba_direct", NUMBA_CACHE_DIR=str(tmp_path / "kernels"))
    assert done.returncode == 0, done.stdout
    assert entry["extra_info"]["compile_s"] > 0.1
    assert max(entry["stats"]["data"]) < 0.1


def test_threads_backends_and_directions_are_chosen(tmp_path: Path) -> None:
    done, entries = timed(tmp_path, backends="numpy_strided,python_loops")
    assert done.returncode == 0, done.stdout
    assert [entry["extra_info"]["backend"] for entry in entries] == ["numpy_strided", "python_loops"]
    listed = harness(tmp_path, "--collect-only", "--bench-direction=fwd,bwd_w", "--bench-threads=1", backends="auto")
    assert [word in listed.stdout for word in ("/fwd/warm/auto/t1", "/bwd_w/warm/auto/t1")] == [True, True]


@pytest.mark.parametrize("after", ["0", "8"])
def test_a_wrong_result_fails_and_leaves_no_time(tmp_path: Path, after: str) -> None:
    done, entries = timed(tmp_path, SPY_LIES_AFTER=after)
    assert (done.returncode, entries) == (1, [])
    assert "wrong_result: " in done.stdout
    assert ("after timing" in done.stdout) == (after == "8")


def test_what_a_backend_refuses_is_skipped_when_timed_and_passes_as_a_test(tmp_path: Path) -> None:
    one = LABEL.replace("kh3ph1", "kh1ph0")
    done, entries = timed(tmp_path, backends="numba_winograd", labels=one)
    assert (done.returncode, entries, "1 skipped" in done.stdout) == (0, [], True), done.stdout
    ordinary = harness(tmp_path, backends="numba_winograd", labels=one)
    assert "1 passed" in ordinary.stdout


def test_an_ordinary_test_run_times_nothing_and_fails_on_a_wrong_result(tmp_path: Path) -> None:
    done = harness(tmp_path)
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout
    assert len(calls(tmp_path)) < 20
    assert harness(tmp_path, SPY_LIES_AFTER="0").returncode == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--benchmark-json=none.json"], "--benchmark-only"),
        (["--benchmark-only", "--benchmark-disable"], "--benchmark-disable"),
        (["--bench-workload=nowhere"], "nowhere"),
        (["--bench-backends=numba_dirct"], "did you mean 'numba_direct'"),
        (["--bench-threads=0"], "--threads"),
        (["--bench-direction=up"], "--direction"),
    ],
)
def test_what_cannot_be_timed_is_refused_in_a_line(tmp_path: Path, options: list[str], said: str) -> None:
    done = harness(tmp_path, *options)
    assert done.returncode == 4
    errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
    assert len(errors) == 1
    assert said in errors[0]
    assert not (ROOT / "none.json").exists()
