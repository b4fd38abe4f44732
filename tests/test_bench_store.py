"""Records on disk: whatever happens while they are written, they are read whole or refused; older runs can be read."""

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

import pytest
from committed import committed
from effort import Effort
from msgspec.structs import asdict
from records import CASE, LABEL, failed, new_run, record, store

from bench.analysis.stats import median
from bench.store.files import write_whole
from bench.store.folder import Run
from bench.store.records import Record, StoreError, plain

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
for number in range(10**6):
    store(run, record(case={{"repetition": number + 1}}))
    print(number, flush=True)
"""


def test_a_writer_killed_at_any_moment_leaves_whole_records(run: Run, effort: Effort) -> None:
    moments, code = random.Random(effort.seed), WRITER.format(paths=[str(TESTS), str(ROOT)])
    count = 0
    for _ in range(effort.kills):
        writer = subprocess.Popen([sys.executable, "-c", code, str(run.folder)], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        for _ in range(moments.randint(1, 20)):
            writer.stdout.readline()
        # Somewhere in the next record; whether it is stored by then does not matter.
        time.sleep(moments.uniform(0, 0.005))
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
    assert all("already contains a run; use another folder" in r for r in results if isinstance(r, str))


def test_an_existing_run_is_never_written_over(run: Run) -> None:
    before = (run.folder / "config.json").read_bytes()
    with pytest.raises(StoreError, match="already contains a run"):
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


def test_an_interrupted_case_is_not_done_and_a_newer_record_replaces_an_older(run: Run) -> None:
    store(run, Record(CASE, "interrupted", "Ctrl-C"))
    assert run.done() == set()
    store(run, record())
    assert run.done() == {CASE.key}
    assert run.records() == [record()]


def test_the_commands_that_repeat_cases_read_the_configuration_once(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", {"cases": [asdict(CASE)], "repeat": "--seed 3"}, {})
    first = run.repeat(CASE)
    (run.folder / "config.json").unlink()
    assert run.repeat(CASE) == first == f"{CASE.repro} --seed 3"


def test_records_are_plain_json_without_nan(run: Run) -> None:
    store(run, record())
    (line,) = (run.folder / "records.jsonl").read_text().splitlines()
    assert json.loads(line)["case"]["label"] == LABEL


def test_a_free_folder_is_made_and_a_taken_one_refused(tmp_path: Path, run: Run) -> None:
    Run(tmp_path / "a" / "b").check_free()
    assert list((tmp_path / "a" / "b").iterdir()) == []
    with pytest.raises(StoreError, match="already contains a run"):
        run.check_free()


def test_a_case_is_repeated_with_the_options_of_its_run(tmp_path: Path) -> None:
    config = {"cases": [asdict(CASE)], "repeat": "--seconds 0.09 --isa avx2"}
    assert Run.create(tmp_path / "a", config, {}).repeat(CASE) == f"{CASE.repro} --seconds 0.09 --isa avx2"
    for number, other in enumerate(({}, {"repeat": ""})):
        bare = Run.create(tmp_path / str(number), {"cases": [asdict(CASE)], **other}, {})
        assert bare.repeat(CASE) == CASE.repro


@pytest.mark.parametrize("name", ["bench", "networks", "reference"])
def test_a_committed_run_of_version_0_3_0_loads(name: str) -> None:
    run = Run.open(committed(name))
    assert run.config["schema"] in (2, 3)
    cases, records = run.cases, run.records()
    assert {record.case.key for record in records} == {case.key for case in cases}
    timed = [one for one in records if one.turns_s]
    assert timed
    assert any(one.samples_left_out for one in timed), "committed runs are packed"
    # An earlier commit measured "reference": its medians are those of samples.
    assert name == "reference" or all(one.median_s == median(one.turns_s) for one in timed)
    assert run.environment["machine"]["by_threads"]


OLD_RECORD = {
    "case": asdict(CASE), "status": "ok", "reason": "", "environment_id": "e", "algorithm": "", "mode": "planned",
    "threads_seen": "", "error": 1e-7, "error_over_bound": 0.1, "estimate_s": None, "compile_s": 0.5, "prepare_s": 0.1,
    "first_call_s": 1.0, "samples_s": [1.0, 2.0], "turns_s": [1.5], "iterations": 2, "median_s": 1.5, "iqr_s": 0.0,
    "gflops_effective": 1.0, "executed_flops": None, "fma_peak_gflops": 99.0, "packed_bytes": 1,
    "workspace_bytes": None, "peak_bytes": 3,
}  # fmt: skip


def test_a_folder_of_schema_2_is_read_and_not_written(tmp_path: Path) -> None:
    config = {"schema": 2, "command": "python -m bench run", "options": {"seed": 0}, "cases": [asdict(CASE)]}
    for name, content in (("config.json", config), ("environment.json", {"id": "e"}), ("records.jsonl", OLD_RECORD)):
        (tmp_path / name).write_text(json.dumps(content) + "\n")
    run = Run.open(tmp_path)
    (one,) = run.records()
    assert run.cases == [one.case] == [CASE]
    assert {name: value for name, value in plain(one).items() if name in OLD_RECORD} == OLD_RECORD
    assert (one.turn_rounds, one.turn_peaks_gflops, one.disturbed_s, one.stalled_share) == ([], [], [], None)
    assert run.repeat(CASE) == CASE.repro
    with pytest.raises(StoreError, match="schema 2, this version writes 3; start a new run"), run.writing():
        pass
    assert not (tmp_path / "lock").exists()


def test_a_new_run_has_schema_3_and_is_checked_before_it_is_written(tmp_path: Path) -> None:
    assert new_run(tmp_path / "run", CASE).config["schema"] == 3
    for config, environment in (({"cases": [{"label": LABEL}]}, {}), ({"cases": []}, {"id": 3}), ({}, {})):
        with pytest.raises(StoreError, match=f"{tmp_path}/bad: "):
            Run.create(tmp_path / "bad", config, environment)
    assert list((tmp_path / "bad").iterdir()) == []
