"""pytest-benchmark's JSON of a run: it can be read by pytest-benchmark and by us, and nothing is lost."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from committed import committed
from msgspec.structs import asdict

from bench.analysis.stats import iqr, median
from bench.machine.environment import environment
from bench.store.benchmark_json import document, export_run, extra_info, group, import_run, open_stored
from bench.store.folder import Run
from bench.store.records import Case, Record, StoreError, plain
from conv_impls import Conv2dProblem, workloads

ROOT = Path(__file__).parent.parent
LABEL = 'mb1ic3ih8oc4oh8kh3ph1n"layer"'


def timed(layer: str = "layer", label: str = LABEL, **case: Any) -> Record:
    known: dict[str, Any] = {"workload": "w", "count": 3, "backend": "numba_simd", "threads": 2}
    times, problem = [1.1e-4, 1e-4, 1.3e-4], Conv2dProblem.from_label(label)
    samples = [t * part for t in times for part in (0.9, 1.0, 1.3)]
    return Record(
        Case(layer=layer, label=label, **(known | case)), "ok", environment_id="one", algorithm="tiles", error=1e-7,
        samples_s=samples, turns_s=times, turn_rounds=[0, 1, 3], disturbed_s=[2e-4], stalled_share=0.1, iterations=4,
        median_s=median(times), iqr_s=iqr(times), fma_peak_gflops=90.5,
        gflops_effective=problem.flops / median(times) / 1e9, peak_bytes=1024,
    )  # fmt: skip


def stored(folder: Path, records: list[Record]) -> Run:
    config = {"cases": [asdict(r.case) for r in records], "options": {"seed": 0}, "repeat": "--seconds 0.2"}
    run = Run.create(folder, config, environment() | {"id": "one"})
    with run.writing() as journal:
        for record in records:
            journal.append(record)
    return run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    others: list[dict[str, Any]] = [{"cache": "cold"}, {"direction": "bwd_w"}, {"repetition": 2}, {"backend": "auto"}]
    bad = Record(timed(backend="slow").case, "over_budget", "about 9 s", estimate_s=9.0)
    swift = Record(timed(backend="swift").case, "too_fast", "twice the peak")
    return stored(tmp_path / "run", [timed(), *(timed(**other) for other in others), bad, swift])


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "bench", *map(str, arguments)]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True)


def test_what_was_exported_comes_back_as_it_was(run: Run, tmp_path: Path) -> None:
    assert export_run(run, tmp_path / "out.json") == (5, 2)
    again, left_out = import_run(tmp_path / "out.json", tmp_path / "again")
    assert left_out == []
    assert again.records() == run.records()
    assert {record.status for record in again.records()} == {"ok", "over_budget", "too_fast"}
    assert again.environment == run.environment
    assert again.cases == run.cases
    assert again.config == run.config


def test_the_file_has_the_form_of_the_harness(run: Run, tmp_path: Path) -> None:
    export_run(run, tmp_path / "out.json")
    content = json.loads((tmp_path / "out.json").read_text())
    records = {record.case.key: record for record in run.records()}
    assert content["machine_info"]["conv_impls"] == {"id": "one"}
    assert content["conv_impls"] == document(run)
    assert document(run)["records"] == [plain(record) for record in records.values() if record.status != "ok"]
    assert len(content["benchmarks"]) == 5
    for entry in content["benchmarks"]:
        record = records[Case(**entry["params"]).key]
        assert entry["extra_info"] == extra_info(record)
        assert entry["stats"]["data"] == record.turns_s
        assert (entry["stats"]["rounds"], entry["stats"]["iterations"]) == (3, 1)
        assert entry["stats"]["median"] == record.median_s
        assert entry["group"] == group(record.case)
        assert entry["fullname"] == f"bench/test_bench_conv2d.py::test_conv2d[{record.case.id}]"


def test_facts_of_a_record_are_flat_and_named_once() -> None:
    record = timed()
    facts = extra_info(record)
    assert (facts["label"], facts["median_s"], facts["turns_s"]) == (LABEL, record.median_s, record.turns_s)
    assert len(facts) == len(Case.__struct_fields__) + len(Record.__struct_fields__) - 1
    assert "case" not in facts


def test_a_file_is_opened_as_a_folder_is(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    export_run(run, out)
    file, folder = open_stored(out), open_stored(run.folder)
    assert (file.folder, folder.folder) == (out, run.folder)
    assert file.records() == folder.records()
    assert (file.cases, file.config, file.environment) == (folder.cases, folder.config, folder.environment)
    (case, *_) = run.cases
    assert file.repeat(case) == folder.repeat(case) == f"{case.repro} --seconds 0.2"
    assert (file.source, folder.source) == ("out.json", "runs/run/records.jsonl")
    with pytest.raises(StoreError, match="no run here"):
        open_stored(tmp_path / "nothing")


@pytest.mark.parametrize("name", ["bench", "reference"])
def test_a_committed_run_survives_export(name: str, tmp_path: Path) -> None:
    run = Run.open(committed(name))
    export_run(run, tmp_path / "out.json")
    file = open_stored(tmp_path / "out.json")
    assert {one.case.key: one for one in file.records()} == {one.case.key: one for one in run.records()}
    assert file.cases == run.cases
    entries = json.loads((tmp_path / "out.json").read_text())["benchmarks"]
    assert len({entry["fullname"] for entry in entries}) == len(entries)
    medians = [(entry["stats"]["median"], entry["extra_info"]["median_s"]) for entry in entries]
    # The medians of "reference" are those of samples: an earlier commit measured it.
    assert all(one == other for one, other in medians) == (name != "reference")


def exported_by_0_3_0(run: Run, file: Path) -> list[Record]:
    """Write the ok records as version 0.3.0 did: samples as data, the environment in machine_info."""
    measured = [record for record in run.records() if record.status == "ok"]
    entries = []
    for record in measured:
        facts = extra_info(record)
        times = {"data": facts.pop("samples_s"), "iterations": facts.pop("iterations")}
        entries.append({"name": f"test_conv2d[{record.case.key}]", "extra_info": facts, "stats": times})
    file.write_text(json.dumps({"machine_info": {"conv_impls": run.environment}, "benchmarks": entries}))
    return measured


def test_an_export_of_version_0_3_0_is_read(run: Run, tmp_path: Path) -> None:
    measured = exported_by_0_3_0(run, tmp_path / "old.json")
    file = open_stored(tmp_path / "old.json")
    assert file.records() == measured
    assert file.environment == run.environment
    assert file.cases == [record.case for record in measured]
    assert file.repeat(file.cases[0]) == file.cases[0].repro
    again, _ = import_run(tmp_path / "old.json", tmp_path / "again")
    assert again.records() == measured


def test_its_own_facts_win_over_the_times_of_a_benchmark(run: Run, tmp_path: Path) -> None:
    export_run(run, tmp_path / "out.json")
    content = json.loads((tmp_path / "out.json").read_text())
    for entry in content["benchmarks"]:
        # As --benchmark-save writes it.
        del entry["stats"]["data"]
    (tmp_path / "lean.json").write_text(json.dumps(content))
    assert open_stored(tmp_path / "lean.json").records() == run.records()


def test_a_record_that_is_also_a_benchmark_is_refused(run: Run, tmp_path: Path) -> None:
    export_run(run, tmp_path / "out.json")
    content = json.loads((tmp_path / "out.json").read_text())
    content["conv_impls"]["records"].append(plain(timed()))
    (tmp_path / "twice.json").write_text(json.dumps(content))
    with pytest.raises(StoreError, match="another benchmark has the same case"):
        open_stored(tmp_path / "twice.json")


def test_labels_of_every_workload_survive(tmp_path: Path) -> None:
    layers = [layer for name in workloads.available() for layer in workloads.load(name)]
    records = [timed(la.name, la.problem.label, workload=la.workload) for la in layers]
    export_run(stored(tmp_path / "run", records), tmp_path / "out.json")
    again, _ = import_run(tmp_path / "out.json", tmp_path / "again")
    assert again.records() == records


def test_pytest_benchmark_reads_and_prints_it(run: Run, tmp_path: Path) -> None:
    export_run(run, tmp_path / "out.json")
    code = "import sys; from pytest_benchmark.cli import main; sys.argv[0] = 'pytest-benchmark'; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", code, "compare", tmp_path / "out.json"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(": 1 tests") == 3
    assert ": 2 tests" in done.stdout, "two backends of one group"
    assert "w/layer-numba_simd-t2-fwd-cold-r1" in done.stdout
    assert "110.0000" in done.stdout, "the median in microseconds"
    assert "Failed to load" not in done.stdout + done.stderr


def test_the_commands_go_round(run: Run, tmp_path: Path) -> None:
    out, again = tmp_path / "out.json", tmp_path / "again"
    exported = command("export", run.folder, "--out", out)
    assert (exported.returncode, exported.stderr) == (0, "")
    assert "2 that are not ok are under its key conv_impls" in exported.stdout
    refused = command("export", run.folder, "--out", out)
    assert (refused.returncode, refused.stderr.count("\n"), "--force" in refused.stderr) == (2, 1, True)
    assert command("export", run.folder, "--out", out, "--force").returncode == 0
    imported = command("import", out, "--out", again)
    assert imported.returncode == 0, imported.stderr
    assert command("compare", out, again).returncode == 0
    assert command("report", out, "--out", tmp_path / "report").returncode == 0
    page = (tmp_path / "report" / "README.md").read_text()
    assert "`out.json`" in page
    assert "over_budget" in page
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_nothing_is_written_over(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    out.write_text("mine")
    with pytest.raises(StoreError, match="already exists"):
        export_run(run, out)
    assert out.read_text() == "mine"
    with pytest.raises(StoreError, match="use another file"):
        export_run(run, tmp_path, force=True)
    export_run(run, out, force=True)
    before = (run.folder / "records.jsonl").read_text()
    with pytest.raises(StoreError, match="is not empty"):
        import_run(out, run.folder)
    assert (run.folder / "records.jsonl").read_text() == before


def test_a_run_without_a_time_has_nothing_to_export(tmp_path: Path) -> None:
    empty = stored(tmp_path / "run", [Record(timed().case, "timeout", "long")])
    with pytest.raises(StoreError, match="no case is ok"):
        export_run(empty, tmp_path / "out.json")
    assert not (tmp_path / "out.json").exists()
