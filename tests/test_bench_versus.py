"""Engines in turns: right ones are timed, wrong, dying and missing ones are named; the tables add up."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bench import peers
from bench.store import Case, Record, Run
from bench.versus import failures, figures, isa_variables, measure, per_layer, ratios, sums, write_tables
from conv_impls import Conv2dProblem, UnsupportedError, workloads

ROOT = Path(__file__).parent.parent
TINY = 'mb1ic3ih8oc4kh3ph1n"tiny"'

# Engines of a user's own, one of them right.
FAKE = """
import os
import numpy as np
from bench.peers import Ready
from conv_impls import UnsupportedError
from conv_impls.reference import reference
def facts():
    return {"fake": "1.0", "OMP_NUM_THREADS": os.environ["OMP_NUM_THREADS"]}
def right(problem, x, weight, threads):
    print("a library that prints")
    return Ready(lambda: reference(x, weight, None, problem), f"on {threads}")
def wrong(problem, x, weight, threads):
    return Ready(lambda: 1.001 * reference(x, weight, None, problem))
def later(problem, x, weight, threads):
    answers = iter([reference(x, weight, None, problem)])
    return Ready(lambda: next(answers, np.zeros(problem.output_shape)))
def narrow(problem, x, weight, threads):
    return Ready(lambda: reference(x, weight, None, problem)[:1, :1])
def dies(problem, x, weight, threads):
    os._exit(3)
def breaks(problem, x, weight, threads):
    raise RuntimeError("no luck")
def refuses(problem, x, weight, threads):
    raise UnsupportedError("not mine")
"""


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fake_engines.py").write_text(FAKE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


@pytest.mark.usefixtures("fake")
def test_engines_take_turns_and_each_outcome_has_its_word(tmp_path: Path) -> None:
    words = {
        "right": "ok", "wrong": "wrong_result", "later": "wrong_result", "narrow": "wrong_result", "dies": "crashed",
        "breaks": "error", "refuses": "unsupported",
    }  # fmt: skip
    names = ["strict", *(f"fake_engines.{name}" for name in words), "not_installed.engine", "fake_engines.absent"]
    layers = workloads.load(TINY)
    layers.append(replace(layers[0], name="again"))
    run = measure(tmp_path / "run", layers, names, [1], rounds=2, seconds=0.001)
    table = figures(run.records())
    status = table.groupby("engine").status.agg(set)
    assert status["strict"] == {"ok"}
    assert {name: status[f"fake_engines.{name}"] for name in words} == {name: {word} for name, word in words.items()}
    assert len(failures(run.records())) == 2 * 5
    told = run.environment["engines"]
    assert told["fake_engines.right"] == {"fake": "1.0", "OMP_NUM_THREADS": "1"}
    assert "No module named 'not_installed'" in told["not_installed.engine"]
    assert "absent" in told["fake_engines.absent"]
    assert set(table.engine) == set(names[:-2])
    good = [r for r in run.records() if r.case.backend == "fake_engines.right"]
    assert [r.case.repetition for r in good] == [1, 2, 1, 2]
    assert all(len(r.samples_s) >= 3 and r.algorithm == "on 1" for r in good)
    page = write_tables(run).read_text(encoding="utf-8")
    assert "not_installed.engine: No module named" in page
    assert "error 0.001 of the largest value, expected at most 0.0001" in page
    assert Run.open(run.folder).records() == run.records()


def record(engine: str, layer: str, count: int, rounds_s: list[float], threads: int = 1) -> list[Record]:
    case = Case("net", layer, TINY, count, engine, threads)
    return [
        Record(replace(case, repetition=i), "ok", algorithm=f"by {engine}", samples_s=[s], median_s=s)
        for i, s in enumerate(rounds_s, 1)
    ]


# Two layers, the second of them three times; round two of a is the quiet one.
RECORDS = [
    *record("torch_nchw", "a", 1, [0.020, 0.010]), *record("torch_nchw", "b", 3, [0.004]),
    *record("openvino", "a", 1, [0.008]), *record("openvino", "b", 3, [0.006]),
    *record("planned", "a", 1, [0.005]), *record("planned", "b", 3, [0.005]),
    *record("strict", "a", 1, [0.011]), *record("strict", "b", 3, [0.011]),
    *record("plan:numba_direct", "a", 1, [0.001]), *record("plan:numba_direct", "b", 3, [0.001]),
]  # fmt: skip


def test_sums_weigh_counts_and_the_best_peer_is_best_layer_by_layer() -> None:
    column = sums(figures(RECORDS)).set_index("engine")["net, 1t (ms)"]
    assert column.to_dict() == pytest.approx(
        {"torch_nchw": 22, "openvino": 26, "planned": 20, "strict": 44, "plan:numba_direct": 4, "best peer": 20}
    )


def test_ratios_are_peer_over_ours() -> None:
    (row,) = ratios(figures(RECORDS)).to_dict("records")
    assert row["best peer / planned"] == pytest.approx(20 / 20)
    assert row["torch_nchw / strict"] == pytest.approx(22 / 44)
    assert "torch_nchw / eager" not in row
    assert (row["worst layer"], row["its ratio"]) == ("b", pytest.approx(0.8))


def test_a_layer_shows_its_best_peer_and_what_ours_picked() -> None:
    first, second = per_layer(figures(RECORDS)).to_dict("records")
    assert (first["best peer"], second["best peer"]) == ("openvino", "torch_nchw")
    assert (first["best peer (ms)"], first["planned (ms)"]) == pytest.approx((8, 5))
    assert first["planned picked"] == "by planned"
    assert first["best peer / planned"] == pytest.approx(1.6)
    assert first["planned (GFLOP/s)"] == pytest.approx(Conv2dProblem.from_label(TINY).flops / 0.005 / 1e9)


def test_a_layer_wrong_once_has_no_time_and_spoils_the_sum() -> None:
    case = RECORDS[0].case
    table = figures([*RECORDS, Record(replace(case, repetition=3), "wrong_result", "because")])
    assert sums(table).set_index("engine")["net, 1t (ms)"]["torch_nchw"] == "1 of 2"
    assert per_layer(table)["best peer"].tolist() == ["openvino", "torch_nchw"]
    assert ratios(table)["best peer / planned"].tolist() == [1.0]


def test_tables_without_a_peer_or_without_ours() -> None:
    for keep in (peers.is_peer, lambda name: not peers.is_peer(name)):
        table = figures([r for r in RECORDS if keep(r.case.backend)])
        assert "best peer / planned" not in ratios(table)
        assert len(per_layer(table)) == 2


def test_padding_alike_on_both_sides_where_the_rows_at_the_end_do_not_matter() -> None:
    assert peers.symmetric(Conv2dProblem.from_label("mb1ic3ih56oc4oh28kh3sh2ph1")) == (1, 1)
    with pytest.raises(UnsupportedError, match="alike on opposite sides"):
        peers.symmetric(Conv2dProblem.from_label("mb1ic3ih8oc4oh8kh2ph0"))


def test_avx2_leaves_no_wider_feature_on() -> None:
    features = isa_variables("avx2")["NUMBA_CPU_FEATURES"].split(",")
    assert not [flag for flag in features if flag.startswith("+avx512")]
    assert isa_variables("") == {}


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--engines", "torhc"], "--engines: expected torch_nchw, torch_channels_last"),
        (["--engines", "plan:numba_dirct"], "did you mean 'numba_direct'"),
        (["--engines", "no_such.engine"], "--engines: expected one at least that is installed"),
        (["--isa", "sse"], "--isa: expected avx2, got 'sse'"),
        (["--dtype", "int8"], "--dtype: expected float32 or float64, got 'int8'"),
        (["--layers", "zzz"], "--layers: expected part of a layer's name, got 'zzz'"),
    ],
)
def test_what_is_wrong_is_one_line_and_exit_code_2(options: list[str], text: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench", "versus", "--workload", TINY, "--out", str(tmp_path / "run"), *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n") <= 3, text in done.stderr) == (2, True, True), done.stderr


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize(("engine", "code"), [("right", 0), ("wrong", 1)])
def test_a_run_from_the_command_line_ends_with_its_tables(engine: str, code: int, tmp_path: Path) -> None:
    command = [
        sys.executable, "-m", "bench", "versus", "--workload", TINY, "--engines", f"fake_engines.{engine},planned",
        "--seconds", "0.001", "--batch", "3", "--dtype", "float64", "--threads", "1", "--out", str(tmp_path / "run"),
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    assert "Network sums" in done.stdout
    labels = {r.case.label for r in Run.open(tmp_path / "run").records()}
    assert labels == {Conv2dProblem.from_label(TINY).replace(batch=3, dtype="float64").label}
