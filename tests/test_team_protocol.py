"""The words that threads of the team share, one step at a time: boxes, tickets, affinity; and a caller that sleeps."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from counted import PATIENCE_S, Counted, Operands, Sizes, team_of_many

from conv_impls.kernels.runtime import atomics, protocol, team
from conv_impls.kernels.runtime.compile import entry, kernel
from conv_impls.kernels.runtime.job import Job
from conv_impls.kernels.runtime.memory import immortal
from conv_impls.kernels.runtime.operands import of_call, of_plan
from conv_impls.kernels.runtime.protocol import IDLE

if not atomics.SUPPORTED:
    pytest.skip("the team runs on Linux, x86-64 and 64-bit Arm", allow_module_level=True)


@entry()
def keep_off(thread: Any) -> None:
    atomics.keep_off(thread)


@entry()
def follow(thread: Any) -> None:
    atomics.follow(thread)


@pytest.fixture
def waiting() -> Iterator[int]:
    """The system's number of a thread that waits."""
    found, leave = list[int](), threading.Event()

    def wait() -> None:
        found.append(threading.get_native_id())
        leave.wait(PATIENCE_S)

    thread = threading.Thread(target=wait)
    thread.start()
    while not found:
        time.sleep(0.001)
    yield found[0]
    leave.set()
    thread.join()


def sent_away(cores: set[int]) -> bool:
    """Whether these are all cores but one; with one core there is no other, and all stays as it was."""
    here = os.sched_getaffinity(0)
    return cores < here and len(cores) == len(here) - 1 if len(here) > 1 else cores == here


def test_a_thread_is_sent_to_another_core(waiting: int) -> None:
    keep_off(waiting)
    assert sent_away(os.sched_getaffinity(waiting))


def test_a_thread_follows_another_one_or_the_first(waiting: int) -> None:
    here, found = os.sched_getaffinity(0), list[set[int]]()
    os.sched_setaffinity(waiting, {max(here)})

    def other() -> None:
        # No thread has the second number.
        for thread in (waiting, 2**31 - 1):
            follow(thread)
            found.append(os.sched_getaffinity(0))

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert found == [{max(here)}, here]


@pytest.mark.parametrize(
    ("slept_ns", "expected"), [(0, False), (protocol.LONG_NS // 2, False), (4 * protocol.LONG_NS, True)]
)
def test_only_a_worker_that_slept_long_is_sent_to_another_core(waiting: int, slept_ns: int, expected: bool) -> None:
    here = os.sched_getaffinity(0)
    boxes = np.zeros((1, protocol.LINE // 8), np.int64)
    # Compiled before the clock is read.
    call_back(boxes.ctypes.data, 0, 4096, 9)
    words = {protocol.STATE: protocol.ASLEEP, protocol.JOB: 4096, protocol.LAST_EPOCH: 9, protocol.THREAD: waiting}
    for place, word in (words | {protocol.SINCE: time.monotonic_ns() - slept_ns}).items():
        boxes[0, place // 8] = word
    call_back(boxes.ctypes.data, 1, 4096, 9)
    assert boxes[0, 0] == protocol.OFFERED
    assert boxes[0, protocol.CALLER // 8] == threading.get_native_id()
    cores = os.sched_getaffinity(waiting)
    assert sent_away(cores) if expected else cores == here


@entry()
def rouses(took_ns: Any, late_ns: Any, idle_ns: Any) -> Any:
    return protocol._rouses(took_ns, late_ns, idle_ns)


def test_workers_are_woken_for_what_takes_several_times_as_long_as_waking_took() -> None:
    long_ago, most = 10 * protocol.SPIN_NS, protocol.ROUSE_NS
    # The first call, and those that follow each other closely.
    assert rouses(0, 10**9, long_ago)
    assert rouses(1, 10**9, protocol.SPIN_NS - 1)
    assert not rouses(1, 10**9, protocol.SPIN_NS)
    late = most // (10 * protocol.RETURNS)
    assert rouses(protocol.RETURNS * late + 1, late, long_ago)
    assert not rouses(protocol.RETURNS * late, late, long_ago)
    # Whatever it once took, and where it is not known.
    for unusual in (0, most, 10**12):
        assert rouses(most + 1, unusual, long_ago)
        assert not rouses(most, unusual, long_ago)


@entry()
def claim(ticket_at: Any, owner: Any, first: Any, last: Any) -> Any:
    return protocol._claim(ticket_at, owner, first, last)


@entry()
def helped(block: Any, seat: Any, seats: Any, first: Any, last: Any) -> None:
    protocol._help(block, seat, seats, first, last)


@entry()
def call_back(boxes: Any, workers: Any, block: Any, last: Any) -> None:
    protocol._call_back(boxes, workers, block, last)


def ticket(epoch: int, end: int, following: int) -> int:
    return epoch << 2 * protocol.BITS | end << protocol.BITS | following


@pytest.mark.parametrize(
    ("epoch", "end", "following", "owner", "found", "left"),
    [
        (5, 4, 1, True, (5, 1), (5, 4, 2)),
        (5, 4, 1, False, (5, 3), (5, 3, 1)),
        (6, 4, 3, True, (6, 3), (6, 4, 4)),
        (6, 4, 3, False, (6, 3), (6, 3, 3)),
        (5, 4, 4, True, (5, -1), (5, 4, 4)),
        (5, 4, 4, False, (5, -1), (5, 4, 4)),
        # Of a job before, and of a later one on the same block.
        (4, 4, 1, True, (-1, -1), (4, 4, 1)),
        (7, 4, 1, True, (-1, -1), (7, 4, 1)),
        (7, 4, 1, False, (-1, -1), (7, 4, 1)),
        (2**34, protocol.MOST_PARTS, 0, True, (-1, -1), (2**34, protocol.MOST_PARTS, 0)),
    ],
)
def test_a_part_is_claimed_of_this_job_alone(
    epoch: int, end: int, following: int, owner: bool, found: tuple[int, int], left: tuple[int, int, int]
) -> None:
    word = np.array([ticket(epoch, end, following)])
    assert claim(word.ctypes.data, owner, 5, 6) == found
    assert word[0] == ticket(*left)


def test_a_late_worker_touches_nothing_of_the_next_job() -> None:
    counted = Counted(2)
    block = np.zeros((protocol.TICKETS + 2 * protocol.LINE) // 8, np.int64)
    # Two jobs of three phases: the worker comes for the first, epochs 1 to 3, when the second is at its second phase.
    words = {protocol.TABLE: counted.job._idle[-1].address, protocol.OF_PHASE: 4, protocol.TICKETS: ticket(5, 2, 0)}
    for place, word in (words | {protocol.TICKETS + protocol.LINE: ticket(5, 4, 2)}).items():
        block[place // 8] = word
    before = block.copy()
    helped(block.ctypes.data, 1, 2, 1, 3)
    assert np.array_equal(block, before)
    assert counted.by_seat.sum() == 0


@pytest.mark.parametrize("state", [IDLE, protocol.ASLEEP])
@pytest.mark.parametrize("mine", [True, False])
def test_only_workers_of_the_job_are_called_back(state: int, mine: bool) -> None:
    boxes = np.zeros((3, protocol.LINE // 8), np.int64)
    # A worker of ours, one that works, and one of the same block's job before.
    boxes[:, protocol.STATE // 8] = state, protocol.BUSY, state
    boxes[:, protocol.JOB // 8] = 4096 if mine else 8192
    boxes[:, protocol.LAST_EPOCH // 8] = 9, 9, 6
    # No thread, so that nobody is moved to another core.
    boxes[:, protocol.THREAD // 8] = -1
    before = boxes.copy()
    call_back(boxes.ctypes.data, 3, 4096, 9)
    # When a sleeper was called; nobody else was.
    assert (boxes[:, protocol.CALLED // 8] > 0).tolist() == [mine and state == protocol.ASLEEP, False, False]
    boxes[:, protocol.CALLED // 8] = 0
    if mine:
        before[0, 0] = protocol.OFFERED
        before[0, protocol.CALLER // 8] = threading.get_native_id() if state == protocol.ASLEEP else 0
    assert np.array_equal(boxes, before)


@kernel
def uneven(part: Any, parts: Any, operands: Any) -> None:
    """The last part takes long, of every phase, and no other so little that one thread runs all; a part of the second
    phase says which seat ran it.
    """
    x, y, work, at = of_call(operands)
    total = x[0]
    loops = of_plan(operands, Operands).sizes.loops
    for i in range(loops if part == parts - 1 else loops // 50):
        total += x[0] / (i + total)
    y[part] = total
    work[at] += 1


def test_a_caller_sleeps_until_the_last_part_is_done() -> None:
    """The worker's part takes longer than the caller spins; without a wake-up this never ends."""
    workers = team_of_many()
    job = Job([uneven, uneven], np.dtype("float64"), Operands(Sizes(3_000_000)), threads=2, units=2, own=8)
    x, y = np.ones(1), np.zeros(2)
    waiting, done = threading.Event(), threading.Event()

    def watch() -> None:
        while not done.is_set():
            if any(words[0, protocol.WAITING // 8] for words in blocks):
                waiting.set()
            time.sleep(0.0001)

    blocks = list[Any]()

    def recorded(lines: int, line_bytes: int) -> Any:
        blocks.append(immortal(lines, line_bytes))
        return blocks[-1]

    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(1) as pool:
        patch.setattr(team, "immortal", recorded)
        watcher, until = pool.submit(watch), time.monotonic() + PATIENCE_S
        try:
            while not waiting.is_set():
                workers.call(2, x, y, job._idle[-1].address)
                assert time.monotonic() < until, "the caller never slept"
        finally:
            done.set()
        watcher.result()
    assert (y > 1).all()
