"""Equal layers are measured once: in one network or several, in one session or after --resume, and in a check."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import asdict, replace
from scripted import BACKENDS, CONFIG, FACTS, Answer, Log, Scripted, Session, asked

from bench.analysis.frame import frame_of
from bench.analysis.sums import by_backend
from bench.run import fleet
from bench.run.driver import Driver, check_cases, make_cases
from bench.run.equal import finished_elsewhere, group_of, shared, unfinished
from bench.run.options import read_layers
from bench.store.benchmark_json import export_run, open_stored
from bench.store.folder import Run
from bench.store.records import Case, Record

# Two networks: each has the 3x3 layer, with other counts and names; the second has it twice, and in another batch.
ONE = 'mb1ic4ih6oc4kh3ph1n"a"\nmb1ic4ih6oc2kh1n"b" x2\n'
TWO = 'mb1ic4ih6oc4kh3ph1n"c" x5\nmb1ic4ih6oc4oh6kh3ph1n"d"\nmb2ic4ih6oc4kh3ph1n"e"\n'


def network_cases(tmp_path: Path, backends: list[str] | None = None) -> list[Case]:
    for name, text in (("one", ONE), ("two", TWO)):
        (tmp_path / f"{name}.txt").write_text(text)
    layers = read_layers(f"{tmp_path}/one.txt,{tmp_path}/two.txt")
    return make_cases(layers, backends or BACKENDS, [1], 1, ["fwd"], ["warm"])


@pytest.fixture
def made(tmp_path: Path) -> list[Case]:
    """The cases of a run of both networks, whose folder is there for a `Session`."""
    cases = network_cases(tmp_path)
    Run.create(tmp_path / "run", CONFIG | {"cases": [asdict(case) for case in cases]}, {"id": "e"})
    return cases


def facts(name: str, threads: int, do: str, order: Answer) -> Answer | None:
    return {"facts": FACTS | {"compile_s": 3.0, "prepare_s": 0.5}} if do == "ready" else None


def times(record: Record) -> list[Any]:
    return [record.status, record.samples_s, record.turns_s, record.turn_rounds, record.median_s, record.prepare_s]


def test_equal_layers_of_several_networks_are_measured_once(made: list[Case], go: Session) -> None:
    run, log = go(facts)
    assert [order["case"]["layer"] for _, _, do, order in log if do == "start"] == [n for n in "abe" for _ in BACKENDS]
    found = {(record.case.layer, record.case.backend): record for record in run.records()}
    assert {record.case.key for record in run.records()} == {case.key for case in made}
    assert go.said[-1] == (15, 15)
    for backend in BACKENDS:
        first = found["a", backend]
        assert (first.equal_to, first.compile_s) == ("", 3.0)
        for layer in "cd":
            same = found[layer, backend]
            assert (same.equal_to, same.compile_s) == ("one/a", 0.0), "what was compiled was compiled for the first"
            assert times(same) == times(first)
        assert found["b", backend].equal_to == found["e", backend].equal_to == ""


def test_every_network_keeps_its_own_layers_and_counts(made: list[Case], go: Session) -> None:
    run, _ = go()
    table = frame_of(run)
    assert list(table.layer[table.backend == "a"]) == list("abcde"), "in the order of the networks, not of measuring"
    sums = by_backend(table)
    found = {(network, backend): seconds for network, backend, seconds in sums[["network", "backend", "sum_s"]].values}
    wanted = {(name, backend): layers * 2e-3 for name, layers in (("one", 3), ("two", 7)) for backend in BACKENDS}
    assert found == pytest.approx(wanted)
    assert sums.whole.all()


def test_a_copy_of_another_measurement_would_be_seen(made: list[Case], go: Session) -> None:
    run, _ = go()
    first, other = (next(r for r in run.records() if r.case.layer == layer) for layer in "ab")
    (copy,) = shared([first], [replace(other.case, backend=first.case.backend)], run.config)
    assert copy.equal_to == "one/a"
    assert group_of(first.case) != group_of(other.case), "these two would never share a group"
    assert times(replace(first, turns_s=[1.0] * len(first.turns_s))) != times(first)


@pytest.mark.parametrize("status", ["wrong_result", "crashed", "unsupported"])
def test_a_failure_is_one_of_all_equal_layers(made: list[Case], go: Session, status: str) -> None:
    def spoil(name: str, threads: int, do: str, order: Answer) -> Answer | None:
        return {"status": status, "reason": "because"} if (name, do) == ("b", "ready") else None

    run, log = go(spoil)
    assert asked(log, "ready").count("b") == 3
    bad = [record for record in run.records() if record.status != "ok"]
    assert {record.case.layer for record in bad} == set("abcde")
    assert {(record.case.backend, record.reason) for record in bad} == {("b", "because")}


def test_weak_equal_layers_are_measured_again_together(made: list[Case], go: Session) -> None:
    turns = Counter[str]()

    def spoil(name: str, threads: int, do: str, order: Answer) -> Answer | None:
        if (name, do) != ("a", "turn"):
            return None
        turns[name] += 1
        return {"samples_s": [(1e-3 if turns[name] <= 2 else 2e-3)] * 3, "iterations": 1}

    def again(measuring: Driver) -> None:
        last = next(case for case in measuring.run.cases if case.layer == "d")
        while measuring.weak(last):
            measuring.again(last)

    run, log = go(spoil, after=again)
    assert asked(log, "start").count("a") > 3
    first, *others = [r for r in run.records() if r.case.backend == "a" and r.case.layer in ("a", "c", "d")]
    assert len(first.turns_s) == 12
    assert [times(record) for record in others] == [times(first)] * 2
    assert [record.equal_to for record in others] == ["one/a"] * 2


def test_a_resumed_run_takes_what_an_equal_layer_has(made: list[Case], go: Session, tmp_path: Path) -> None:
    run, _ = go()
    lines = (run.folder / "records.jsonl").read_text().splitlines(keepends=True)
    # Killed after the first layer of the group was written, in the middle of the second.
    kept = [line for line in lines if '"layer":"a"' in line] + [line for line in lines if '"layer":"c"' in line][:1]
    (run.folder / "records.jsonl").write_text("".join(kept))
    run, log = go()
    assert {order["case"]["layer"] for _, _, do, order in log if do == "start"} == {"b", "e"}
    found = {(record.case.layer, record.case.backend): record for record in run.records()}
    assert len(found) == len(made)
    assert all(times(found[layer, name]) == times(found["a", name]) for layer in "cd" for name in BACKENDS)
    assert {found[layer, name].equal_to for layer in "cd" for name in BACKENDS} == {"one/a"}


def test_turns_of_two_measurements_are_never_mixed(made: list[Case], go: Session) -> None:
    run, _ = go()
    lines = (run.folder / "records.jsonl").read_text().splitlines(keepends=True)
    # No layer of the group is whole: a lacks its last backend, c its first one, d all of them.
    kept = [line for line in lines if '"layer":"a"' in line][:-1] + [line for line in lines if '"layer":"c"' in line][
        1:
    ]
    (run.folder / "records.jsonl").write_text("".join(kept))
    _, log = go()
    assert asked(log, "start") == 3 * BACKENDS


def test_cases_chosen_now_take_what_others_had_before(made: list[Case], tmp_path: Path, go: Session) -> None:
    run, _ = go(budget_s=1e-9)
    config = run.config | {"budget_s": 60.0}
    run = Run.create(tmp_path / "chosen", config, {"id": "e"})
    with Driver(run, [case for case in run.cases if case.layer == "a"]) as measuring:
        assert all(measuring.record(case) for case in run.cases[:3])
    with Driver(run, [case for case in run.cases if case.layer == "d"]):
        pass
    assert {record.case.layer for record in run.records()} == {"a", "d"}


def test_a_layer_with_too_few_backends_lends_nothing() -> None:
    a, b, c = (Case("w", layer, "mb1ic4ih6oc4oh6kh3ph1", 1, backend, 1) for layer, backend in ("xa", "xb", "yc"))
    records = [Record(case, "unsupported", "no") for case in (a, b)]
    assert finished_elsewhere([replace(a, layer="z"), replace(b, layer="z")], records) == records
    assert finished_elsewhere([replace(a, layer="z"), replace(c, layer="z")], records) == []
    assert finished_elsewhere([], records) == []
    assert unfinished([a, b, c], {a.key, c.key}) == [a, b], "the whole layer, not the case alone"
    assert unfinished([a, b], {a.key, b.key}) == []


def test_what_is_equal() -> None:
    case = Case("w", "l", 'mb1ic4ih6oc4oh6kh3ph1n"l"', 1, "a", 1)
    same = replace(case, workload="v", layer="m", label='mb1ic4ih6oc4oh6kh3ph1n"m"', count=7, backend="b")
    assert group_of(case) == group_of(same)
    for change in (
        {"label": 'mb2ic4ih6oc4oh6kh3ph1n"l"'}, {"label": 'mb1ic4ih6oc4oh6kh3ph1dt"float64"n"l"'}, {"threads": 2},
        {"repetition": 2}, {"direction": "bwd_d"}, {"cache": "cold"},
    ):  # fmt: skip
        assert group_of(replace(case, **change)) != group_of(case), change


def test_the_note_survives_a_file_of_pytest_benchmark(made: list[Case], go: Session, tmp_path: Path) -> None:
    run, _ = go()
    export_run(run, tmp_path / "out.json")
    assert {record.equal_to for record in open_stored(tmp_path / "out.json").records()} == {"", "one/a"}
    stored = {record.case.key: record for record in open_stored(tmp_path / "out.json").records()}
    assert stored == {record.case.key: record for record in run.records()}


def test_a_check_looks_at_equal_layers_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log: Log = []

    def spoil(name: str, threads: int, do: str, order: Answer) -> Answer | None:
        wrong = do == "ready" and name == "b" and order["data"] and len(asked(log, "ready")) == 2
        return {"status": "wrong_result", "reason": "off"} if wrong else None

    monkeypatch.setattr(fleet, "Worker", type("Worker", (Scripted,), {"log": log, "spoil": staticmethod(spoil)}))
    cases = network_cases(tmp_path, ["a", "b"])
    found = list(check_cases(cases, 1.0, {}, 0))
    assert [case for case, _, _ in found] == cases
    assert Counter(asked(log, "start")) == {"a": 3, "b": 3}
    assert {(case.layer, why) for case, status, why in found if status != "ok"} == {(n, "off") for n in "acd"}
