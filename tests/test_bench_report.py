"""Tables, figures and pages made of stored records, and what they leave out."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from msgspec.structs import replace
from records import CASE, failed, new_run, record, store

from bench.analysis import tables
from bench.analysis.frame import frame
from bench.report import write
from bench.report.figures import FIGURES
from bench.report.sizes import time_vs_size
from bench.store.folder import Run
from bench.store.records import Record, StoreError

# Figures of plain cases, and those that need no measured layer.
PLAIN = [name for name, kind in FIGURES.items() if not kind.sweep]
ALWAYS = {"filters"}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return new_run(tmp_path / "run", CASE)


def test_a_network_sum_is_count_weighted_and_never_partial() -> None:
    whole = [record("a", "l1", (1.0,) * 3), record("a", "l2", (2.0,) * 3, case={"count": 1})]
    broken = [record("b", "l1"), failed("timeout", "b", "l2")]
    sums = tables.network_sums(frame(whole + broken)).set_index("backend")["resnet50 (ms)"]
    assert sums["a"] == 4000
    assert sums["b"] == "1 of 2"


def test_winners_rank_only_right_results_and_not_auto() -> None:
    records = [
        record("a"),
        record("b", times=(0.5,) * 3),
        record("auto", times=(0.1,) * 3),
        failed("wrong_result", "c"),
    ]
    (row,) = tables.winners(frame(records)).itertuples()
    assert (row.winner, row.second, row.lead) == ("b", "a", 2)


def test_the_correctness_matrix_names_every_status() -> None:
    matrix = tables.correctness(
        frame([record(), failed("wrong_result", "b"), failed("over_budget", "c"), record("b", "l2")])
    )
    cells = matrix.set_index("layer")
    assert cells.loc["l1", "python_loops"] == "right, 0.100 of bound"
    assert cells.loc["l1", "b"] == "wrong_result"
    assert cells.loc["l1", "c"] == "right when cut, over budget"
    assert cells.loc["l2", "c"] == "not measured"


def test_a_wrong_result_on_any_thread_count_shows_in_the_matrix() -> None:
    bad = replace(failed("wrong_result", "a"), case=replace(CASE, backend="a", threads=2))
    matrix = tables.correctness(frame([record("a"), bad]))
    assert matrix.a[0] == "wrong_result"


def test_cases_a_run_did_not_come_to_keep_a_network_from_looking_whole() -> None:
    cases = [replace(CASE, backend="a", layer=layer) for layer in ("l1", "l2", "l3")]
    table = frame([record("a")], cases)
    assert tables.network_sums(table)["resnet50 (ms)"][0] == "1 of 3"
    assert list(tables.not_ok(table).layer) == ["l2", "l3"]


def test_a_run_without_a_single_time_still_reports(run: Run, tmp_path: Path) -> None:
    store(run, failed("over_budget", "numba_direct"))
    missing = write.write_report(run, tmp_path / "out", None)
    assert len(missing) == len(PLAIN) - len(ALWAYS)
    assert "over_budget" in (tmp_path / "out" / "README.md").read_text()


def test_ratio_divides_the_slow_by_the_fast() -> None:
    result = tables.ratio(frame([record("a"), record("b", times=(0.25,) * 3)]), "b", "a")
    assert list(result["b over a"]) == [4.0]


def test_ladder_counts_only_layers_every_backend_measured() -> None:
    records = [record("python_loops", "l1"), record("numba_direct", "l1", (0.1,) * 3)]
    records += [failed("over_budget", "python_loops", "l2"), record("numba_direct", "l2", (0.001,) * 3)]
    rungs = tables.ladder(frame(records), "resnet50").set_index("backend")
    assert rungs.speedup["numba_direct"] == pytest.approx(10)
    assert rungs.layers["numba_direct"] == 1


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of every figure but those of sweeps, and its report in the folder "out"."""
    run = new_run(tmp_path_factory.mktemp("full") / "run", CASE)
    speeds = {"python_loops": 1.0, "numpy_im2col": 0.3, "numpy_strided": 0.01, "scipy_fft": 0.02, "numba_direct": 0.005}
    for backend, seconds in speeds.items():
        for layer in ("l1", "l2 | <b>odd</b>"):
            store(run, record(backend, layer, (seconds, seconds * 1.01, seconds * 1.05)))
        for size in (16, 32):
            label = f'mb1ic8ih{size}oc8oh{size}kh3ph1n"image {size}"'
            case = {"workload": "sizes", "label": label}
            store(run, record(backend, f"image {size}", (seconds * size,) * 3, case=case))
    store(run, failed("wrong_result", "auto"))
    readme = run.folder.parent / "README.md"
    readme.write_text("top\n<!-- begin generated: results -->\nold\n<!-- end generated: results -->\nbottom\n")
    assert write.write_report(run, run.folder.parent / "out", readme) == []
    return run


def test_a_report_holds_tables_figures_and_what_failed(full: Run) -> None:
    out = full.folder.parent / "out"
    names = [path.stem for path in (out / "figures").glob("*.png")]
    assert {name.removesuffix("_resnet50").removesuffix("_sizes") for name in names} == {*PLAIN}
    for name in names:
        assert (out / "figures" / f"{name}.png").stat().st_size > 10_000
        assert "<svg" in (out / "figures" / f"{name}.svg").read_text()[:1000]
    page = (out / "README.md").read_text()
    for link in re.findall(r"\]\(([^)]+)\)", page):
        assert (out / link).exists(), link
    assert "wrong_result" in page
    cases = pd.read_csv(out / "tables" / "cases.csv")
    assert len(cases) == 21
    assert cases[cases.status != "ok"].median_s.isna().all()
    text = (full.folder.parent / "README.md").read_text()
    assert "old" not in text
    assert "| backend" in text
    assert text.startswith("top\n")
    assert text.endswith("bottom\n")


def test_a_wrong_result_is_never_drawn(run: Run) -> None:
    for size in (16, 32):
        label = f'mb1ic8ih{size}oc8oh{size}kh3ph1n"image {size}"'
        store(run, record("numba_direct", f"image {size}", case={"workload": "sizes", "label": label}))
        bad = replace(CASE, workload="sizes", layer=f"image {size}", label=label, backend="scipy_fft")
        store(run, Record(bad, "wrong_result", "off", "e"))
    axes = time_vs_size(frame(run.records()), run.environment).axes[0]
    assert [text.get_text() for text in axes.texts] == ["numba_direct"]


def test_a_report_names_what_it_leaves_out_and_nothing_of_an_earlier_one_stays(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for name in ("figures/ladder.svg", "tables/ladder.csv"):
        (out / name).parent.mkdir(parents=True)
        (out / name).write_text("of an earlier run")
    store(run, record(case={"workload": "smoke"}))
    missing = write.write_report(run, out, None)
    drawn = {path.stem for path in (out / "figures").glob("*.png")}
    assert "figure ladder: no dense 3x3 or depthwise layer of smoke that two rungs measured" in "\n".join(missing)
    assert drawn == {"errors", "filters", "roofline", "shares_smoke", "start_smoke"}
    assert "figure headline: no backend measured all layers of a network" in missing, "nothing of resnet50 was measured"
    left_out = {text.split(":")[0].split()[1] for text in missing}
    assert left_out | {name.removesuffix("_smoke") for name in drawn} == {*PLAIN}, "each is drawn or named"
    assert not (out / "figures" / "ladder.svg").exists()
    assert not (out / "tables" / "ladder.csv").exists()
    with pytest.raises(StoreError, match="no finished cases"):
        write.write_report(new_run(tmp_path / "empty"), out, None)


def test_the_same_records_give_the_same_tables_and_svg(full: Run, tmp_path: Path) -> None:
    write.write_report(full, tmp_path, None)
    first = full.folder.parent / "out"
    for path in first.rglob("*"):
        if path.suffix in (".csv", ".md", ".svg"):
            assert path.read_bytes() == (tmp_path / path.relative_to(first)).read_bytes(), path


def test_a_report_keeps_the_files_of_others(run: Run, tmp_path: Path) -> None:
    own = ["tables/notes.csv", "figures/zebra.png", "tables/ladder.txt", "figures/ladder.csv", "tables/ladder.md/x"]
    for name in own:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("mine")
    store(run, record(case={"workload": "smoke"}))
    write.write_report(run, tmp_path, None)
    assert {(tmp_path / name).read_text() for name in own} == {"mine"}
    assert b"zebra" not in (tmp_path / "report.html").read_bytes()
    write.write_report(run, tmp_path, None)


@pytest.mark.parametrize("name", ["README.md", "report.html"])
def test_a_page_that_is_no_report_is_not_overwritten(run: Run, tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_text("mine")
    store(run, record())
    with pytest.raises(StoreError, match=f"{name}: expected a page of an earlier report"):
        write.write_report(run, out, None)
    assert [(path.name, path.read_text()) for path in out.iterdir()] == [(name, "mine")]


def test_a_disk_that_fills_leaves_the_old_report(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store(run, record())
    write.write_report(run, tmp_path / "out", None)
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}

    def full(file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write.write_report(run, tmp_path / "out", None)
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()} == before


def test_names_are_no_mathematics(tmp_path: Path) -> None:
    name, run = r"my$\q$.txt", new_run(tmp_path / "run", CASE)
    case = {"workload": name, "threads": 1}
    for threads in (1, 2):
        for backend in ("numba_simd", "numba_direct"):
            store(run, record(backend, name, case=case | {"threads": threads}), record(backend, name))
    write.write_report(run, tmp_path / "out", None)
    assert (tmp_path / "out" / "figures" / "threads_my_q_.txt.png").exists()
    assert name in (tmp_path / "out" / "figures" / "threads_my_q_.txt.svg").read_text()


@pytest.mark.parametrize(
    "machine", [{"x": 1}, [1], "x", {"by_threads": [{}]}, {"by_threads": [{"threads": 1}], "by_level": 3}]
)
def test_a_measurement_of_the_machine_that_is_none_is_told(run: Run, tmp_path: Path, machine: Any) -> None:
    store(run, record())
    path = run.folder / "environment.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"machine": machine}))
    with pytest.raises(StoreError, match=r"environment.json: machine"):
        write.write_report(run, tmp_path / "out", None)


def test_an_environment_may_tell_nothing(run: Run, tmp_path: Path) -> None:
    store(run, record())
    (run.folder / "environment.json").write_text("{}")
    missing = write.write_report(run, tmp_path / "out", None)
    assert "figure roofline: the run holds no measurement of the machine" in missing
    assert "None" not in (tmp_path / "out" / "README.md").read_text()


def test_batches_of_a_network_are_told_apart(run: Run, tmp_path: Path) -> None:
    for batch in (1, 8):
        label = f'mb{batch}ic8ih12oc8oh12kh3ph1n"l"'
        store(run, *(record(name, case={"label": label}) for name in ("python_loops", "numba_direct")))
    write.write_report(run, tmp_path / "out", None)
    assert list(pd.read_csv(tmp_path / "out" / "tables" / "ladder.csv").layers) == [1, 1]


def test_a_layer_with_two_labels_is_told(run: Run, tmp_path: Path) -> None:
    store(run, record(), record(case={"label": 'mb1ic4ih12oc8oh12kh3ph1n"l"'}))
    with pytest.raises(StoreError, match="layer 'l1' of 'resnet50' has several labels"):
        write.write_report(run, tmp_path / "out", None)
