"""The command line from outside: whole runs, crashes, resuming, wrong input, exit codes."""

from __future__ import annotations

import json
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from records import CASE, new_run, record, store

from bench import __main__ as command_line
from bench import machine
from bench.store import Run
from bench.worker import PLUGIN
from conv_impls import Conv2dProblem, backends, get_backend, registry

ROOT = Path(__file__).parent.parent
TINY = 'mb1ic3ih8oc4kh3ph1n"tiny"'
# Where no kernel is cached, the first cases compile theirs: about 10 s for each, more on a busy machine.
FIRST_RECORDS_S = 300

EVIL = """
import ctypes, os, sys, time
import numpy as np
from conv_impls import register
from conv_impls.reference import reference
def evil(name, action, right=0):
    calls = [0]
    @register(name)
    def run(x, weight, bias, problem):
        calls[0] += 1
        if calls[0] > right:
            action()
            return np.zeros(problem.output_shape, x.dtype)
        return reference(x, weight, bias, problem).astype(x.dtype)
evil("aborts", os.abort)
evil("segfaults", lambda: ctypes.string_at(0))
evil("exits", lambda: os._exit(0))
evil("leaves", lambda: sys.exit(3))
evil("hangs", lambda: time.sleep(600))
evil("wrong", lambda: None)
evil("wrong_later", lambda: None, 8)
evil("dies_later", os.abort, 8)
evil("huge", lambda: np.empty(2**44))
evil("loud", lambda: [os.write(1, b"{}" * 500_000 + b"\\n") for _ in range(100)])
"""
STATUSES = {
    "aborts": "crashed", "segfaults": "crashed", "exits": "crashed", "leaves": "error", "hangs": "timeout",
    "wrong": "wrong_result", "wrong_later": "wrong_result", "dies_later": "crashed",
    "huge": "oom", "loud": "wrong_result", "numpy_strided": "ok",
}  # fmt: skip


@dataclass
class Done:
    returncode: int
    stdout: str
    stderr: str


Bench = Callable[..., Done]


@pytest.fixture
def bench(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], registered: Any
) -> Bench:
    """The command in this process, in an empty folder with a plug-in, on a machine that is quickly measured."""
    (tmp_path / "evil_plugin.py").write_text(EVIL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(machine, "measure_machine", lambda: {})

    def call(*arguments: str | Path) -> Done:
        monkeypatch.setattr(sys, "argv", ["bench", *map(str, arguments)])
        sys.modules.pop("evil_plugin", None)
        for name in set(STATUSES) & set(registry._registered) - {"numpy_strided"}:
            del registry._registered[name]
        code: Any = 0
        try:
            command_line.main()
        except SystemExit as end:
            code = end.code
        return Done(code or 0, *capsys.readouterr())

    return call


def outside(*arguments: str | Path, cwd: Path = ROOT) -> subprocess.Popen[str]:
    """The command in a process of its own."""
    # A job started in the background ignores SIGINT, and its children would inherit that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    child = subprocess.Popen(
        [sys.executable, "-m", "bench", *map(str, arguments)], cwd=cwd, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    signal.signal(signal.SIGINT, before)
    return child


def test_a_smoke_run_and_its_report(bench: Bench, tmp_path: Path) -> None:
    asked = "run", "--workload", "smoke", "--out", tmp_path / "run", "--budget", "120", "--seconds", "0.02"
    done = bench(*asked, "--threads", "2")
    assert done.returncode == 0, done.stderr
    run = Run.open(tmp_path / "run")
    assert len(run.records()) == len(run.cases) == 4 * len(backends())
    for one in run.records():
        reason = get_backend(one.case.backend).supports(Conv2dProblem.from_label(one.case.label))
        assert one.status == ("ok" if reason is None else "unsupported"), one
        assert "numba 2" in one.threads_seen or reason or not one.case.backend.startswith("numba")
    again = bench(*asked)
    assert (again.returncode, "holds a run already" in again.stderr) == (2, True)
    assert bench("run", "--resume", tmp_path / "run").returncode == 0, "nothing is left to do"
    reported = bench("report", tmp_path / "run", "--out", tmp_path / "report")
    assert reported.returncode == 0, reported.stderr
    assert "numba_direct" in reported.stdout
    assert (tmp_path / "report" / "README.md").exists()
    same = bench("compare", tmp_path / "run", tmp_path / "run")
    assert same.returncode == 0, same.stderr


def test_each_backend_has_its_own_status_and_a_command_that_gives_it_again(bench: Bench, tmp_path: Path) -> None:
    names = ",".join(STATUSES)
    asked = "--workload", TINY, "--plugin", "evil_plugin", "--threads", "1", "--timeout", "0.02", "--seconds", "0.03"
    done = bench("run", *asked, "--backends", names, "--out", tmp_path / "run")
    assert done.returncode == 1, done.stderr
    assert {one.case.backend: one.status for one in Run.open(tmp_path / "run").records()} == STATUSES
    assert len(done.stdout) < 10_000
    assert "Traceback" not in done.stderr
    commands = re.findall(r"^  repeat: python -m bench (.*)$", done.stderr, re.MULTILINE)
    assert len(commands) == len(STATUSES) - 1
    for command in commands:
        name = re.findall(r"--backends (\w+)", command)[0]
        if name != "hangs":
            again = bench(*shlex.split(command), "--out", tmp_path / name)
            (one,) = Run.open(tmp_path / name).records()
            assert (again.returncode, one.status, one.case.label) == (
                1,
                STATUSES[name],
                Conv2dProblem.from_label(TINY).label,
            )


def test_check_exits_1_on_a_wrong_result_and_prints_how_to_repeat_it(bench: Bench, tmp_path: Path) -> None:
    asked = "--workload", TINY, "--plugin", "evil_plugin"
    done = bench("check", *asked, "--backends", "wrong,aborts,numpy_strided")
    assert (done.returncode, "3 cases, 2 wrong" in done.stdout) == (1, True)
    command = re.findall(r"repeat: python -m bench (.*)$", done.stderr, re.MULTILINE)[0]
    assert bench(*shlex.split(command), "--out", tmp_path / "again").returncode == 1
    good = bench("check", *asked, "--backends", "numpy_strided,numpy_im2col", "--direction", "fwd,bwd_d,bwd_w")
    assert (good.returncode, "6 cases, 0 wrong" in good.stdout) == (0, True), good.stderr


def test_every_axis_is_one_option(bench: Bench, tmp_path: Path) -> None:
    done = bench(
        "run", "--workload", "mb1ic4ih8oc4kh3ph1", "--backends", "numpy_im2col", "--threads", "1,2", "--seconds",
        "0.01", "--direction", "fwd,bwd_d,bwd_w", "--batch", "1,2", "--dtype", "float32,float64", "--repetitions", "2",
        "--out", tmp_path / "run",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    records = Run.open(tmp_path / "run").records()
    assert len(records) == 2 * 3 * 2 * 2 * 2
    assert {(one.status, one.threads_seen == f"openblas {one.case.threads}") for one in records} == {("ok", True)}


def test_caches_may_be_cold(bench: Bench, tmp_path: Path) -> None:
    label = "mb1ic64ih112oc64kh1"
    done = bench(
        "run", "--workload", label, "--backends", "numpy_im2col", "--cache", "warm,cold", "--out", tmp_path / "run"
    )
    assert done.returncode == 0, done.stderr
    assert [one.status for one in Run.open(tmp_path / "run").records()] == ["ok", "ok"]
    assert Run.open(tmp_path / "run").config["rotate_bytes"] > 4 * Conv2dProblem.from_label(label).min_bytes


def start(folder: Path, records: int) -> subprocess.Popen[str]:
    """A run that has just written so many records."""
    child = outside(
        "run", "--workload", "basic", "--backends", "numpy_im2col,numpy_strided", "--out", folder, "--threads", "1",
        "--seconds", "0.03",
    )  # fmt: skip
    end = time.monotonic() + FIRST_RECORDS_S
    while time.monotonic() < end and child.poll() is None:
        path = folder / "records.jsonl"
        if path.exists() and path.read_bytes().count(b"\n") >= records:
            return child
        time.sleep(0.01)
    raise AssertionError(f"no {records} records: exit code {child.poll()} (None: {FIRST_RECORDS_S} s are over)")


def test_a_run_killed_twice_keeps_its_records_and_resumes(bench: Bench, tmp_path: Path) -> None:
    folder, moment = tmp_path / "run", random.Random(0)
    child = start(folder, 3)
    time.sleep(moment.uniform(0, 0.1))
    child.kill()
    child.communicate()
    before = Run.open(folder).done()
    assert len(before) >= 3
    child = outside("run", "--resume", folder)
    time.sleep(moment.uniform(1, 2))
    child.kill()
    child.communicate()
    assert before <= Run.open(folder).done()
    done = bench("run", "--resume", folder)
    assert done.returncode == 0, done.stderr
    run = Run.open(folder)
    lines = (folder / "records.jsonl").read_text().splitlines()
    assert len(lines) == len(run.records()) == len(run.cases), "nothing was measured twice"
    assert json.loads((folder / "finished.json").read_text())["statuses"] == {"ok": len(run.cases)}


def test_ctrl_c_says_how_to_go_on_and_exits_with_130(bench: Bench, tmp_path: Path) -> None:
    child = start(tmp_path / "run", 2)
    meanwhile = outside("run", "--resume", tmp_path / "run")
    assert meanwhile.communicate()[1] == f"error: {tmp_path}/run: another process is measuring for this run\n"
    assert meanwhile.returncode == 2
    child.send_signal(signal.SIGINT)
    _, errors = child.communicate(timeout=30)
    assert child.returncode == 130
    assert "Traceback" not in errors
    command = re.findall(r"interrupted; finish with: python -m bench (.*)", errors)[0]
    assert bench(*shlex.split(command)).returncode == 0
    run = Run.open(tmp_path / "run")
    assert run.done() == {case.key for case in run.cases}


def resumable(bench: Bench, folder: Path) -> dict[str, Any]:
    """The configuration of a run whose budget left everything out."""
    asked = "--workload", TINY, "--backends", "numpy_strided", "--threads", "1", "--budget", "1e-9"
    done = bench("run", *asked, "--out", folder)
    assert "the budget left out 1; finish with:" in done.stderr
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return config


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--seed", "3"], "--resume: the run was made with --seed 0, got 3"),
        (["--workload", "smoke"], "--resume: the run was made with --workload"),
        (["--out", "x"], "--out: expected none beside --resume"),
    ],
)
def test_resume_refuses_another_configuration(bench: Bench, tmp_path: Path, given: list[str], words: str) -> None:
    resumable(bench, tmp_path / "run")
    done = bench("run", "--resume", tmp_path / "run", *given)
    assert (done.returncode, words in done.stderr) == (2, True), done.stderr


@pytest.mark.parametrize(
    "change",
    [
        {"seconds": 9.0}, {"seconds": None}, {"cases": []}, {"cases": [3]}, {"options": None}, {"options": {}},
        {"options": {"x": 1}}, {"variables": {"PATH": "x"}}, {"rotate_bytes": "many"}, {"schema": 1}, {"seed": [1]},
    ],
)  # fmt: skip
def test_resume_refuses_a_configuration_someone_changed(bench: Bench, tmp_path: Path, change: dict[str, Any]) -> None:
    config = resumable(bench, tmp_path / "run")
    (tmp_path / "run" / "config.json").write_text(json.dumps(config | change))
    one_line(bench("run", "--resume", tmp_path / "run"), "")
    assert not (tmp_path / "run" / "records.jsonl").exists() or not Run(tmp_path / "run").records()


def test_resume_refuses_another_machine(bench: Bench, tmp_path: Path) -> None:
    resumable(bench, tmp_path / "run")
    path = tmp_path / "run" / "environment.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"id": "other", "cpu": "another"}))
    one_line(bench("run", "--resume", tmp_path / "run"), "the machine or versions changed (cpu);")


def one_line(done: Done, words: str) -> None:
    assert done.returncode == 2, done
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "--backends", "numba_dirct"], "no backend 'numba_dirct'; did you mean 'numba_direct'"),
        (["run", "--workload", "resnet5"], "no workload 'resnet5'; did you mean 'resnet50'"),
        (["run", "--workload", ""], "--workload: expected one or more names"),
        (["run", "--workload", "layers.txt"], "layers.txt:2: "),
        (["run", "--workload", "layers.csv"], "layers.csv"),
        (["run", "--workload", "model.onnx"], "model.onnx"),
        (["run", "--workload", "missing.txt"], "missing.txt"),
        (["run", "--threads", "0"], "--threads: expected counts from 1 to"),
        (["run", "--threads", "two"], "--threads: expected counts from 1 to"),
        (["run", "--threads", "100000"], "--threads: expected counts from 1 to"),
        (["run", "--direction", "bwd"], "--direction: expected fwd, bwd_d, bwd_w"),
        (["run", "--cache", "hot"], "--cache: expected warm, cold, weights"),
        (["run", "--batch", "0"], "--batch: expected counts from 1"),
        (["run", "--dtype", "float16"], "--dtype: expected"),
        (["run", "--layers", "nowhere"], "--layers: expected part of a layer's name"),
        (["run", "--isa", "sse2"], "--isa: expected avx2"),
        (["run", "--isa", "avx2", "--backends", "onnxruntime"], "--isa: none of these backends"),
        (["run", "--kernels", "old"], "--kernels: expected kept, fresh"),
        (["run", "--plugin", "no_such_module"], "--plugin: 'no_such_module' cannot be imported"),
        (["run", "--budget", "-1"], "--budget: expected a number above 0"),
        (["run", "--budget", "0"], "--budget: expected a number above 0"),
        (["run", "--timeout", "nan"], "--timeout: expected a number above 0"),
        (["run", "--timeout", "inf"], "--timeout: expected a number above 0"),
        (["run", "--seconds", "0"], "--seconds: expected a number above 0"),
        (["run", "--repetitions", "0"], "--repetitions: expected a number above 0"),
        (["run", "--workload", f"{TINY},{TINY.replace('oc4', 'oc5')}"], "layer 'tiny' of 'label' comes twice"),
        (["run", "--resume", "nowhere"], "nowhere: no run here"),
        (["run", "--workload", TINY, "--out", "layers.txt/run"], "layers.txt/run: cannot be written"),
        (["run", "--workload", TINY, "--out", "/proc/run"], "/proc/run: cannot be written"),
        (["report", "nowhere"], "nowhere: no run here"),
        (["report", "stored", "--out", "layers.txt/x"], "layers.txt"),
        (["report", "junk"], "junk/records.jsonl:1: "),
        (["report", "truncated"], "truncated/config.json"),
        (["compare", "nowhere", "nowhere"], "nowhere: no run here"),
        (["compare", "stored", "junk", "--force"], "junk/records.jsonl:1: "),
        (["compare", "stored", "stored", "--margin", "nan"], "--margin: expected"),
        (["check", "--workload", "ic3ih2oc4kh9"], "expected a kernel that fits"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(
    bench: Bench, tmp_path: Path, arguments: list[str], words: str
) -> None:
    (tmp_path / "layers.txt").write_text("ic3ih8oc4kh3\nic3ih8oc4kh3zz9\n")
    (tmp_path / "layers.csv").write_bytes(b"\xff\0junk,\n1,2\n")
    (tmp_path / "model.onnx").write_bytes(b"not a model")
    for name in ("stored", "junk", "truncated"):
        store(new_run(tmp_path / name, CASE), record())
    (tmp_path / "junk" / "records.jsonl").write_bytes(b"\xff\0\n")
    config = tmp_path / "truncated" / "config.json"
    config.write_bytes(config.read_bytes()[:40])
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    one_line(bench(*arguments), words)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("arguments", [["run", "--no-such-option"], ["nonsense"], ["run", "--seed", "-1"], ["compare"]])
def test_what_the_command_line_does_not_know_is_exit_code_2(bench: Bench, arguments: list[str]) -> None:
    done = bench(*arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["run", "report", "compare", "check", "machine"])
def test_help_has_examples(bench: Bench, command: str) -> None:
    done = bench(command, "--help")
    assert done.returncode == 0
    assert f"python -m bench {command}" in done.stdout


def test_list_prints_its_lines(bench: Bench) -> None:
    listed = bench("list").stdout
    assert all(word in listed for word in ("numba_direct", "python_loops", "resnet50", "vgg16"))


def test_a_plug_in_is_found_where_the_command_is_run(bench: Bench, tmp_path: Path) -> None:
    child = outside("check", "--workload", TINY, "--plugin", "evil_plugin", "--backends", "wrong", cwd=tmp_path)
    _, errors = child.communicate()
    assert (child.returncode, "wrong_result" in errors) == (1, True), errors
    assert PLUGIN not in os.environ
