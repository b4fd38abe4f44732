"""Drive a run: children that measure, one for each thread count and repetition, and a display of where they are.

A child is pytest over `bench/test_bench_conv2d.py` with the thread variables set before it starts. The parent imports
no backend; it watches the run folder. A child that dies or hangs costs one case, which gets the status crashed or
timeout, and the next child takes up where it stopped. The time budget counts from the start of the run, or from where
it is resumed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.machine import thread_variables
from bench.store import Case, Record, Run
from conv_impls.workloads import Layer

# A case has case_s for itself; beyond this many times that, plus the grace of a cold start, it hangs. Compiling
# takes 10 s and more for each kernel and dtype.
HANG_FACTOR, HANG_GRACE_S = 5, 180
POLL_S = 0.2
# (finished cases, all cases, the case under way or "", seconds left or None)
Progress = Callable[[int, int, str, "float | None"], None]


def make_cases(layers: list[Layer], backends: list[str], threads: list[int], repetitions: int) -> list[Case]:
    """All cases; the backends take turns at each layer, so that drift of the machine hits them alike."""
    return [
        Case(layer.workload, layer.name, layer.problem.label, layer.count, backend, count, "fwd", repetition)
        for repetition in range(1, repetitions + 1)
        for count in threads
        for layer in layers
        for backend in backends
    ]


def drive(run: Run, progress: Progress) -> None:
    """Measure every unfinished case of the run."""
    config = run.config
    end = time.monotonic() + config["budget_s"]
    cases = run.cases
    for group in dict.fromkeys((case.repetition, case.threads) for case in cases):
        mine = [case for case in cases if (case.repetition, case.threads) == group]
        while open_cases := _open(run, mine):
            _child(run, group, end, open_cases, len(cases), config, progress)


def _open(run: Run, cases: list[Case]) -> dict[str, Case]:
    done = run.done()
    return {case.key: case for case in cases if case.key not in done}


def _child(
    run: Run,
    group: tuple[int, int],
    end: float,
    open_cases: dict[str, Case],
    total: int,
    config: dict[str, Any],
    progress: Progress,
) -> None:
    """One child over the open cases; on its death the case it was at is recorded."""
    here = Path(__file__).parent
    command = [
        sys.executable, "-m", "pytest", str(here / "test_bench_conv2d.py"), f"--rootdir={here.parent}",
        "-q", "--no-header", "--benchmark-enable", "--benchmark-disable-gc", "-p", "no:cacheprovider",
        f"--bench-run={run.folder.resolve()}", f"--bench-parent={os.getpid()}",
        f"--bench-repetition={group[0]}", f"--bench-threads={group[1]}",
        f"--bench-deadline-s={max(0.0, end - time.monotonic()):.3f}", "--benchmark-quiet", "--tb=short",
    ]  # fmt: skip
    log = run.folder / "child.log"
    with log.open("ab") as output:
        child = subprocess.Popen(
            command, cwd=here.parent, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            env=os.environ | thread_variables(group[1]), start_new_session=True,
        )  # fmt: skip
    note = run.folder / f"running-{child.pid}"
    try:
        status, reason = _watch(run, child, note, total, config, progress)
    except KeyboardInterrupt:
        _finish(run, child, note, open_cases, "interrupted", "by Ctrl-C; finish the run with --resume")
        raise
    at = _finish(run, child, note, open_cases, status, reason)
    if not at and len(_open(run, list(open_cases.values()))) == len(open_cases):
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-12:]
        raise RuntimeError(
            f"the measuring child stopped before its first case (exit {child.returncode}); end of {log}:\n"
            + "\n".join(lines)
        )


def _watch(
    run: Run, child: subprocess.Popen[bytes], note: Path, total: int, config: dict[str, Any], progress: Progress
) -> tuple[str, str]:
    """Show progress until the child ends; the status and reason its unfinished case would get."""
    hang_s = HANG_FACTOR * config["timeout_s"] + HANG_GRACE_S
    began, before = time.monotonic(), len(run.done())
    while child.poll() is None:
        done = len(run.done())
        try:
            at, age = note.read_text(encoding="utf-8"), time.time() - note.stat().st_mtime
        except OSError:
            at, age = "", 0.0
        if age > hang_s:
            return "timeout", f"no result after {hang_s:g} s"
        rate = (time.monotonic() - began) / (done - before) if done > before + 3 else None
        progress(done, total, at, None if rate is None else rate * (total - done))
        time.sleep(POLL_S)
    progress(len(run.done()), total, "", None)
    code = child.returncode
    name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return "crashed", f"the measuring process ended with {name}"


def _finish(
    run: Run, child: subprocess.Popen[bytes], note: Path, open_cases: dict[str, Case], status: str, reason: str
) -> str:
    """End the child and whatever it started; the case it was at, if any, gets this status. Returns its key."""
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    at = note.read_text(encoding="utf-8") if note.exists() else ""
    note.unlink(missing_ok=True)
    if at in open_cases and at not in run.done():
        run.append(Record(open_cases[at], status, reason, run.environment["id"]))
    return at
