"""pytest-benchmark's JSON of others: a label is enough; what is no such file is one line and leaves nothing behind."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.store.benchmark_json import import_run, open_stored
from bench.store.records import Case, StoreError

ROOT = Path(__file__).parent.parent
LABEL = 'mb1ic3ih8oc4oh8kh3ph1n"layer"'
CASE = {"workload": "w", "layer": "l", "label": LABEL, "count": 1, "backend": "b", "threads": 1}
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


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "bench", *map(str, arguments)]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"records": [{"status": "ok"}]}, "conv_impls.records[0]"), ({"records": {}}, "conv_impls.records: expected"),
        ({"config": {}}, "missing required field `cases`"), ({"config": {"cases": [1]}}, "cases[0]: expected"),
        ({"environment": {"id": 3}}, "environment: id: expected"), ({"more": 1}, "unknown field `more`"),
        ({"records": [{"case": CASE | {"label": "x"}, "status": "oom"}]}, "conv_impls: from_label: text: expected"),
        ({"records": [{"case": CASE | {"layer": "a\nb"}, "status": "oom"}]}, "conv_impls: layer: expected printable"),
        ({"environment": {"machine": {"took_s": 1}}}, "environment: machine: "), ({"environment": None}, "environment"),
    ],
)  # fmt: skip
def test_a_spoiled_document_is_refused(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    right: dict[str, Any] = {"environment": {"id": "e"}, "config": {"cases": []}, "records": []}
    file = tmp_path / "a.json"
    content = {"machine_info": {}, "benchmarks": FOREIGN["benchmarks"], "conv_impls": right}
    file.write_text(json.dumps(content))
    assert len(open_stored(file).records()) == 1
    file.write_text(json.dumps(content | {"conv_impls": right | change}))
    assert_refused(file, tmp_path / "run", said)


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
        ("", "not pytest-benchmark's JSON"), (WHOLE[:-20], "not pytest-benchmark's JSON"), ("[]", "Expected `object`"),
        ("null", "Expected `object`"), ("\x00\xff", "not pytest-benchmark's JSON"), ("{}", "field `machine_info`"),
        ("[" * 10**6, "not pytest-benchmark's JSON"), ('{"a":' * 10**5, "not pytest-benchmark's JSON"),
        (WHOLE.replace("0.002", "NaN"), "not pytest-benchmark's JSON"), (WHOLE.replace("0.002", "1e999"), "range"),
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
        ({"backend": "\ud800"}, "surrogate"), ({"threads": 0}, "threads"), ({"threads": 1.5}, "threads"),
        ({"threads": True}, "threads"), ({"threads": 10**40}, "threads"), ({"count": -1}, "count"),
        ({"repetition": None}, "repetition"), ({"direction": "up"}, "enum value 'up'"), ({"cache": "hot"}, "cache"),
        ({"status": "wrong_result"}, "status"), ({"error": "small"}, "error"), ({"packed_bytes": 1.5}, "packed_bytes"),
        ({"turns_s": [None]}, "turns_s"), ({"mode": {}}, "mode"), ({"fma_peak_gflops": -1}, "fma_peak_gflops"),
        ({"machine_info": []}, "machine_info"), ({"machine_info": {"conv_impls": DEEP}}, "machine_info.conv_impls"),
        ({"machine_info": {"conv_impls": {"id": "a", "machine": DEEP}}}, "environment: machine: expected `object`"),
        ({"machine_info": {"conv_impls": {"id": "\n"}}}, "machine_info.conv_impls.id"),
        ({"machine_info": {"cpu": {"count": DEEP}}}, "machine_info"), ({"benchmarks": None}, "benchmarks"),
        ({"benchmarks": []}, "it is empty"), ({"benchmarks": [1]}, "benchmarks"), ({"benchmarks": [{}]}, "benchmark 0"),
        ({"benchmarks": FOREIGN["benchmarks"][1:]}, "no benchmark has a label (test_other); set extra_info"),
        ({"benchmarks": [BENCHMARK, BENCHMARK]}, "another benchmark has the same case"),
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
    assert "test_mine[a]: extra_info.threads: expected `int` >= 1" in refused.stderr
    assert command("import", tmp_path / "none.json", "--out", tmp_path / "run").returncode == 2
    assert not (tmp_path / "run").exists()
