"""What is claimed of a run, against figures worked out by hand from `handmade`: tables of sums, ratios, winners, costs.

The arithmetic stands beside each figure. `tests/wrong` holds wrong versions of the code; each fails here or in another
of the ``test_claims`` files. Limits: bounds of intervals and verdicts have tests of their own.
"""

from __future__ import annotations

from math import sqrt
from typing import Any

import handmade
import pandas as pd
import pytest

from bench.analysis import ratios, tables
from bench.analysis.sums import by_backend

approx = pytest.approx
# Most tables have a row for each of these.
ON = ["network", "threads"]
# Sums in ms: each layer's time as often as the network has the layer; none of those that did not measure all layers.
SUMS: dict[tuple[str, int], dict[str, float]] = {
    ("resnet50", 1): {
        "numpy_strided": 1 * 20 + 3 * 8 + 2 * 30,
        "numba_direct": 1 * 9 + 3 * 2.6 + 2 * 5, "numba_simd": 1 * 7 + 3 * 2.2 + 2 * 4.2,
        "numba_winograd_f4": 1 * 4.2 + 3 * 6 + 2 * 3, "auto": 1 * 4 + 3 * 2.5 + 2 * 4,
        "auto_strict": 1 * 8 + 3 * 1 + 2 * 13, "auto_eager": 1 * 5 + 3 * 4 + 2 * 3,
        "torch_nchw": 1 * 12 + 3 * 2 + 2 * 9, "onnxruntime": 1 * 6 + 3 * 5 + 2 * 7,
    },
    ("resnet50", 2): {
        "numba_direct": 1 * 3 + 3 * 2 + 2 * 4, "numba_simd": 1 * 4 + 3 * 1.2 + 2 * 2.6,
        "auto": 1 * 3.8 + 3 * 1.2 + 2 * 2.5, "torch_nchw": 1 * 5 + 3 * 1.8 + 2 * 6,
        "onnxruntime": 1 * 4 + 3 * 3 + 2 * 3.5,
    },
    ("vgg16", 1): {"numba_simd": 2 * 41, "auto": 2 * 40, "torch_nchw": 2 * 60, "onnxruntime": 2 * 50},
}  # fmt: skip
PARTIAL = {
    "python_loops": "2 of 3", "numpy_im2col": "0 of 3", "numba_winograd_f6": "2 of 3", "numba_depthwise": "1 of 3",
}  # fmt: skip
# The fastest library of each layer: onnxruntime, torch_nchw, onnxruntime on both numbers of threads.
BEST = {("resnet50", 1): 1 * 6 + 3 * 2 + 2 * 7, ("resnet50", 2): 1 * 4 + 3 * 1.8 + 2 * 3.5, ("vgg16", 1): 2 * 50}


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return handmade.table()


def by(content: pd.DataFrame, keys: list[str], *columns: str) -> dict[Any, Any]:
    """The cells of these columns by the row's keys; empty cells are None."""
    assert not content.duplicated(keys).any()
    plain = content.astype(object).where(content.notna(), None)
    rows = zip(*(plain[name] for name in keys), *(plain[name] for name in columns), strict=True)
    return {row[: len(keys)]: row[len(keys)] if len(columns) == 1 else row[len(keys) :] for row in rows}


def sums(unit: float = 1.0) -> dict[Any, Any]:
    """`SUMS` by network, threads and backend; in ms or, with 1e-3 for the unit, in seconds."""
    return {(*key, name): approx(unit * value) for key, each in SUMS.items() for name, value in each.items()}


def around(content: pd.DataFrame) -> None:
    """Each interval holds its value, and each verdict is on its side."""
    known = content[content.ratio.notna()]
    assert len(known)
    assert ((known.low <= known.ratio) & (known.ratio <= known.high)).all()
    assert (known.ratio[known["ours is"] == "faster"] > 1).all()
    assert (known.ratio[known["ours is"] == "slower"] < 1).all()


def test_a_median_is_of_all_turns_of_both_repetitions(table: pd.DataFrame) -> None:
    one = table[(table.network == "resnet50") & (table.threads == 1) & (table.layer == "stem")]
    (row,) = one[one.backend == "torch_nchw"].itertuples()
    # In order 10 11 12 12 12 12 14 15: quartiles at 1.75 and 5.25 steps.
    assert (row.median_s, row.q1_s, row.q3_s) == approx((12e-3, 11.75e-3, 12.5e-3))
    assert (row.iqr_s, row.gflops_effective) == approx((0.75e-3, 9e6 / 12e-3 / 1e9))
    assert (row.samples, row.stalled_share) == (4 + 12, approx((4 * 0.5 + 12 * 0.0) / 16))
    assert len(row.turns) == 8
    assert (row.turns[1, 0], row.turns[1, 3], row.turns[2, 3]) == approx((10e-3, 12e-3, 15e-3))
    assert (row.error, row.mode) == (3e-6, "eager")


def test_one_wrong_repetition_takes_the_time_away(table: pd.DataFrame) -> None:
    wrong = table[table.backend == "numpy_im2col"]
    assert set(wrong.status) == {"wrong_result"}
    assert wrong[["median_s", "gflops_effective", "speedup"]].isna().all(axis=None)
    assert (set(wrong.error), set(wrong.error_over_bound)) == ({0.5}, {7.0})


def test_rates_are_of_the_definition_and_of_the_operations_executed(table: pd.DataFrame) -> None:
    rates = tables.utilisation(table[(table.network == "resnet50") & (table.threads == 1)])
    wanted = ["gflops_effective", "gflops_executed", "executed_percent_of_peak"]
    # 9e6 operations of the definition and 3.6e6 executed, in 4 ms, on a machine of 2 GFLOP/s.
    assert by(rates, ["backend", "layer"], *wanted)["auto", "stem"] == approx((2.25, 0.9, 45))
    assert by(rates, ["backend", "layer"], *wanted)["auto", "body"] == (approx(1.6), None, None)
    auto = table[(table.backend == "auto") & (table.layer == "stem")].iloc[0]
    assert (auto.executed_gflops, auto.utilisation) == approx((0.9, 0.45))


def test_sums_are_weighted_and_whole_or_none(table: pd.DataFrame) -> None:
    found = by_backend(table)
    assert by(found[found.whole], [*ON, "backend"], "sum_s") == sums(1e-3)
    shown = tables.network_sums(table)
    assert by(shown[shown.threads == 1], ["backend"], "resnet50 (ms)") == {
        **{(name,): text for name, text in PARTIAL.items()},
        **{(name,): approx(value) for name, value in SUMS["resnet50", 1].items()},
    }
    assert by(shown[shown.threads == 2], ["backend"], "resnet50 (ms)") == {
        **{(name,): "0 of 3" for name in handmade.ONE},
        ("auto_eager",): "1 of 3",
        **{(name,): approx(value) for name, value in SUMS["resnet50", 2].items()},
    }
    other = by(shown, ["backend", "threads"], "vgg16 (ms)")
    assert (other["auto", 1], other["numba_direct", 1], other["auto", 2]) == (approx(80), "0 of 1", "")
    slowest_idea_first = [
        "python_loops", "numpy_im2col", "numpy_strided", "numba_direct", "numba_simd", "numba_winograd_f4",
        "numba_winograd_f6", "numba_depthwise", "auto", "auto_strict", "auto_eager", "onnxruntime", "torch_nchw",
    ]  # fmt: skip
    assert list(shown.backend) == 2 * slowest_idea_first


def test_each_backend_is_held_against_ours_of_its_mode(table: pd.DataFrame) -> None:
    content = ratios.against(table)
    around(content)
    keys = [*ON, "backend"]
    partial = {("resnet50", 1, name): None for name in PARTIAL if name != "numpy_im2col"}
    partial["resnet50", 2, "auto_eager"] = None
    best = {(*key, "best peer"): approx(value) for key, value in BEST.items()}
    assert by(content, keys, "sum (ms)") == sums() | partial | best
    planned = {"numba_direct", "numba_simd", "numba_winograd_f4", "auto_strict", "onnxruntime"}
    eager = {"numpy_strided", "torch_nchw"}
    expected: dict[Any, Any] = {}
    for where, each in SUMS.items():
        expected |= {(*where, name): ("auto", each[name] / each["auto"]) for name in planned & each.keys()}
        expected[*where, "best peer"] = "auto", BEST[where] / each["auto"]
    # auto_eager has only the stem on two threads, and nothing on the other network: no anchor, no ratio.
    expected |= {("resnet50", 1, name): ("auto_eager", SUMS["resnet50", 1][name] / 23.0) for name in eager}
    assert by(content[content.ratio.notna()], keys, "ours") == {key: ours for key, (ours, _) in expected.items()}
    assert by(content[content.ratio.notna()], keys, "ratio") == {key: approx(v) for key, (_, v) in expected.items()}
    first = by(content[content.network == "resnet50"], ["threads", "backend"], "mode", "layers")
    assert first[1, "python_loops"] == ("eager", "2 of 3")
    assert first[1, "numba_winograd_f6"] == ("planned", "2 of 3")
    assert first[1, "torch_nchw"] == ("eager", "all 3")
    assert first[1, "onnxruntime"] == ("planned", "all 3")
    assert first[1, "best peer"] == ("either", "all 3")


def test_headlines_are_theirs_over_ours_and_name_the_worst_layer(table: pd.DataFrame) -> None:
    content = ratios.headlines(table)
    around(content)
    found = by(content, [*ON, "ours", "theirs"], "ratio", "layers below 0.9", "worst layer", "its ratio")
    assert found == {
        ("resnet50", 1, "auto", "best peer"): (approx(26 / 19.5), "1 of 3", "body", approx(2 / 2.5)),
        ("resnet50", 1, "auto_eager", "torch_nchw"): (approx(36 / 23), "1 of 3", "body", approx(2 / 4)),
        ("resnet50", 1, "auto_strict", "torch_nchw"): (approx(36 / 37), "1 of 3", "tail", approx(9 / 13)),
        ("resnet50", 2, "auto", "best peer"): (approx(16.4 / 12.4), "0 of 3", "stem", approx(4 / 3.8)),
        ("vgg16", 1, "auto", "best peer"): (approx(100 / 80), "0 of 1", "stem", approx(50 / 40)),
    }


def test_the_best_peer_is_the_fastest_library_of_each_layer(table: pd.DataFrame) -> None:
    content = ratios.best_peer_by_layer(table)
    around(content)
    found = by(content, [*ON, "layer"], "theirs", "their ms", "ours", "our ms", "ratio")
    assert found == {
        ("resnet50", 1, "stem"): ("onnxruntime", approx(6), "numba_winograd_f4", approx(4), approx(6 / 4)),
        ("resnet50", 1, "body"): ("torch_nchw", approx(2), "numba_direct", approx(2.5), approx(2 / 2.5)),
        ("resnet50", 1, "tail"): ("onnxruntime", approx(7), "numba_simd", approx(4), approx(7 / 4)),
        ("resnet50", 2, "stem"): ("onnxruntime", approx(4), "numba_simd", approx(3.8), approx(4 / 3.8)),
        ("resnet50", 2, "body"): ("torch_nchw", approx(1.8), "numba_simd", approx(1.2), approx(1.8 / 1.2)),
        ("resnet50", 2, "tail"): ("onnxruntime", approx(3.5), "numba_simd", approx(2.5), approx(3.5 / 2.5)),
        ("vgg16", 1, "stem"): ("onnxruntime", approx(50), "numba_winograd_f4", approx(40), approx(50 / 40)),
    }
    facts = by(content[content.threads == 1], ["network", "layer"], "count", "kernel", "our GFLOP/s")
    assert facts["resnet50", "body"] == (3, "1x1", approx(4e6 / 2.5e-3 / 1e9))
    assert facts["vgg16", "stem"] == (2, "3x3", approx(9e6 / 40e-3 / 1e9))


def test_winners_are_of_all_backends_but_choices(table: pd.DataFrame) -> None:
    found = by(tables.winners(table), [*ON, "layer"], "winner", "median_ms", "second", "lead")
    assert found == {
        ("resnet50", 1, "stem"): ("numba_winograd_f6", approx(3), "numba_winograd_f4", approx(4.2 / 3)),
        ("resnet50", 1, "body"): ("torch_nchw", approx(2), "numba_simd", approx(2.2 / 2)),
        ("resnet50", 1, "tail"): ("numba_winograd_f6", approx(2), "numba_winograd_f4", approx(3 / 2)),
        ("resnet50", 2, "stem"): ("numba_direct", approx(3), "numba_simd", approx(4 / 3)),
        ("resnet50", 2, "body"): ("numba_simd", approx(1.2), "torch_nchw", approx(1.8 / 1.2)),
        ("resnet50", 2, "tail"): ("numba_simd", approx(2.6), "onnxruntime", approx(3.5 / 2.6)),
        ("vgg16", 1, "stem"): ("numba_simd", approx(41), "onnxruntime", approx(50 / 41)),
    }
    facts = by(tables.winners(table), [*ON, "layer"], "count", "kernel", "gflops_effective")
    assert facts["resnet50", 2, "tail"] == (2, "2x2", approx(3.2e6 / 2.6e-3 / 1e9))


def test_regret_is_of_the_pick_against_the_best_of_ours(table: pd.DataFrame) -> None:
    content = ratios.regret(table)
    found = by(content, ON, "auto (ms)", "best of ours by layer (ms)", "regret", "layers")
    # Picked: f4, direct, simd; best, without f6 and other libraries: f4, simd, f4.
    picked, best = 1 * 4.2 + 3 * 2.6 + 2 * 4.2, 1 * 4.2 + 3 * 2.2 + 2 * 3
    assert found["resnet50", 1] == (approx(picked), approx(best), approx(picked / best), 3)
    # Picked: simd on all layers; best: direct, simd, simd.
    picked, best = 1 * 4 + 3 * 1.2 + 2 * 2.6, 1 * 3 + 3 * 1.2 + 2 * 2.6
    assert found["resnet50", 2] == (approx(picked), approx(best), approx(picked / best), 3)
    assert by(content, ON, "worst layer", "its regret", "picked", "best") == {
        ("resnet50", 1): ("tail", approx(4.2 / 3), "numba_simd", "numba_winograd_f4"),
        ("resnet50", 2): ("stem", approx(4 / 3), "numba_simd", "numba_direct"),
    }


def test_the_fastest_of_a_network_measured_all_of_it(table: pd.DataFrame) -> None:
    content = ratios.fastest_by_network(table)
    assert by(content, ON, "fastest", "sum_ms", "second", "layers") == {
        ("resnet50", 1): ("auto", approx(19.5), "numba_simd", 3),
        ("resnet50", 2): ("auto", approx(12.4), "numba_simd", 3),
        ("vgg16", 1): ("auto", approx(80), "numba_simd", 1),
    }
    takes = {key: found.value for key, found in by(content, ON, "second_takes").items()}
    assert takes == approx({("resnet50", 1): 22 / 19.5, ("resnet50", 2): 12.8 / 12.4, ("vgg16", 1): 82 / 80})
    assert all(found.low <= found.value <= found.high for found in content.second_takes)


def test_costs_pay_off_against_the_fastest_that_needs_nothing(table: pd.DataFrame) -> None:
    content = tables.costs(table)
    found = by(content, [*ON, "backend"], "compile_s", "prepare_s", "run_s", "pays off after", "against")
    first = {key[2]: value for key, value in found.items() if key[:2] == ("resnet50", 1)}
    # torch_nchw is eager, compiles nothing and takes 36 ms: onnxruntime is planned, auto_eager compiles.
    base = "torch_nchw"
    # 4.2 s over 16.5 ms a pass = 254.5; 1.014 s over 14 ms = 72.4; 0.5 s over 13 ms = 38.5; 10.5 ms over 1 ms = 10.5.
    assert first["auto"] == (approx(2 + 1 + 0.5), approx(0.1 + 0.2 + 0.4), approx(19.5e-3), 255, base)
    assert first["numba_simd"] == (approx(1), approx(0.014), approx(22e-3), 73, base)
    assert first["auto_eager"] == (approx(0.5), 0, approx(23e-3), 39, base)
    assert first["onnxruntime"] == (0, approx(0.0105), approx(35e-3), 11, base)
    assert first["numba_direct"] == (0, 0, approx(26.8e-3), 0, base)
    for slower in ("numpy_strided", "torch_nchw", "auto_strict"):
        assert first[slower][3:] == (None, "")
    assert first.keys() == SUMS["resnet50", 1].keys()
    # 1.014 s over 22.4 - 12.8 ms = 105.6.
    assert found["resnet50", 2, "numba_simd"][3:] == (106, base)
    memory = by(content, [*ON, "backend"], "packed_MiB", "workspace_MiB", "peak_MiB")
    assert memory["resnet50", 1, "auto"] == (1 + 2 + 4, 8, 30)
    assert memory["resnet50", 1, "numba_simd"] == (None, None, None)


def test_threads_gain_the_ratio_of_sums(table: pd.DataFrame) -> None:
    content = tables.thread_efficiency(table[table.network == "resnet50"])
    found = by(content, ["backend", "threads"], "layers", "sum_s", "speedup", "efficiency")
    assert found["auto", 1] == (3, approx(19.5e-3), 1, 1)
    assert found["auto", 2] == (3, approx(12.4e-3), approx(19.5 / 12.4), approx(19.5 / 12.4 / 2))
    assert found["torch_nchw", 2] == (3, approx(22.4e-3), approx(36 / 22.4), approx(36 / 22.4 / 2))
    assert found["auto_eager", 2] == (1, approx(2e-3), approx(5 / 2), approx(5 / 2 / 2)), "the stem alone"
    assert {backend for backend, _ in found} == set(handmade.TWO)


def test_the_ladder_is_a_geometric_mean_over_common_layers(table: pd.DataFrame) -> None:
    content = tables.ladder(table[table.threads == 1], "resnet50")
    columns = ["speedup", "slowest_layer", "fastest_layer", "layers"]
    # The loops finish the stem (630 ms) and the body (220 ms); f6 has one of these two, which is not more than half.
    assert by(content, ["backend"], *columns) == {
        (name,): (approx(sqrt(630 / stem * 220 / body)), approx(low), approx(high), 2)
        for name, stem, body, low, high in (
            ("python_loops", 630, 220, 1, 1), ("numpy_strided", 20, 8, 220 / 8, 630 / 20),
            ("numba_direct", 9, 2.6, 630 / 9, 220 / 2.6), ("numba_simd", 7, 2.2, 630 / 7, 220 / 2.2),
            ("numba_winograd_f4", 4.2, 6, 220 / 6, 630 / 4.2), ("torch_nchw", 12, 2, 630 / 12, 220 / 2),
            ("onnxruntime", 6, 5, 220 / 5, 630 / 6),
        )
    }  # fmt: skip
    # Where the loops finish the tail in 330 ms, f6 has two layers of three, and all rungs are means over these two.
    longer = handmade.table(handmade.ONE | {"python_loops": (630.0, 220.0, 330.0)})
    found = by(tables.ladder(longer[longer.threads == 1], "resnet50"), ["backend"], "speedup", "layers")
    assert found["numba_winograd_f6",] == (approx(sqrt(630 / 3 * 330 / 2)), 2)
    assert found["numba_simd",] == (approx(sqrt(630 / 7 * 330 / 4.2)), 2)


def test_tables_of_cases_name_what_is_not_ok(table: pd.DataFrame) -> None:
    over = tables.ratio(table, "numba_direct", "numpy_strided")
    assert by(over, ["network", "layer", "threads"], "numba_direct over numpy_strided") == {
        ("resnet50", "stem", 1): approx(20 / 9), ("resnet50", "body", 1): approx(8 / 2.6),
        ("resnet50", "tail", 1): approx(30 / 5),
    }  # fmt: skip
    matrix = by(tables.correctness(table), ["network", "layer"], "onnxruntime", "numpy_strided", "numpy_im2col")
    # Of the two numbers of threads the worse is shown: 0.1 and 0.2 of the bound.
    right = "right, 0.100 of bound"
    assert matrix["resnet50", "tail"] == ("right, 0.200 of bound", right, "wrong_result")
    assert matrix["vgg16", "stem"] == (right, "not measured", "not measured")
    ended = by(tables.statuses(table), ["backend"], "ok", "wrong_result", "over_budget", "unsupported")
    assert ended["auto",] == (3 + 3 + 1, 0, 0, 0)
    assert ended["numpy_im2col",] == (0, 3, 0, 0)
    assert ended["python_loops",] == (2, 0, 1, 0)
    reasons = by(tables.not_ok(table), ["layer", "backend", "threads"], "status", "reason")
    assert reasons == {
        **{(layer, "numpy_im2col", 1): ("wrong_result", "off by 1") for layer in handmade.LABELS},
        ("body", "numba_winograd_f6", 1): ("unsupported", "because"),
        ("tail", "python_loops", 1): ("over_budget", "because"),
    }
    speedups = by(tables.per_case(table), ["workload", "layer", "backend", "threads"], tables.SPEEDUP)
    assert speedups["resnet50", "body", "auto", 1] == approx(220 / 2.5)
    assert speedups["resnet50", "body", "auto", 2] is None
