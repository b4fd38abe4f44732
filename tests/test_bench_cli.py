"""The command line from outside: whole runs, crashes, resuming, wrong input, exit codes."""

from __future__ import annotations

import json
import os
import random
import re
import shlex
import signal
import subprocess
import threading
import time
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from commands import PATIENT, STATUSES, TINY, Bench, outside
from effort import Effort
from typer.main import get_command

from bench.cli.commands import EXIT_CODES, app
from bench.run.options import Options
from bench.run.progress import QUIET_S, Bar
from bench.run.worker import PLUGIN
from bench.store.folder import Run
from conv_impls import Conv2dProblem, backends, get_backend

# Where no kernel is cached, the first cases compile theirs: about 10 s for each, more on a busy machine.
FIRST_RECORDS_S = 300


# Two that can do all, and one that cannot; in the long form every backend.
@pytest.mark.long
def test_a_smoke_run_and_its_report(bench: Bench, tmp_path: Path) -> None:
    names = backends()
    asked = "run", "--workload", "smoke", "--out", tmp_path / "run", "--budget", "1200", "--seconds", "0.02"
    done = bench(*asked, *PATIENT, "--threads", "2", "--backends", ",".join(names))
    assert done.returncode == 0, done.stderr
    run = Run.open(tmp_path / "run")
    assert len(run.records()) == len(run.cases) == 4 * len(names)
    for one in run.records():
        reason = get_backend(one.case.backend).supports(Conv2dProblem.from_label(one.case.label))
        assert one.status == ("ok" if reason is None else "unsupported"), one
        assert "numba 2" in one.threads_seen or reason or not one.case.backend.startswith("numba")
    again = bench(*asked)
    assert (again.returncode, "already contains a run" in again.stderr) == (2, True)
    assert bench("run", "--resume", tmp_path / "run").returncode == 0, "nothing is left to do"
    reported = bench("report", tmp_path / "run", "--out", tmp_path / "report")
    assert reported.returncode == 0, reported.stderr
    assert "numba_direct" in reported.stdout
    assert (tmp_path / "report" / "README.md").exists()
    same = bench("compare", tmp_path / "run", tmp_path / "run")
    assert same.returncode == 0, same.stderr


# One that a signal ends, one that computes wrongly after a while; in the long form all but the one that hangs.
@pytest.mark.parametrize(
    "repeated",
    [
        {"aborts", "wrong_later"},
        pytest.param(STATUSES.keys() - {"hangs", "numpy_strided"}, marks=pytest.mark.long),
    ],
    ids=["short", "long"],
)
def test_each_backend_has_its_own_status_and_a_command_that_gives_it_again(
    bench: Bench, tmp_path: Path, repeated: set[str]
) -> None:
    names = ",".join(STATUSES)
    asked = "--workload", TINY, "--plugin", "evil_plugin", "--threads", "1", "--timeout", "0.5", "--seconds", "0.03"
    done = bench("run", *asked, "--backends", names, "--out", tmp_path / "run")
    assert done.returncode == 1, done.stderr
    assert {one.case.backend: one.status for one in Run.open(tmp_path / "run").records()} == STATUSES
    assert len(done.stdout) < 10_000
    assert "Traceback" not in done.stderr
    commands = re.findall(r"^  repeat: python -m bench (.*)$", done.stderr, re.MULTILINE)
    assert len(commands) == len(STATUSES) - 1
    for command in commands:
        name = re.findall(r"--backends (\w+)", command)[0]
        if name in repeated:
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


def test_every_axis_is_one_option_and_all_are_combined(bench: Bench, tmp_path: Path) -> None:
    label = "mb1ic4ih8oc4kh3ph1"
    cases = Options(
        label, "numpy_im2col", threads="1,2", direction="fwd,bwd_d,bwd_w", batch="1,2", dtype="float32,float64",
        cache="warm,cold", repetitions=2,
    ).cases()  # fmt: skip
    assert len({case.key for case in cases}) == 2 * 3 * 2 * 2 * 2 * 2
    done = bench(
        "run", "--workload", label, "--backends", "numpy_im2col", "--threads", "1,2", "--seconds", "0.01",
        "--direction", "bwd_d,bwd_w", "--batch", "2", "--dtype", "float64", *PATIENT, "--out", tmp_path / "run",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    records = Run.open(tmp_path / "run").records()
    assert len(records) == 4
    assert {(one.case.problem.batch, one.case.problem.dtype) for one in records} == {(2, "float64")}
    assert {(one.status, one.threads_seen == f"openblas {one.case.threads}") for one in records} == {("ok", True)}


def test_caches_may_be_cold(bench: Bench, tmp_path: Path) -> None:
    label = "mb1ic64ih112oc64kh1"
    asked = "--workload", label, "--backends", "numpy_im2col", "--cache", "warm,cold", *PATIENT
    done = bench("run", *asked, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert [one.status for one in Run.open(tmp_path / "run").records()] == ["ok", "ok"]
    assert Run.open(tmp_path / "run").config["rotate_bytes"] > 4 * Conv2dProblem.from_label(label).min_bytes


def start(folder: Path, records: int) -> subprocess.Popen[str]:
    """A run that has just written so many records."""
    child = outside(
        "run", "--workload", "basic", "--backends", "numpy_im2col,numpy_strided", "--out", folder, "--threads", "1",
        "--seconds", "0.03", *PATIENT,
    )  # fmt: skip
    end = time.monotonic() + FIRST_RECORDS_S
    while time.monotonic() < end and child.poll() is None:
        path = folder / "records.jsonl"
        if path.exists() and path.read_bytes().count(b"\n") >= records:
            return child
        time.sleep(0.01)
    raise AssertionError(f"no {records} records: exit code {child.poll()} (None: {FIRST_RECORDS_S} s are over)")


def test_a_run_killed_at_any_moment_keeps_its_records_and_resumes(bench: Bench, tmp_path: Path, effort: Effort) -> None:
    folder, moment = tmp_path / "run", random.Random(effort.seed)
    child, wait_s, before = start(folder, 3), moment.uniform(0, 0.1), set[Any]()
    for number in range(effort.kills):
        time.sleep(wait_s)
        child.kill()
        child.communicate()
        assert before <= Run.open(folder).done()
        before = Run.open(folder).done()
        assert len(before) >= 3
        if number + 1 < effort.kills:
            child, wait_s = outside("run", "--resume", folder), moment.uniform(0, 3)
    done = bench("run", "--resume", folder)
    assert done.returncode == 0, done.stderr
    run = Run.open(folder)
    lines = (folder / "records.jsonl").read_text().splitlines()
    assert len(lines) == len(run.records()) == len(run.cases), "nothing was measured twice"
    assert json.loads((folder / "finished.json").read_text())["statuses"] == {"ok": len(run.cases)}


@pytest.mark.long
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


@pytest.mark.parametrize("command", [None, *(command.name for command in app.registered_commands)])
def test_help_has_the_exit_codes_and_a_first_command_that_exists(bench: Bench, command: str | None) -> None:
    done = bench(*filter(None, [command]), "--help")
    text = " ".join(done.stdout.split())
    assert (done.returncode, EXIT_CODES in text) == (0, True)
    first = re.search(r"Try first: python -m bench (.*) Exit codes:", text)
    assert first is not None
    name, *options = shlex.split(first[1])
    assert name == (command or "run")
    # Raises UsageError for an option that does not exist.
    program: Any = get_command(app)
    program.get_command(None, name).make_context(name, options)


def test_list_prints_its_lines(bench: Bench) -> None:
    listed = bench("list").stdout
    words = "numba_direct", "python_loops", "auto_strict", "auto_eager", "resnet50", "vgg16", "alexnet", "random:N:SEED"
    assert all(word in listed for word in words)


def test_names_are_no_markup(bench: Bench, tmp_path: Path) -> None:
    label = TINY.replace("tiny", "[/x] :x: $a$")
    asked = "--workload", label, "--backends", "numpy_strided", "--threads", "1", "--seconds", "0.01", *PATIENT
    done = bench("run", *asked, "--out", tmp_path / "[new]")
    assert (done.returncode, "run folder" in done.stdout, "[new]" in done.stdout) == (0, True, True), done.stderr
    done = bench("report", tmp_path / "[new]", "--out", tmp_path / "[/report]")
    assert (done.returncode, "[/report]/README.md" in done.stdout) == (0, True), done.stderr


def test_the_bar_shows_names_as_they_are_and_draws_only_when_updated(monkeypatch: pytest.MonkeyPatch) -> None:
    file, before = StringIO(), threading.active_count()
    monkeypatch.setenv("FORCE_COLOR", "1")
    with Bar(file) as bar:
        bar.show(3, 9, "[/x] $a$ :x:", 83.0)
        drawn = file.getvalue()
        assert threading.active_count() == before, "a thread of its own would wake up while a backend is timed"
    assert all(words in drawn for words in ("3/9", "1:23 left", "[/x] $a$ :x:"))


def test_where_nobody_watches_a_line_is_written_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    file, now = StringIO(), [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with Bar(file) as bar:
        for number in range(10):
            now[0] = 0.7 * QUIET_S * number
            bar.show(number, 9, "[a]", None)
    assert file.getvalue().splitlines() == ["2/9  [a]", "4/9  [a]", "6/9  [a]", "8/9  [a]"]


def test_a_plug_in_is_found_where_the_command_is_run(bench: Bench, tmp_path: Path) -> None:
    child = outside("check", "--workload", TINY, "--plugin", "evil_plugin", "--backends", "wrong", cwd=tmp_path)
    _, errors = child.communicate()
    assert (child.returncode, "wrong_result" in errors) == (1, True), errors
    assert PLUGIN not in os.environ
