"""Weak measurements: where they are found, and that every number which depends on them carries the mark."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from records import CASE, machine, new_run, record, store

from bench.analysis import numbers, ratios, tables
from bench.analysis.frame import frame
from bench.analysis.intervals import Ratio
from bench.analysis.numbers import NOTE
from bench.analysis.sums import Sum, along, by_backend, total
from bench.analysis.twins import disagreements
from bench.analysis.writing import csv, markdown
from bench.cli import terminal
from bench.report import readme, write
from bench.report.headline import headline
from bench.report.heatmap import heatmap
from bench.report.layers import layers, shares
from bench.report.roofline import roofline
from bench.report.sizes import time_vs_size
from bench.store.records import Record

# A library that took nine threads where it was given one: weak, whatever the spread.
WEAK: dict[str, Any] = {"threads_seen": "torch 9"}


def timed(backend: str, layer: str, seconds: float, **changes: Any) -> Record:
    """Eight turns of this time; l1 is in the network twice, l2 once."""
    case = {"count": {"l1": 2}.get(layer, 1)}
    return record(backend, layer, (seconds,) * 8, case=case, **({"mode": "planned"} | changes))


@pytest.fixture
def table() -> pd.DataFrame:
    """A network of two layers; weak are the peer and numba_direct, on l1."""
    return frame([
        timed("python_loops", "l1", 10.0, mode="eager"), timed("python_loops", "l2", 10.0, mode="eager"),
        timed("auto", "l1", 1.0, algorithm="numba_simd"), timed("auto", "l2", 1.0, algorithm="numba_simd"),
        timed("numba_simd", "l1", 1.0), timed("numba_simd", "l2", 1.0),
        timed("numba_direct", "l1", 0.5, executed_flops=1e9, fma_peak_gflops=10.0, **WEAK),
        timed("numba_direct", "l2", 3.0),
        timed("torch_prepacked", "l1", 2.0, **WEAK), timed("torch_prepacked", "l2", 0.5),
    ])  # fmt: skip


def marks_of(content: pd.DataFrame, *keys: str) -> dict[Any, str]:
    """The column ``weak`` of a table, by some of its columns."""
    found = content.set_index(list(keys)).weak.to_dict()
    return {key: names for key, names in found.items() if names}


def test_a_sum_is_weak_where_it_may_be_more_than_a_tenth_too_long() -> None:
    def layers(noise: list[float], bias: list[float]) -> pd.DataFrame:
        return pd.DataFrame({"count": [2, 1], "median_s": [4.0, 2.0], "noise": noise, "bias": bias})

    assert total(layers([0.0, 0.0], [0.0, 0.5])) == Sum(10.0, 2, False), "exactly a tenth of 10 s"
    assert total(layers([0.0, 0.0], [0.0, 0.55])).weak, "1.1 of 10 s"
    assert not total(layers([0.1, 0.3], [0.0, 0.0])).weak, "0.8 s and 0.6 s by chance: 1 s together"
    assert total(layers([0.1, 0.3], [0.01, 0.0])).weak, "and 0.08 s of another kind"
    assert not total(layers([0.0, 0.0], [0.0, 0.6])[:0]).weak


def test_sums_count_layers_and_weights(table: pd.DataFrame) -> None:
    sums = by_backend(table).set_index("backend")
    assert sums.sum_s.to_dict() == {
        "python_loops": 30.0, "auto": 3.0, "numba_simd": 3.0, "numba_direct": 4.0, "torch_prepacked": 4.5,
    }  # fmt: skip
    assert list(sums.index[sums.weak]) == ["numba_direct", "torch_prepacked"]
    part = by_backend(table[(table.backend != "auto") | (table.layer == "l1")]).set_index("backend")
    assert (part.measured["auto"], part.layers["auto"], part.whole["auto"]) == (1, 2, False)


def test_sums_along_an_axis_are_of_the_layers_measured_at_each_point() -> None:
    rows = [("a", 1, 4.0), ("a", 2, 2.0), ("b", 1, 9.0)]
    cases = pd.DataFrame(rows, columns=["label", "threads", "median_s"]).assign(count=3, noise=0.0, bias=0.0)
    assert {threads: found.seconds for threads, found in along(cases, "threads").items()} == {1: 12.0, 2: 6.0}
    assert along(cases[1:], "threads") == {}


def test_every_table_names_its_weak_numbers(table: pd.DataFrame) -> None:
    sums = tables.network_sums(table)
    assert marks_of(sums, "backend") == dict.fromkeys(["numba_direct", "torch_prepacked"], "resnet50 (ms)")
    assert sums.set_index("backend")["resnet50 (ms)"]["numba_direct"] == 4000

    peer = "sum (ms); ratio"
    assert marks_of(ratios.against(table), "backend") == {
        "numba_direct": peer, "torch_prepacked": peer, ratios.BEST: peer,
    }  # fmt: skip
    (line,) = ratios.headlines(table).itertuples(index=False)
    assert (line.ratio, line.weak) == (1.5, "ratio; layers below 0.9")
    assert marks_of(ratios.best_peer_by_layer(table), "layer") == {"l1": "their ms; ratio"}
    (lost,) = ratios.regret(table).itertuples(index=False)
    assert (lost.regret, lost.weak) == (1.5, "best of ours by layer (ms); regret; its regret")

    assert marks_of(tables.winners(table), "layer") == {"l1": "median_ms; gflops_effective; lead"}
    assert marks_of(tables.costs(table), "backend") == dict.fromkeys(
        ["numba_direct", "torch_prepacked"], "run_s; pays off after"
    )
    assert marks_of(tables.ladder(table, "resnet50"), "backend") == {
        "numba_direct": "speedup; fastest_layer", "torch_prepacked": "speedup; slowest_layer",
    }  # fmt: skip
    rates = "gflops_effective; gflops_executed; executed_percent_of_peak"
    found = marks_of(tables.utilisation(table), "backend", "layer")
    assert found == {("numba_direct", "l1"): rates, ("torch_prepacked", "l1"): rates}
    over = tables.ratio(table, "numba_direct", "numba_simd")
    assert marks_of(over, "layer") == {"l1": "median_s_fast; numba_direct over numba_simd"}


def test_a_ratio_of_sums_is_weak_where_either_side_is() -> None:
    fast, slow = timed("a", "l1", 1.0), timed("b", "l1", 2.0, **WEAK)
    (row,) = ratios.fastest_by_network(frame([fast, slow])).itertuples()
    assert (row.fastest, row.weak) == ("a", "second_takes")
    (row,) = ratios.fastest_by_network(frame([timed("a", "l1", 1.0, **WEAK), timed("b", "l1", 2.0)])).itertuples()
    assert row.weak == "sum_ms; second_takes"
    (row,) = ratios.fastest_by_network(frame([fast, timed("b", "l1", 2.0)])).itertuples()
    assert row.weak == ""


def test_the_gain_by_threads_is_weak_where_either_sum_is() -> None:
    case = dict.fromkeys(["workload", "direction", "cache", "dtype", "backend", "label"], "x")
    both = pd.DataFrame([case, case]).assign(batch=1, count=1, status="ok", threads=[1, 2], median_s=[1.0, 0.5])
    both = both.assign(noise=0.0, bias=[0.5, 0.0])
    assert list(tables.thread_efficiency(both).weak) == ["sum_s", "speedup; efficiency"]
    assert list(tables.thread_efficiency(both.assign(bias=0.0)).weak) == ["", ""]


def test_a_speedup_is_weak_where_the_loops_are() -> None:
    table = frame([timed("python_loops", "l1", 10.0, **WEAK), timed("a", "l1", 1.0), timed("a", "l2", 1.0)])
    assert list(table.speedup_weak) == [True, True, False]


@pytest.mark.parametrize(
    ("auto", "simd", "weak"),
    [
        (1.31, 1.0, {"auto": "same kernels as numba_simd, yet 1.31 times as slow"}),
        (1.0, 1.5, {"numba_simd": "same kernels as auto, yet 1.50 times as slow"}),
        (1.09, 1.0, {}), (1.0, 1.09, {}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["auto", "auto_strict"])
def test_the_slower_of_two_runs_of_the_same_kernels_is_weak(
    name: str, auto: float, simd: float, weak: dict[str, str]
) -> None:
    chooser = timed(name, "l1", auto, algorithm="numba_simd")
    table = frame([chooser, timed("numba_simd", "l1", simd), timed("numba_direct", "l1", 9.0)])
    found = table[table.weak != ""].set_index("backend").weak.to_dict()
    assert found == {key.replace("auto", name): text.replace("auto", name) for key, text in weak.items()}


def test_twins_are_compared_over_their_common_turns_only() -> None:
    rows = pd.DataFrame({
        "backend": ["auto", "numba_simd"], "algorithm": ["numba_simd", ""], "status": "ok", "workload": "w",
        "layer": "l", "label": "l", "threads": 1, "direction": "fwd", "cache": "warm",
        "turns": [{(1, i): 1.0 if i < 6 else 9.0 for i in range(9)}, {(1, i): 1.0 for i in range(6)}],
    })  # fmt: skip
    assert list(disagreements(rows)) == []

    def of(auto: list[float], simd: list[float], repetition: int = 1) -> list[Any]:
        turns = [{(1, i): s for i, s in enumerate(auto)}, {(repetition, i): s for i, s in enumerate(simd)}]
        return list(disagreements(rows.assign(turns=turns)))

    assert of([1.0] * 6, [5.0] * 6) == [(1, "same kernels as auto, yet 5.00 times as slow", 0.8)]
    assert of([1.0] * 6, [5.0] * 6, repetition=2) == [], "no turn in common"
    assert of([1.0] * 5, [5.0] * 5) == [], "too few to tell"
    assert of([1.0] * 6, [5.0] * 5 + [0.9]) == [], "noise: not slower in every turn"
    assert list(disagreements(rows.assign(algorithm="Mkldnn"))) == [], "the chosen backend was not measured"


def test_a_reason_to_be_weak_joins_the_others() -> None:
    table = frame([timed("auto", "l1", 2.0, algorithm="numba_simd", **WEAK), timed("numba_simd", "l1", 1.0)])
    assert table.weak[0] == "threads: torch 9, same kernels as numba_simd, yet 2.00 times as slow"


def test_numbers_have_one_look() -> None:
    cases: list[tuple[object, str]] = [
        (0.0, "0"), (0.99996, "1.00"), (12.0, "12"), (12.34, "12.3"), (999.4, "999"), (999.6, "1,000"),
        (-12345.6, "-12,346"), (1.5e-7, "1.50e-07"), (float("inf"), "inf"), (float("nan"), ""), (None, ""),
        (np.float64(2.346), "2.35"), (np.int64(1234), "1,234"), (True, "True"),
        ("a|b", "a|b"), (Ratio(2.0, 1.5, 12.34, 6, ""), "2.00 (1.50 to 12.3)"),
    ]  # fmt: skip
    assert [numbers.cell(value) for value, _ in cases] == [text for _, text in cases]
    assert numbers.duration(0.9999) == "1.00 s"
    assert numbers.duration(3e-10) == "0.300 ns"
    assert numbers.percent(0.874, weak="why") == "~87%"


def test_a_table_for_people_has_signs_and_one_for_programs_has_numbers() -> None:
    content = pd.DataFrame({
        "backend": ["a", "b"], "sum; of | all (ms)": [1234.5678, "1 of 2"], "ratio": [1.5, None],
        "weak": ["sum; of | all (ms)", "ratio"],
    })  # fmt: skip
    texts, note = numbers.shown(content)
    assert texts.to_numpy().tolist() == [["a", "~1,235", "1.50"], ["b", "1 of 2", ""]], "an empty cell has no sign"
    assert note == NOTE == "~: may be wrong by more than 10%, since it depends on weak measurements"
    assert numbers.shown(content.assign(weak=""))[1] == ""
    assert markdown(content).endswith(f"|\n\n{NOTE}.")
    assert NOTE not in markdown(content.assign(weak=""))
    stored = pd.read_csv(StringIO(csv(content)))
    assert list(stored["sum; of | all (ms)"]) == ["1234.57", "1 of 2"]
    assert list(stored.weak) == list(content.weak)


def test_the_terminal_shows_signs_and_what_they_mean(capsys: pytest.CaptureFixture[str]) -> None:
    content = pd.DataFrame({"backend": ["a"], "ms": [1.2345], "weak": ["ms"]})
    terminal.print_table(content)
    marked = capsys.readouterr().out
    assert "~1.23" in marked
    assert NOTE in marked
    assert "weak " not in marked.replace(NOTE, "")
    terminal.print_table(content.assign(weak=""))
    assert "~" not in capsys.readouterr().out


def test_the_block_of_the_readme_and_every_page_carry_the_mark(table: pd.DataFrame, tmp_path: Path) -> None:
    block = "\n".join(readme.ratios(table))
    # 4.5 s over 3 s; only the library is weak.
    assert "| ~1.50 " in block
    assert "| **1.00** " in block
    assert f"\n{NOTE}.\n" in block
    run = new_run(tmp_path / "run", CASE)
    store(run, timed("python_loops", "l1", 1.0), timed("auto", "l1", 0.25, **WEAK))
    write.write_report(run, tmp_path, None)
    text = (tmp_path / "report.html").read_text()
    assert NOTE in text
    assert "~250" in text
    assert NOTE in (tmp_path / "README.md").read_text()
    sums = pd.read_csv(tmp_path / "tables" / "network_sums.csv").set_index("backend")
    assert (sums.weak["auto"], sums.why["auto"]) == ("resnet50 (ms)", "threads: torch 9")
    cases = pd.read_csv(tmp_path / "tables" / "cases.csv").set_index("backend")
    assert cases.median_s.to_dict() == {"python_loops": 1.0, "auto": 0.25}
    assert cases.weak["auto"] == "threads: torch 9"


def texts_of(figure: Any) -> tuple[str, list[str], str]:
    """Title, texts in the first axes, note."""
    drawn = [text.get_text().strip() for text in figure.axes[0].texts]
    return " ".join(figure.get_suptitle().split()), drawn, figure.get_supxlabel()


def test_figures_mark_weak_numbers_and_points(table: pd.DataFrame) -> None:
    title, drawn, note = texts_of(heatmap(table, {}, "resnet50"))
    # Weak are two cells, and with numba_direct, the fastest of l1, all of that row.
    assert title == "resnet50: auto reaches 90% of the fastest on ~0 of 2 layers, fewer than numba_direct (~1)"
    assert sum(text.startswith("~") for text in drawn) == 5
    assert NOTE in note
    title, drawn, note = texts_of(roofline(table, machine()))
    assert title.startswith("resnet50: 0 of 2 layers reach 85%")
    assert drawn.count("~") == 1, "the peer's point on l1"
    assert NOTE in note
    weak = table.assign(weak=table.weak.where(table.backend != "auto", "may be 50% too long"))
    title, drawn, _ = texts_of(roofline(weak, machine()))
    assert title.startswith("resnet50: ~0 of 2 layers reach 85%")
    assert any(text.startswith("l1: ~") for text in drawn)
    title, drawn, note = texts_of(headline(table, {}))
    # auto 3 s, torch_prepacked 4.5 s, which is weak: l1 has 4 of them.
    assert title.startswith("auto is faster than the best library on ~resnet50: ~1.50 times as fast")
    assert set(drawn) == {"~0.67", "~1.00"}
    assert NOTE in note
    title, drawn, note = texts_of(layers(table, {}, "resnet50"))
    assert sorted(drawn) == ["0.50", "~2.00"]
    assert "(faster for ~67% and slower for ~33% of its time)" in title
    assert NOTE in note
    title, drawn, note = texts_of(shares(table, {}, "resnet50"))
    assert sorted(drawn) == ["3 s", "~4.50 s"]
    assert NOTE in note
    fine = table.assign(weak="", speedup_weak=False, noise=0.0, bias=0.0)
    for draw in (heatmap, layers, shares):
        assert "~" not in "".join(map(str, texts_of(draw(fine, {}, "resnet50"))))
    assert "~" not in "".join(map(str, texts_of(headline(fine, {}))))


def test_the_time_against_the_size_marks_weak_points() -> None:
    def sized(backend: str, size: int, seconds: float, **changes: Any) -> Record:
        case = {"workload": "sizes", "label": f'mb1ic8ih{size}oc8oh{size}kh3ph1n"image {size}"'}
        return record(backend, f"image {size}", (seconds,) * 8, case=case, **changes)

    records = [sized(name, size, factor * size) for name, factor in (("a", 1e-3), ("b", 2e-3)) for size in (16, 32)]
    title, drawn, note = texts_of(time_vs_size(frame(records), {}))
    assert title == "At 32 pixels and 8 channels a takes 32 ms; b takes 2.00 times as long"
    assert "~" not in "".join([*drawn, note])
    records[-1] = sized("b", 32, 0.064, **WEAK)
    title, drawn, note = texts_of(time_vs_size(frame(records), {}))
    assert title == "At 32 pixels and 8 channels a takes 32 ms; b takes ~2.00 times as long"
    assert drawn.count("~") == 1
    assert NOTE in note
