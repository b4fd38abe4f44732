"""Records on disk: whatever happens while they are written, or whoever wrote them, they are read whole or refused."""

from __future__ import annotations

import json
import os
import random
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import asdict, replace
from records import CASE, LABEL, failed, new_run, record, store

from bench.store.files import write_whole
from bench.store.folder import Run, checked
from bench.store.records import Case, Record, StoreError

TESTS = Path(__file__).parent
ROOT = TESTS.parent


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return new_run(tmp_path / "run", CASE)


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """What a full disk does to a write, without one: it stops half-way, and then fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_records_come_back_as_they_went(run: Run) -> None:
    written = [record(), failed("crashed", "auto")]
    store(run, *written)
    again = Run.open(run.folder)
    assert again.records() == written
    assert again.done() == {one.case.key for one in written}
    assert again.cases == [CASE]


def test_each_record_is_on_disk_before_the_next_begins(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    path, synced = run.folder / "records.jsonl", []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append((os.fstat(fd).st_ino, path.read_text().count("\n"))))
    store(run, record(), record("auto"))
    assert synced == [(path.stat().st_ino, 1), (path.stat().st_ino, 2)]


def test_a_file_torn_anywhere_keeps_the_records_before_and_takes_new_ones(run: Run) -> None:
    store(run, record(), record("auto"))
    path = run.folder / "records.jsonl"
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for size in (0, 1, first // 2, first - 1, first, first + 1, len(whole) - 1, len(whole)):
        path.write_bytes(whole[:size])
        kept = [record(), record("auto")][: whole[:size].count(b"\n")]
        assert run.records() == kept
        store(run, record("scipy_fft"))
        assert run.records() == [*kept, record("scipy_fft")]


WRITER = """
import sys
sys.path[:0] = {paths}
from pathlib import Path
from records import record, store
from bench.store.folder import Run
run = Run.open(Path(sys.argv[1]))
print("ready", flush=True)
for number in range(10**6):
    store(run, record(case={{"repetition": number + 1}}))
"""


def test_a_writer_killed_at_any_moment_leaves_whole_records(run: Run) -> None:
    moments, code = random.Random(0), WRITER.format(paths=[str(TESTS), str(ROOT)])
    count = 0
    for _ in range(3):
        writer = subprocess.Popen([sys.executable, "-c", code, str(run.folder)], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(moments.uniform(0.02, 0.2))
        writer.kill()
        writer.communicate()
        repetitions = [one.case.repetition for one in run.records()]
        assert repetitions == list(range(1, len(repetitions) + 1))
        assert len(repetitions) >= max(1, count)
        count = len(repetitions)
        store(run, record("auto"))
        assert run.records()[-1] == record("auto")
        lines = (run.folder / "records.jsonl").read_text().splitlines()[:-1]
        (run.folder / "records.jsonl").write_text("".join(f"{line}\n" for line in lines))


def test_a_full_disk_is_a_clear_error_and_costs_no_record(run: Run) -> None:
    store(run, record())
    size = (run.folder / "records.jsonl").stat().st_size
    with files_no_larger_than(size + 100), pytest.raises(StoreError, match=f"{run.folder}: cannot be written: "):
        store(run, record("auto"))
    assert run.records() == [record()]
    store(run, record("auto"))
    assert run.records() == [record(), record("auto")]


def test_the_last_file_is_whole_or_as_it_was(run: Run) -> None:
    store(run, record(), failed("timeout", "auto"))
    run.finish({"seconds": 1})
    before = (run.folder / "finished.json").read_bytes()
    assert json.loads(before) == {"statuses": {"ok": 1, "timeout": 1}, "seconds": 1}
    with files_no_larger_than(10), pytest.raises(StoreError, match="cannot be written"):
        run.finish({"seconds": 2})
    assert (run.folder / "finished.json").read_bytes() == before


def test_a_file_that_cannot_be_written_stays_as_it_was_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    write_whole(path, "déjà")
    assert path.read_bytes() == "déjà".encode()
    with files_no_larger_than(10), pytest.raises(OSError, match="File too large"):
        write_whole(path, b"x" * 100)
    assert path.read_bytes() == "déjà".encode()
    assert list(tmp_path.iterdir()) == [path]


def test_two_writers_of_one_run_do_not_meet(run: Run) -> None:
    with (
        run.writing() as journal,
        pytest.raises(StoreError, match="another process is measuring for this run"),
        run.writing(),
    ):
        pass
    with run.writing() as journal:
        journal.append(record())
    assert run.records() == [record()]


def test_of_many_that_make_one_run_at_once_one_does(tmp_path: Path) -> None:
    def make(seed: int) -> int | str:
        try:
            Run.create(tmp_path / "run", {"seed": seed, "cases": []}, {"id": str(seed)})
        except StoreError as error:
            return str(error)
        return seed

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(make, range(40)))
    (made,) = [result for result in results if isinstance(result, int)]
    run = Run.open(tmp_path / "run")
    assert (run.config["seed"], run.environment["id"]) == (made, str(made))
    assert all("holds a run already; name another folder" in r for r in results if isinstance(r, str))


def test_an_existing_run_is_never_written_over(run: Run) -> None:
    before = (run.folder / "config.json").read_bytes()
    with pytest.raises(StoreError, match="holds a run already"):
        Run.create(run.folder, {}, {})
    assert (run.folder / "config.json").read_bytes() == before


@pytest.mark.parametrize("text", ["", "[]", '{"schema": 99}', "{", "[" * 10**5, '{"schema": 1e999}', "\udcff"])
def test_a_folder_that_is_no_run_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(StoreError, match="no run here"):
        Run.open(tmp_path)
    (tmp_path / "config.json").write_text(text, errors="surrogateescape")
    with pytest.raises(StoreError, match=f"{tmp_path}/config.json: "):
        Run.open(tmp_path)


@pytest.mark.parametrize("folder", ["file/run", "file"])
def test_a_folder_that_cannot_be_written_is_a_clear_error(tmp_path: Path, folder: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        Run.create(tmp_path / folder, {}, {})


HOSTILE: list[Any] = [
    "{", "[]", "null", "3", '"text"', "[" * 10**5, '{"case": {}}', '{"case": 3, "status": "ok"}', '{"x": 1}',
    '{"median_s": NaN}', "\0", "\udcff{}",
    {"case": None}, {"case": [1]}, {"case": asdict(CASE) | {"x": 1}}, {"case": asdict(CASE) | {"threads": "two"}},
    {"case": asdict(CASE) | {"label": 3}}, {"case": asdict(CASE) | {"count": True}},
    {"case": asdict(CASE) | {"layer": "\ud800"}}, {"status": "fine"}, {"status": 3}, {"status": "crashed"},
    {"median_s": "1"}, {"median_s": None}, {"samples_s": []}, {"samples_s": "111"}, {"samples_s": [1.0, None]},
    {"samples_s": [-1.0]}, {"samples_s": [0.0]}, {"turns_s": {"a": 1}}, {"error": []}, {"error": True},
    {"packed_bytes": 1.5}, {"peak_bytes": 10**30}, {"reason": None}, {"iterations": None},
]  # fmt: skip


@pytest.mark.parametrize("content", HOSTILE, ids=lambda content: json.dumps(content)[-40:])
def test_what_is_no_record_is_an_error_with_its_line(run: Run, content: Any) -> None:
    store(run, record())
    line = content if isinstance(content, str) else json.dumps(asdict(record()) | content)
    with (run.folder / "records.jsonl").open("a", errors="surrogateescape") as file:
        file.write(line + "\n")
    with pytest.raises(StoreError, match=r"records\.jsonl:2: ") as raised:
        run.records()
    assert len(str(raised.value)) < len(str(run.folder)) + 200


@pytest.mark.parametrize("number", ["1e999", "-1e999", "NaN", "Infinity", "1" * 5000])
def test_numbers_beyond_what_can_be_measured_are_refused(run: Run, number: str) -> None:
    line = json.dumps(asdict(record())).replace('"error": 1e-07', f'"error": {number}')
    assert number in line
    (run.folder / "records.jsonl").write_text(line + "\n")
    with pytest.raises(StoreError, match=r"records\.jsonl:1: "):
        run.records()


@pytest.mark.parametrize("cases", [None, 3, [3], [{}], [{"label": LABEL}], [asdict(CASE) | {"threads": "x"}]])
def test_cases_of_a_configuration_that_are_none_are_refused(run: Run, cases: Any) -> None:
    path = run.folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"cases": cases}))
    with pytest.raises(StoreError, match=r"config\.json: cases: "):
        _ = run.cases


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("config", {"cases": {}}), ("config", {"options": []}), ("config", {"options": {"seed": None}}),
        ("config", {"options": {"isa": ["avx2"]}}), ("config", {"command": 3}), ("config", {"budget_s": "long"}),
        ("config", {"seed": True}), ("config", {"variables": None}), ("environment", {"id": 3}),
        ("environment", {"packages": []}), ("environment", {"machine": []}), ("environment", {"machine": {"x": 1}}),
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
        {"status": "fine"}, {"status": "crashed"}, {"median_s": None}, {"samples_s": []}, {"samples_s": [float("nan")]},
        {"samples_s": [-1.0]}, {"turns_s": [float("inf")]},
    ],
)  # fmt: skip
def test_a_record_that_contradicts_itself_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(StoreError):
        replace(record(), **changes)


def test_an_interrupted_case_is_not_done_and_a_newer_record_replaces_an_older(run: Run) -> None:
    store(run, Record(CASE, "interrupted", "Ctrl-C"))
    assert run.done() == set()
    store(run, record())
    assert run.done() == {CASE.key}
    assert run.records() == [record()]


def test_a_key_tells_every_two_cases_apart() -> None:
    changes: list[dict[str, Any]] = [
        {}, {"workload": "v"}, {"layer": "l2"}, {"label": LABEL.replace("ic8", "ic4")}, {"backend": "auto"},
        {"threads": 2}, {"direction": "bwd_d"}, {"repetition": 2}, {"cache": "cold"},
    ]  # fmt: skip
    assert len({replace(CASE, **change).key for change in changes}) == len(changes)


def test_records_are_plain_json_without_nan(run: Run) -> None:
    store(run, record())
    (line,) = (run.folder / "records.jsonl").read_text().splitlines()
    assert json.loads(line)["case"]["label"] == LABEL


@pytest.mark.parametrize(
    "changes", [{"error": float("nan")}, {"packed_bytes": 1.5}, {"reason": None}, {"peak_bytes": 2**70}, {"mode": b"x"}]
)
def test_a_record_that_could_not_be_read_again_is_not_written(run: Run, changes: dict[str, Any]) -> None:
    (name,) = changes
    with pytest.raises(StoreError, match=f"{name}: expected "):
        store(run, replace(record(), **changes))
    with pytest.raises(StoreError, match=f"{name}: expected "):
        checked(asdict(record()) | changes)
    store(run, record())
    assert run.records() == [record()]


@pytest.mark.parametrize("values", [{}, {"case": asdict(CASE)}, asdict(record()) | {"surprise": 1}, {"status": "ok"}])
def test_what_a_backend_tells_is_a_record_or_an_error(values: dict[str, Any]) -> None:
    assert checked(asdict(record())) == record()
    with pytest.raises(StoreError):
        checked(values)


def test_lone_surrogates_are_replaced_before_they_are_written(run: Run) -> None:
    store(run, replace(record(), reason="bad \udcff name", mode="\ud800"))
    (one,) = run.records()
    assert (one.reason, one.mode) == ("bad ? name", "?")
    assert checked(asdict(record()) | {"algorithm": "x\ud800"}).algorithm == "x?"


def test_a_free_folder_is_made_and_a_taken_one_refused(tmp_path: Path, run: Run) -> None:
    Run(tmp_path / "a" / "b").check_free()
    assert list((tmp_path / "a" / "b").iterdir()) == []
    with pytest.raises(StoreError, match="holds a run already"):
        run.check_free()


def test_the_command_that_repeats_a_case_survives_a_shell() -> None:
    odd = Case("w", "l", 'ic3ih8oc4kh3ph1n"it\'s $HOME; odd"', 1, "a backend", 2, "bwd_w", 3, "cold")
    echo = subprocess.run(
        ["sh", "-c", f'printf "%s\\n" {odd.repro.removeprefix("python -m bench run ")}'], capture_output=True, text=True
    )
    words = echo.stdout.splitlines()
    assert words == [
        "--workload", odd.label, "--backends", "a backend", "--threads", "2", "--direction", "bwd_w", "--cache", "cold",
    ]  # fmt: skip
