"""Versions of one backend against each other: who is judged, by what ratio, what is said, exit codes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import typer
from records import CASE, failed, new_run, record, store

from bench import conftest
from bench.analysis import ratios, tables, versions
from bench.analysis.frame import frame
from bench.analysis.sentences import sentences
from bench.cli.main import _report_end
from bench.report.write import all_tables
from bench.run.session import HARNESS
from bench.store.records import Record

# Two layers, of which the first comes twice in the network; seconds of each turn.
FAST, SLOW, SAME = (1.0,) * 8, (1.5,) * 8, (1.0, 1.01, 0.99, 1.0, 1.02, 0.98, 1.0, 1.0)


def measured(backend: str, first: tuple[float, ...], second: tuple[float, ...], commit: str = "") -> list[Record]:
    times = {"l1": first, "l2": second}
    return [
        record(backend, layer, turns, version=commit, case={"count": 2 if layer == "l1" else 1})
        for layer, turns in times.items()
    ]


def table_of(*records: list[Record]) -> pd.DataFrame:
    return frame([one for each in records for one in each])


OURS, OLD = measured("auto", SLOW, FAST), measured("auto@v1", FAST, FAST, "abc")
OTHER = measured("numba_simd", FAST, FAST)


def test_a_ratio_is_the_sum_of_theirs_over_the_sum_of_ours() -> None:
    (row,) = versions.by_network(table_of(OURS, OLD, OTHER)).to_dict("records")
    assert (row["ours"], row["our commit"], row["theirs"], row["their commit"]) == ("auto", "", "auto@v1", "abc")
    assert row["ratio"] == pytest.approx((2 * 1.0 + 1.0) / (2 * 1.5 + 1.0))
    assert row["low"] < row["ratio"] < row["high"]
    assert (row["network"], row["threads"], row["layers"], row["ours is"]) == ("resnet50", 1, "2 of 2", "slower")
    layers = versions.by_layers(table_of(OURS, OLD, OTHER)).set_index("layer")
    assert layers.ratio.to_dict() == {"l1": pytest.approx(1 / 1.5), "l2": 1.0}
    assert layers["ours is"].to_dict() == {"l1": "slower", "l2": "uncertain"}


def test_the_first_named_is_judged_against_each_of_the_others() -> None:
    newer = measured("auto@./new", SLOW, SLOW, "abc+changes")
    found = versions.by_network(table_of(OLD, OURS, OTHER, newer))
    assert list(zip(found.ours, found.theirs, found["ours is"], strict=True)) == [
        ("auto@v1", "auto", "faster"), ("auto@v1", "auto@./new", "faster"),
    ]  # fmt: skip
    assert not versions.regressed(table_of(OLD, OURS, newer))
    assert versions.regressed(table_of(newer, OLD))


@pytest.mark.parametrize(
    ("first", "second", "regressed"),
    [
        (FAST, FAST, False), (SAME, SAME, False), (SLOW, SLOW, True),
        # The sum says nothing for sure, and one layer is slower: by more than a quarter, or by less.
        (tuple(0.5 + 0.5 * (i % 2) for i in range(8)), SLOW, True),
        (tuple(0.7 + 0.6 * (i % 2) for i in range(8)), (1.2,) * 8, False),
        ((1.5,) * 2, (1.5,) * 2, False),
    ],
)  # fmt: skip
def test_a_sum_that_is_slower_is_a_regression_and_so_is_a_layer_that_is_so_by_far(
    first: tuple[float, ...], second: tuple[float, ...], regressed: bool
) -> None:
    table = table_of(measured("auto", first, second), OLD)
    assert versions.regressed(table) == regressed


def test_a_layer_that_is_weak_is_no_regression_by_itself() -> None:
    def short(times: tuple[float, ...]) -> tuple[float, ...]:
        return tuple(1e-6 * one for one in times)

    table = table_of(measured("auto", short(SLOW), FAST), measured("auto@v1", short(FAST), FAST, "abc"))
    assert set(versions.by_layers(table)["ours is"]) == {"slower", "uncertain"}
    assert not versions.regressed(table)


def test_sentences_say_who_is_how_fast_and_how_sure_that_is() -> None:
    assert versions.sentences(table_of(OURS, OLD)) == [
        "auto takes 1.33 times as long as auto@v1 (abc) on resnet50, 1 thread (1.23 to 1.44)",
        "slower by itself: layer l1 of resnet50, auto against auto@v1: 0.67 (0.60 to 0.74)",
    ]
    (said,) = versions.sentences(table_of(OLD, measured("auto@./a b", FAST, FAST, "d+changes")))
    assert said.startswith("auto@v1 (abc) and auto@./a b (d+changes) cannot be told apart on resnet50, 1 thread: 1.00 ")
    (weak,) = versions.sentences(table_of(measured("auto", (1.0, 9.0) * 4, FAST), OLD))
    assert weak.endswith(versions.WEAK)


def test_a_layer_that_one_lacks_leaves_no_ratio_and_no_verdict() -> None:
    lacking = [OLD[0], failed("unsupported", "auto@v1", "l2")]
    table = table_of(OURS, lacking)
    assert versions.sentences(table)[0] == (
        "auto and auto@v1 (abc) were not measured in the same rounds on resnet50, 1 thread: "
        "1 of 2 layers have common turns"
    )
    assert versions.regressed(table), "the layer that both have is slower by far"
    assert not versions.regressed(table_of(measured("auto", FAST, SLOW), lacking))


def test_without_a_second_version_there_is_nothing_to_say() -> None:
    for table in (table_of(OURS, OTHER), table_of(OLD, OTHER), frame([])):
        assert versions.by_network(table).empty
        assert versions.by_layers(table).empty
        assert versions.sentences(table) == []
        assert not versions.regressed(table)


def test_other_versions_win_nothing_and_cause_no_regret() -> None:
    best = [measured(name, turns, turns, "abc") for name, turns in (("numba_simd@v1", (0.1,) * 8), ("auto@v1", FAST))]
    picked = [record("auto", layer, FAST, algorithm="numba_simd") for layer in ("l1", "l2")]
    table = table_of(picked, OTHER, *best)
    assert set(tables.winners(table).winner) == {"numba_simd"}
    assert list(ratios.regret(table).regret) == [1.0]
    made = all_tables(table)
    assert list(made["versions"].theirs) == ["auto@v1", "numba_simd@v1"]
    assert len(made["versions_by_layer"]) == 4
    assert "versions" not in all_tables(table_of(picked, OTHER))


@pytest.mark.parametrize(("ours", "slower"), [(OURS, True), (measured("auto", FAST, SAME), False)])
def test_both_fronts_end_with_exit_code_1_where_ours_is_slower(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], ours: list[Record], slower: bool
) -> None:
    records = [*ours, *OLD]
    run = new_run(tmp_path / "run", *(one.case for one in records))
    store(run, *records)
    request: Any = SimpleNamespace(folder=run.folder, cases=run.cases, versions={"auto@v1": None})
    if slower:
        with pytest.raises(typer.Exit) as end:
            _report_end(request, set(), 1.0, interrupted=False)
        assert end.value.exit_code == 1
    else:
        _report_end(request, set(), 1.0, interrupted=False)
    assert "auto@v1 (abc)" in capsys.readouterr().out

    said: list[str] = [""]

    def write(text: str, **style: bool) -> None:
        said[-1] += text

    def write_line(text: str) -> None:
        write(text)
        said.append("")

    stash: Any = {HARNESS: SimpleNamespace(run=run, request=request)}
    session: Any = SimpleNamespace(config=SimpleNamespace(stash=stash), exitstatus=pytest.ExitCode.OK)
    conftest.pytest_sessionfinish(session)
    conftest.pytest_terminal_summary(SimpleNamespace(write=write, write_line=write_line), session.config)
    assert session.exitstatus == int(slower)
    assert [line for line in said if line] == [*sentences(frame(records)), f"page: {run.folder / 'report.html'}"]
    for code in (2, 5):
        session.exitstatus = code
        conftest.pytest_sessionfinish(session)
        assert session.exitstatus == code, "what else went wrong stays"


def test_a_session_without_versions_ends_as_it_did() -> None:
    assert CASE.backend == "python_loops"
    for stash in ({}, {HARNESS: None}, {HARNESS: SimpleNamespace(run=None)}):
        session: Any = SimpleNamespace(config=SimpleNamespace(stash=stash), exitstatus=0)
        conftest.pytest_sessionfinish(session)
        assert session.exitstatus == 0
