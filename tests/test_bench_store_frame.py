"""Records on disk, the frame, tables, figures and the report: the analysis is where numbers become claims."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bench import plots, report, stats, tables
from bench.compare import compare_runs
from bench.frame import frame
from bench.store import Case, Record, Run, StoreError

LABEL = 'mb1ic8ih12oc8oh12kh3ph1n"l"'
CASE = Case("resnet50", "l1", LABEL, 2, "python_loops", 1)


def record(
    backend: str = "python_loops", layer: str = "l1", times: tuple[float, ...] = (1.0, 1.0, 1.0), **changes: Any
) -> Record:
    case = replace(CASE, backend=backend, layer=layer, **changes.pop("case", {}))
    values: dict[str, Any] = {
        "samples_s": list(times),
        "median_s": stats.median(times),
        "iqr_s": stats.iqr(times),
        "gflops_effective": 1.0,
    }
    return Record(
        case, "ok", environment_id="e", error=1e-7, error_over_bound=0.1, algorithm=backend, **(values | changes)
    )


def failed(status: str, backend: str, layer: str = "l1") -> Record:
    return Record(replace(CASE, backend=backend, layer=layer), status, "because", "e", estimate_s=9.0)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    config = {"command": "cmd", "seed": 0, "timeout_s": 1, "budget_s": 9, "cases": [asdict(CASE)]}
    return Run.create(tmp_path / "run", config, {"id": "e", "cpu": "a cpu", "cores": 2, "date": "today"})


def test_records_come_back_as_they_went(run: Run) -> None:
    written = [record(), failed("crashed", "auto")]
    for one in written:
        run.append(one)
    again = Run.open(run.folder)
    assert again.records() == written
    assert again.done() == {one.case.key for one in written}
    assert again.cases == [CASE]


def test_a_torn_last_line_costs_only_itself(run: Run) -> None:
    run.append(record())
    with (run.folder / "records.jsonl").open("a") as file:
        file.write('{"case": {"workl')
    assert run.records() == [record()]


@pytest.mark.parametrize(
    "line", ["{", "[]", '{"case": {}}', '{"case": 3, "status": "ok"}', '{"x": 1}', '{"median_s": NaN}', "null"]
)
def test_junk_inside_a_run_is_an_error_with_its_line(run: Run, line: str) -> None:
    run.append(record())
    with (run.folder / "records.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(StoreError, match=r"records\.jsonl:2: "):
        run.records()


def test_an_existing_run_is_never_written_over(run: Run) -> None:
    before = (run.folder / "config.json").read_bytes()
    with pytest.raises(StoreError, match="holds a run already"):
        Run.create(run.folder, {}, {})
    assert (run.folder / "config.json").read_bytes() == before


@pytest.mark.parametrize("text", ["", "[]", '{"schema": 99}', "{"])
def test_a_folder_that_is_no_run_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(StoreError, match="no run here"):
        Run.open(tmp_path)
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(StoreError):
        Run.open(tmp_path)


def test_a_folder_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        Run.create(tmp_path / "file" / "run", {}, {})


@pytest.mark.parametrize(
    "changes",
    [
        {"status": "fine"},
        {"status": "crashed"},
        {"median_s": None},
        {"samples_s": [float("nan")]},
        {"samples_s": [-1.0]},
    ],
)
def test_a_record_that_contradicts_itself_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(StoreError):
        replace(record(), **changes)


def test_the_frame_takes_ratios_of_right_results_only() -> None:
    table = frame([record(), record("fast", times=(0.1, 0.1, 0.1)), failed("wrong_result", "wrong")])
    speed = table.set_index("backend").speedup
    assert speed["python_loops"] == 1
    assert speed["fast"] == pytest.approx(10)
    assert np.isnan(speed["wrong"])
    alone = frame([failed("over_budget", "python_loops"), record("fast")])
    assert alone.speedup.isna().all(), "an estimate must never enter a ratio"


def test_repetitions_pool_their_samples_and_keep_the_worst_status() -> None:
    twice = [record(times=(1.0, 3.0)), record(times=(2.0, 2.0, 2.0), case={"repetition": 2})]
    (row,) = frame(twice).itertuples()
    assert (row.samples, row.median_s) == (5, 2.0)
    second = replace(failed("wrong_result", "python_loops"), case=replace(CASE, repetition=2))
    (row,) = frame([record(), second]).itertuples()
    assert row.status == "wrong_result"
    assert np.isnan(row.median_s)


def test_a_network_sum_is_count_weighted_and_never_partial() -> None:
    whole = [record("a", "l1", (1.0,) * 3), record("a", "l2", (2.0,) * 3, case={"count": 1})]
    broken = [record("b", "l1"), failed("timeout", "b", "l2")]
    sums = tables.network_sums(frame(whole + broken)).set_index("backend")["resnet50 (ms)"]
    assert sums["a"] == "4,000"
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
    assert cells.loc["l1", "python_loops"] == "right, 0.1 of bound"
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
    run.append(failed("over_budget", "numba_direct"))
    missing = report.write_report(run, tmp_path / "out", None)
    assert len(missing) == 4
    assert "over_budget" in (tmp_path / "out" / "README.md").read_text()


def test_a_report_leaves_nothing_of_an_earlier_one(run: Run, tmp_path: Path) -> None:
    report.write_report(full_run(run), tmp_path / "out", None)
    other = Run.create(tmp_path / "other", {"command": "", "cases": []}, run.environment)
    other.append(record(case={"workload": "smoke"}))
    report.write_report(other, tmp_path / "out", None)
    assert {path.stem for path in (tmp_path / "out" / "figures").iterdir()} == {"filters"}
    assert not (tmp_path / "out" / "tables" / "ladder.csv").exists()


def test_ratio_divides_the_slow_by_the_fast() -> None:
    result = tables.ratio(frame([record("a"), record("b", times=(0.25,) * 3)]), "b", "a")
    assert list(result["b over a"]) == [4.0]


def test_ladder_counts_only_layers_every_backend_measured() -> None:
    records = [record("python_loops", "l1"), record("numba_direct", "l1", (0.1,) * 3)]
    records += [failed("over_budget", "python_loops", "l2"), record("numba_direct", "l2", (0.001,) * 3)]
    rungs = tables.ladder(frame(records), "resnet50").set_index("backend")
    assert rungs.speedup["numba_direct"] == pytest.approx(10)
    assert rungs.layers["numba_direct"] == 1


@pytest.mark.parametrize(
    ("samples", "words"),
    [([1.0] * 5, ""), ([1.0], "only 1 sample"), ([1.0, 1.0, 2.0, 2.0], "spread"), ([1e-7] * 5, "too short to time")],
)
def test_weak_numbers_say_why(samples: list[float], words: str) -> None:
    assert words in stats.weakness(samples)
    assert bool(words) == bool(stats.weakness(samples))


@pytest.mark.parametrize(
    ("a", "b", "word"),
    [
        ([1.0] * 5, [2.0] * 5, "slower"), ([2.0] * 5, [1.0] * 5, "faster"), ([1.0] * 5, [1.02] * 5, "uncertain"),
        ([1.0, 1.0, 3.0, 3.0], [2.5, 2.5, 2.6, 2.6], "uncertain"), ([1.0, 1.0], [2.0] * 5, "too_few_samples"),
    ],
)  # fmt: skip
def test_verdicts_want_a_margin_and_no_overlap(a: list[float], b: list[float], word: str) -> None:
    assert stats.verdict(a, b, 0.05) == word


def test_compare_points_the_right_way_and_sees_what_broke() -> None:
    old = [record("a"), record("b"), record("c"), failed("timeout", "d"), record("f")]
    new = [
        record("a", times=(2.0,) * 3),
        record("b", times=(0.5,) * 3),
        failed("wrong_result", "c"),
        record("d"),
        record("e"),
    ]
    changes = compare_runs(old, new, 0.05).set_index("backend")
    assert dict(changes.verdict) == {"a": "slower", "b": "faster", "c": "broke", "d": "mended", "f": "gone"}
    assert changes.ratio["a"] == 2


def full_run(run: Run) -> Run:
    speeds = {"python_loops": 1.0, "numpy_im2col": 0.3, "numpy_strided": 0.01, "scipy_fft": 0.02, "numba_direct": 0.005}
    for backend, seconds in speeds.items():
        for layer in ("l1", "l2 | <b>odd</b>"):
            run.append(record(backend, layer, (seconds, seconds * 1.01, seconds * 1.05)))
        for size in (16, 32):
            label = f'mb1ic8ih{size}oc8oh{size}kh3ph1n"image {size}"'
            case = {"workload": "sizes", "label": label}
            run.append(record(backend, f"image {size}", (seconds * size,) * 3, case=case))
    run.append(failed("wrong_result", "auto"))
    return run


def test_a_report_holds_tables_figures_and_what_failed(run: Run, tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("top\n<!-- begin generated: results -->\nold\n<!-- end generated: results -->\nbottom\n")
    out = tmp_path / "out"
    assert report.write_report(full_run(run), out, readme) == []
    for name in plots.FIGURES:
        assert (out / "figures" / f"{name}.png").stat().st_size > 10_000
        assert "<svg" in (out / "figures" / f"{name}.svg").read_text()[:1000]
    page = (out / "README.md").read_text()
    for link in re.findall(r"\]\(([^)]+)\)", page):
        assert (out / link).exists(), link
    assert "wrong_result" in page
    cases = pd.read_csv(out / "tables" / "cases.csv")
    assert len(cases) == 21
    assert cases[cases.status != "ok"].median_s.isna().all()
    assert "l2 \\| <b>odd</b>" in (out / "tables" / "winners.md").read_text()
    text = readme.read_text()
    assert "old" not in text
    assert "| backend" in text
    assert text.startswith("top\n")
    assert text.endswith("bottom\n")


def test_a_wrong_result_is_never_drawn(run: Run) -> None:
    for size in (16, 32):
        label = f'mb1ic8ih{size}oc8oh{size}kh3ph1n"image {size}"'
        run.append(record("numba_direct", f"image {size}", case={"workload": "sizes", "label": label}))
        bad = replace(CASE, workload="sizes", layer=f"image {size}", label=label, backend="scipy_fft")
        run.append(Record(bad, "wrong_result", "off", "e"))
    axes = plots.time_vs_size(frame(run.records()), run.environment).axes[0]
    assert [text.get_text() for text in axes.texts] == ["numba_direct"]


def test_figures_a_run_has_no_cases_for_are_named(run: Run, tmp_path: Path) -> None:
    run.append(record(case={"workload": "smoke"}))
    missing = report.write_report(run, tmp_path / "out", None)
    assert [text.split(":")[0] for text in missing] == [
        "figure time_vs_size", "figure ladder", "figure resnet50_heatmap", "figure error_vs_speed",
    ]  # fmt: skip
    with pytest.raises(StoreError, match="no finished cases"):
        report.write_report(Run.create(tmp_path / "empty", {"cases": []}, {}), tmp_path / "out", None)


def test_the_same_records_give_the_same_tables_and_svg(run: Run, tmp_path: Path) -> None:
    full_run(run)
    for name in ("a", "b"):
        report.write_report(run, tmp_path / name, None)
    for path in (tmp_path / "a").rglob("*"):
        if path.suffix in (".csv", ".md", ".svg"):
            assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes(), path


def test_records_are_plain_json_without_nan(run: Run) -> None:
    run.append(record())
    (line,) = (run.folder / "records.jsonl").read_text().splitlines()
    assert json.loads(line)["case"]["label"] == LABEL
    with pytest.raises(ValueError, match="JSON"):
        run.append(replace(record(), error=float("nan")))
