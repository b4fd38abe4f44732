"""`bench.run.contention` and its settings: busy processes run in time and never stay, stretches of calls, trials.

Sessions have `test_bench_contention_sessions`, tables `test_claims_contention`.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from inprocess import MS, Machine, Race
from misbehaving import assert_soon

from bench.contention import Settings
from bench.machine import cpu
from bench.run import contention
from bench.run.contender import Failed
from bench.run.options import UsageError

ROOT = Path(__file__).parent.parent


def cpu_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def is_gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def test_busy_processes_use_their_cores_in_the_block_and_end_with_it() -> None:
    with contention.busy(2) as pids:
        assert len(set(pids)) == 2
        for pid in pids:
            before = cpu_ticks(pid)
            assert_soon(lambda pid=pid, before=before: cpu_ticks(pid) >= before + 2, pid)  # type: ignore[misc]
            # Ctrl-C in a terminal does not reach them; the scheduler counts them as it counts the engines.
            assert os.getpgid(pid) != os.getpgid(0)
            assert os.getsid(pid) == os.getsid(0)
    assert all(map(is_gone, pids))
    with contention.busy(0) as pids:
        assert pids == []


def test_busy_processes_end_with_a_block_that_fails() -> None:
    with pytest.raises(KeyboardInterrupt), contention.busy(1) as pids:
        raise KeyboardInterrupt
    assert is_gone(pids[0])


def test_times_are_refused_where_a_busy_process_has_ended() -> None:
    block = contention.busy(2)
    pids = block.__enter__()
    os.kill(pids[0], signal.SIGKILL)
    # Waits for its end and leaves the exit code to the block.
    os.waitid(os.P_PID, pids[0], os.WEXITED | os.WNOWAIT)
    with pytest.raises(RuntimeError, match="ended too early"):
        block.__exit__(None, None, None)
    assert all(map(is_gone, pids))


def test_a_busy_process_that_does_not_start_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contention, "BUSY", "")
    with pytest.raises(RuntimeError, match="could not be started"), contention.busy(1):
        pytest.fail("the block began")


def test_a_killed_parent_leaves_no_busy_process() -> None:
    code = """
import time
from bench.run.contention import busy
with busy(2) as pids:
    print(*pids, flush=True)
    time.sleep(600)
"""
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pids = [int(word) for word in parent.stdout.readline().split()]
    assert len(pids) == 2
    parent.kill()
    parent.communicate()
    assert_soon(lambda: all(map(is_gone, pids)), pids)


def test_processes_share_exactly_as_many_cores_as_an_engine_has_threads() -> None:
    before = cpu.cpus()
    with contention.on_cores(1):
        assert cpu.cores() == 1
    assert cpu.cpus() == before
    with pytest.raises(UsageError, match=f"expected 4096 cores for all processes, got {len(before)}"):
        contention.on_cores(4096).__enter__()
    assert cpu.cpus() == before


@pytest.mark.parametrize(("seconds", "calls"), [(8 * MS, 8), (7.5 * MS, 8), (0.0, 1), (MS / 2, 1)])
def test_a_stretch_is_calls_one_after_another_until_the_time_is_over(
    machine: Machine, tmp_path: Path, seconds: float, calls: int
) -> None:
    race = Race(tmp_path, turns=0)
    before = machine.calls
    answer = race.worker.ask("stretch", seconds=seconds)
    assert (answer["status"], answer["calls"], answer["seconds"]) == ("ok", calls, calls * MS)
    assert machine.calls - before == calls


def test_a_stretch_whose_call_fails_has_no_times(machine: Machine, tmp_path: Path) -> None:
    race = Race(tmp_path, turns=0)

    def fail(*given: Any) -> Any:
        raise RuntimeError("no more")

    machine.answer = fail
    answer = race.worker.ask("stretch", seconds=MS)
    assert (answer["status"], answer["reason"]) == ("error", "RuntimeError: no more")
    assert "calls" not in answer


def test_the_mean_counts_every_call(machine: Machine, tmp_path: Path) -> None:
    race = Race(tmp_path, turns=0)
    machine.script.extend([(MS, 0), (6 * MS, 0), (MS, 0)])
    assert contention.mean_call_s(race.contender, 8 * MS) == 8 * MS / 3


@pytest.mark.parametrize(
    ("change", "status", "reason"),
    [
        ({"calls": 0}, "wrong_result", "its clock contradicts that of the parent, by which the calls took "),
        ({"seconds": 0.0}, "wrong_result", "its clock contradicts"),
        ({"seconds": 1e9}, "wrong_result", "its clock contradicts"),
        ({"calls": None}, "crashed", "the answer of its process has no times"),
        ({"seconds": "x"}, "crashed", "the answer of its process has no times"),
        ({"status": "timeout", "reason": "no end"}, "timeout", "no end"),
    ],
)  # fmt: skip
def test_times_that_cannot_be_right_are_no_mean(
    machine: Machine, tmp_path: Path, change: dict[str, Any], status: str, reason: str
) -> None:
    race = Race(tmp_path, turns=0)
    race.worker.change = lambda do, answer: answer | change
    with pytest.raises(Failed) as failed:
        contention.mean_call_s(race.contender, MS)
    assert failed.value.args[0] == status
    assert failed.value.args[1].startswith(reason)


class Company:
    """Stands in for busy processes: each makes the calls of the machine slower by its usual time."""

    def __init__(self, machine: Machine) -> None:
        self._machine, self.counts = machine, list[int]()

    @contextmanager
    def __call__(self, processes: int) -> Iterator[list[int]]:
        self.counts.append(processes)
        self._machine.usual_s = (1 + processes) * MS
        yield []
        self._machine.usual_s = MS


def test_each_trial_takes_every_number_of_busy_processes_once(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    company, shown = Company(machine), list[tuple[int, int, dict[str, float]]]()
    monkeypatch.setattr(contention, "busy", company)
    race = Race(tmp_path, turns=0)
    found = contention.measured(
        [race.contender], (0, 1, 2), 4, 6 * MS, random.Random(0), lambda *given: shown.append(given)
    )  # fmt: skip
    assert found == {("evil", n): [(1 + n) * MS] * 4 for n in range(3)}
    rounds = [company.counts[at : at + 3] for at in range(0, 12, 3)]
    assert all(sorted(taken) == [0, 1, 2] for taken in rounds)
    assert len(set(map(tuple, rounds))) > 1, "in shuffled order"
    assert shown == [(at // 3, n, {"evil": (1 + n) * MS}) for at, n in enumerate(company.counts)]
    # Outputs are compared before the trials and after them.
    assert race.worker.orders[2:5] == ["ready", "turn", "stretch"]
    assert race.worker.orders[-1] == "last"


@pytest.mark.parametrize("order", ["stretch", "last"])
def test_an_engine_that_fails_on_the_way_has_no_times(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: str
) -> None:
    monkeypatch.setattr(contention, "busy", Company(machine))
    race = Race(tmp_path, turns=0)
    race.worker.change = lambda do, answer: {"status": "crashed", "reason": "it did"} if do == order else answer
    assert contention.measured([race.contender], (0, 1), 2, MS, random.Random(0)) == {}
    assert (race.contender.status, race.contender.reason) == ("crashed", "it did")
    assert race.worker.orders.count("stretch") == (1 if order == "stretch" else 4)


def test_the_settings_are_those_of_the_variables() -> None:
    assert Settings.read({}) == Settings(("auto", "onnxruntime", "openvino", "torch_nchw"), 10.0, 5, {})
    variables = {"CONTENTION_ENGINES": "numpy_im2col, auto", "CONTENTION_S": "0.5", "CONTENTION_TRIALS": "3"}
    assert Settings.read(variables) == Settings(("numpy_im2col", "auto"), 0.5, 3, {})
    assert Settings.read(dict.fromkeys(variables, "")) == Settings.read({})


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        *(("CONTENTION_S", value, "expected a number of seconds above 0") for value in ("x", "0", "-1", "nan", "inf")),
        *(("CONTENTION_TRIALS", value, "expected an integer >= 1") for value in ("x", "0", "-1", "1.5", "²")),
        ("CONTENTION_ENGINES", "autoo", "no backend 'autoo'; did you mean 'auto'?"),
        ("CONTENTION_ENGINES", ",", "expected one or more names, got ','"),
    ],
)
def test_a_wrong_setting_is_named(name: str, value: str, said: str) -> None:
    with pytest.raises(UsageError) as refused:
        Settings.read({name: value})
    assert str(refused.value).startswith(f"{name}: {said}")
