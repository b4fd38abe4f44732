"""Packed runs: every command reads one, nothing of a report changes, --resume unpacks it, broken gzip data is named."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import handmade
import pytest
from msgspec.structs import asdict
from typer.testing import CliRunner

from bench.analysis.frame import frame_of
from bench.analysis.writing import csv
from bench.cli.main import app
from bench.report.write import all_tables
from bench.store import pack as packing
from bench.store.benchmark_json import export_run, open_stored
from bench.store.folder import Run
from bench.store.gzipped import PACKED, gzipped, stored_runs
from bench.store.records import StoreError, sample_count

ENVIRONMENT = {"id": "e", "cpu": "a CPU", "cores": 2}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A finished run with its benchmark.json."""
    records = handmade.records()
    made = Run.create(
        tmp_path / "runs" / "mine", {"command": "cmd", "cases": [asdict(r.case) for r in records]}, ENVIRONMENT
    )
    with made.writing() as journal:
        for record in records:
            journal.append(record)
    made.finish({})
    export_run(made, made.folder / "benchmark.json")
    return made


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def tables(run: Path) -> dict[str, str]:
    return {name: csv(content) for name, content in all_tables(frame_of(open_stored(run))).items()}


def test_a_packed_run_has_the_tables_that_it_had_before(run: Run) -> None:
    before, samples = tables(run.folder), [sample_count(record) for record in run.records()]
    assert tables(run.folder / "benchmark.json") == before
    took, takes = packing.pack(run)
    assert {path.name for path in run.folder.iterdir()} == {
        "config.json.gz", "records.jsonl.gz", "benchmark.json.gz", "environment.json", "finished.json", "lock",
    }  # fmt: skip
    assert takes < took / 5
    assert tables(run.folder) == tables(run.folder / "benchmark.json.gz") == before
    assert [sample_count(record) for record in run.records()] == samples
    # The second repetition took three samples a turn.
    assert max(record.samples_left_out for record in run.records()) == 8
    assert all(len(record.samples_s) == len(record.turns_s) for record in run.records())


def test_packing_twice_gives_the_same_bytes(run: Run) -> None:
    packing.pack(run)
    once = contents(run.folder)
    packing.pack(run)
    assert contents(run.folder) == once


def test_a_resumed_run_is_unpacked_and_goes_on(run: Run) -> None:
    packing.pack(run)
    records = run.records()
    with run.writing() as journal:
        assert not [name for name in PACKED if gzipped(run.folder / name).exists()]
        journal.append(records[0])
    assert run.records() == records
    assert run.config["command"] == "cmd"


def test_an_unfinished_run_is_refused_and_stays_as_it_is(run: Run) -> None:
    (run.folder / "finished.json").unlink()
    before = contents(run.folder)
    with pytest.raises(StoreError, match=r"expected a finished run, got no finished\.json; finish the run with"):
        packing.pack(run)
    assert contents(run.folder) == before


def test_a_run_that_another_process_measures_for_is_not_packed(run: Run) -> None:
    with run.writing(), pytest.raises(StoreError, match="another process is measuring"):
        packing.pack(Run(run.folder))
    assert (run.folder / "records.jsonl").exists()


@pytest.mark.parametrize("cut", [lambda b: b[:-20], lambda b: b"no gzip", lambda b: b[:20] + b"\0" * 40 + b[60:]])
@pytest.mark.parametrize("name", PACKED)
def test_broken_gzip_data_is_one_line_that_names_the_file(run: Run, name: str, cut) -> None:  # type: ignore[no-untyped-def]
    packing.pack(run)
    path = gzipped(run.folder / name)
    path.write_bytes(cut(path.read_bytes()))
    with pytest.raises(StoreError, match=rf"{name}\.gz: ") as caught:
        open_stored(path if name == "benchmark.json" else run.folder)
    assert "\n" not in str(caught.value)


def test_the_command_packs_and_the_other_commands_read(run: Run, tmp_path: Path) -> None:
    folder, call = run.folder, CliRunner().invoke
    packed = call(app, ["pack", str(folder)])
    assert (packed.exit_code, "MiB before" in packed.output) == (0, True), packed.output
    assert stored_runs(folder.parent) == [folder]
    exported = call(app, ["export", str(folder), "--out", str(tmp_path / "out.json")])
    assert exported.exit_code == 0, exported.output
    assert json.loads((tmp_path / "out.json").read_text()) == json.loads(
        gzip.decompress((folder / "benchmark.json.gz").read_bytes())
    )
    compared = call(app, ["compare", str(folder), str(folder / "benchmark.json.gz")])
    assert compared.exit_code == 0, compared.output
    again = call(app, ["run", "--out", str(folder), "--workload", "smoke"])
    assert "already contains a run" in str(again.exception), "a packed run is a run"
