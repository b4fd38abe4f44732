"""Cases and records: what identifies them, what repeats them, what contradicts itself."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from committed import committed
from msgspec.structs import replace
from records import CASE, LABEL, failed, new_run, record, store

from bench.store.folder import Run, checked
from bench.store.records import FAILED, STATUSES, Case, StoreError, ids, plain, problem_of
from conv_impls import Conv2dProblem


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return new_run(tmp_path / "run", CASE)


@pytest.mark.parametrize(
    "changes",
    [
        {"status": "fine"}, {"status": "crashed"}, {"median_s": None}, {"samples_s": []}, {"samples_s": [float("nan")]},
        {"samples_s": [-1.0]}, {"turns_s": [float("inf")]},
    ],
)  # fmt: skip
def test_a_record_that_contradicts_itself_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(StoreError):
        replace(record(), **changes)


def test_a_key_tells_every_two_cases_apart() -> None:
    changes: list[dict[str, Any]] = [
        {}, {"workload": "v"}, {"layer": "l2"}, {"label": LABEL.replace("ic8", "ic4")}, {"backend": "auto"},
        {"threads": 2}, {"direction": "bwd_d"}, {"repetition": 2}, {"cache": "cold"},
    ]  # fmt: skip
    assert len({replace(CASE, **change).key for change in changes}) == len(changes)


def test_the_command_that_repeats_a_case_survives_a_shell() -> None:
    odd = Case("w", "l", 'ic3ih8oc4kh3ph1n"it\'s $HOME; odd"', 1, "a backend", 2, "bwd_w", 3, "cold")
    echo = subprocess.run(
        ["sh", "-c", f'printf "%s\\n" {odd.repro.removeprefix("python -m bench run ")}'], capture_output=True, text=True
    )
    words = echo.stdout.splitlines()
    assert words == [
        "--workload", odd.label, "--backends", "a backend", "--threads", "2", "--direction", "bwd_w", "--cache", "cold",
    ]  # fmt: skip


def test_turns_have_a_round_switches_and_a_peak_each_or_none(run: Run) -> None:
    fields: dict[str, Any] = {
        "turn_rounds": [0, 2, 5], "turn_switches": [0, 3, 0], "turn_peaks_gflops": [120.0, 0.0, 121.5],
        "disturbed_s": [4.0], "stalled_share": 0.25,
    }  # fmt: skip
    store(run, record(**fields))
    (one,) = run.records()
    assert {name: getattr(one, name) for name in fields} == fields
    for name in ("turn_rounds", "turn_switches", "turn_peaks_gflops"):
        with pytest.raises(StoreError, match=f"{name}: expected one for each of 3 turns"):
            record(**(fields | {name: [1, 2]}))
    for name, wrong in (("stalled_share", 1.5), ("turn_rounds", [-1, 0, 1]), ("turn_switches", [0.5, 0, 0])):
        with pytest.raises(StoreError, match=f"{name}.*: expected "):
            checked(plain(record()) | fields | {name: wrong})


def test_faster_than_the_machine_can_compute_is_a_failure(run: Run) -> None:
    store(run, failed("too_fast", "auto"))
    assert run.records()[0].status == "too_fast"
    assert "too_fast" in FAILED
    assert set(FAILED) < set(STATUSES)


def test_structs_are_immutable_and_a_case_is_hashable() -> None:
    assert len({CASE, replace(CASE), replace(CASE, threads=2)}) == 2
    with pytest.raises(AttributeError):
        CASE.threads = 3  # type: ignore[misc]
    with pytest.raises(AttributeError):
        record().median_s = 3.0  # type: ignore[misc]


def test_each_label_is_parsed_once_in_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[str] = []
    from_label = Conv2dProblem.from_label

    def counted(text: str) -> Conv2dProblem:
        parsed.append(text)
        return from_label(text)

    monkeypatch.setattr(Conv2dProblem, "from_label", counted)
    problem_of.cache_clear()
    labels = [f"mb{batch}ic8ih12oc8oh12kh3ph1" for batch in range(1, 3001)]
    for _ in range(2):
        assert [replace(CASE, label=label).problem.batch for label in labels] == [*range(1, 3001)]
    assert parsed == labels


def test_the_unnamed_label_is_shared_by_layers_of_one_shape() -> None:
    other = replace(CASE, label=LABEL.replace('"l"', '"another"'))
    assert (CASE.problem.name, other.problem.name) == ("l", "another")
    assert CASE.unnamed_label == other.unnamed_label == "mb1ic8ih12oc8oh12kh3ph1"


def test_ids_are_readable_and_all_differ() -> None:
    assert CASE.id == "resnet50/l1-python_loops-t1-fwd-warm-r1"
    cases = [CASE, replace(CASE, threads=2), replace(CASE, label=LABEL.replace("mb1", "mb2"))]
    assert ids(cases) == [
        "resnet50/l1-mb1ic8ih12oc8oh12kh3ph1-python_loops-t1-fwd-warm-r1",
        "resnet50/l1-python_loops-t2-fwd-warm-r1",
        "resnet50/l1-mb2ic8ih12oc8oh12kh3ph1-python_loops-t1-fwd-warm-r1",
    ]
    alike = [replace(CASE, layer="a b"), replace(CASE, layer="a_b"), CASE, CASE]
    assert len(set(ids(alike))) == len(alike)
    crossed = [replace(CASE, layer="l-b1", backend="b2"), replace(CASE, layer="l", backend="b1-b2")]
    assert len(set(ids(crossed))) == 2
    assert ids([]) == []


def test_ids_differ_over_a_whole_committed_run() -> None:
    cases = Run.open(committed("bench")).cases
    assert len(set(ids(cases))) == len(cases) > 1000
    assert not any(" " in name for name in ids(cases))
