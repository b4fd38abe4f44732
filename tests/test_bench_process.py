"""A backend's own process: whatever it does, the parent gets an answer with a status, and nothing of it is left."""

from __future__ import annotations

import json
import os
import random
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from effort import Effort
from msgspec.structs import asdict

from bench.run import process
from bench.run.check import scales
from bench.run.contender import DRAWN, Layer
from bench.run.process import Worker
from bench.run.worker import PLUGIN
from bench.store.records import Case

ROOT = Path(__file__).parent.parent
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


@pytest.mark.parametrize(
    ("backend", "status", "reason"),
    [
        ("aborts", "crashed", "the process ended with SIGABRT"),
        ("segfaults", "crashed", "the process ended with SIGSEGV"),
        ("odd_signal", "crashed", "the process ended with signal 40"),
        ("killed", "oom", "SIGKILL"),
        ("exits", "crashed", "exit code 0 and no result"),
        ("leaves", "error", "SystemExit: 3"),
        ("interrupts", "crashed", "KeyboardInterrupt"),
        ("grows", "oom", "Unable to allocate"),
        ("huge", "oom", "Unable to allocate"),
        ("forks_and_exits", "crashed", "exit code 0 and no result"),
        ("closes", "crashed", ""),
        ("writes_junk", "crashed", "something else wrote to its pipe: b'junk'"),
        ("writes_json", "crashed", "something else wrote to its pipe: b'[1]'"),
        ("answers", "crashed", 'something else wrote to its pipe: b\'{"status": "ok"'),
        ("answers_by_guess", "crashed", 'something else wrote to its pipe: b\'{"status": "ok"'),
        ("says_last_words", "crashed", "exit code 7 and no result (it printed: the end is near)"),
        ("claims_nan", "crashed", "JSON"),
    ],
)
def test_a_process_that_fails_has_a_status_and_leaves_nothing(
    workers: Any, backend: str, status: str, reason: str
) -> None:
    worker = workers(backend)
    worker._start()
    session = worker._child.pid
    answer = prepared(worker)
    assert answer["status"] == status, answer
    assert reason in answer["reason"]
    worker.close()
    assert_gone(session)


@pytest.mark.parametrize("backend", ["loops", "spins", "stops", "forks_and_loops", "starts_and_loops"])
def test_a_process_that_hangs_is_killed_with_all_it_started(workers: Any, backend: str) -> None:
    worker = workers(backend)
    worker.stage_s["call"] = 0.3
    worker._start()
    session = worker._child.pid
    answer = prepared(worker)
    assert (answer["status"], answer["reason"]) == ("timeout", "no end of call after 0.3 s")
    assert_gone(session)


def test_printing_100_mb_does_not_hinder_and_is_not_kept(workers: Any) -> None:
    worker = workers("prints")
    answer = prepared(worker)
    assert answer["status"] == "ok", answer
    assert sum(map(len, worker._printed)) <= 16 * process.KEPT_BYTES
    assert turn(worker, 0.0)["samples_s"]


def test_an_answer_is_the_one_that_names_its_order(workers: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[str] = []

    def token_hex(size: int) -> str:
        given.append("0123456789abcdef" if len(given) < known else f"another {len(given)}")
        return given[-1]

    monkeypatch.setattr(secrets, "token_hex", token_hex)
    # The token of each order is the one that this backend guesses: nothing else tells its line from an answer.
    known = 9
    assert "shape" not in prepared(workers("answers_by_guess"))
    # Only the order before has it: a line that is late, or of somebody who remembers, is no answer.
    given, known = [], 1
    answer = prepared(workers("answers_by_guess"))
    assert (answer["status"], len(given)) == ("crashed", 2)
    assert answer["reason"].startswith("something else wrote to its pipe: ")


def test_every_order_has_a_token_of_its_own_that_nobody_can_guess(
    workers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, honest = list[str](), secrets.token_hex

    def token_hex(size: int) -> str:
        given.append(honest(size))
        return given[-1]

    monkeypatch.setattr(secrets, "token_hex", token_hex)
    worker = workers("honest")
    answer = prepared(worker)
    turn(worker, 0.0)
    assert len(set(given)) == len(given) == 4
    assert min(map(len, given)) >= 16
    assert "token" not in answer


def test_the_parents_clock_encloses_that_of_the_process(workers: Any) -> None:
    worker = workers("honest")
    before = time.perf_counter()
    first = prepared(worker)
    answer = turn(worker, 0.01)
    after = time.perf_counter()
    assert before < first["asked"] < first["answered"] < answer["asked"]
    assert answer["asked"] < answer["began"] < answer["ended"] < answer["answered"] < after
    assert 0 < sum(answer["samples_s"]) * answer["iterations"] < answer["ended"] - answer["began"]


def test_after_a_crash_the_next_order_starts_a_new_process(workers: Any) -> None:
    worker = workers("honest")
    assert prepared(worker)["status"] == "ok"
    # As when memory runs out: the backend's own group, not the guard, whose end would reach it only some time later.
    first = worker._child.pid
    os.killpg(worker._group, signal.SIGKILL)
    assert turn(worker, 0.01)["status"] == "oom"
    assert prepared(worker)["status"] == "ok"
    assert worker._child.pid != first


def test_between_orders_the_whole_group_is_stopped(workers: Any) -> None:
    worker = workers("honest")
    prepared(worker)
    # The guard sleeps, and can end the other at any time.
    group = processes(worker._child.pid)
    assert_soon(lambda: sorted(state[0] for state in processes(worker._child.pid)) == ["S", "T"], group)
    assert turn(worker, 0.01)["status"] == "ok"


@pytest.mark.parametrize("threads", [1, 2])
def test_thread_variables_stand_before_any_import_and_the_counts_are_read_back(workers: Any, threads: int) -> None:
    told = json.loads(prepared(workers("tells_threads", threads))["reason"])
    assert set(told.values()) == {str(threads)}
    for backend in ("numpy_im2col", "numba_direct"):
        seen = prepared(workers(backend, threads))["facts"]["threads_seen"]
        assert f"openblas {threads}" in seen
        assert backend == "numpy_im2col" or f"numba {threads}" in seen


def test_a_turn_may_take_its_own_time_beside_that_of_a_call(workers: Any) -> None:
    worker = workers("honest")
    prepared(worker)
    worker.stage_s["call"] = 0.01
    assert turn(worker, 0.2)["status"] == "ok"


PARENT = """
import os, sys, time
sys.path[:0] = {paths}
from test_bench_process import prepared
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
    end = time.monotonic() + 10
    while is_running(pid):
        assert time.monotonic() < end, f"process {pid} still runs"
        time.sleep(0.02)


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
    end = time.monotonic() + 60
    while not (file.exists() and file.read_text()):
        assert time.monotonic() < end
        time.sleep(0.02)
    daemon = int(file.read_text())
    assert is_running(daemon)
    parent.send_signal(number)
    parent.communicate()
    assert_ended(daemon)
