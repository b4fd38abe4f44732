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

from conv_impls.kernels.runtime import atomics, team
from conv_impls.kernels.runtime.compile import entry, kernel
from conv_impls.kernels.runtime.job import Job
from conv_impls.kernels.runtime.memory import immortal
from conv_impls.kernels.runtime.operands import of_call, of_plan
from conv_impls.kernels.runtime.team import IDLE

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


@pytest.mark.parametrize(("slept_ns", "expected"), [(0, False), (team.LONG_NS // 2, False), (4 * team.LONG_NS, True)])
def test_only_a_worker_that_slept_long_is_sent_to_another_core(waiting: int, slept_ns: int, expected: bool) -> None:
    here = os.sched_getaffinity(0)
    boxes = np.zeros((1, team.LINE // 8), np.int64)
    # Compiled before the clock is read.
    call_back(boxes.ctypes.data, 0, 4096, 9)
    words = {team.STATE: team.ASLEEP, team.JOB: 4096, team.LAST_EPOCH: 9, team.THREAD: waiting}
    for place, word in (words | {team.SINCE: time.monotonic_ns() - slept_ns}).items():
        boxes[0, place // 8] = word
    call_back(boxes.ctypes.data, 1, 4096, 9)
    assert boxes[0, 0] == team.OFFERED
    assert boxes[0, team.CALLER // 8] == threading.get_native_id()
    cores = os.sched_getaffinity(waiting)
    assert sent_away(cores) if expected else cores == here


@entry()
def claim(ticket_at: Any, owner: Any, first: Any, last: Any) -> Any:
    return team._claim(ticket_at, owner, first, last)


@entry()
def helped(block: Any, seat: Any, seats: Any, first: Any, last: Any) -> None:
    team._help(block, seat, seats, first, last)


@entry()
def call_back(boxes: Any, workers: Any, block: Any, last: Any) -> None:
    team._call_back(boxes, workers, block, last)


def ticket(epoch: int, end: int, following: int) -> int:
    return epoch << 2 * team.BITS | end << team.BITS | following


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
        (2**34, team.MOST_PARTS, 0, True, (-1, -1), (2**34, team.MOST_PARTS, 0)),
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
    block = np.zeros((team.TICKETS + 2 * team.LINE) // 8, np.int64)
    # Two jobs of three phases: the worker comes for the first, epochs 1 to 3, when the second is at its second phase.
    words = {team.TABLE: counted.job._idle[-1].address, team.OF_PHASE: 4, team.TICKETS: ticket(5, 2, 0)}
    for place, word in (words | {team.TICKETS + team.LINE: ticket(5, 4, 2)}).items():
        block[place // 8] = word
    before = block.copy()
    helped(block.ctypes.data, 1, 2, 1, 3)
    assert np.array_equal(block, before)
    assert counted.by_seat.sum() == 0


@pytest.mark.parametrize("state", [IDLE, team.ASLEEP])
@pytest.mark.parametrize("mine", [True, False])
def test_only_workers_of_the_job_are_called_back(state: int, mine: bool) -> None:
    boxes = np.zeros((3, team.LINE // 8), np.int64)
    # A worker of ours, one that works, and one of the same block's job before.
    boxes[:, team.STATE // 8] = state, team.BUSY, state
    boxes[:, team.JOB // 8] = 4096 if mine else 8192
    boxes[:, team.LAST_EPOCH // 8] = 9, 9, 6
    # No thread, so that nobody is moved to another core.
    boxes[:, team.THREAD // 8] = -1
    before = boxes.copy()
    call_back(boxes.ctypes.data, 3, 4096, 9)
    if mine:
        before[0, 0] = team.OFFERED
        before[0, team.CALLER // 8] = threading.get_native_id() if state == team.ASLEEP else 0
    assert np.array_equal(boxes, before)


@kernel
def uneven(part: Any, parts: Any, operands: Any) -> None:
    """The last part takes long, of every phase; a part of the second phase says which seat ran it."""
    x, y, work, at = of_call(operands)
    total = x[0]
    for i in range(of_plan(operands, Operands).sizes.loops if part == parts - 1 else 1):
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
            if any(words[0, team.WAITING // 8] for words in blocks):
                waiting.set()
            time.sleep(0.0001)

    blocks = list[Any]()

    def recorded(lines: int, line_bytes: int) -> Any:
        blocks.append(immortal(lines, line_bytes))
        return blocks[-1]

    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(1) as pool:
        patch.setattr(team, "immortal", recorded)
        watcher, until = pool.submit(watch), time.monotonic() + PATIENCE_S
        while not waiting.is_set():
            workers.call(2, x, y, job._idle[-1].address)
            assert time.monotonic() < until, "the caller never slept"
        done.set()
        watcher.result()
    assert (y > 1).all()
