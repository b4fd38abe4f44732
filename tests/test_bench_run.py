"""How a run goes round: order, pairs, who is asked what, what a failure costs, and what is resumed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import asdict

from bench.run import driver
from bench.run.driver import GIVEN_UP, PEAK_S, TURNS, check_cases, drive, make_cases
from bench.run.worker import PEAK
from bench.store.folder import Run
from bench.store.records import Case
from conv_impls import workloads

BACKENDS = ["a", "b", "c"]
CONFIG: dict[str, Any] = {
    "seed": 0, "timeout_s": 0.6, "budget_s": 60.0, "seconds": 0.06, "variables": {"SOME": "variable"},
    "fresh_cache": False, "rotate_bytes": 1000,
}  # fmt: skip
READY: dict[str, Any] = {
    "status": "ok",
    "reason": "",
    "facts": {"first_call_s": 1e-3, "error": 1e-7, "mode": "planned"},
}
TIMED = {"status": "ok", "reason": "", "samples_s": [1e-3, 2e-3, 6e-3], "iterations": 4}
PEAK_ANSWER = {"status": "ok", "gflops": 50.0}
Log = list[tuple[str, int, str, dict[str, Any]]]


def workers(log: Log, answer: Callable[[str, int, str, dict[str, Any]], dict[str, Any] | None]) -> type:
    """A class that stands in for `bench.run.process.Worker`: notes what it is asked, and answers without a process."""

    class Fake:
        def __init__(self, backend: str, threads: int, call_s: float, variables: dict[str, str]) -> None:
            self.backend, self.threads, self.variables = backend, threads, variables
            log.append((backend, threads, "start", dict(variables)))

        def ask(self, do: str, **order: Any) -> dict[str, Any]:
            log.append((self.backend, self.threads, do, order))
            known = PEAK_ANSWER if self.backend == PEAK else READY if do == "prepare" else TIMED
            return answer(self.backend, self.threads, do, order) or known

        def close(self) -> str:
            log.append((self.backend, self.threads, "close", {}))
            return ""

    return Fake


@pytest.fixture
def go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Run, Log]]:
    """Drive a run with stand-ins; keyword arguments change the configuration."""

    def run_them(
        answer: Callable[..., dict[str, Any] | None] = lambda *asked: None, folder: str = "run", layers: int = 2,
        threads: tuple[int, ...] = (1,), repetitions: int = 1, **changes: Any,
    ) -> tuple[Run, Log]:  # fmt: skip
        log: Log = []
        monkeypatch.setattr(driver, "Worker", workers(log, answer))
        path = tmp_path / folder
        if not path.exists():
            cases = make_cases(
                workloads.load("smoke")[:layers], BACKENDS, list(threads), repetitions, ["fwd"], ["warm"]
            )
            Run.create(path, CONFIG | {"cases": [asdict(case) for case in cases]} | changes, {"id": "e"})
        run = Run.open(path)
        drive(run)
        return run, log

    return run_them


def rounds(log: Log) -> list[tuple[str, ...]]:
    """The names in the order of their turns, round by round."""
    turns = [name for name, _, do, _ in log if do == "turn"]
    size = len(BACKENDS) + 1
    return [tuple(turns[i : i + size]) for i in range(0, len(turns), size)]


def test_all_take_turns_in_a_shuffled_order_that_the_seed_repeats(go: Any) -> None:
    _, log = go()
    orders = rounds(log)
    assert len(orders) == 2 * TURNS
    assert all(sorted(order) == sorted([*BACKENDS, PEAK]) for order in orders), "each once a round, the peak as well"
    assert len(set(orders)) > TURNS
    assert len(set(orders[:TURNS])) > 1
    assert orders[:TURNS] != orders[TURNS:], "every layer has an order of its own"
    assert rounds(go(folder="again")[1]) == orders
    assert rounds(go(folder="other", seed=1)[1]) != orders


def test_no_place_of_a_round_belongs_to_one_backend(go: Any) -> None:
    _, log = go(layers=4, repetitions=5)
    places = Counter((name, place) for order in rounds(log) for place, name in enumerate(order))
    assert set(places) == {(name, place) for name in [*BACKENDS, PEAK] for place in range(4)}
    expected = 4 * 5 * TURNS / 4
    assert all(0.5 * expected < count < 1.6 * expected for count in places.values())


def test_everyone_is_prepared_before_anyone_is_timed(go: Any) -> None:
    _, log = go(layers=1)
    orders = [do for _, _, do, _ in log if do in ("prepare", "turn")]
    assert orders == ["prepare"] * 3 + ["turn"] * 4 * TURNS


def test_a_record_holds_the_turns_by_round_and_the_peak_beside_them(go: Any) -> None:
    run, log = go(layers=1)
    for record in run.records():
        assert record.turns_s == [2e-3] * TURNS
        assert record.samples_s == [1e-3, 2e-3, 6e-3] * TURNS
        assert (record.median_s, record.iterations, record.fma_peak_gflops) == (2e-3, 4, 50.0)
        assert (record.error, record.mode, record.environment_id) == (1e-7, "planned", "e")
        assert record.gflops_effective > 0
    seconds = {name: order["seconds"] for name, _, do, order in log if do == "turn"}
    assert seconds == dict.fromkeys(BACKENDS, CONFIG["seconds"] / TURNS) | {PEAK: PEAK_S}
    assert (run.folder / "finished.json").exists()


def test_a_slow_backend_has_fewer_turns_and_they_pair_with_the_first_of_others(go: Any) -> None:
    slow = READY | {"once_s": CONFIG["seconds"] / 4.5}
    count: Counter[tuple[str, str]] = Counter()

    def answer(name: str, threads: int, do: str, order: Any) -> Any:
        count[name, do] += 1
        if do == "turn" and name != PEAK:
            return TIMED | {"samples_s": [float(count[name, do])]}
        return slow if (name, do) == ("a", "prepare") else None

    run, _ = go(answer, layers=1)
    turns = {record.case.backend: record.turns_s for record in run.records()}
    assert turns == {"a": [1, 2, 3, 4], "b": [1, 2, 3, 4, 5, 6], "c": [1, 2, 3, 4, 5, 6]}


@pytest.mark.parametrize("status", ["crashed", "timeout", "oom", "wrong_result", "error", "unreliable"])
@pytest.mark.parametrize("at", [0, 3])
def test_a_failure_costs_its_own_case_and_no_time_of_it_is_kept(go: Any, status: str, at: int) -> None:
    asked = Counter[str]()

    def answer(name: str, threads: int, do: str, order: Any) -> Any:
        asked[name] += 1
        return {"status": status, "reason": "because"} if (name, asked[name]) == ("b", at + 1) else None

    run, _ = go(answer)
    assert len(run.records()) == 6
    (bad,) = [record for record in run.records() if record.status != "ok"]
    assert (bad.case.backend, bad.status, bad.reason) == ("b", status, "because")
    assert (bad.samples_s, bad.turns_s, bad.median_s) == ([], [], None)
    assert asked["b"] == at + 1 + 1 + TURNS, "after it failed it was asked no more of that layer"


def test_nobody_ready_means_no_turns(go: Any) -> None:
    _, log = go(lambda name, threads, do, order: {"status": "unsupported", "reason": "no"})
    assert not [1 for _, _, do, _ in log if do == "turn"]


def test_a_peak_that_cannot_be_measured_spoils_nothing(go: Any) -> None:
    run, _ = go(lambda name, *rest: {"status": "crashed", "reason": "x"} if name == PEAK else None)
    assert {record.status for record in run.records()} == {"ok"}
    assert {record.fma_peak_gflops for record in run.records()} == {None}


def test_each_backend_and_number_of_threads_has_a_process_of_its_own(go: Any) -> None:
    _, log = go(threads=(1, 2), repetitions=2)
    started = [(name, threads) for name, threads, do, _ in log if do == "start"]
    assert sorted(started) == sorted((name, threads) for threads in (1, 2) for name in [*BACKENDS, PEAK])
    closed = [number for number, entry in enumerate(log) if entry[2] == "close" and entry[1] == 1]
    assert max(closed) < min(number for number, entry in enumerate(log) if entry[1] == 2), "the first are gone by then"
    assert sum(do == "close" for _, _, do, _ in log) == len(started)
    assert {order["SOME"] for _, _, do, order in log if do == "start"} == {"variable"}


def test_repetitions_go_round_all_layers_and_backends(go: Any) -> None:
    run, _ = go(repetitions=3)
    written = [record.case for record in run.records()]
    assert written == run.cases
    assert [case.repetition for case in written] == [1] * 6 + [2] * 6 + [3] * 6


def test_the_budget_leaves_the_rest_for_later(go: Any) -> None:
    run, log = go(budget_s=1e-9)
    assert run.records() == log == []
    assert not (run.folder / "finished.json").exists()


def test_a_layer_left_half_way_is_taken_whole_again(go: Any) -> None:
    run, _ = go()
    lines = (run.folder / "records.jsonl").read_text().splitlines(keepends=True)
    (run.folder / "records.jsonl").write_text("".join(lines[:-1]))
    run, log = go()
    again = {order["case"]["layer"] for _, _, do, order in log if do == "prepare"}
    assert again == {run.cases[-1].layer}
    assert [name for name, _, do, _ in log if do == "prepare"] == BACKENDS
    assert {record.case.key for record in run.records()} == {case.key for case in run.cases}


def test_a_backend_that_hangs_twice_is_not_tried_a_third_time(go: Any) -> None:
    def answer(name: str, threads: int, do: str, order: Any) -> Any:
        return {"status": "timeout", "reason": "no end of call"} if (name, do) == ("a", "prepare") else None

    run, log = go(answer, layers=4)
    assert sum((name, do) == ("a", "prepare") for name, _, do, _ in log) == GIVEN_UP
    hung = [record for record in run.records() if record.case.backend == "a"]
    assert [record.status for record in hung] == ["timeout"] * 4
    assert "not tried" in hung[-1].reason


@pytest.mark.parametrize(
    "told", [{"packed_bytes": 1.5}, {"executed_flops": "many"}, {"colour": "red"}, {"peak_bytes": [1]}]
)
def test_what_cannot_be_stored_is_an_error_of_its_case_alone(go: Any, told: dict[str, Any]) -> None:
    def answer(name: str, threads: int, do: str, order: Any) -> Any:
        return READY | {"facts": READY["facts"] | told} if (name, do) == ("a", "prepare") else None

    run, _ = go(answer, layers=1)
    assert {r.case.backend: r.status for r in run.records()} == {"a": "error", "b": "ok", "c": "ok"}


@pytest.mark.parametrize(
    "junk", [{"status": "ok"}, {"status": "ok", "samples_s": 3}, {"status": "ok", "samples_s": ["x"]}]
)
def test_a_process_that_answers_junk_costs_its_case_alone(go: Any, junk: dict[str, Any]) -> None:
    run, _ = go(lambda name, threads, do, order: junk if (name, do) == ("a", "turn") else None, layers=1)
    assert {r.case.backend: r.status for r in run.records()} == {"a": "crashed", "b": "ok", "c": "ok"}


def test_what_interrupts_a_run_ends_its_processes_and_what_is_finished_stays(go: Any) -> None:
    calls = Counter[str]()

    def answer(name: str, threads: int, do: str, order: Any) -> Any:
        calls[do] += 1
        if calls["prepare"] == 5:
            raise KeyboardInterrupt
        return None

    with pytest.raises(KeyboardInterrupt):
        go(answer)
    run, log = go()
    assert [name for name, _, do, _ in log if do == "prepare"] == BACKENDS, "only the second layer was left"
    assert len(run.records()) == 6
    assert {order["case"]["layer"] for _, _, do, order in log if do == "prepare"} == {run.cases[-1].layer}


def test_kernels_compiled_anew_have_an_empty_folder_for_the_run(go: Any) -> None:
    _, log = go(fresh_cache=True)
    (folder,) = {order["NUMBA_CACHE_DIR"] for _, _, do, order in log if do == "start"}
    assert not Path(folder).exists()


def test_progress_counts_to_the_end(go: Any, tmp_path: Path) -> None:
    run, _ = go()
    (run.folder / "records.jsonl").unlink()
    said: list[tuple[int, int]] = []
    drive(run, lambda done, total, at, left: said.append((done, total)))
    assert said == sorted(said)
    assert said[-1] == (6, 6)


def test_check_yields_each_case_and_restarts_for_other_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    log: Log = []
    refuse = {"status": "wrong_result", "reason": "off"}
    answer = workers(log, lambda name, threads, do, order: refuse if name == "b" and threads == 2 else None)
    monkeypatch.setattr(driver, "Worker", answer)
    cases = make_cases(workloads.load("smoke")[:2], ["a", "b"], [1, 2], 1, ["fwd", "bwd_d"], ["warm"])
    found = list(check_cases(cases, 1.0, {}, 0))
    assert [case for case, _, _ in found] == cases
    wrong: list[Case] = [case for case, status, _ in found if status != "ok"]
    assert wrong == [case for case in cases if case.backend == "b" and case.threads == 2]
    assert Counter(do for _, _, do, _ in log) == {"start": 4, "close": 4, "prepare": 16}
