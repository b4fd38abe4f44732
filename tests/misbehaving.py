"""Backends that do their worst in a process of their own, and what the tests of that process share."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import asdict

from bench.run.check import scales
from bench.run.contender import DRAWN, Layer
from bench.run.process import Worker
from bench.run.worker import PLUGIN
from bench.store.records import Case

LABEL = "mb1ic3ih8oc4oh8kh3ph1"

# Each backend does its worst in the call.
EVIL = """
import json, os, resource, signal, subprocess, sys, time
import numpy as np
from conv_impls import register
from conv_impls.reference import reference
from conv_impls.registry import Prepared
imported = {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
pipes = [int(fd) for fd in sys.argv[2:4]]

def evil(name, action):
    @register(name)
    def run(x, weight, bias, problem):
        action()
        return reference(x, weight, bias, problem).astype(x.dtype)

def die(number):
    os.kill(os.getpid(), number)

def fork(then):
    if os.fork() == 0:
        time.sleep(600)
    then()

def grow():
    resource.setrlimit(resource.RLIMIT_DATA, (2**29, 2**29))
    kept = [np.ones(2**24) for _ in range(100)]

def change(x):
    x.flags.writeable = True
    x[0, 0, 0, 0] += 1

evil("honest", lambda: None)
evil("aborts", os.abort)
evil("segfaults", lambda: die(signal.SIGSEGV))
evil("odd_signal", lambda: die(40))
evil("killed", lambda: die(signal.SIGKILL))
evil("exits", lambda: os._exit(0))
evil("leaves", lambda: sys.exit(3))
evil("interrupts", lambda: (_ for _ in ()).throw(KeyboardInterrupt))
evil("loops", lambda: time.sleep(600))
evil("spins", lambda: [None for _ in iter(int, 1)])
evil("stops", lambda: die(signal.SIGSTOP))
evil("grows", grow)
evil("huge", lambda: np.empty(2**44))
evil("prints", lambda: [os.write(1, b"x" * 10**6 + b"\\n") for _ in range(100)])
evil("forks_and_exits", lambda: fork(lambda: os._exit(0)))
evil("forks_and_loops", lambda: fork(lambda: time.sleep(600)))
evil("starts_and_loops", lambda: (subprocess.Popen(["sleep", "600"]), time.sleep(600)))
evil("closes", lambda: [os.close(fd) for fd in pipes])
evil("writes_junk", lambda: os.write(pipes[1], b"junk\\n"))
evil("writes_json", lambda: os.write(pipes[1], b"[1]\\n"))
evil("answers", lambda: os.write(pipes[1], b'{"status": "ok", "call_s": 1e-9}\\n'))
evil("answers_by_guess", lambda: os.write(pipes[1], b'{"status": "ok", "token": "0123456789abcdef"}\\n'))
def daemon(then):
    # A daemon by the book: fork, setsid, fork again. Its parent has gone, its session is its own.
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            with open(os.environ["DAEMON_PID"], "w") as file:
                file.write(str(os.getpid()))
            os.execv(sys.executable, [sys.executable, "-S", "-c", "import time; time.sleep(600)"])
        os._exit(0)
    os.wait()
    while not os.path.exists(os.environ["DAEMON_PID"]) or not open(os.environ["DAEMON_PID"]).read():
        time.sleep(0.001)
    then()

evil("daemon_and_returns", lambda: os.path.exists(os.environ["DAEMON_PID"]) or daemon(lambda: None))
evil("daemon_and_loops", lambda: daemon(lambda: time.sleep(600)))
evil("daemon_and_exits", lambda: daemon(lambda: os._exit(0)))
evil("daemon_and_aborts", lambda: daemon(os.abort))
evil("says_last_words", lambda: (print("the end is near", flush=True), os._exit(7)))

@register("claims_nan")
def prepare(problem, weight, bias, threads):
    def call(x, out):
        out[...] = reference(x, weight, bias, problem)
    return Prepared(call, executed_flops=float("nan"))

@register("tells_threads", supports=lambda problem: json.dumps(imported))
def run(x, weight, bias, problem): ...
"""


@pytest.fixture
def plugin(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "evil_workers.py").write_text(EVIL)
    return {PLUGIN: "evil_workers", "PYTHONPATH": str(tmp_path)}


@pytest.fixture
def workers(plugin: dict[str, str]) -> Iterator[Any]:
    made = []

    # The time of a call only ends what hangs, however slow the machine is.
    def make(backend: str, threads: int = 1, call_s: float = 60.0) -> Worker:
        made.append(Worker(backend, threads, call_s, plugin))
        return made[-1]

    yield make
    for worker in made:
        worker.close()


def prepared(worker: Worker) -> dict[str, Any]:
    """The answer to the last order that prepares a case, or to the first that fails."""
    case, folder = Case("w", "l", LABEL, 1, worker.backend, worker.threads), Path(worker._variables["PYTHONPATH"])
    layer, out = Layer(case.problem, "fwd", 0, folder), str(folder / "outputs")
    orders: list[tuple[str, dict[str, Any]]] = [
        ("start", {"case": asdict(case)}),
        ("probe", {"rows": 1, "data": layer.cut(1)[1], "out": out}),
        ("ready", {"data": layer.whole()[1], "out": out, "rotate_bytes": 0}),
    ]
    answer: dict[str, Any] = {}
    for do, order in orders:
        answer = worker.ask(do, **order)
        if answer["status"] != "ok":
            break
    return answer


def turn(worker: Worker, seconds: float) -> dict[str, Any]:
    return worker.ask("turn", seconds=seconds, scales=scales(0)[:DRAWN], at=[0, 7])


def processes(session: int) -> list[str]:
    """Processes of a session that have not ended: their states and names."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, rest = path.read_text().rsplit(")", 1)
        except OSError:
            continue
        state, _, _, theirs = rest.split()[:4]
        if int(theirs) == session and state not in "ZX":
            found.append(f"{state} {name}")
    return found


def assert_soon(condition: Callable[[], bool], what: object) -> None:
    """The deadline only ends a test that would wait for ever."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.01)


def assert_gone(session: int) -> None:
    assert_soon(lambda: not processes(session), session)
