"""A backend's own process: whatever it does, the parent gets an answer with a status, and nothing of it is left."""

from __future__ import annotations

from typing import Any

import pytest
from misbehaving import assert_gone, prepared, turn

from bench.run import process


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
    assert (answer["status"], answer["reason"]) == ("timeout", "call did not end within 0.3 s")
    assert_gone(session)


def test_printing_100_mb_does_not_hinder_and_is_not_kept(workers: Any) -> None:
    worker = workers("prints")
    answer = prepared(worker)
    assert answer["status"] == "ok", answer
    assert sum(map(len, worker._printed)) <= 16 * process.KEPT_BYTES
    assert turn(worker, 0.0)["samples_s"]
