"""The thread team: each task runs once and phases keep their order, whoever comes, sleeps, is late or never comes.

Teams here have more seats than this machine may have cores. `counted.py` has the kernels.
"""

from __future__ import annotations

import ctypes
import gc
import os
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numba
import pytest
from counted import PARTS, PATIENCE_S, Counted, team_of_many
from effort import Effort

from conv_impls.choice import probes
from conv_impls.kernels.runtime import atomics, cores, job, launch, protocol, team
from conv_impls.kernels.runtime.job import parts_of
from conv_impls.kernels.runtime.memory import immortal
from conv_impls.kernels.runtime.operands import TOOK
from conv_impls.kernels.runtime.protocol import IDLE
from conv_impls.kernels.runtime.team import Team

if not atomics.SUPPORTED:
    pytest.skip("the team runs on Linux, x86-64 and 64-bit Arm", allow_module_level=True)

pytestmark = pytest.mark.usefixtures("smallest_jobs_handed_out")


@pytest.mark.parametrize("loops", [0, 1000])
@pytest.mark.parametrize("seats", [1, 2, 3, 8])
def test_every_task_runs_once_and_after_the_phase_before(seats: int, loops: int) -> None:
    workers, counted = team_of_many(), Counted(seats, loops)
    for _ in range(300):
        counted.run(workers, seats)
        assert counted.right
    assert counted.by_seat.sum() == counted.tasks
    # What was counted elsewhere is no seat's.
    assert counted.job._idle[-1].work.sum() == counted.tasks


def test_a_task_that_runs_twice_or_never_would_be_seen() -> None:
    workers, counted = team_of_many(), Counted(2)
    counted.run(workers, 2)
    assert counted.right
    for change in (-1, 1):
        for kind, phase in ((0, 0), (0, 2), (1, 1), (2, 1)):
            counted.y[kind, phase, 0] += change
            assert not counted.right
            counted.y[kind, phase, 0] -= change
    assert counted.right
    counted.y[0, 0, PARTS - 1] = 1 - counted.y[0, 0, PARTS - 1]
    assert not counted.right


def test_long_jobs_have_more_parts_than_short_ones() -> None:
    workers, short, long = team_of_many(), Counted(2, loops=0), Counted(2, loops=200_000)
    for counted in (short, long):
        # How long a job takes is known from the call before.
        counted.run(workers, 2)
        assert counted.y[2, 0, 0] == parts_of(PARTS, 2) == 8
    until = time.monotonic() + PATIENCE_S
    while short.y[2, 0, 0] != 2 or long.y[2, 0, 0] != 8:
        short.run(workers, 2)
        long.run(workers, 2)
        assert short.right
        assert long.right
        assert time.monotonic() < until


def test_workers_help() -> None:
    workers, counted = team_of_many(), Counted(2, loops=20_000)
    until = time.monotonic() + PATIENCE_S
    while not counted.by_seat[1]:
        counted.run(workers, 2)
        assert time.monotonic() < until, "no worker ever came"
    assert counted.right


def test_calls_from_many_threads_take_idle_workers_and_mix_nothing(effort: Effort) -> None:
    workers = team_of_many()

    def many(loops: int) -> bool:
        counted, wrong = Counted(3, loops), 0
        for _ in range(25 * effort.rounds):
            counted.run(workers, 3)
            wrong += not counted.right
        return wrong == 0

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(many, range(0, 80, 10)))
    assert workers._started == 2


def test_a_worker_that_does_not_come_is_not_waited_for() -> None:
    workers, counted = team_of_many(), Counted(2)
    # A box of a worker that the system does not let run.
    boxes = workers._boxes
    workers._started, boxes[protocol.MOST_WORKERS, protocol.COUNT // 8] = 1, 1
    boxes[0, protocol.THREAD // 8] = -1
    for state in (IDLE, protocol.ASLEEP):
        boxes[0, 0] = state
        for _ in range(3):
            counted.run(workers, 2)
        assert counted.right
        assert counted.by_seat[1] == 0
        assert boxes[0, 0] == IDLE, "the offer was not taken back"


def test_who_may_start_no_thread_computes_alone_and_asks_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[int]()

    def refuse(routine: Any, argument: int) -> bool:
        asked.append(argument)
        return False

    monkeypatch.setattr(team, "start_thread", refuse)
    workers, counted = team_of_many(), Counted(3)
    for _ in range(5):
        counted.run(workers, 3)
        assert counted.right
    assert len(asked) == 1
    assert workers._started == 0


def states(workers: Team) -> list[int]:
    return [int(box) for box in workers._boxes[: workers._started, 0]]


def cpu_s() -> dict[str, float]:
    """Processor time of each thread of this process."""
    found = {}
    for path in Path("/proc/self/task").glob("*/stat"):
        fields = path.read_text().rpartition(")")[2].split()
        found[path.parent.name] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return found


def assert_soon(condition: Any) -> None:
    until = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.001)


def test_every_seat_has_as_many_parts_as_another() -> None:
    workers, counted = team_of_many(), Counted(2, loops=0)
    head, seen = counted.job._idle[-1].head, set[int]()
    for took in range(1, 1_000_000, 5000):
        head[TOOK] = took
        counted.run(workers, 2)
        seen.add(int(counted.y[2, 0, 0]))
    assert seen == {2, 4, 6, 8}


def test_nobody_is_woken_for_a_short_job() -> None:
    workers, counted = team_of_many(), Counted(3, loops=0)
    counted.run(workers, 3)
    head, late = counted.job._idle[-1].head, workers._boxes[-1:, protocol.LATE // 8]
    for took, woken in ((protocol.ROUSE_NS - 1, False), (10 * protocol.ROUSE_NS, True)):
        assert_soon(lambda: states(workers) == [protocol.ASLEEP] * 2)
        time.sleep(0.005)
        workers._boxes[:2, protocol.CALLER // 8] = 0
        head[TOOK], late[:] = took, 10**9
        counted.run(workers, 3)
        # Whoever wakes a worker leaves its number.
        assert list(workers._boxes[:2, protocol.CALLER // 8] != 0) == [woken] * 2
        if not woken:
            # Each such call believes less that waking takes so long.
            assert late == 10**9 - 10**9 // protocol.AGE


def test_how_long_waking_took_is_known_afterwards() -> None:
    workers, counted = team_of_many(), Counted(3, loops=0)
    counted.run(workers, 3)
    assert_soon(lambda: states(workers) == [protocol.ASLEEP] * 2)
    late = workers._boxes[-1:, protocol.LATE // 8]
    late[:], counted.job._idle[-1].head[TOOK] = 0, 10 * protocol.ROUSE_NS
    before = time.monotonic_ns()
    counted.run(workers, 3)
    assert_soon(lambda: late > 0)
    assert late <= time.monotonic_ns() - before


def test_a_job_of_a_few_microseconds_is_the_callers_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, counted = list[int](), Counted(2)
    monkeypatch.setattr(job, "ALONE_NS", 12_000)
    monkeypatch.setattr(job, "launch", lambda threads, *_: asked.append(threads))
    for took in (0, 1, 11_999, 12_000, 10**9):
        counted.job._idle[-1].head[TOOK] = took
        counted.job(counted.x, counted.y)
    assert asked == [2, 1, 1, 2, 2]


def test_what_starting_a_job_costs_is_measured_on_all_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[int]()

    def short(threads: int, x: Any, y: Any, table: int) -> None:
        asked.append(threads)
        ctypes.c_int64.from_address(table + 8 * TOOK).value = 1

    monkeypatch.setattr(job, "ALONE_NS", 12_000)
    monkeypatch.setattr(job, "launch", short)
    monkeypatch.setattr(launch, "usable", lambda threads: threads)
    probes.launch_s(2, 0.0)
    assert asked == [2] * 3


def test_a_job_knows_the_least_that_a_call_took() -> None:
    workers, counted = team_of_many(), Counted(2, loops=1000)
    head = counted.job._idle[-1].head
    counted.run(workers, 2)
    assert 1 < head[TOOK] < 10**10
    for before in (10**15, 1):
        head[TOOK] = before
        counted.run(workers, 2)
        assert (head[TOOK] < before) == (before > 1)


def test_workers_without_work_sleep_and_wake_again() -> None:
    workers, counted = team_of_many(), Counted(3, loops=20_000)
    for _ in range(3):
        # Also one that was never called must come to rest.
        counted.run(workers, 3)
        assert_soon(lambda: states(workers) == [protocol.ASLEEP] * 2)
    me, spent = str(threading.get_native_id()), cpu_s()
    time.sleep(0.3)
    # A worker that looks at its box again and again would take all of that time. Other tests' workers sleep, too.
    assert sum(after - spent.get(thread, 0.0) for thread, after in cpu_s().items() if thread != me) < 0.1
    before = counted.by_seat.copy()
    until = time.monotonic() + PATIENCE_S
    while (counted.by_seat[1:] == before[1:]).any():
        counted.run(workers, 3)
        assert time.monotonic() < until, "a sleeping worker was not woken"
    assert counted.right
    # Woken on another core than the caller's, they may run on all again.
    threads = [int(word) for word in workers._boxes[:2, protocol.THREAD // 8]]
    while any(os.sched_getaffinity(thread) != os.sched_getaffinity(0) for thread in threads):
        counted.run(workers, 3)
        assert time.monotonic() < until, "a woken worker stays away from a core"


def test_a_call_on_one_core_asks_nobody() -> None:
    """Also of a plan that was made when there were more, by a thread that may use only one."""
    workers, counted = Team(), Counted(2)
    counted.run(workers, 2)
    assert counted.right

    def confined() -> None:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        before = counted.by_seat.copy()
        for _ in range(100):
            counted.run(workers, 2)
            assert counted.right
            assert counted.y[2, 0, 0] == 1, "more than one part"
        assert counted.by_seat[1] == before[1]

    with ThreadPoolExecutor(1) as pool:
        pool.submit(confined).result()


def test_a_team_has_a_limit() -> None:
    workers, counted = Team(most=2, cores=64), Counted(8)
    counted.run(workers, 8)
    assert workers._started == 2
    assert counted.right


def test_words_outlive_who_made_them() -> None:
    """While the interpreter ends, modules go before the workers do."""
    words = immortal(2, protocol.LINE)
    gone, at = weakref.ref(words), words.ctypes.data
    del words
    gc.collect()
    word = gone()
    assert word is not None
    assert word.ctypes.data == at


@pytest.mark.parametrize(("wanted", "found"), [("", "team"), ("team", "team"), ("numba", "numba")])
def test_the_threading_layer_can_be_chosen(monkeypatch: pytest.MonkeyPatch, wanted: str, found: str) -> None:
    monkeypatch.setenv(launch.VARIABLE, wanted)
    assert launch.layer.__wrapped__() == found
    monkeypatch.setattr(atomics, "SUPPORTED", False)
    assert launch.layer.__wrapped__() == "numba"


def test_a_layer_that_does_not_exist_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(launch.VARIABLE, "omp")
    with pytest.raises(ValueError, match="CONV_IMPLS_THREADING_LAYER: expected team or numba, got 'omp'; unset it"):
        launch.layer.__wrapped__()


def test_numbas_own_number_of_threads_is_as_before_after_a_call() -> None:
    counted, before = Counted(2), numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        launch._by_numba(2, counted.x, counted.y.reshape(-1), counted.job._idle[-1].address)
        assert numba.get_num_threads() == 1
    finally:
        numba.set_num_threads(before)
    assert counted.y[2, 0, 0] == min(2, cores.affinity())


def test_the_team_leaves_numbas_own_number_of_threads_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba, "set_num_threads", lambda *given: pytest.fail("it was set"))
    counted = Counted(2)
    launch.launch(2, counted.x, counted.y.reshape(-1), counted.job._idle[-1].address)
    assert counted.right
