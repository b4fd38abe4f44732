"""The thread team: each task runs once and phases keep their order, whoever comes, sleeps, is late or never comes.

A kernel that counts stands for all kernels. Teams here have more seats than this machine may have cores.
"""

from __future__ import annotations

import ctypes
import gc
import os
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numba
import numpy as np
import pytest
from effort import Effort

from conv_impls import Conv2dProblem, plan
from conv_impls.choice import probes
from conv_impls.kernels.runtime import atomics, cores, job, launch, team
from conv_impls.kernels.runtime.compile import entry, kernel
from conv_impls.kernels.runtime.job import Job, parts_of
from conv_impls.kernels.runtime.memory import immortal
from conv_impls.kernels.runtime.operands import TOOK, of_call, of_plan
from conv_impls.kernels.runtime.team import IDLE, Team
from conv_impls.validation import Array

if not atomics.SUPPORTED:
    pytest.skip("the team runs on Linux, x86-64 and 64-bit Arm", allow_module_level=True)

pytestmark = pytest.mark.usefixtures("smallest_jobs_handed_out")

# Room for the parts of eight threads.
PARTS, PHASES = 32, 3
# The most that a test waits for another thread.
PATIENCE_S = 60


class Sizes(NamedTuple):
    loops: int


class Operands(NamedTuple):
    sizes: Sizes


def counting(phase: int) -> Any:
    """A kernel: one more in y[0, phase, part], and in y[1] if the phase before is done; y[2] is the number of parts."""

    @kernel
    def count(part: Any, parts: Any, operands: Any) -> None:
        x, y, work, at = of_call(operands)
        loops = of_plan(operands, Operands).sizes.loops
        total = 0.0
        for i in range(loops * (part % 5)):
            total += x[0] / (i + 1)
        work[at] += 1
        done = total >= 0
        for other in range(parts):
            if phase and y[(phase - 1) * PARTS + other] != 1:
                done = False
        y[(PHASES + phase) * PARTS + part] += done
        y[(2 * PHASES + phase) * PARTS + part] += parts
        y[phase * PARTS + part] += 1

    return count


KERNELS = [counting(phase) for phase in range(PHASES)]


class Counted:
    """Calls of `count` on a team, and what they left behind."""

    def __init__(self, seats: int, loops: int = 20) -> None:
        self.job = Job(KERNELS, np.dtype("float64"), Operands(Sizes(loops)), threads=seats, units=PARTS * seats, own=8)
        self.x, self.y, self.tasks = np.ones(1), np.zeros((3, PHASES, PARTS)), 0

    def run(self, workers: Team, seats: int) -> None:
        self.y.fill(0)
        workers.call(seats, self.x, self.y.reshape(-1), self.job._idle[-1][2])
        self.tasks += int(self.y[0].sum())

    @property
    def right(self) -> bool:
        """Every task of every phase ran once, after the phase before."""
        parts = int(self.y[2, 0, 0])
        expected = np.zeros_like(self.y)
        expected[:2, :, :parts], expected[2, :, :parts] = 1, parts
        return 1 <= parts <= PARTS and np.array_equal(self.y, expected)

    @property
    def by_seat(self) -> Array:
        """Tasks that each seat ran."""
        work, line = self.job._idle[-1][0], self.job._own
        found: Array = work[::line][: self.job._threads]
        return found


def team_of_many() -> Team:
    """A team that takes this machine for one of 64 cores."""
    return Team(cores=64)


@pytest.mark.parametrize("loops", [0, 1000])
@pytest.mark.parametrize("seats", [1, 2, 3, 8])
def test_every_task_runs_once_and_after_the_phase_before(seats: int, loops: int) -> None:
    workers, counted = team_of_many(), Counted(seats, loops)
    for _ in range(300):
        counted.run(workers, seats)
        assert counted.right
    assert counted.by_seat.sum() == counted.tasks
    # What was counted elsewhere is no seat's.
    assert counted.job._idle[-1][0].sum() == counted.tasks


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
    workers._started, boxes[team.MOST_WORKERS, team.COUNT // 8] = 1, 1
    boxes[0, team.THREAD // 8] = -1
    for state in (IDLE, team.ASLEEP):
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
    head, seen = counted.job._idle[-1][3], set[int]()
    for took in range(1, 1_000_000, 5000):
        head[TOOK] = took
        counted.run(workers, 2)
        seen.add(int(counted.y[2, 0, 0]))
    assert seen == {2, 4, 6, 8}


def test_nobody_is_woken_for_a_short_job() -> None:
    workers, counted = team_of_many(), Counted(3, loops=0)
    counted.run(workers, 3)
    head = counted.job._idle[-1][3]
    for took, woken in ((team.ROUSE_NS - 1, False), (10 * team.ROUSE_NS, True)):
        assert_soon(lambda: states(workers) == [team.ASLEEP] * 2)
        time.sleep(0.005)
        workers._boxes[:2, team.CALLER // 8] = 0
        head[TOOK] = took
        counted.run(workers, 3)
        # Whoever wakes a worker leaves its number.
        assert list(workers._boxes[:2, team.CALLER // 8] != 0) == [woken] * 2


def test_a_job_of_a_few_microseconds_is_the_callers_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, counted = list[int](), Counted(2)
    monkeypatch.setattr(job, "ALONE_NS", 12_000)
    monkeypatch.setattr(job, "launch", lambda threads, *_: asked.append(threads))
    for took in (0, 1, 11_999, 12_000, 10**9):
        counted.job._idle[-1][3][TOOK] = took
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
    head = counted.job._idle[-1][3]
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
        assert_soon(lambda: states(workers) == [team.ASLEEP] * 2)
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
    threads = [int(word) for word in workers._boxes[:2, team.THREAD // 8]]
    while any(os.sched_getaffinity(thread) != os.sched_getaffinity(0) for thread in threads):
        counted.run(workers, 3)
        assert time.monotonic() < until, "a woken worker stays away from a core"


@pytest.fixture
def one_core() -> Iterator[None]:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)


def test_cores_are_those_of_the_moment(one_core: None) -> None:
    assert cores.affinity() == launch.usable(8) == 1
    problem = Conv2dProblem.from_label("ic4ih9oc4oh9kh3ph1")
    assert plan(problem, np.ones(problem.weight_shape, "f4"), backend="numba_simd", threads=2).threads == 1


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


def group(root: Path, path: str, **files: str) -> None:
    folder = root / "sys/fs/cgroup" / path
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / f"cpu.{name}").write_text(text)


@pytest.mark.parametrize(
    ("mine", "files", "expected"),
    [
        ("0::/\n", {"": {"max": "150000 100000\n"}}, 1.5),
        ("0::/\n", {"": {"max": "max 100000\n"}}, float("inf")),
        ("0::/a/b\n", {"a": {"max": "200000 100000"}, "a/b": {"max": "300000 100000"}}, 2.0),
        ("0::/seen/from/outside\n", {"": {"max": "50000 100000"}}, 0.5),
        (
            "4:memory:/\n3:cpu,cpuacct:/c\n",
            {"cpu,cpuacct/c": {"cfs_quota_us": "400000\n", "cfs_period_us": "100000\n"}},
            4.0,
        ),
        ("3:cpu:/\n", {"cpu": {"cfs_quota_us": "-1\n", "cfs_period_us": "100000\n"}}, float("inf")),
        ("4:memory:/m\n", {"memory/m": {"max": "1 2"}}, float("inf")),
        ("0::/\n", {"": {"max": "junk"}}, float("inf")),
        ("0::/\n", {"": {"max": "100000 0"}}, float("inf")),
        ("", {}, float("inf")),
    ],
)
def test_quotas_of_control_groups(tmp_path: Path, mine: str, files: dict[str, dict[str, str]], expected: float) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(mine)
    for path, texts in files.items():
        group(tmp_path, path, **texts)
    assert cores.quota(tmp_path) == expected


def test_a_quota_is_read_again_after_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    now, grants = 1000.0, [1.2, 64.0, 1.6, 0.2]
    monkeypatch.setattr(cores, "_quota", (0.0, 0))
    monkeypatch.setattr(cores, "quota", lambda: grants.pop(0))
    monkeypatch.setattr(time, "monotonic", lambda: now)
    found = []
    for step in (0.0, 0.9, 0.2, 1.1, 1.1):
        now += step
        found.append(cores.granted())
    assert found == [1, 1, 64, 2, 1]


@pytest.mark.parametrize("allowed", [1, 2, 5])
def test_a_quota_limits_threads(monkeypatch: pytest.MonkeyPatch, allowed: int) -> None:
    monkeypatch.setattr(launch, "granted", lambda: allowed)
    monkeypatch.setattr(launch, "affinity", lambda: 64)
    monkeypatch.setattr(numba.config, "NUMBA_NUM_THREADS", 64)
    assert launch.usable(8) == allowed
    asked = []
    monkeypatch.setattr(launch._team, "call", lambda seats, *given: asked.append(seats))
    monkeypatch.setattr(launch._team, "alone", lambda *given: asked.append(1))
    launch.launch(8, np.ones(1), np.ones(1), 0)
    assert asked == [allowed]


def test_a_team_has_a_limit() -> None:
    workers, counted = Team(most=2, cores=64), Counted(8)
    counted.run(workers, 8)
    assert workers._started == 2
    assert counted.right


def test_words_outlive_who_made_them() -> None:
    """While the interpreter ends, modules go before the workers do."""
    words = immortal(2, team.LINE)
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
        launch._by_numba(2, counted.x, counted.y.reshape(-1), counted.job._idle[-1][2])
        assert numba.get_num_threads() == 1
    finally:
        numba.set_num_threads(before)
    assert counted.y[2, 0, 0] == min(2, cores.affinity())


def test_the_team_leaves_numbas_own_number_of_threads_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba, "set_num_threads", lambda *given: pytest.fail("it was set"))
    counted = Counted(2)
    launch.launch(2, counted.x, counted.y.reshape(-1), counted.job._idle[-1][2])
    assert counted.right


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
    words = {team.TABLE: counted.job._idle[-1][2], team.OF_PHASE: 4, team.TICKETS: ticket(5, 2, 0)}
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
            workers.call(2, x, y, job._idle[-1][2])
            assert time.monotonic() < until, "the caller never slept"
        done.set()
        watcher.result()
    assert (y > 1).all()
