"""Sessions of `bench/contention.py`: what they write and say, engines that fail or are missing, ends of any kind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from misbehaving import assert_gone, processes

from bench.analysis.contention import read
from bench.contention import main
from bench.run import contention
from bench.run.worker import PLUGIN

ROOT = Path(__file__).parent.parent
# Backends that end in other ways, and one library that looks as if it were not installed.
PLUGINS = """
import os, sys
import numpy as np
from conv_impls import register
from conv_impls.reference import reference
sys.modules["onnxruntime"] = None
calls = [0]
@register("dies_later")
def run(x, weight, bias, problem):
    calls[0] += 1
    if calls[0] > 12:
        os.abort()
    return reference(x, weight, bias, problem).astype(x.dtype)
@register("wrong")
def run(x, weight, bias, problem):
    return np.zeros(problem.output_shape, x.dtype)
"""

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a session on one layer, in a process of its own whose group is a session; the JSON is measured.json."""
    (tmp_path / "contention_plugin.py").write_text(PLUGINS)
    (tmp_path / "no_busy.py").write_text("from bench.run import contention\ncontention.BUSY = ''\n")
    started = []

    def make(*options: str, **variables: str) -> subprocess.Popen[str]:
        command = [
            sys.executable, "-m", "pytest", "bench/contention.py", "-c", "pyproject.toml", "-p", "no:cacheprovider",
            "-k", "96-24", "--benchmark-json", str(tmp_path / "measured.json"), *options,
        ]  # fmt: skip
        tiny = {"CONTENTION_S": "0.01", "CONTENTION_TRIALS": "2"} | {PLUGIN: "contention_plugin"}
        # A job started in the background ignores SIGINT, and its children would inherit that.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        child = subprocess.Popen(
            command, cwd=ROOT, text=True, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env=os.environ | tiny | variables | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])},
        )  # fmt: skip
        signal.signal(signal.SIGINT, before)
        started.append(child)
        return child

    yield make
    for child in started:
        child.kill()
        child.wait()
        assert child.stdout is not None
        child.stdout.close()


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """The command that makes the page, in this process: exit code, output, errors."""

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["bench.contention", *map(str, arguments)])
        code: Any = 0
        try:
            main()
        except SystemExit as end:
            code = end.code
        return code, *capsys.readouterr()

    return call


def test_a_session_of_our_engine_alone_writes_its_trials_and_their_table(start: Start, tmp_path: Path) -> None:
    child = start("--benchmark-only", CONTENTION_ENGINES="auto")
    said, _ = child.communicate()
    assert child.returncode == 0, said
    assert "3 passed" in said
    for trial in ("trial 1 of 2", "trial 2 of 2"):
        for count in range(3):
            assert f"1x1 96-24@28, {trial}, {count} busy: auto " in said
    measured = read((tmp_path / "measured.json").read_bytes())
    assert {key: len(means_s) for key, means_s in measured.means_s.items()} == {
        ("1x1 96-24@28", "auto", count): 2 for count in range(3)
    }
    assert (measured.contention.left_out, measured.contention.seconds) == ([], 0.01)
    out = tmp_path / "README.md"
    command = [sys.executable, "-m", "bench.contention", str(tmp_path / "measured.json"), "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == out.read_text()
    assert "| 1x1 96-24@28 | auto " in done.stdout
    assert_gone(child.pid)


def test_a_session_goes_on_without_engines_that_fail_or_are_not_installed(
    start: Start, page: Any, tmp_path: Path
) -> None:
    engines = "wrong,dies_later,onnxruntime,numpy_im2col"
    child = start("--benchmark-only", "-rs", CONTENTION_ENGINES=engines)
    said, _ = child.communicate()
    assert child.returncode == 1, said
    assert "6 failed, 3 passed, 3 skipped" in said
    assert "unsupported: onnxruntime not installed; run: make setup-peers" in said
    measured = read((tmp_path / "measured.json").read_bytes())
    assert {engine for _, engine, _ in measured.means_s} == {"numpy_im2col"}
    ended = {left.engine: left.reason.split(":")[0] for left in measured.contention.left_out}
    assert ended == {"wrong": "wrong_result", "dies_later": "crashed", "onnxruntime": "unsupported"}
    assert "- dies_later, 1x1 96-24@28: crashed: " in page(tmp_path / "measured.json")[1]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 2), (signal.SIGKILL, -signal.SIGKILL)])
def test_a_session_that_is_interrupted_or_killed_leaves_no_process(start: Start, number: int, code: int) -> None:
    child = start("--benchmark-only", CONTENTION_ENGINES="numpy_im2col", CONTENTION_TRIALS="100000")
    assert child.stdout is not None
    assert any("trial 3 of" in line for line in child.stdout)
    assert len(processes(child.pid)) > 1
    os.kill(child.pid, number)
    child.communicate()
    assert child.returncode == code
    assert_gone(child.pid)


def test_a_machine_with_too_few_cores_measures_nothing_and_says_so(start: Start) -> None:
    with contention.on_cores(1):
        child = start("--benchmark-only", "-rs", CONTENTION_ENGINES="numpy_im2col")
    said, _ = child.communicate()
    assert child.returncode == 0, said
    assert "3 skipped" in said
    assert "expected 2 cores for all processes, got 1" in said


def test_a_busy_process_that_does_not_start_fails_the_layer_once(start: Start) -> None:
    child = start("--benchmark-only", "-p", "no_busy", CONTENTION_ENGINES="numpy_im2col")
    said, _ = child.communicate()
    assert child.returncode == 1, said
    assert "3 failed" in said
    assert said.count("preparing numpy_im2col") == 1
    assert "error: a busy process could not be started" in said


def test_nothing_is_measured_where_benchmarks_are_disabled() -> None:
    command = [sys.executable, "-m", "pytest", "bench/contention.py", "-q", "-rs", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"CONTENTION_S": "600"})
    assert done.returncode == 0, done.stdout
    assert "needs --benchmark-only" in done.stdout


def test_a_wrong_setting_ends_a_session_in_one_line(start: Start) -> None:
    child = start("--benchmark-only", CONTENTION_S="soon")
    said, _ = child.communicate()
    assert child.returncode == 2
    assert "\nCONTENTION_S: expected a number of seconds above 0, got 'soon'\n" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("text", [None, "{}", json.dumps({"benchmarks": []})])
def test_a_file_that_is_missing_or_another_is_one_line(page: Any, tmp_path: Path, text: str | None) -> None:
    file = tmp_path / "a.json"
    if text is not None:
        file.write_text(text)
    code, said, complained = page(file)
    assert (code, said) == (2, "")
    assert complained.startswith(f"{file}: ")
    assert len(complained.splitlines()) == 1


def test_a_page_that_cannot_be_written_is_one_line(page: Any, tmp_path: Path) -> None:
    file, out = tmp_path / "a.json", tmp_path / "missing" / "README.md"
    facts = {"environment": {}, "seconds": 1, "threads": 2, "left_out": []}
    benchmark = {"extra_info": {"layer": "l", "engine": "auto", "busy": 0}, "stats": {"data": [1e-3]}}
    file.write_text(json.dumps({"benchmarks": [benchmark], "contention": facts}))
    assert page(file)[0] == 0
    code, said, complained = page(file, "--out", out)
    assert (code, said) == (2, "")
    assert complained.startswith(f"{out}: ")
    assert len(complained.splitlines()) == 1
