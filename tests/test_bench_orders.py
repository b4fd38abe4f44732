"""Orders to a backend's process: which line is the answer, when it came, in which state the process waits."""

from __future__ import annotations

import json
import os
import secrets
import signal
import time
from typing import Any

import pytest
from misbehaving import assert_soon, prepared, processes, turn

from bench.run.process import Worker


def test_an_answer_is_the_one_that_names_its_order(workers: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[str] = []

    def token_hex(size: int) -> str:
        given.append("0123456789abcdef" if len(given) < known else f"another {len(given)}")
        return given[-1]

    monkeypatch.setattr(secrets, "token_hex", token_hex)
    # This backend guesses the token of each order: only the token distinguishes its line from an answer.
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
    counts = json.loads(prepared(workers("tells_threads", threads))["reason"])
    assert set(counts.values()) == {str(threads)}
    for backend in ("numpy_im2col", "numba_direct"):
        seen = prepared(workers(backend, threads))["facts"]["threads_seen"]
        assert f"openblas {threads}" in seen
        assert backend == "numpy_im2col" or f"numba {threads}" in seen


def test_a_turn_may_take_its_own_time_beside_that_of_a_call(workers: Any) -> None:
    worker = workers("honest")
    prepared(worker)
    worker.stage_s["call"] = 0.01
    assert turn(worker, 0.2)["status"] == "ok"


def test_a_stretch_may_take_its_own_time_and_is_within_that_of_the_parent(workers: Any) -> None:
    worker = workers("honest")
    prepared(worker)
    worker.stage_s["call"] = 0.01
    answer = worker.ask("stretch", seconds=0.2)
    assert answer["status"] == "ok"
    assert answer["calls"] >= 1
    assert 0.2 <= answer["seconds"] <= answer["answered"] - answer["asked"]


@pytest.mark.parametrize("session", [True, False])
def test_a_process_has_a_session_of_its_own_or_that_of_its_parent_but_never_its_group(
    plugin: dict[str, str], session: bool
) -> None:
    worker = Worker("honest", 1, 60.0, plugin, session)
    try:
        assert prepared(worker)["status"] == "ok"
        assert worker._child is not None
        own = worker._child.pid
        assert [os.getsid(pid) for pid in (own, worker._group)] == [own if session else os.getsid(0)] * 2
        # A terminal sends Ctrl-C to the group of the parent.
        assert len({os.getpgid(0), os.getpgid(own), os.getpgid(worker._group)}) == 3
        assert turn(worker, 0.01)["status"] == "ok"
    finally:
        worker.close()
    with pytest.raises(ProcessLookupError):
        os.killpg(worker._group, 0)
