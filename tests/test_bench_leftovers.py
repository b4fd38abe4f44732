"""A parent that is killed, a backend that starts a daemon: no process is left."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from effort import Effort
from misbehaving import assert_gone, assert_soon, prepared, processes

ROOT = Path(__file__).parent.parent
PARENT = """
import os, sys, time
sys.path[:0] = {paths}
from misbehaving import prepared
from bench.run.process import Worker
one = Worker("honest", 1, 60.0, {variables})
assert prepared(one)["status"] == "ok"
two = Worker({backend!r}, 1, 60.0, {variables})
two._start()
print(one._child.pid, two._child.pid, flush=True)
prepared(two)
time.sleep(600)
"""


@pytest.mark.parametrize("backend", ["loops", "honest"])
def test_a_killed_parent_leaves_no_process_behind(plugin: dict[str, str], backend: str, effort: Effort) -> None:
    """One is stopped, the other starts, waits or is at work: both die with the parent, at whatever moment."""
    code = PARENT.format(paths=[str(ROOT / "tests"), str(ROOT)], variables=plugin, backend=backend)
    moments = random.Random(f"{effort.seed} {backend}")
    for _ in range(effort.kills):
        parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        assert parent.stdout is not None
        sessions = [int(pid) for pid in parent.stdout.readline().split()]
        assert processes(sessions[0])
        time.sleep(moments.choice([0.0, moments.uniform(0, 0.05), moments.uniform(0, 1.5)]))
        parent.kill()
        parent.communicate()
        assert len(sessions) == 2
        for session in sessions:
            assert_gone(session)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def assert_ended(pid: int) -> None:
    assert_soon(lambda: not is_running(pid), f"process {pid} still runs")


@pytest.mark.parametrize(
    ("backend", "status"),
    [
        ("daemon_and_returns", "ok"), ("daemon_and_loops", "timeout"), ("daemon_and_exits", "crashed"),
        ("daemon_and_aborts", "crashed"),
    ],
)  # fmt: skip
def test_a_daemon_with_a_session_of_its_own_ends_with_its_backend(
    workers: Any, plugin: dict[str, str], tmp_path: Path, backend: str, status: str
) -> None:
    file = tmp_path / "daemon"
    plugin["DAEMON_PID"] = str(file)
    worker = workers(backend)
    worker.stage_s["call"] = 2.0 if status == "timeout" else 60.0
    assert prepared(worker)["status"] == status
    daemon = int(file.read_text())
    # Until then it runs: nothing else ends it.
    assert status != "ok" or is_running(daemon)
    worker.close()
    assert_ended(daemon)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["kill", "ctrl-c"])
def test_a_daemon_ends_with_a_parent_that_is_killed(plugin: dict[str, str], tmp_path: Path, number: int) -> None:
    file = tmp_path / "daemon"
    variables = plugin | {"DAEMON_PID": str(file)}
    code = PARENT.format(paths=[str(ROOT / "tests"), str(ROOT)], variables=variables, backend="daemon_and_returns")
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert_soon(lambda: file.exists() and bool(file.read_text()), "no daemon")
    daemon = int(file.read_text())
    assert is_running(daemon)
    parent.send_signal(number)
    parent.communicate()
    assert_ended(daemon)
