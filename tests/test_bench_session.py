"""The harness as a pytest session: items and outcomes, pytest-benchmark's files and switches, resume, refusals."""

from __future__ import annotations

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from committed import committed

from bench.store.benchmark_json import open_stored
from bench.store.folder import Run

ROOT = Path(__file__).parent.parent
LAYERS = 'mb1ic2ih6oc2oh6kh3ph1n"first",mb1ic2ih8oc4oh8kh1ph0n"second"'
# Backends that count their calls, lie when told to, or refuse; and a plug-in of pytest that turns the order round.
PLUGIN = """
import os, time
from conv_impls import register
from conv_impls.reference import reference
def spy(name, **facts):
    @register(name, **facts)
    def prepare(problem, weight, bias, threads):
        calls = [0]
        def call(x, out):
            calls[0] += 1
            out[...] = reference(x, weight, bias, problem)
            out += name == "liar" and calls[0] > 8
        return call
spy("honest"); spy("liar"); spy("picky", supports=lambda problem: "not today")
def pytest_collection_modifyitems(items):
    items.reverse()
"""
# Budget and timeout only end what would take for ever.
QUICK = (
    "--bench-seconds=0.01", "--bench-threads=1", "--bench-plugin=spy_plugin", "--bench-budget=900",
    "--bench-timeout=60",
)  # fmt: skip


def session(folder: Path, *options: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """A session as a user starts it, with the plug-in in this folder."""
    (folder / "spy_plugin.py").write_text(PLUGIN)
    command = [sys.executable, "-m", "pytest", "bench", "-p", "no:cacheprovider", *options]
    own = {"PYTHONPATH": str(folder)} | (env or {})
    return subprocess.run(command, cwd=ROOT, env=os.environ | own, capture_output=True, text=True)


def inside(*options: str) -> int:
    """The exit code of a session in this process, for those that measure nothing."""
    own = "-p", "no:cacheprovider", "-p", "no:faulthandler"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        return int(pytest.main(["bench", *own, *options]))


def measured(folder: Path, *options: str, backends: str = "honest,numpy_strided", env: Any = None) -> Any:
    return session(
        folder, "--benchmark-only", f"--bench-workload={LAYERS}", f"--bench-backends={backends}", *QUICK,
        f"--bench-out={folder / 'run'}", *options, env=env,
    )  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str], dict[str, Any]]:
    """A run of four backends on two layers, under a plug-in that turns the order round: folder, output, JSON."""
    folder = tmp_path_factory.mktemp("session")
    done = measured(
        folder, "-p", "spy_plugin", f"--benchmark-json={folder / 'mine.json'}", "--benchmark-save=kept",
        f"--benchmark-storage={folder / 'kept'}", f"--benchmark-histogram={folder / 'drawn'}",
        backends="honest,liar,picky,numpy_strided",
    )  # fmt: skip
    return folder, done, json.loads((folder / "run" / "benchmark.json").read_text())


def test_each_case_is_an_item_that_passes_skips_or_fails_as_it_ended(run: Any) -> None:
    _, done, _ = run
    assert done.returncode == 1
    assert "2 failed, 4 passed, 2 skipped" in done.stdout
    assert "test_conv2d[label/first-liar-t1-fwd-warm-r1]" in done.stdout
    assert "wrong_result: after timing: " in done.stdout
    assert "repeat: python -m bench run --workload 'mb1ic2ih6oc2oh6kh3ph1n\"first\"' --backends liar" in done.stdout
    assert "--plugin spy_plugin" in done.stdout, "what the repetition needs beside the case"


def test_the_median_of_every_benchmark_is_that_of_its_record(run: Any) -> None:
    folder, _, content = run
    records = {record.case.id: record for record in Run.open(folder / "run").records() if record.status == "ok"}
    entries = {entry["params"]["backend"] + entry["params"]["layer"]: entry for entry in content["benchmarks"]}
    assert len(entries) == len(records) == 4
    for record in records.values():
        stats = entries[record.case.backend + record.case.layer]["stats"]
        assert stats["data"] == record.turns_s
        assert stats["median"] == record.median_s == statistics.median(record.turns_s)
        assert stats["rounds"] == len(record.turns_s)


def test_the_file_holds_all_a_record_holds(run: Any) -> None:
    folder, _, content = run
    stored, file = Run.open(folder / "run"), open_stored(folder / "run" / "benchmark.json")
    assert {r.case.key: r for r in file.records()} == {r.case.key: r for r in stored.records()}
    assert file.environment == stored.environment
    assert content["machine_info"]["conv_impls"] == {"id": stored.environment["id"]}
    assert all(entry["options"]["timer"] == "recorded" for entry in content["benchmarks"])
    assert "UNSERIALIZABLE" not in json.dumps(content)


def test_files_that_pytest_benchmark_was_asked_for_are_there_too(run: Any) -> None:
    folder, _, content = run
    assert json.loads((folder / "mine.json").read_text()) == content
    assert len(list((folder / "kept").rglob("*_kept.json"))) == 1
    assert list(folder.glob("drawn*.svg"))


def test_a_plug_in_that_changes_the_order_of_items_does_not_change_that_of_cases(run: Any) -> None:
    folder, _, _ = run
    stored = Run.open(folder / "run")
    assert [record.case.key for record in stored.records()] == [case.key for case in stored.cases]


def test_pytest_benchmark_compares_the_run_and_groups_it_by_the_fields_of_a_case(run: Any) -> None:
    folder, _, _ = run
    file = str(folder / "run" / "benchmark.json")
    program = str(Path(sys.executable).parent / "pytest-benchmark")
    done = subprocess.run(
        [program, "compare", file, "--group-by=param:backend", "--columns=median"], capture_output=True, text=True
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "benchmark 'backend=honest'" in done.stdout
    assert "test_conv2d[label/second-numpy_strided-t1-fwd-warm-r1]" in done.stdout


def test_a_median_that_rose_fails_compare_fail_and_an_equal_one_does_not(run: Any, tmp_path: Path) -> None:
    folder, _, _ = run
    # A session with -k writes a file of its cases alone.
    copy, kept_files = shutil.copytree(folder / "run", tmp_path / "run"), tmp_path / "kept"
    (storage,) = shutil.copytree(folder / "kept", kept_files).iterdir()
    (kept,) = storage.glob("*_kept.json")
    quick = json.loads(kept.read_text())
    for entry in quick["benchmarks"]:
        entry["stats"] = {name: v / 1e3 if isinstance(v, float) else v for name, v in entry["stats"].items()}
    (storage / "0002_quick.json").write_text(json.dumps(quick))
    found = []
    for number in ("0001", "0002"):
        done = session(
            folder, "--benchmark-only", f"--bench-resume={copy}", "-k", "honest",
            f"--benchmark-storage={kept_files}", f"--benchmark-compare={number}",
            "--benchmark-compare-fail=median:10%",
        )  # fmt: skip
        found.append((done.returncode, "PerformanceRegression" in done.stdout + done.stderr))
    assert found == [(0, False), (1, True)]


def emptied(folder: Path, copy: Path) -> Path:
    """The run without its results; its machine is not measured again, which takes seconds."""
    copy.mkdir()
    for name in ("config.json", "environment.json"):
        (copy / name).write_text((folder / "run" / name).read_text())
    return copy


def test_a_run_that_was_killed_is_finished_and_its_file_holds_all_cases(run: Any, tmp_path: Path) -> None:
    folder, _, _ = run
    copy = emptied(folder, tmp_path / "copy")
    lines = (folder / "run" / "records.jsonl").read_text().splitlines()
    # As kill -9 leaves it: the last line torn, the second layer half there, no benchmark.json.
    (copy / "records.jsonl").write_text("\n".join(lines[:5]) + "\n" + lines[5][:40])
    kept = [record for record in Run.open(copy).records() if record.status == "ok"]
    before = {record.case.backend: record.turns_s for record in kept if record.case.layer == "first"}
    assert len(before) == 2
    done = session(folder, "--benchmark-only", f"--bench-resume={copy}")
    assert "2 failed, 4 passed, 2 skipped" in done.stdout, done.stdout
    again = json.loads((copy / "benchmark.json").read_text())
    assert len(again["benchmarks"]) == 4
    after = {
        entry["params"]["backend"]: entry["stats"]["data"] for entry in again["benchmarks"] if "first" in entry["name"]
    }
    assert after == before, "the layer that was complete is not measured again"
    assert (copy / "finished.json").exists()


def test_selected_cases_alone_are_measured_and_the_rest_can_follow(run: Any, tmp_path: Path) -> None:
    copy = emptied(run[0], tmp_path / "copy")
    done = session(run[0], "--benchmark-only", f"--bench-resume={copy}", "-k", "first and honest")
    assert "1 passed" in done.stdout
    assert [record.case.id for record in Run.open(copy).records()] == ["label/first-honest-t1-fwd-warm-r1"]
    assert "7 cases have no result yet; finish with --bench-resume" in done.stdout
    assert not (copy / "finished.json").exists()


def test_the_first_failure_can_stop_the_session(run: Any, tmp_path: Path) -> None:
    copy = emptied(run[0], tmp_path / "copy")
    done = session(run[0], "--benchmark-only", f"--bench-resume={copy}", "-x", "-k", "liar")
    assert "1 failed" in done.stdout
    assert "2 failed" not in done.stdout
    assert Run.open(copy).records(), "what was measured by then is kept"


def test_ctrl_c_leaves_records_and_no_process(tmp_path: Path) -> None:
    (tmp_path / "spy_plugin.py").write_text(PLUGIN)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "bench",
        "--benchmark-only",
        f"--bench-workload={LAYERS}",
        "-p",
        "no:cacheprovider",
    ]
    command += [
        "--bench-backends=numpy_strided,honest",
        *QUICK,
        "--bench-repetitions=500",
        f"--bench-out={tmp_path / 'run'}",
    ]
    # A job started in the background ignores SIGINT, and its children would inherit that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    child = subprocess.Popen(
        command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(tmp_path)}, stdout=subprocess.PIPE, text=True
    )  # fmt: skip
    signal.signal(signal.SIGINT, before)
    records = tmp_path / "run" / "records.jsonl"
    while not (records.exists() and records.stat().st_size) and child.poll() is None:
        time.sleep(0.1)
    child.send_signal(signal.SIGINT)
    printed, _ = child.communicate()
    assert child.returncode == 2, printed
    assert Run.open(tmp_path / "run").records()
    left = subprocess.run(["pgrep", "-f", f"bench.run.worker .* {child.pid}$"], capture_output=True, text=True)
    assert left.stdout == ""


@pytest.mark.long
def test_without_timing_every_case_is_checked_and_no_run_is_made(tmp_path: Path) -> None:
    options = (f"--bench-workload={LAYERS}", "--bench-plugin=spy_plugin", f"--bench-out={tmp_path / 'run'}")
    done = session(tmp_path, *options, "--bench-backends=honest,picky", "-k", "conv2d")
    assert "4 passed" in done.stdout, done.stdout
    assert not (tmp_path / "run").exists()
    plugin = PLUGIN.replace("calls[0] > 8", "calls[0] > 0")
    (tmp_path / "spy_plugin.py").write_text(plugin)
    command = [sys.executable, "-m", "pytest", "bench", *options, "--bench-backends=liar", "-k", "conv2d"]
    wrong = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True
    )
    assert "2 failed" in wrong.stdout
    assert "integer inputs: " in wrong.stdout


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--benchmark-json=none.json"], "--benchmark-only"),
        (["--benchmark-only", "--benchmark-disable"], "--benchmark-disable"),
        (["--bench-workload=nowhere"], "nowhere"),
        (["--bench-backends=numba_dirct"], "did you mean 'numba_direct'"),
        (["--bench-threads=0"], "--threads"),
        (["--bench-direction=up"], "--direction"),
        (["--benchmark-only", "--benchmark-max-time=2"], "--benchmark-max-time: expected none"),
        (["--benchmark-only", "--benchmark-timer=time.time"], "--benchmark-timer: expected none"),
        (["--benchmark-only", "--benchmark-min-rounds=9"], "use --bench-seconds"),
        (["--benchmark-only", "--benchmark-cprofile=tottime"], "--benchmark-cprofile: expected none"),
        (["--benchmark-only", "--benchmark-warmup=on"], "--benchmark-warmup: expected none"),
        (["--benchmark-only", "--bench-resume=nowhere"], "nowhere: no run here"),
        (["--benchmark-only", f"--bench-resume={committed('networks')}"], "was written by another version"),
        (["--benchmark-only", f"--bench-out={committed('bench')}"], "already contains a run"),
        (["--benchmark-only", "--bench-out=x", f"--bench-resume={committed('bench')}"], "expected none with"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_a_line(
    capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    assert inside(*options) == pytest.ExitCode.USAGE_ERROR
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("ERROR")]
    assert len(errors) == 1
    assert said in errors[0]
    assert not (ROOT / "none.json").exists()


@pytest.mark.parametrize("option", ["--help", "--collect-only", "--fixtures"])
def test_a_session_that_measures_nothing_leaves_no_run(tmp_path: Path, option: str) -> None:
    asked = f"--bench-workload={LAYERS}", "--bench-backends=numpy_strided", f"--bench-out={tmp_path / 'run'}"
    assert inside("--benchmark-only", *asked, option) == 0
    assert not (tmp_path / "run").exists()


def test_nothing_of_a_folder_or_a_shell_changes_what_the_command_runs(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --collect-only -k nothing\n")
    (tmp_path / "conftest.py").write_text("raise RuntimeError('a conftest of somebody else')\n")
    (tmp_path / "shuffle.py").write_text("def pytest_collection_modifyitems(items):\n    items.clear()\n")
    env = {"PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}", "PYTEST_ADDOPTS": "-k nothing", "PYTEST_PLUGINS": "shuffle"}
    command = [sys.executable, "-m", "bench", "run", "--workload", LAYERS, "--backends", "numpy_strided,scipy_fft"]
    command += ["--threads", "1", "--seconds", "0.01", "--timeout", "60", "--out", "run"]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ | env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "4 cases in " in done.stdout
    names = [entry["fullname"] for entry in json.loads((tmp_path / "run" / "benchmark.json").read_text())["benchmarks"]]
    # A layer with weak times comes last.
    assert "bench/test_bench_conv2d.py::test_conv2d[label/first-numpy_strided-t1-fwd-warm-r1]" in names
