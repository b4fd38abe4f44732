"""Calls while other processes are busy: starts these processes, and measures the mean time of a call of each engine.

An engine runs calls without a pause for some seconds. The mean includes the calls that lost a core, as in real use.
A trial is one such stretch of every engine with every number of busy processes, in shuffled order, so that slow changes
of the machine affect all of them equally. While one engine is timed the others are stopped.
Busy processes compete only for the same cores, so all processes are pinned to as many cores as an engine has threads.
All belong to one session: if the scheduler shares cores between sessions first (sched(7), autogroup), one busy process
of another session would get as much time as all threads of an engine.
Limits: it needs sched_setaffinity (Linux).
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from ..machine import cpu, usage
from .contender import Contender, Failed
from .options import UsageError

# Writes one byte when it runs. Ends when its stdin is closed, also if the parent is killed.
BUSY = """
import os, sys, threading
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
os.write(1, b"!")
while True: pass
"""
# (engine, busy processes) -> mean time of a call in each trial, in seconds.
Means = dict[tuple[str, int], list[float]]


@contextmanager
def busy(processes: int) -> Iterator[list[int]]:
    """Run ``processes`` processes that never wait; all of them run before the block begins. Yields their pids.

    Raises
    ------
    RuntimeError
        One could not be started, or ended before the block did.
    """
    with ExitStack() as stack:
        started = [stack.enter_context(_started()) for _ in range(processes)]
        for process in started:
            assert process.stdout is not None
            if process.stdout.read(1) != b"!":
                raise RuntimeError("a busy process could not be started")
        yield [process.pid for process in started]
        if any(process.poll() is not None for process in started):
            raise RuntimeError("a busy process ended too early, so the times are not valid")


@contextmanager
def _started() -> Iterator[subprocess.Popen[bytes]]:
    # -I -S: no user packages are imported, so it starts in milliseconds.
    command = [sys.executable, "-I", "-S", "-c", BUSY]
    # Its own process group: Ctrl-C in a terminal reaches only the parent, which ends it.
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def on_cores(threads: int) -> Iterator[None]:
    """Pin this process, and those it starts, to exactly ``threads`` cores.

    Raises
    ------
    UsageError
        There are fewer cores, or this system cannot pin a process.
    """
    before = cpu.cpus()
    usage.pin(threads)
    try:
        if cpu.cores() != threads:
            raise UsageError(f"expected {threads} cores for all processes, got {cpu.cores()}")
        yield
    finally:
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, before)


def mean_call_s(contender: Contender, seconds: float) -> float:
    """The mean time of the calls that an engine makes in ``seconds`` seconds.

    Raises
    ------
    Failed
        A call failed, or the times cannot be right.
    """
    answer = contender.worker.ask("stretch", seconds=seconds)
    if answer["status"] != "ok":
        raise Failed(str(answer["status"]), str(answer.get("reason", "")))
    try:
        calls, spent_s = int(answer["calls"]), float(answer["seconds"])
    except (KeyError, TypeError, ValueError) as error:
        raise Failed("crashed", f"the answer of its process has no times: {error!r}"[:200]) from None
    wall_s = answer["answered"] - answer["asked"]
    if calls < 1 or not 0 < spent_s <= wall_s:
        raise Failed(
            "wrong_result", f"its clock contradicts that of the parent, by which the calls took {wall_s:.3g} s"
        )
    return spent_s / calls


def measured(
    contenders: Sequence[Contender], counts: Sequence[int], trials: int, seconds: float, order: random.Random,
    show: Callable[[int, int, dict[str, float]], None] = lambda trial, processes, means: None,
) -> Means:  # fmt: skip
    """Mean call times of the engines that finish all trials; the others get a status and a reason.

    Parameters
    ----------
    contenders : sequence of Contender
        Prepared contenders; those whose status is not ok are left out.
    counts : sequence of int
        Numbers of busy processes.
    trials : int
    seconds : float
        Duration of the calls of each engine, for each number of busy processes in each trial.
    order : random.Random
        Shuffles engines and numbers.
    show : callable, optional
        Called with the trial's number, its number of busy processes and the mean call times by engine.
    """
    found = Means()
    for contender in contenders:
        # A warm-up. It is also needed because `last` compares outputs only after a turn.
        if contender.status == "ok":
            contender.turn(0)
    for trial in range(trials):
        for processes in order.sample(counts, len(counts)):
            means: dict[str, float] = {}
            with busy(processes):
                for contender in order.sample(contenders, len(contenders)):
                    if contender.status != "ok":
                        continue
                    try:
                        means[contender.case.backend] = mean_call_s(contender, seconds)
                    except Failed as failed:
                        contender.status, contender.reason = failed.args
            for engine, mean_s in means.items():
                found.setdefault((engine, processes), []).append(mean_s)
            show(trial, processes, means)
    for contender in contenders:
        contender.last()
    through = {contender.case.backend for contender in contenders if contender.status == "ok"}
    return {key: means_s for key, means_s in found.items() if key[0] in through}
