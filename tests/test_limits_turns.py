"""Threads and processes that ask for the machine's limits at the same moment: one measures, nobody waits for ever."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from believed import BELIEVED, MEASURED

from conv_impls.choice import limits as module
from conv_impls.choice import probes, userdir
from conv_impls.choice.limits import limits

ROOT = Path(__file__).parent.parent


def test_threads_that_ask_first_at_once_measure_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def measure(threads: int, rounds: int) -> dict[str, float]:
        asked.append(threads)
        time.sleep(0.05)
        return MEASURED

    monkeypatch.setattr(probes, "measure", measure)
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: limits(1, "float32"), range(8))) == {BELIEVED}
    assert asked == [1]


# Eight processes ask at the same moment; each time one measures it appends a line to a file.
FIRST = """
import os, sys, time
from conv_impls.choice import limits, probes
from conv_impls.kernels.runtime import launch
def measure(threads, rounds):
    with open(sys.argv[1], "a") as file:
        file.write("measured\\n")
    time.sleep(0.2)
    return dict(float32=1e11, float64=5e10, cache=1e11, l3=5e10, memory=2e10, call_s=1e-6)
probes.measure = measure
gate, opened = os.pipe()
children = []
for _ in range(8):
    children.append(os.fork())
    if not children[-1]:
        os.close(opened)
        os.read(gate, 1)
        os._exit(limits.limits(1, "float32").flops_per_s != 1e11)
os.close(opened)
sys.exit(sum(os.waitpid(child, 0)[1] for child in children))
"""


def test_processes_that_ask_first_at_once_measure_once(folder: Path, tmp_path: Path) -> None:
    count = tmp_path / "count"
    subprocess.run([sys.executable, "-c", FIRST, str(count)], cwd=ROOT, check=True)
    assert count.read_text() == "measured\n"


def test_a_holder_that_crashed_blocks_nobody(measurements: list[int], folder: Path) -> None:
    code = f"from conv_impls.choice import userdir\nimport os\nwith userdir.locked({module.FILE!r}): os._exit(3)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 3
    assert (folder / f"{module.FILE}.lock").exists()
    assert limits(1, "float32") == BELIEVED


def test_a_holder_that_never_ends_is_waited_for_a_while(
    measurements: list[int], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(userdir, "TURN_S", 0.05)
    monkeypatch.setattr(userdir, "POLL_S", 0.02)
    monkeypatch.setattr(time, "sleep", slept.append)
    with userdir.locked(module.FILE):
        # Another file description is another holder, also in this process.
        assert limits(1, "float32") == BELIEVED
    assert set(slept) == {0.02}


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to(path)])
def test_a_lock_that_is_no_file_is_done_without(
    measurements: list[int], folder: Path, make: Callable[[Path], Any]
) -> None:
    folder.mkdir()
    make(folder / f"{module.FILE}.lock")
    assert limits(1, "float32") == BELIEVED


def test_a_forked_child_needs_no_lock_of_a_thread_it_lacks(measurements: list[int], folder: Path) -> None:
    with module._turn, ThreadPoolExecutor(1) as pool:
        # As if this thread were another one of the parent.
        pool.submit(module._forked).result()
        assert pool.submit(limits, 1, "float32").result() == BELIEVED
