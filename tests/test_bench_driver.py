"""How a run goes round: order, pairs, who is asked what, what a failure costs, and what is resumed."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from scripted import BACKENDS, CONFIG, FACTS, Answer, Log, Scripted, Session, asked, by_backend, rounds

from bench.run import fleet
from bench.run.contender import FEWEST_TURNS, PATIENCE, TURNS
from bench.run.driver import GIVEN_UP, PEAK_S, Driver, check_cases, make_cases
from bench.run.equal import group_of
from bench.run.worker import MACHINE
from bench.store.folder import Run
from bench.store.records import Case, Record
from conv_impls import workloads


def test_all_take_turns_in_a_shuffled_order_that_the_seed_repeats(go: Session) -> None:
    _, log = go()
    orders = rounds(log)
    assert len(orders) == 2 * TURNS
    assert all(sorted(order) == sorted([*BACKENDS, MACHINE]) for order in orders), "each once a round, the peak as well"
    assert len(set(orders)) > TURNS
    assert len(set(orders[:TURNS])) > 1
    assert orders[:TURNS] != orders[TURNS:], "every layer has an order of its own"
    assert rounds(go(folder="again")[1]) == orders
    assert rounds(go(folder="other", seed=1)[1]) != orders


def test_no_place_of_a_round_belongs_to_one_backend(go: Session) -> None:
    _, log = go(layers=4, repetitions=5)
    places = Counter((name, place) for order in rounds(log) for place, name in enumerate(order))
    assert set(places) == {(name, place) for name in [*BACKENDS, MACHINE] for place in range(4)}
    expected = 4 * 5 * TURNS / 4
    assert all(0.5 * expected < count < 1.6 * expected for count in places.values())


def test_everyone_is_prepared_before_anyone_is_timed_and_checked_after_all_are(go: Session) -> None:
    _, log = go(layers=1)
    orders = [do for _, _, do, _ in log if do in ("start", "probe", "ready", "turn", "last")]
    assert orders == ["start", "probe", "ready"] * 3 + ["turn"] * 4 * TURNS + ["last"] * 3


def test_a_record_holds_the_turns_by_round_and_the_peak_beside_them(go: Session) -> None:
    run, log = go(layers=1)
    for record in run.records():
        assert (record.turns_s, record.turn_rounds) == ([2e-3] * TURNS, list(range(TURNS)))
        assert record.samples_s == [1e-3, 2e-3, 6e-3] * TURNS
        assert (record.median_s, record.iterations, record.fma_peak_gflops) == (2e-3, 4, 50.0)
        assert (record.turn_peaks_gflops, record.turn_switches) == ([50.0] * TURNS, [0] * TURNS)
        assert (record.mode, record.environment_id, record.stalled_share) == ("planned", "e", 1 / 3)
        assert 0 <= (record.error or 0.0) < 1e-6
        assert record.gflops_effective == pytest.approx(record.case.problem.flops / 2e-3 / 1e9)
    seconds = {name: order["seconds"] for name, _, do, order in log if do == "turn"}
    assert seconds == dict.fromkeys(BACKENDS, CONFIG["seconds"] / TURNS) | {MACHINE: PEAK_S}


def test_a_slow_backend_has_fewer_turns_and_they_pair_with_the_first_of_others(go: Session) -> None:
    count: Counter[str] = Counter()

    def spoil(name: str, threads: int, do: str, order: Answer) -> Answer | None:
        if do == "turn" and name != MACHINE:
            count[name] += 1
            return {"samples_s": [(8 + count[name]) / 64] * 3, "iterations": 1}
        return {"once_s": CONFIG["seconds"] / 4.5} if (name, do) == ("a", "ready") else None

    turns = {name: record.turns_s for name, record in by_backend(go(spoil, layers=1)[0]).items()}
    assert turns == {"a": (six := [(8 + turn) / 64 for turn in range(1, 7)])[:4], "b": six, "c": six}


def test_rounds_go_on_while_a_turn_is_disturbed_and_only_for_who_lacks_one(go: Session) -> None:
    turns: Counter[str] = Counter()

    def spoil(name: str, threads: int, do: str, order: Answer) -> Answer | None:
        turns[name] += do == "turn"
        if (name, do) == ("a", "turn") and turns["a"] in (2, 3):
            return {"samples_s": [5e-3, 7e-3, 9e-3], "switches": [1, 1, 1]}
        return None

    run, log = go(spoil, layers=1)
    found = by_backend(run)
    assert (found["a"].turn_rounds, found["a"].turns_s) == ([0, 3, 4, 5, 6, 7], [2e-3] * 6)
    assert found["a"].disturbed_s == [7e-3] * 2
    assert found["b"].turn_rounds == found["c"].turn_rounds == list(range(TURNS))
    assert Counter(asked(log, "turn")) == {"a": 8, "b": 6, "c": 6, MACHINE: 8}
    assert len(found["a"].turn_peaks_gflops) == 6


def test_patience_with_disturbed_turns_ends(go: Session) -> None:
    def spoil(name: str, threads: int, do: str, order: Answer) -> Answer | None:
        busy = {"samples_s": [1e-3, 7e-3, 9e-3], "switches": [1, 1, 1]}
        return busy if (name, do) == ("a", "turn") else None

    run, log = go(spoil, layers=1)
    found = by_backend(run)
    assert Counter(asked(log, "turn")) == {"a": PATIENCE * TURNS, "b": TURNS, "c": TURNS, MACHINE: PATIENCE * TURNS}
    assert (found["a"].status, found["a"].turns_s, found["a"].turn_rounds) == ("ok", [7e-3], [0])
    assert found["a"].disturbed_s == [7e-3] * (PATIENCE * TURNS - 1)


@pytest.mark.parametrize("status", ["crashed", "timeout", "oom", "wrong_result", "error", "unreliable"])
@pytest.mark.parametrize("at", range(0, TURNS + 4, 3))
def test_a_failure_costs_its_own_case_and_no_time_of_it_is_kept(go: Session, status: str, at: int) -> None:
    count: Counter[str] = Counter()

    def spoil(name: str, threads: int, do: str, order: Answer) -> Answer | None:
        count[name] += 1
        return {"status": status, "reason": "because"} if (name, count[name]) == ("b", at + 1) else None

    run, _ = go(spoil)
    assert len(run.records()) == 6
    (bad,) = [record for record in run.records() if record.status != "ok"]
    assert (bad.case.backend, bad.status, bad.reason) == ("b", status, "because")
    assert (bad.samples_s, bad.turns_s, bad.median_s) == ([], [], None)
    assert count["b"] == at + 1 + TURNS + 4, "after it failed it was asked no more of that layer"


def test_wrong_outputs_fail_the_case_and_no_other(go: Session) -> None:
    def spoil(name: str, threads: int, do: str, order: Answer) -> Answer | None:
        if (name, do) == ("b", "ready"):
            Path(order["out"]).write_bytes(bytes(4 * 16 * 16 * 16))
        return None

    found = by_backend(go(spoil, layers=1)[0])
    assert {name: record.status for name, record in found.items()} == {"a": "ok", "b": "wrong_result", "c": "ok"}
    assert "outputs beyond the bound" in found["b"].reason


def test_nobody_ready_means_no_turns(go: Session) -> None:
    _, log = go(lambda name, threads, do, order: {"status": "unsupported", "reason": "no"})
    assert not asked(log, "turn")
    assert not asked(log, "last")


def test_a_peak_that_cannot_be_measured_spoils_nothing(go: Session) -> None:
    run, _ = go(lambda name, *rest: {"status": "crashed", "gflops": None} if name == MACHINE else None)
    assert {record.status for record in run.records()} == {"ok"}
    assert {record.fma_peak_gflops for record in run.records()} == {None}


def test_each_backend_number_of_threads_and_repetition_has_a_process_of_its_own(go: Session) -> None:
    _, log = go(threads=(1, 2), repetitions=2)
    events = [(name, threads, do) for name, threads, do, _ in log if do in ("start up", "close")]
    assert len(events) == 2 * 2 * 2 * 4
    for number, threads in enumerate((1, 1, 2, 2)):
        these = events[8 * number : 8 * number + 8]
        assert sorted(these[:4]) == sorted((name, threads, "start up") for name in [*BACKENDS, MACHINE])
        assert sorted(these[4:]) == sorted((name, threads, "close") for name in [*BACKENDS, MACHINE]), "gone by then"
    assert {order["SOME"] for _, _, do, order in log if do == "start up"} == {"variable"}


def test_repetitions_go_round_all_layers_and_backends(go: Session) -> None:
    run, _ = go(repetitions=3)
    written = [record.case for record in run.records()]
    assert written == run.cases
    assert [case.repetition for case in written] == [1] * 6 + [2] * 6 + [3] * 6


def test_the_budget_leaves_the_rest_for_later(go: Session) -> None:
    found: list[object] = []
    run, log = go(budget_s=1e-9, after=lambda measuring: found.extend(map(measuring.record, measuring.run.cases)))
    assert (run.records(), log) == ([], [])
    assert set(found) == {None}, "and says so for every case"


def test_a_budget_that_ends_while_a_layer_is_prepared_leaves_the_layer_for_later(
    go: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def spoil(name: str, threads: int, do: str, order: Answer) -> Answer | None:
        now[0] += 10.0 * (do == "ready")
        return None

    run, log = go(spoil, budget_s=45.0)
    assert [record.case.backend for record in run.records()] == BACKENDS
    assert asked(log, "ready") == [*BACKENDS, "a", "b"]


def test_a_layer_left_half_way_is_taken_whole_again(go: Session) -> None:
    run, _ = go()
    lines = (run.folder / "records.jsonl").read_text().splitlines(keepends=True)
    (run.folder / "records.jsonl").write_text("".join(lines[:-1]))
    run, log = go()
    again = {order["case"]["layer"] for _, _, do, order in log if do == "start"}
    assert again == {run.cases[-1].layer}
    assert asked(log, "start") == asked(log, "last") == BACKENDS
    assert {record.case.key for record in run.records()} == {case.key for case in run.cases}


def test_a_finished_run_is_not_measured_again(go: Session) -> None:
    run, _ = go()
    before = run.records()
    run, log = go()
    assert (run.records(), log) == (before, [])


def test_an_interrupted_case_is_taken_again_with_its_layer(go: Session) -> None:
    run, _ = go()
    with run.writing() as journal:
        journal.append(Record(run.cases[1], "interrupted", "Ctrl-C", "e"))
    run, log = go()
    assert {order["case"]["layer"] for _, _, do, order in log if do == "start"} == {run.cases[1].layer}
    assert {record.status for record in run.records()} == {"ok"}


def test_only_the_cases_selected_now_are_measured(go: Session, tmp_path: Path) -> None:
    run, _ = go(budget_s=1e-9)
    config = run.config | {"budget_s": 60.0}
    run = Run.create(tmp_path / "selected", config, {"id": "e"})
    with Driver(run, run.cases[1:2]) as measuring:
        assert measuring.record(run.cases[1]) is not None
    assert [record.case for record in run.records()] == run.cases[1:2]


def test_a_backend_that_hangs_twice_is_not_tried_a_third_time(go: Session) -> None:
    def spoil(name: str, threads: int, do: str, order: Answer) -> Answer | None:
        return {"status": "timeout", "reason": "no end of call"} if (name, do) == ("a", "probe") else None

    run, log = go(spoil, layers=4)
    assert asked(log, "start").count("a") == GIVEN_UP
    hung = [record for record in run.records() if record.case.backend == "a"]
    assert [record.status for record in hung] == ["timeout"] * 4
    assert [record.reason for record in hung] == ["no end of call"] * 2 + ["not tried: it hung in 2 cases before"] * 2


@pytest.mark.parametrize(
    "reported", [{"packed_bytes": 1.5}, {"executed_flops": "many"}, {"first_call_s": "x"}, {"peak_bytes": [1]}]
)
def test_what_cannot_be_stored_is_an_error_of_its_case_alone(go: Session, reported: Answer) -> None:
    def spoil(name: str, threads: int, do: str, order: Answer) -> Answer | None:
        return {"facts": FACTS | reported} if name == "a" else None

    found = by_backend(go(spoil, layers=1)[0])
    assert {name: record.status for name, record in found.items()} == {"a": "error", "b": "ok", "c": "ok"}


def test_a_reported_fact_that_no_record_has_is_left_out(go: Session) -> None:
    run, _ = go(
        lambda name, threads, do, order: {"facts": FACTS | {"colour": "red"}} if name == "a" else None, layers=1
    )
    assert {record.status for record in run.records()} == {"ok"}


@pytest.mark.parametrize("at", ["probe", "ready", "turn", "last"])
@pytest.mark.parametrize(
    "junk", [{}, {"shape": 3, "samples_s": 3, "fresh_s": 3}, {"samples_s": ["x"], "seen_s": ["x"]}]
)
def test_a_process_that_answers_junk_costs_its_case_alone(
    go: Session, monkeypatch: pytest.MonkeyPatch, at: str, junk: Answer
) -> None:
    ask = Scripted.ask

    def spoiled(self: Scripted, do: str, **order: Any) -> Answer:
        answer = ask(self, do, **order)
        return {"status": "ok", "asked": 0.0, "answered": 9.0} | junk if (self.backend, do) == ("a", at) else answer

    monkeypatch.setattr(Scripted, "ask", spoiled)
    found = by_backend(go(layers=1)[0])
    assert {name: record.status for name, record in found.items()} == {"a": "crashed", "b": "ok", "c": "ok"}


def test_what_interrupts_a_run_ends_its_processes_and_what_is_finished_stays(go: Session) -> None:
    calls: Counter[str] = Counter()

    def spoil(name: str, threads: int, do: str, order: Answer) -> Answer | None:
        calls[do] += 1
        if calls["ready"] == 5:
            raise KeyboardInterrupt
        return None

    with pytest.raises(KeyboardInterrupt):
        go(spoil)
    run, log = go()
    assert asked(log, "ready") == BACKENDS, "only the second layer was left"
    assert len(run.records()) == 6
    assert {order["case"]["layer"] for _, _, do, order in log if do == "start"} == {run.cases[-1].layer}


def test_kernels_compiled_afresh_have_an_empty_folder_for_the_run(go: Session) -> None:
    _, log = go(fresh_cache=True)
    (folder,) = {order["NUMBA_CACHE_DIR"] for _, _, do, order in log if do == "start up"}
    assert not Path(folder).exists()


def test_progress_counts_to_the_end(go: Session) -> None:
    go()
    assert go.said == sorted(go.said)
    assert go.said[-1] == (6, 6)


def test_check_yields_each_case_and_restarts_for_other_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    log: Log = []

    def spoil(name: str, threads: int, do: str, order: Answer) -> Answer | None:
        refused = name == "b" and threads == 2 and do == "probe"
        return {"status": "wrong_result", "reason": "off"} if refused else None

    monkeypatch.setattr(fleet, "Worker", type("Worker", (Scripted,), {"log": log, "spoil": staticmethod(spoil)}))
    cases = make_cases(workloads.load("smoke")[:2], ["a", "b"], [1, 2], 1, ["fwd", "bwd_d"], ["warm"])
    found = list(check_cases(cases, 1.0, {}, 0))
    assert [case for case, _, _ in found] == cases
    wrong: list[Case] = [case for case, status, _ in found if status != "ok"]
    assert wrong == [case for case in cases if case.backend == "b" and case.threads == 2]
    counts = Counter(do for _, _, do, _ in log)
    assert counts == {"start up": 4, "close": 4, "start": 16, "probe": 16, "ready": 12}


def test_a_group_is_one_layer_under_like_conditions() -> None:
    cases = make_cases(workloads.load("smoke")[:2], ["a", "b"], [1, 2], 2, ["fwd", "bwd_d"], ["warm", "cold"])
    groups = Counter(map(group_of, cases))
    assert set(groups.values()) == {2}
    assert len(groups) == 2 * 2 * 2 * 2 * 2
    assert FEWEST_TURNS <= TURNS
