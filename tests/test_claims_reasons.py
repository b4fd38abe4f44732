"""What stands next to the numbers, worked out by hand: compile time of a network alone, ratios at a glance, reasons."""

from __future__ import annotations

from typing import Any

import handmade
import pandas as pd
import pytest
from records import failed, record

from bench.analysis import ratios, tables
from bench.analysis.compiling import compile_seconds
from bench.analysis.findings import findings
from bench.analysis.frame import frame
from bench.analysis.numbers import NOTE
from bench.analysis.overview import overview
from bench.analysis.reasons import explained, why
from bench.analysis.sentences import headline
from bench.report.charts import charts, layer_rows, network_rows
from bench.store.records import Record

FEW_TURNS: dict[str, Any] = {"disturbed_s": [9.0] * 10}
WHY = "disturbed in 10 of 12 turns"


def timed(network: str, layer: str, backend: str, seconds: float = 1.0, **changes: Any) -> Record:
    """A right case; each layer is a problem of its own, unless ``size`` says otherwise."""
    size = changes.pop("size", 10 + sum(map(ord, network + layer)))
    if "disturbed_s" in changes:
        changes["turns_s"] = [seconds] * 2
    case = {"workload": network, "label": f'mb1ic8ih{size}oc8oh{size}kh3ph1n"{layer}"'}
    return record(backend, layer, (seconds,) * 8, case=case, **({"mode": "planned"} | changes))


def compiled(*records: Record) -> dict[tuple[str, str], float]:
    seconds = compile_seconds(frame(records))
    return {(network, backend): value for (network, _, backend), value in seconds.items()}


def test_a_network_pays_for_the_kernels_that_another_one_compiled() -> None:
    found = compiled(
        timed("first", "a", "auto", compile_s=2.0, algorithm="simd"),
        timed("first", "b", "auto", compile_s=0.5, algorithm="simd"),
        timed("first", "c", "auto", compile_s=4.0, algorithm="winograd"),
        timed("second", "d", "auto", compile_s=0.0, algorithm="simd"),
        timed("third", "e", "auto", compile_s=0.25, algorithm="simd"),
    )
    # The first compiled all; the others need only the kernels of simd, whose longest compilation took 2 s.
    assert found == {("first", "auto"): 6.5, ("second", "auto"): 2.0, ("third", "auto"): 2.0}


def test_a_library_that_compiles_each_layer_is_charged_their_sum() -> None:
    found = compiled(
        timed("first", "a", "jax", compile_s=2.0), timed("first", "b", "jax", compile_s=1.0),
        timed("second", "c", "jax", compile_s=1.5), timed("second", "d", "jax", compile_s=1.5),
    )  # fmt: skip
    assert found == {("first", "jax"): 3.0, ("second", "jax"): 3.0}


def test_equal_layers_are_compiled_once_in_a_network_and_by_each_network() -> None:
    found = compiled(
        timed("first", "a", "jax", compile_s=2.0, size=12), timed("first", "again", "jax", compile_s=0.0, size=12),
        timed("second", "b", "jax", compile_s=0.0, size=12), timed("second", "c", "jax", compile_s=1.0),
    )  # fmt: skip
    assert found == {("first", "jax"): 2.0, ("second", "jax"): 3.0}


def test_threads_backends_and_failed_cases_do_not_pay_for_each_other() -> None:
    records = [
        timed("first", "a", "auto", compile_s=2.0, algorithm="simd"),
        timed("second", "b", "numba_simd", compile_s=0.5, algorithm="simd"),
        failed("crashed", "jax"),
    ]
    assert compiled(*records) == {("first", "auto"): 2.0, ("second", "numba_simd"): 0.5}


def test_the_costs_of_a_run_are_those_of_each_network() -> None:
    content = tables.costs(
        frame([
            timed("first", "a", "auto", compile_s=2.0, algorithm="simd"),
            timed("second", "b", "auto", compile_s=0.0, algorithm="simd", prepare_s=4.0),
            timed("second", "b", "numpy_strided", 3.0, mode="eager", compile_s=0.0),
        ])
    ).set_index(["network", "backend"])  # fmt: skip
    assert content.compile_s["second", "auto"] == 2.0
    # 6 s over 2 times 2 s a pass.
    assert content["pays off after"]["second", "auto"] == 2


def test_the_ratios_at_a_glance() -> None:
    table = handmade.table()
    found = overview(table[table.threads == 1])
    assert found is not None
    assert (found.reference, found.threads, found.eager) == ("auto", 1, {"auto_eager", "torch_nchw"})
    expected = {
        "auto": (1, 1), "auto_eager": (23 / 19.5, None), "auto_strict": (37 / 19.5, None),
        "onnxruntime": (35 / 19.5, 100 / 80), "torch_nchw": (36 / 19.5, 120 / 80),
    }  # fmt: skip
    assert list(found.ratios.index) == list(expected), "ours first, and the faster first"
    for name, (first, second) in expected.items():
        assert found.ratios["resnet50"][name] == pytest.approx(first, rel=0.02)
        assert found.ratios["vgg16"][name] == pytest.approx(second) if second else pd.isna(found.ratios["vgg16"][name])
    assert [name for name in found.ratios.index if found.best["resnet50"][name]] == ["auto"]
    assert found.texts().loc["auto_eager"].tolist() == ["1.18", ""]
    assert not found.weak.any(axis=None)


def test_without_auto_the_backend_with_the_least_time_is_the_unit() -> None:
    records = [timed("n", "a", "numba_simd", 2.0), timed("n", "a", "scipy_fft", 6.0), timed("n", "a", "jax", 1.0)]
    found = overview(frame(records[:2]))
    assert found is not None
    assert found.ratios["n"].to_dict() == pytest.approx({"numba_simd": 1.0, "scipy_fft": 3.0})
    # With a library, only ours in its public ways and the libraries have rows.
    beside = overview(frame(records))
    assert beside is not None
    assert list(beside.ratios.index) == ["jax"]
    assert overview(frame([failed("crashed", "auto")])) is None


def test_the_reason_names_the_layer_that_matters_most() -> None:
    records = [
        timed("n", "small", "auto", 1.0, **FEW_TURNS), timed("n", "large", "auto", 5.0, **FEW_TURNS),
        timed("n", "fine", "auto", 0.1),
    ]  # fmt: skip
    assert why(frame(records)) == f"large: {WHY}; 1 more layer"
    assert why(frame(records[2:])) == ""
    assert why(frame(records[:1])) == WHY
    # A weak layer that does not make the sum weak is no reason.
    assert why(frame([timed("n", "a", "auto", 100.0), timed("n", "b", "auto", 1.0, **FEW_TURNS)])) == ""
    missing = [*records, failed("over_budget", "auto", "l1")]
    table = frame(missing).assign(network="n")
    assert why(table) == "l1: over budget: because", "a missing layer comes before weak ones"


def test_each_row_of_a_table_has_the_reasons_of_its_backends() -> None:
    table = frame([
        timed("n", "a", "auto", 1.0), timed("n", "a", "jax", 2.0, **FEW_TURNS), timed("n", "a", "onnxruntime", 3.0),
        timed("n", "b", "auto", 1.0), timed("n", "b", "jax", 2.0), timed("n", "b", "onnxruntime", 3.0),
    ])  # fmt: skip
    content = explained(ratios.against(table), table, "backend", "ours").set_index("backend")
    assert content.why.to_dict() == {
        "auto": "", "jax": f"a: {WHY}", "onnxruntime": "", ratios.BEST: f"a: {WHY}",
    }  # fmt: skip
    assert list(content.columns[-2:]) == ["why", "weak"]
    layers = explained(ratios.best_peer_by_layer(table), table, "auto", "theirs").set_index("layer")
    assert layers.why.to_dict() == {"a": WHY, "b": ""}
    fine = ratios.against(table[table.backend != "jax"])
    assert "why" not in explained(fine, table[table.backend != "jax"], "backend")


def test_one_sentence_counts_the_workloads() -> None:
    both = [
        timed("x", "a", "auto", 1.0), timed("x", "a", "jax", 1.5), timed("x", "a", "onnxruntime", 9.0),
        timed("y", "b", "auto", 2.0), timed("y", "b", "jax", 1.0),
        timed("z", "c", "auto", 1.0), timed("z", "c", "jax", 1.01),
    ]  # fmt: skip
    start = "With 1 thread, auto is faster than the best other library on 1 of 3 workloads (1.50 times as fast)"
    assert headline(frame(both)) == f"{start} and slower on 1 (takes 2.00 times as long); 1 cannot be told apart"
    ours = [one for one in both if one.case.backend == "auto"] + [timed("x", "a", "numba_simd", 0.5)]
    assert headline(frame(ours)) == "With 1 thread, auto takes the least time on 2 of 3 workloads"
    assert headline(frame(both[:3])).startswith("auto is 1.50 times as fast as jax, the best other library, on x, ")
    assert headline(frame([])) == ""


def test_a_terminal_shows_the_sentence_and_the_ratios_with_the_best_marked() -> None:
    table = handmade.table()
    lines = findings(table[table.threads == 1])
    texts = ["".join(piece.text for piece in line) for line in lines]
    assert lines[0][0].best
    assert lines[0][0].text == headline(table[table.threads == 1])
    assert ["resnet50", "vgg16"] in [text.split() for text in texts]
    (row,) = [line for line, text in zip(lines, texts, strict=True) if text.startswith("auto  ")]
    assert [piece.best for piece in row] == [False, True, True]
    (row,) = [line for line, text in zip(lines, texts, strict=True) if text.startswith("onnxruntime")]
    assert [piece.text.strip() for piece in row] == ["onnxruntime", "1.79", "1.25"]
    assert not any(piece.best for piece in row)
    weak = table.assign(bias=table.bias.where(table.backend != "auto", 0.5))
    assert any(NOTE in piece.text for line in findings(weak) for piece in line)


def test_the_charts_hold_the_times_and_ratios_of_the_run() -> None:
    table = tables.plain(handmade.table())
    rows = {(row["network"], row["threads"], row["backend"]): row for row in network_rows(table)}
    row = rows["resnet50", 1, "auto"]
    # The best library is onnxruntime, with 35 ms.
    assert (row["ms"], row["relative"]) == (pytest.approx(19.5, rel=1e-3), pytest.approx(19.5 / 35, rel=0.02))
    assert row["low"] < row["relative"] < row["high"]
    assert rows["resnet50", 1, "onnxruntime"]["relative"] == 1
    assert ("resnet50", 2, "auto_eager") not in rows, "a partial sum would look fast"
    layers = {(row["network"], row["threads"], row["layer"], row["backend"]): row for row in layer_rows(table)}
    row = layers["resnet50", 1, "body", "auto"]
    # torch_nchw takes 2 ms, and the network has the layer three times.
    assert (row["ms"], row["relative"], row["total"]) == (pytest.approx(2.5), pytest.approx(1.25), pytest.approx(7.5))
    assert ("resnet50", 1, "tail", "python_loops") not in layers


def test_a_chart_offers_what_the_run_has() -> None:
    made = charts(tables.plain(handmade.table()))
    known = {chart["name"]: chart for chart in made["charts"]}
    assert known.keys() == {"networks", "layers", "parts"}
    assert known["layers"]["choices"] == {"network": ["resnet50", "vgg16"], "threads": [2, 1]}
    assert list(known["networks"]["views"]) == ["relative to the best library", "milliseconds"]
    looks = [(each["light"], each["path"]) for each in made["backends"]]
    assert len(set(looks)) == len(looks) == 12
    alone = charts(frame([timed("n", "a", "auto", 1.0)]))
    assert "relative to the fastest backend" in alone["charts"][0]["views"]
    assert charts(frame([failed("crashed", "auto")]))["charts"] == []


@pytest.mark.parametrize("backend", ["auto", "mine", "auto@v0.3.0"])
def test_other_versions_are_in_no_chart(backend: str) -> None:
    version = "abc" if "@" in backend else ""
    made = charts(frame([timed("n", "a", backend, version=version)]))
    assert [each["name"] for each in made["backends"]] == ([] if version else [backend])
