"""pytest-benchmark's JSON: what is written can be read by it and by us; what is no such file leaves nothing behind."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import asdict

from bench.analysis.stats import iqr, median
from bench.machine.environment import environment
from bench.store.benchmark_json import export_run, import_run
from bench.store.folder import Run
from bench.store.records import Case, Record, StoreError
from conv_impls import Conv2dProblem, workloads

ROOT = Path(__file__).parent.parent
LABEL = 'mb1ic3ih8oc4oh8kh3ph1n"layer"'
FOREIGN: dict[str, Any] = {
    "machine_info": {"cpu": {"brand_raw": "a cpu", "count": 4, "hz_actual": [1, 0]}, "system": "S", "machine": "M"},
    "commit_info": {"id": "unknown"},
    "benchmarks": [
        {"name": "test_mine[a]", "extra_info": {"label": LABEL}, "stats": {"data": [1e-3, 2e-3, 3e-3]}},
        {"name": "test_other", "extra_info": {}, "stats": {"data": [1.0]}},
    ],
    "datetime": "2026-01-02T03:04:05.6+00:00",
    "version": "4.0.0",
}


def timed(layer: str = "layer", label: str = LABEL, **case: Any) -> Record:
    known: dict[str, Any] = {"workload": "w", "count": 3, "backend": "numba_simd", "threads": 2}
    times, problem = [1.1e-4, 1e-4, 1.3e-4], Conv2dProblem.from_label(label)
    return Record(
        Case(layer=layer, label=label, **(known | case)), "ok", environment_id="one", algorithm="tiles", error=1e-7,
        samples_s=times, turns_s=times, iterations=4, median_s=median(times), iqr_s=iqr(times), fma_peak_gflops=90.5,
        gflops_effective=problem.flops / median(times) / 1e9, peak_bytes=1024,
    )  # fmt: skip


def stored(folder: Path, records: list[Record]) -> Run:
    run = Run.create(folder, {"cases": [asdict(r.case) for r in records]}, environment() | {"id": "one"})
    with run.writing() as journal:
        for record in records:
            journal.append(record)
    return run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    others: list[dict[str, Any]] = [{"cache": "cold"}, {"direction": "bwd_w"}, {"repetition": 2}, {"backend": "auto"}]
    bad = Record(timed(backend="slow").case, "over_budget", "about 9 s")
    return stored(tmp_path / "run", [timed(), *(timed(**other) for other in others), bad])


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "bench", *map(str, arguments)]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True)


def test_what_was_exported_comes_back_as_it_was(run: Run, tmp_path: Path) -> None:
    assert export_run(run, tmp_path / "out.json") == (5, 1)
    again, left_out = import_run(tmp_path / "out.json", tmp_path / "again")
    assert left_out == []
    assert again.records() == [record for record in run.records() if record.status == "ok"]
    assert again.environment == run.environment
    assert [case.key for case in again.cases] == [record.case.key for record in again.records()]


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
    assert "5 tests" in done.stdout
    assert "layer/mb1ic3ih8oc4oh8kh3ph1" in done.stdout
    assert "110.0000" in done.stdout, "the median in microseconds"
    assert "Failed to load" not in done.stdout + done.stderr


def test_the_commands_go_round(run: Run, tmp_path: Path) -> None:
    out, again = tmp_path / "out.json", tmp_path / "again"
    exported = command("export", run.folder, "--out", out)
    assert (exported.returncode, exported.stderr) == (0, "")
    assert "1 that are not ok left out" in exported.stdout
    refused = command("export", run.folder, "--out", out)
    assert (refused.returncode, refused.stderr.count("\n"), "--force" in refused.stderr) == (2, 1, True)
    assert command("export", run.folder, "--out", out, "--force").returncode == 0
    imported = command("import", out, "--out", again)
    assert imported.returncode == 0, imported.stderr
    assert command("compare", again, again).returncode == 0
    assert command("report", again, "--out", tmp_path / "report").returncode == 0
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_nothing_is_written_over(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    out.write_text("mine")
    with pytest.raises(StoreError, match="exists already"):
        export_run(run, out)
    assert out.read_text() == "mine"
    with pytest.raises(StoreError, match="name another file"):
        export_run(run, tmp_path, force=True)
    export_run(run, out, force=True)
    before = (run.folder / "records.jsonl").read_text()
    with pytest.raises(StoreError, match="holds something already"):
        import_run(out, run.folder)
    assert (run.folder / "records.jsonl").read_text() == before


def test_a_run_without_a_time_has_nothing_to_export(tmp_path: Path) -> None:
    empty = stored(tmp_path / "run", [Record(timed().case, "timeout", "long")])
    with pytest.raises(StoreError, match="no case is ok"):
        export_run(empty, tmp_path / "out.json")
    assert not (tmp_path / "out.json").exists()


def foreign(tmp_path: Path, text: str | None = None, **changes: Any) -> Path:
    """A file of somebody else's; ``changes`` go to the first benchmark's extra_info or stats, or to the top."""
    content = copy.deepcopy(FOREIGN)
    entry = content["benchmarks"][0]
    for name, value in changes.items():
        where = (
            entry["stats"] if name in ("data", "iterations") else content if name in content else entry["extra_info"]
        )
        where[name] = value
    file = tmp_path / "foreign.json"
    file.write_text(json.dumps(content) if text is None else text)
    return file


def test_a_foreign_file_needs_labels_alone(tmp_path: Path) -> None:
    imported, left_out = import_run(foreign(tmp_path), tmp_path / "run")
    assert left_out == ["test_other"]
    (record,) = imported.records()
    assert record.case == Case("imported", "layer", LABEL, 1, "test_mine[a]", 1)
    assert (record.samples_s, record.median_s) == ([1e-3, 2e-3, 3e-3], 2e-3)
    assert imported.environment["cpu"] == "a cpu"
    assert imported.environment["date"].startswith("2026-01-02")


def test_one_machine_is_one_whatever_its_clock(tmp_path: Path) -> None:
    first, _ = import_run(foreign(tmp_path), tmp_path / "a")
    same = FOREIGN["machine_info"] | {"cpu": FOREIGN["machine_info"]["cpu"] | {"hz_actual": [2, 0]}}
    second, _ = import_run(foreign(tmp_path, machine_info=same), tmp_path / "b")
    third, _ = import_run(foreign(tmp_path, machine_info=same | {"system": "T"}), tmp_path / "c")
    assert first.environment["id"] == second.environment["id"] != third.environment["id"]


WHOLE = json.dumps(FOREIGN)
BENCHMARK = FOREIGN["benchmarks"][0]
DEEP: Any = []
for _ in range(50):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not pytest-benchmark's JSON"), (WHOLE[:-20], "not pytest-benchmark's JSON"), ("[]", "expected an object"),
        ("null", "expected an object"), ("\x00\xff", "not pytest-benchmark's JSON"), ("{}", "machine_info: expected"),
        ("[" * 10**6, "not pytest-benchmark's JSON"), ('{"a":' * 10**5, "not pytest-benchmark's JSON"),
        (WHOLE.replace("0.002", "NaN"), "NaN is no JSON number"), (WHOLE.replace("0.002", "1e999"), "1e999 is no JSON"),
        (WHOLE.replace("0.002", "1" * 5000), "not pytest-benchmark's JSON"), (WHOLE.replace(LABEL[:5], ""), "label"),
    ],
)  # fmt: skip
def test_junk_is_one_line_and_leaves_nothing(tmp_path: Path, text: str, said: str) -> None:
    assert_refused(foreign(tmp_path, text), tmp_path / "run", said)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data": []}, "stats.data"), ({"data": None}, "stats.data"), ({"data": [1, "2"]}, "stats.data"),
        ({"data": [0.0]}, "stats.data"), ({"data": [-1.0]}, "stats.data"), ({"data": [True]}, "stats.data"),
        ({"data": [1e300]}, "stats.data"), ({"data": [1e-300]}, "stats.data"), ({"data": DEEP}, "stats.data"),
        ({"data": {"0": 1.0}}, "stats.data"), ({"iterations": 0}, "iterations"), ({"iterations": "1"}, "iterations"),
        ({"label": ""}, "label"), ({"label": 7}, "label"), ({"label": "x" * 10**6}, "label"), ({"label": "ih8"}, "ic"),
        ({"label": "a\nb"}, "label"), ({"label": "ic3ih99999999999999oc4kh3"}, "bytes"),
        ({"backend": ""}, "backend"), ({"backend": ["a"]}, "backend"), ({"backend": "a\x1b[31m"}, "backend"),
        ({"backend": "\ud800"}, "backend"), ({"threads": 0}, "threads"), ({"threads": 1.5}, "threads"),
        ({"threads": True}, "threads"), ({"threads": 10**40}, "threads"), ({"count": -1}, "count"),
        ({"repetition": None}, "repetition"), ({"direction": "up"}, "fwd or bwd_d"), ({"cache": "hot"}, "cache"),
        ({"status": "wrong_result"}, "status"), ({"error": "small"}, "error"), ({"packed_bytes": 1.5}, "packed_bytes"),
        ({"turns_s": [None]}, "turns_s"), ({"mode": {}}, "mode"), ({"fma_peak_gflops": -1}, "fma_peak_gflops"),
        ({"machine_info": []}, "machine_info"), ({"machine_info": {"conv_impls": DEEP}}, "machine_info.conv_impls"),
        ({"machine_info": {"conv_impls": {"id": "a", "machine": DEEP}}}, "machine_info.conv_impls"),
        ({"machine_info": {"cpu": {"count": DEEP}}}, "machine_info"), ({"benchmarks": None}, "benchmarks"),
        ({"benchmarks": []}, "it is empty"), ({"benchmarks": [1]}, "benchmarks"), ({"benchmarks": [{}]}, "benchmark 0"),
        ({"benchmarks": FOREIGN["benchmarks"][1:]}, "no benchmark has a label (test_other); set extra_info"),
        ({"benchmarks": [BENCHMARK, BENCHMARK]}, "another benchmark is too"),
        ({"benchmarks": [{"extra_info": {"label": LABEL}, "stats": {"median": 1.0}}]}, "--benchmark-save-data"),
        ({"benchmarks": [{"extra_info": {"label": LABEL}}]}, "--benchmark-save-data"),
    ],
)  # fmt: skip
def test_wrong_fields_are_named_and_leave_nothing(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    assert_refused(foreign(tmp_path, **changes), tmp_path / "run", said)


def assert_refused(file: Path, out: Path, said: str) -> None:
    with pytest.raises(StoreError) as caught:
        import_run(file, out)
    text = str(caught.value)
    assert said in text
    assert str(file) in text
    assert "\n" not in text
    assert text.isprintable()
    assert len(text) < 1000
    assert list(out.parent.iterdir()) == [file]


def test_the_command_says_what_is_wrong_in_one_line(tmp_path: Path) -> None:
    refused = command("import", foreign(tmp_path, threads=0), "--out", tmp_path / "run")
    assert (refused.returncode, refused.stdout, refused.stderr.count("\n")) == (2, "", 1)
    assert "test_mine[a]: extra_info.threads: expected a whole number >= 1, got int 0" in refused.stderr
    assert command("import", tmp_path / "none.json", "--out", tmp_path / "run").returncode == 2
    assert not (tmp_path / "run").exists()
