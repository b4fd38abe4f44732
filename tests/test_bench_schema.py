"""Files of any origin and answers of any backend: what is no record, configuration or environment is one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import asdict, replace
from records import CASE, LABEL, new_run, record, store

from bench.store.folder import Run, checked
from bench.store.records import StoreError, plain


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return new_run(tmp_path / "run", CASE)


HOSTILE: list[Any] = [
    "{", "[]", "null", "3", '"text"', "[" * 10**5, '{"case": {}}', '{"case": 3, "status": "ok"}', '{"x": 1}',
    '{"median_s": NaN}', "\0", "\udcff{}",
    {"case": None}, {"case": [1]}, {"case": asdict(CASE) | {"x": 1}}, {"case": asdict(CASE) | {"threads": "two"}},
    {"case": asdict(CASE) | {"label": 3}}, {"case": asdict(CASE) | {"count": True}},
    {"case": asdict(CASE) | {"layer": "\ud800"}}, {"status": "fine"}, {"status": 3}, {"status": "crashed"},
    {"median_s": "1"}, {"median_s": None}, {"samples_s": []}, {"samples_s": "111"}, {"samples_s": [1.0, None]},
    {"samples_s": [-1.0]}, {"samples_s": [0.0]}, {"turns_s": {"a": 1}}, {"error": []}, {"error": True},
    {"packed_bytes": 1.5}, {"peak_bytes": 10**30}, {"reason": None}, {"iterations": None}, {"mode": "../.."},
]  # fmt: skip


@pytest.mark.parametrize("content", HOSTILE, ids=lambda content: json.dumps(content)[-40:])
def test_what_is_no_record_costs_its_line_and_a_warning_that_names_it(run: Run, content: Any) -> None:
    store(run, record())
    line = content if isinstance(content, str) else json.dumps(plain(record()) | content)
    with (run.folder / "records.jsonl").open("a", errors="surrogateescape") as file:
        file.write(line + "\n")
    with pytest.warns(UserWarning, match=r"records\.jsonl:2: .*; left out") as warned:
        assert run.records() == [record()]
    assert len(str(warned[0].message)) < len(str(run.folder)) + 200
    run.check_readable()


@pytest.mark.parametrize("number", ["1e999", "-1e999", "NaN", "Infinity", "1" * 5000])
def test_numbers_beyond_what_can_be_measured_are_refused(run: Run, number: str) -> None:
    line = json.dumps(plain(record())).replace('"error": 1e-07', f'"error": {number}')
    assert number in line
    (run.folder / "records.jsonl").write_text(line + "\n")
    with pytest.raises(StoreError, match=r"records\.jsonl:1: "):
        run.check_readable()


@pytest.mark.parametrize("cases", [None, 3, [3], [{}], [{"label": LABEL}], [asdict(CASE) | {"threads": "x"}]])
def test_cases_of_a_configuration_that_are_none_are_refused(run: Run, cases: Any) -> None:
    path = run.folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"cases": cases}))
    with pytest.raises(StoreError, match=r"config\.json: cases"):
        _ = run.cases


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("config", {"cases": {}}), ("config", {"options": []}), ("config", {"options": {"seed": None}}),
        ("config", {"options": {"isa": ["avx2"]}}), ("config", {"command": 3}), ("config", {"budget_s": "long"}),
        ("config", {"seed": True}), ("config", {"variables": None}), ("environment", {"id": 3}),
        ("environment", {"packages": []}), ("environment", {"machine": []}),
        ("environment", {"machine": {"timer_ns": "x"}}), ("environment", {"known_peaks": 10**18}),
        ("environment", {"warnings": 1e308}), ("environment", {"warnings": [3]}),
        ("environment", {"known_peaks": {"0": {"float32": 1.0}}}), ("environment", {"known_peaks": {"1": {"a": "x"}}}),
        ("config", {"repeat": 3}), ("config", {"rotate_bytes": -1}), ("environment", {"packages": {"numpy": 2}}),
    ],
)  # fmt: skip
def test_a_configuration_or_environment_of_another_shape_is_refused(
    run: Run, name: str, change: dict[str, Any]
) -> None:
    path = run.folder / f"{name}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(StoreError, match=rf"{name}\.json: {next(iter(change))}.*: expected ") as raised:
        getattr(run, name)
    assert len(str(raised.value)) < len(str(path)) + 200


@pytest.mark.parametrize("part", ["by_threads", "by_level", "timer_ns"])
def test_what_was_measured_of_the_machine_is_whole_or_absent(run: Run, part: str) -> None:
    path = run.folder / "environment.json"
    facts = json.loads(path.read_text())
    for spoiled in (None, [], [3], [{"threads": 1}], "x"):
        path.write_text(json.dumps(facts | {"machine": facts["machine"] | {part: spoiled}}))
        with pytest.raises(StoreError, match=r"environment\.json: machine"):
            _ = run.environment
    path.write_text(json.dumps(facts | {"machine": {}}))
    assert run.environment["machine"] == {}


@pytest.mark.parametrize(
    "changes",
    [
        {"error": float("nan")},
        {"packed_bytes": 1.5},
        {"reason": None},
        {"peak_bytes": 2**70},
        {"mode": b"x"},
        {"algorithm": b"x"},
    ],
)
def test_a_record_that_could_not_be_read_again_is_not_written(run: Run, changes: dict[str, Any]) -> None:
    (name,) = changes
    with pytest.raises(StoreError, match=f"{name}: expected "):
        store(run, replace(record(), **changes))
    with pytest.raises(StoreError, match=f"{name}: expected "):
        checked(plain(record()) | changes)
    store(run, record())
    assert run.records() == [record()]


@pytest.mark.parametrize("values", [{}, {"case": asdict(CASE)}, plain(record()) | {"surprise": 1}, {"status": "ok"}])
def test_what_a_backend_tells_is_a_record_or_an_error(values: dict[str, Any]) -> None:
    assert checked(plain(record())) == record()
    with pytest.raises(StoreError):
        checked(values)


def test_lone_surrogates_are_replaced_before_they_are_written(run: Run) -> None:
    store(run, replace(record(), reason="bad \udcff name", threads_seen="\ud800"))
    (one,) = run.records()
    assert (one.reason, one.threads_seen) == ("bad ? name", "?")
    assert checked(plain(record()) | {"algorithm": "x\ud800"}).algorithm == "x?"


def test_a_lone_surrogate_in_a_configuration_is_replaced(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", {"command": "bench bad\udcff", "cases": []}, {"id": "é"})
    assert (run.config["command"], run.environment["id"]) == ("bench bad?", "é")


@pytest.mark.parametrize("text", ["a\nb", "\x1b[31m", "x" * 10**6, "\u2028"])
def test_an_error_is_one_short_line_whatever_a_field_is_called(run: Run, text: str) -> None:
    with pytest.raises(StoreError) as raised:
        checked(plain(record()) | {text: 1})
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 200
