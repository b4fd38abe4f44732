"""Convolutions left out of a model belong to the run: configuration, records, tables, pages, and what is imported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from onnx import helper
from onnx_models import conv, save, weight
from records import CASE, new_run, record, store
from scripted import Session

from bench.analysis import tables
from bench.analysis.frame import frame
from bench.analysis.sentences import sentences
from bench.cli import stored
from bench.report import write
from bench.run.options import Options
from bench.run.request import Request
from bench.store.benchmark_json import export_run, import_run, open_stored
from bench.store.coverage import all_words, words
from bench.store.folder import Run, StoredRun
from bench.store.records import StoreError

MODEL: dict[str, Any] = {"taken": 35, "left_out": {"have sizes known only at run time": 3}}
SAID = "35 of 38 convolutions; 3 have sizes known only at run time"
NAMED = "resnet50 (35 of 38 convolutions)"


def model(path: Path) -> str:
    """Two layers of one size, one of another, one transposed and one of a branch."""
    branch = helper.make_graph([conv("x", "w", "t")], "b", [], [helper.make_tensor_value_info("t", 1, None)])
    nodes = [
        conv("x", "w", "a", name="first"), conv("x", "w", "b"), conv("x", "v", "c", name="second"),
        helper.make_node("ConvTranspose", ["x", "w"], ["d"]),
        helper.make_node("Loop", ["", "", "x"], ["y"], body=branch),
    ]  # fmt: skip
    return save(path, nodes, [weight("w", 3, 3, 3, 3), weight("v", 4, 3, 1, 1)], ("n", 3, 8, 8))


def asked(**options: Any) -> dict[str, Any]:
    _, models = Options(backends="numpy_strided", threads="1", **options).asked()
    return dict(models)


def test_what_is_left_out_of_a_model_is_in_the_configuration(tmp_path: Path) -> None:
    path = model(tmp_path / "net.onnx")
    left_out = {"are transposed (ConvTranspose)": 1, "are inside Loop": 1}
    assert asked(workload=path) == {"net": {"taken": 3, "left_out": left_out}}
    assert asked(workload=f"{path},smoke", batch="1,2", dtype="float32,float64") == asked(workload=path)
    assert asked(workload=path, layers="second") == {
        "net": {"taken": 1, "left_out": left_out | {"do not match --layers": 2}}
    }
    assert asked(workload=f"{path},smoke", layers="3x3") == asked(workload="smoke") == {}
    (tmp_path / "other").mkdir()
    save(tmp_path / "other" / "net.onnx", [conv("x", "w", "y", name="third")], [weight("w", 3, 3, 2, 2)])
    assert asked(workload=f"{path},{tmp_path}/other/net.onnx") == {"net": {"taken": 4, "left_out": left_out}}
    save(Path(path), [conv("x", "w", "y")], [weight("w", 3, 3, 3, 3)], (1, 3, "h", "w"))
    assert asked(workload=path, size="1,3,8,8") == {}


def test_a_run_is_resumed_only_with_the_same_model(tmp_path: Path) -> None:
    path = model(tmp_path / "net.onnx")
    options = Options(workload=path, backends="numpy_strided", threads="1")
    request = Request.new(options, tmp_path / "run")
    facts = {"caches": {"L1": "32K"}}
    assert request._config(facts)["models"] == asked(workload=path)
    assert Request.new(Options(**{**options.__dict__, "size": "2,3,8,8"})).cases != request.cases


def test_every_record_says_it(go: Session) -> None:
    run, _ = go(models={"smoke": MODEL})
    assert {record.coverage for record in run.records()} == {SAID}
    assert words(run.config, "smoke") == SAID
    run, _ = go(folder="whole")
    assert {record.coverage for record in run.records()} == {""}


def test_the_sum_of_a_network_bears_it_in_its_name() -> None:
    said = [record(name, coverage=SAID) for name in ("auto", "numpy_strided")]
    table = frame([*said, record("auto", case={"workload": "vgg16"})], [CASE])
    assert set(table.network) == {NAMED, "vgg16"}
    assert any(f" on resnet50 ({SAID}), " in text for text in sentences(table))
    assert f"{NAMED} (ms)" in tables.network_sums(table)
    assert tables.left_out(table).to_numpy().tolist() == [["resnet50", SAID]]
    assert tables.left_out(frame([record()])).empty


def finished(folder: Path) -> Run:
    run = new_run(folder, CASE)
    config = run.config | {"models": {"resnet50": MODEL}}
    del config["schema"]
    made = Run.create(folder / "with", config, run.environment)
    store(made, record(coverage=SAID))
    return made


def test_reports_say_it_also_of_a_file_and_of_what_was_imported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # They take seconds each.
    monkeypatch.setattr(write, "FIGURES", {})
    run = finished(tmp_path / "run")
    export_run(run, tmp_path / "run.json")
    imported, _ = import_run(tmp_path / "run.json", tmp_path / "imported")
    sources: list[StoredRun] = [run, open_stored(tmp_path / "run.json"), imported]
    for number, source in enumerate(sources):
        assert all_words(source.config) == {"resnet50": SAID}
        out = tmp_path / f"report{number}"
        write.write_report(source, out, None)
        for name in ("README.md", "report.html", "tables/left_out.csv"):
            assert SAID in (out / name).read_text()
        for name in ("README.md", "report.html", "tables/network_sums.csv", "tables/costs.csv"):
            assert NAMED in (out / name).read_text()
    stored.compare(run.folder, imported.folder)
    assert f"resnet50: {SAID}" in capsys.readouterr().out


@pytest.mark.parametrize("models", [
    {"net": 3}, {"net": {}}, {"net": {"taken": -1, "left_out": {}}}, {"net": {"taken": 1, "left_out": {"are 1-D": 0}}},
    {"net": {"taken": 1, "left_out": ["are 1-D"]}}, [],
])  # fmt: skip
def test_a_configuration_that_says_it_wrongly_is_refused(tmp_path: Path, models: Any) -> None:
    config = {"cases": [], "models": models}
    with pytest.raises(StoreError, match="models"):
        Run.create(tmp_path, config, {"id": "e"})


def test_words_of_any_origin_fit_a_line() -> None:
    hostile = {"taken": 1, "left_out": {"are \x1b[31m\nred": 2}}
    assert words({"models": {"a": hostile}}, "a") == "1 of 3 convolutions; 2 are ?[31m?red"
    assert words({"models": {"a": hostile}}, "b") == words({}, "a") == ""
