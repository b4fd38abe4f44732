"""The command line as tests call it: in this process or in one of its own, with backends that misbehave."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bench.cli import main as command_line
from bench.machine import probes
from bench.run import driver
from conv_impls import registry

ROOT = Path(__file__).parent.parent
TINY = 'mb1ic3ih8oc4kh3ph1n"tiny"'
# For runs that must end ok however slow the machine is: a call may take so long, in place of 0.6 s.
PATIENT = "--timeout", "60"

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
    monkeypatch.setattr(probes, "measure_machine", lambda: {})
    # Tests share the machine with others, so that most results are weak.
    monkeypatch.setattr(driver, "AGAIN", 0)

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


def one_line(done: Done, words: str) -> None:
    assert done.returncode == 2, done
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
