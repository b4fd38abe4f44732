"""What is claimed of two runs, and of turns: ratios, sums and sides, against figures worked out by hand.

Limits: the values and their sides alone; how wide an interval is, and when a verdict is given, is tested elsewhere.
"""

from __future__ import annotations

import handmade
import pytest
from msgspec.structs import replace

from bench.analysis import compare, intervals, ratios, stats, tables
from bench.analysis.frame import frame
from bench.report.page import _same
from bench.store.records import Record

approx = pytest.approx
# Newer over older of each layer: 36 ms become 12 * 4 + 3 * 2 * 0.5 + 2 * 9 * 3 = 105 ms for torch_nchw on one thread.
FACTORS = {"stem": 4.0, "body": 0.5, "tail": 3.0}


def turned(record: Record, factor: float, peak: float) -> Record:
    """The record with all its times as many times as long, on a machine of this peak."""
    if record.status != "ok":
        return record
    turns = [factor * time for time in record.turns_s]
    samples = [factor * time for time in record.samples_s]
    return replace(record, turns_s=turns, samples_s=samples, median_s=stats.median(turns), fma_peak_gflops=peak)


@pytest.fixture(scope="module")
def runs() -> tuple[list[Record], list[Record]]:
    older = [turned(record, 1.0, 2.0) for record in handmade.records()]
    return older, [turned(record, FACTORS[record.case.layer], 3.0) for record in older]


def test_a_case_changes_by_its_newer_median_over_its_older(runs: tuple[list[Record], list[Record]]) -> None:
    found = compare.compare_runs(*runs)
    judged = found[found.ratio.notna()]
    assert ((judged.low <= judged.ratio) & (judged.ratio <= judged.high)).all()
    assert not (judged.verdict[judged.ratio > 1] == "faster").any()
    assert not (judged.verdict[judged.ratio < 1] == "slower").any()
    rows = {(row.layer, row.backend, row.threads): row for row in found.itertuples()}
    # torch_nchw takes as long on the stems of both networks together as one problem: left to the networks below.
    row = rows["resnet50/body", "torch_nchw", 1]
    assert (row.old_s, row.new_s, row.ratio, row.peak) == approx((2e-3, 1e-3, 0.5, 3 / 2))
    row = rows["resnet50/tail", "torch_nchw", 2]
    assert (row.old_s, row.new_s, row.ratio) == approx((6e-3, 18e-3, 3))
    row = rows["resnet50/stem", "numba_winograd_f4", 1]
    assert (row.old_s, row.new_s, row.ratio) == approx((4.2e-3, 16.8e-3, 4))
    assert rows["resnet50/body", "numba_winograd_f6", 1].verdict == "not ok"


def test_a_network_changes_by_its_weighted_sums(runs: tuple[list[Record], list[Record]]) -> None:
    older, newer = ([record for record in run if record.case.workload == "resnet50"] for run in runs)
    found = compare.compare_networks(older, newer)
    assert ((found.low <= found.ratio) & (found.ratio <= found.high)).all()
    rows = {(row.backend, row.threads): row for row in found.itertuples()}
    row = rows["torch_nchw", 1]
    new_ms = 1 * 4 * 12 + 3 * 0.5 * 2 + 2 * 3 * 9
    assert (row.old_s, row.new_s, row.ratio) == approx((36e-3, 1e-3 * new_ms, new_ms / 36))
    assert (row.layers, row.peak) == (3, approx(3 / 2))
    row = rows["numba_simd", 2]
    new_ms = 1 * 4 * 4 + 3 * 0.5 * 1.2 + 2 * 3 * 2.6
    assert (row.old_s, row.new_s, row.ratio) == approx((12.8e-3, 1e-3 * new_ms, new_ms / 12.8))
    # Those that miss a layer have no sum.
    assert not {"numba_winograd_f6", "python_loops", "numpy_im2col"} & {backend for backend, _ in rows}


def test_equal_runs_have_not_changed(runs: tuple[list[Record], list[Record]]) -> None:
    older, _ = runs
    cases, networks = compare.compare_runs(older, older), compare.compare_networks(older, older)
    assert set(cases.ratio.dropna()) == {1.0}
    assert networks.ratio.to_numpy() == approx(1)
    assert not compare.regressed(cases, networks)


def test_a_ratio_is_of_common_turns_and_of_medians() -> None:
    theirs = {(1, 0): 9.0, (1, 1): 4.0, (1, 2): 5.0, (1, 3): 12.0, (2, 0): 99.0}
    ours = {(1, 1): 2.0, (1, 2): 2.0, (1, 3): 2.5, (2, 1): 0.01}
    # Both took the rounds 1, 2 and 3 of the first repetition: medians 5 and 2 s.
    assert intervals.ratio([(1.0, theirs, ours)]).value == approx(5 / 2)
    # Twice this layer, once another: sums of medians 2 * 5 + 1 and 2 * 2 + 4 s.
    other = dict.fromkeys(theirs, 1.0), dict.fromkeys(theirs, 4.0)
    found = intervals.ratio([(2.0, theirs, ours), (1.0, *other)])
    assert found.value == approx((2 * 5 + 1) / (2 * 2 + 4))
    assert found.low <= found.value <= found.high
    # In two runs: the older turns of two layers, and the newer ones.
    old, new = {(1, 0): 1.0, (1, 1): 2.0, (1, 2): 9.0}, {(1, 0): 6.0, (1, 1): 5.0, (2, 0): 5.0}
    found = intervals.change([(2, old, new), (1, dict.fromkeys(old, 3.0), dict.fromkeys(new, 1.0))])
    assert found.value == approx((2 * 5 + 1) / (2 * 2 + 3)), "newer over older"
    assert found.low <= found.value <= found.high


def test_layers_without_common_turns_have_no_ratio() -> None:
    records = [
        replace(record, turn_rounds=[10, 11, 12, 13]) if record.case.backend == "auto" and record.turns_s else record
        for record in handmade.records()
    ]
    table = frame(records)
    assert ratios.headlines(table).theirs.unique().tolist() == ["torch_nchw"]
    assert set(ratios.fastest_by_network(table).verdict) == {"not measured in the same rounds"}


def test_networks_of_several_batches_are_told_apart() -> None:
    batches = handmade.records()
    for record in handmade.records():
        if record.case.threads == 1:
            case = replace(record.case, label=record.case.label.replace("mb1", "mb8"))
            batches.append(turned(replace(record, case=case), 7.0, 2.0))
    table = frame(batches)
    sums = tables.network_sums(table).set_index(["backend", "threads"])
    assert sums["resnet50 mb1 (ms)"]["torch_nchw", 1] == approx(36)
    assert sums["resnet50 mb8 (ms)"]["torch_nchw", 1] == approx(7 * 36)
    assert sums["vgg16 mb8 (ms)"]["auto", 1] == approx(7 * 80)
    # Most figures are of each layer's smallest batch.
    assert set(tables.plain(table).batch) == {1}
    assert _same(handmade.table()) == "direction fwd, warm caches, float32, batch 1"
    assert _same(table) == "direction fwd, warm caches, float32", "what the page says of all cases"
