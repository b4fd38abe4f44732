"""The command line from outside: whole runs in child processes, crashes, resuming, wrong input, exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.store import Run
from conv_impls import Conv2dProblem, backends, get_backend

ROOT = Path(__file__).parent.parent
TINY = 'mb1ic3ih8oc4kh3ph1n"tiny"'
# Where no kernel is cached, the first cases compile theirs: about 10 s for each, more on a busy machine.
FIRST_RECORDS_S = 300

# Backends that misbehave, handed to the measuring child as a pytest plug-in of its own.
EVIL = """
import os, signal, time
import numpy as np
from conv_impls import register
def evil(name, action):
    @register(name)
    def run(x, weight, bias, problem):
        action()
        return np.zeros(problem.output_shape, x.dtype)
evil("evil_segfault", lambda: os.kill(os.getpid(), signal.SIGSEGV))
evil("evil_exit", lambda: os._exit(0))
evil("evil_wrong", lambda: None)
def leave():
    raise SystemExit(3)
evil("evil_leaves", leave)
evil("evil_loud", lambda: print("x" * 10_000_000))
"""


def bench(*arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench", *map(str, arguments)]
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | {"COLUMNS": "200"} | variables, capture_output=True, text=True
    )


def assert_nothing_failed(run: Run) -> None:
    """Every case is ok, or one that its backend refuses."""
    for record in run.records():
        reason = get_backend(record.case.backend).supports(Conv2dProblem.from_label(record.case.label))
        assert record.status == ("ok" if reason is None else "unsupported"), record


def test_a_smoke_run_and_its_report(tmp_path: Path) -> None:
    done = bench("run", "--workload", "smoke", "--out", tmp_path / "run", "--budget", "120", "--threads", "1,2")
    assert done.returncode == 0, done.stderr
    run = Run.open(tmp_path / "run")
    assert len(run.records()) == len(run.cases) == 4 * len(backends()) * 2
    assert_nothing_failed(run)
    assert {record.case.threads for record in run.records()} == {1, 2}
    assert not list((tmp_path / "run").glob("running-*"))
    again = bench("run", "--workload", "smoke", "--out", tmp_path / "run")
    assert (again.returncode, "holds a run already" in again.stderr) == (2, True)
    reported = bench("report", tmp_path / "run", "--out", tmp_path / "report")
    assert reported.returncode == 0, reported.stderr
    assert "numba_direct" in reported.stdout
    assert (tmp_path / "report" / "README.md").exists()
    same = bench("compare", tmp_path / "run", tmp_path / "run")
    assert same.returncode == 0, same.stderr
    assert "slower" not in same.stdout


def test_a_crash_costs_one_case_and_the_run_goes_on(tmp_path: Path) -> None:
    (tmp_path / "evil_plugin.py").write_text(EVIL)
    names = "evil_segfault,evil_exit,evil_leaves,evil_wrong,evil_loud,numpy_strided"
    # The parent resolves names too, so both processes load the plug-in.
    code = "import evil_plugin, bench.__main__ as m; m.main()"
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}", "PYTEST_PLUGINS": "evil_plugin"}
    command = [
        sys.executable,
        "-c",
        code,
        "run",
        "--workload",
        TINY,
        "--backends",
        names,
        "--out",
        str(tmp_path / "run"),
        "--threads",
        "1",
    ]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    statuses = {r.case.backend: (r.status, r.reason) for r in Run.open(tmp_path / "run").records()}
    assert statuses["evil_segfault"][0] == "crashed"
    assert "SIGSEGV" in statuses["evil_segfault"][1]
    assert statuses["evil_exit"][0] == "crashed"
    assert statuses["evil_leaves"] == ("error", "SystemExit: 3")
    assert statuses["evil_wrong"][0] == statuses["evil_loud"][0] == "wrong_result"
    assert statuses["numpy_strided"] == ("ok", "")
    assert "repeat: python -m bench check --workload" in done.stderr
    assert len(done.stdout) < 10_000


def start(folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "bench", "run", "--workload", "basic", "--out", str(folder), "--threads", "1"]
    # A job started in the background ignores SIGINT, and its children would inherit that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    child = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    signal.signal(signal.SIGINT, before)
    end = time.monotonic() + FIRST_RECORDS_S
    while time.monotonic() < end and child.poll() is None:
        records = folder / "records.jsonl"
        if records.exists() and records.read_text().count("\n") >= 3:
            return child
        time.sleep(0.05)
    raise AssertionError(f"no three records: exit code {child.poll()} (None: {FIRST_RECORDS_S} s are over)")


def test_a_killed_run_keeps_its_records_and_resumes(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    child = start(folder)
    os.killpg(child.pid, signal.SIGKILL)
    child.communicate()
    # The measuring child has a group of its own; it must not go on writing for long.
    time.sleep(0.5)
    before = Run.open(folder).done()
    assert len(before) >= 3
    done = bench("run", "--resume", folder)
    assert done.returncode == 0, done.stderr
    run = Run.open(folder)
    keys = [record.case.key for record in run.records()]
    assert len(keys) == len(set(keys)) == len(run.cases)


def test_ctrl_c_says_how_to_go_on_and_exits_with_130(tmp_path: Path) -> None:
    child = start(tmp_path / "run")
    child.send_signal(signal.SIGINT)
    _, errors = child.communicate(timeout=30)
    assert child.returncode == 130
    assert "--resume" in errors
    assert "Traceback" not in errors
    run = Run.open(tmp_path / "run")
    interrupted = [record.case.key for record in run.records() if record.status == "interrupted"]
    # Between two cases there is none to interrupt.
    assert len(interrupted) <= 1
    assert not run.done() & set(interrupted)
    assert bench("run", "--resume", run.folder).returncode == 0
    assert_nothing_failed(run)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "--backends", "numba_dirct"], "no backend 'numba_dirct'; did you mean 'numba_direct'"),
        (["run", "--workload", "resnet5"], "no workload 'resnet5'; did you mean 'resnet50'"),
        (["run", "--workload", ""], "--workload: expected one or more names"),
        (["run", "--threads", "0"], "--threads: expected counts from 1 to"),
        (["run", "--threads", "two"], "--threads: expected counts from 1 to"),
        (["run", "--direction", "bwd_d"], "--direction: expected fwd"),
        (["run", "--budget", "-1"], "--budget: expected a number above 0"),
        (["run", "--timeout", "nan"], "--timeout: expected a number above 0"),
        (["run", "--timeout", "inf"], "--timeout: expected a number above 0"),
        (
            ["run", "--workload", f"{TINY},{TINY.replace('oc4', 'oc5')}"],
            "--workload: layer 'tiny' of 'label' comes twice",
        ),
        (["run", "--resume", "nowhere", "--seed", "3"], "--resume: expected no other option"),
        (["compare", "results/runs/reference", "results/runs/reference", "--margin", "nan"], "--margin: expected"),
        (["report", "results/runs/reference", "--out", "/dev/null/x"], "/dev/null"),
        (["run", "--repetitions", "0"], "--repetitions: expected a number above 0"),
        (["run", "--resume", "nowhere"], "nowhere: no run here"),
        (["report", "nowhere"], "nowhere: no run here"),
        (["check", "--workload", "ic3ih2oc4kh9"], "expected a kernel that fits"),
        (["compare", "nowhere", "nowhere"], "nowhere: no run here"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(arguments: list[str], words: str) -> None:
    done = bench(*arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Traceback" not in done.stderr


def test_check_exits_1_on_a_wrong_result_and_prints_how_to_repeat_it(tmp_path: Path) -> None:
    (tmp_path / "evil_plugin.py").write_text(EVIL)
    code = "import evil_plugin, bench.__main__ as m; m.main()"
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    command = [sys.executable, "-c", code, "check", "--workload", TINY, "--backends", "evil_wrong,numba_direct"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert (
        f"repeat: python -m bench check --workload '{TINY.replace('oc4', 'oc4oh8').replace('ih8', 'ih8')}'"
        in done.stderr
    )
    good = bench("check", "--workload", TINY, "--backends", "numba_direct,auto")
    assert (good.returncode, "2 cases, 0 wrong" in good.stdout) == (0, True)


def test_compare_exits_1_on_a_regression_and_refuses_other_machines(tmp_path: Path) -> None:
    done = bench("run", "--workload", TINY, "--backends", "numpy_strided", "--out", tmp_path / "a", "--threads", "1")
    assert done.returncode == 0, done.stderr
    slow = tmp_path / "b"
    slow.mkdir()
    for name in ("config.json", "environment.json"):
        (slow / name).write_text((tmp_path / "a" / name).read_text())
    record = json.loads((tmp_path / "a" / "records.jsonl").read_text())
    record["samples_s"] = [10 * s for s in record["samples_s"]]
    (slow / "records.jsonl").write_text(json.dumps(record) + "\n")
    assert bench("compare", tmp_path / "a", slow).returncode == 1
    assert bench("compare", slow, tmp_path / "a").returncode == 0
    environment = json.loads((slow / "environment.json").read_text())
    (slow / "environment.json").write_text(json.dumps(environment | {"id": "other"}))
    refused = bench("compare", tmp_path / "a", slow)
    assert (refused.returncode, "--force" in refused.stderr) == (2, True)
    assert bench("compare", tmp_path / "a", slow, "--force").returncode == 1


@pytest.mark.parametrize("command", ["run", "report", "compare", "check"])
def test_help_has_examples(command: str) -> None:
    done = bench(command, "--help")
    assert done.returncode == 0
    assert f"python -m bench {command} " in done.stdout


def test_list_prints_its_lines() -> None:
    listed = bench("list").stdout
    assert all(word in listed for word in ("numba_direct", "python_loops", "resnet50", "vgg16"))
