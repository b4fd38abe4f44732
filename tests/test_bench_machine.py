"""What is measured of the machine, each number in its unit and of a level that exists; and layers under that roof."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from bench.analysis.tables import utilisation
from bench.machine import probes
from bench.machine.environment import environment
from bench.machine.probes import (
    measure_machine,
    raise_to_fewer,
    slower_together,
    tables,
    thread_counts,
    working_sets,
)
from bench.report.roofline import roofline
from bench.report.style import NothingToDraw, save
from bench.run.options import last_level_bytes
from conv_impls import Conv2dProblem
from conv_impls.choice import limits, userdir
from conv_impls.kernels.runtime.target import size_bytes

ROOT = Path(__file__).parents[1]
KIB, MIB = 2**10, 2**20


@pytest.fixture(scope="module")
def measured() -> dict[str, Any]:
    return measure_machine(0.05)


def fake_cpus(monkeypatch: pytest.MonkeyPatch, caches: dict[int, list[tuple[str, str, str]]]) -> None:
    monkeypatch.setattr(probes, "cpus", lambda: sorted(caches))
    monkeypatch.setattr(probes, "caches_of", lambda cpu: iter(caches[cpu]))


def test_every_thread_count_has_a_peak_of_each_dtype_and_a_start(measured: dict[str, Any]) -> None:
    rows = measured["by_threads"]
    assert [row["threads"] for row in rows] == thread_counts(rows[-1]["threads"])
    for row in rows:
        assert min(row["fma_float32_gflops"], row["fma_float64_gflops"]) > 0.1
        assert 0 < row["launch_us"] < 1e5


def test_every_level_of_cache_and_memory_is_read_by_one_thread_and_by_all(measured: dict[str, Any]) -> None:
    rows, most = measured["by_level"], measured["by_threads"][-1]["threads"]
    for threads in {1, most}:
        mine = [row for row in rows if row["threads"] == threads]
        assert {row["level"]: row["working_set_bytes"] for row in mine} == working_sets(threads)
        assert all(row["read_gb_per_s"] > 0 for row in mine)
    assert len(rows) == len({1, most}) * len(working_sets(1))


def test_the_timer_is_known(measured: dict[str, Any]) -> None:
    assert 0 < measured["timer_ns"] < 1e7
    assert 0 < measured["timer_call_ns"] < 1e6


def test_what_is_measured_is_plain_json(measured: dict[str, Any]) -> None:
    assert json.loads(json.dumps(measured, allow_nan=False)) == measured


def test_tables_name_the_units_and_hold_the_measured_numbers(measured: dict[str, Any]) -> None:
    peaks, reads, timer = tables(measured).values()
    assert [f"{row['fma_float32_gflops']:.1f}" for row in measured["by_threads"]] == list(peaks["float32 (GFLOP/s)"])
    assert list(reads.level) == [row["level"] for row in measured["by_level"]]
    assert peaks["per thread, of 1 thread (%)"][0] == "100"
    units = " ".join([*peaks, *reads, *timer])
    assert all(unit in units for unit in ("GFLOP/s", "GB/s", "KiB", "(us)", "(ns)"))


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_a_time_that_is_none_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match=f"seconds: expected a number above 0, got {seconds}"):
        measure_machine(seconds)


@pytest.mark.parametrize("most", [1, 2, 3, 4, 5, 8, 12, 96, 128])
def test_thread_counts_rise_to_all(most: int) -> None:
    counts = thread_counts(most)
    assert counts == sorted(set(counts))
    assert counts[0] == 1
    assert counts[-1] == most
    assert set(range(1, min(most, 4) + 1)) <= set(counts)


def test_working_sets_lie_between_the_levels(monkeypatch: pytest.MonkeyPatch) -> None:
    # Two cores with caches of their own below a shared one, as the first index of a shared cache says.
    own = {cpu: [("L1", "32K", str(cpu)), ("L2", "1024K", str(cpu)), ("L3", "16M", "0-1")] for cpu in (0, 1)}
    fake_cpus(monkeypatch, own)
    assert working_sets(1) == {"L1": 16 * KIB, "L2": 528 * KIB, "L3": 8704 * KIB, "memory": 128 * MIB}
    assert working_sets(2) == {"L1": 32 * KIB, "L2": 1056 * KIB, "L3": 9 * MIB, "memory": 128 * MIB}


def test_threads_of_one_core_share_its_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_cpus(monkeypatch, {cpu: [("L1", "48K", "0,1")] for cpu in (0, 1)})
    assert working_sets(2)["L1"] == working_sets(1)["L1"] == 24 * KIB


def test_memory_is_beyond_all_last_caches_together(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_cpus(monkeypatch, {cpu: [("L3", "32M", str(cpu))] for cpu in range(4)})
    assert working_sets(1)["memory"] == 512 * MIB


def test_unknown_caches_leave_one_unnamed_level(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_cpus(monkeypatch, {0: []})
    assert working_sets(1) == {"cache": 8 * MIB, "memory": 128 * MIB}


@pytest.mark.parametrize(("text", "size"), [("2", 2), ("32K", 32 * KIB), ("16M", 16 * MIB), ("1G", 1024 * MIB)])
def test_a_cache_size_has_a_unit_or_none(text: str, size: int) -> None:
    assert size_bytes(text) == last_level_bytes({"L1": "1", "L2": text}) == size


def test_peaks_are_known_from_what_auto_stored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CONV_IMPLS_CACHE_DIR", str(tmp_path))
    assert probes.known_peaks() == {}
    rates = dict.fromkeys(limits.FALLBACK, 5e9) | {"date": "2026-01-01T00:00:00+00:00"}
    for threads, flops in (("1", 120.123456e9), ("2", 240e9)):
        # The best of two moments.
        moments = [rates | {"float32": best, "float64": best / 2} for best in (flops / 3, flops)]
        userdir.add(limits.FILE, limits._stamp(), {threads: moments})
    known = {"1": {"float32": 120.1, "float64": 60.06}, "2": {"float32": 240.0, "float64": 120.0}}
    assert probes.known_peaks() == environment()["known_peaks"] == known
    userdir.add(limits.FILE, limits._stamp(), {"2": [{"float32": "fast"}]})
    assert [*probes.known_peaks()] == ["1"]
    userdir.add(limits.FILE, "other versions", {"1": [rates]})
    assert probes.known_peaks() == {}
    (tmp_path / limits.FILE).write_text("{broken")
    assert probes.known_peaks() == {}


def test_the_command_prints_json_that_a_run_would_store() -> None:
    command = [sys.executable, "-m", "bench", "machine", "--seconds", "0.05", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["id"] == environment()["id"]
    assert told["machine"]["by_level"][-1]["level"] == "memory"


def test_the_command_refuses_a_time_below_zero() -> None:
    command = [sys.executable, "-m", "bench", "machine", "--seconds", "-1"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2
    assert "--seconds: expected a number above 0, got -1" in done.stderr


def rates(one: float, two: float) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    by_threads = [
        {"threads": n, "fma_float32_gflops": rate, "fma_float64_gflops": 50.0 * n} for n, rate in ((1, one), (2, two))
    ]
    return by_threads, [
        {"level": level, "threads": n, "read_gb_per_s": 10.0 * n} for n in (1, 2) for level in ("L1", "L2")
    ]


def test_threads_that_seem_slower_than_fewer_are_measured_again_and_never_counted_so() -> None:
    quiet, busy = rates(100.0, 190.0), rates(100.0, 5.0)
    assert not slower_together(*quiet)
    assert slower_together(*busy)
    raise_to_fewer(*busy)
    assert [row["fma_float32_gflops"] for row in busy[0]] == [100.0, 100.0]
    assert [row["fma_float64_gflops"] for row in busy[0]] == [50.0, 100.0]
    busy[1][-1]["read_gb_per_s"] = 1.0
    assert slower_together(*busy)
    raise_to_fewer(*busy)
    assert [row["read_gb_per_s"] for row in busy[1]] == [10.0, 10.0, 20.0, 10.0]


# One thread has half of what two have: 200 GFLOP/s, 40 GB/s from the last cache, 20 from memory.
MACHINE = {
    "by_threads": [
        {"threads": n, "fma_float32_gflops": 100.0 * n, "fma_float64_gflops": 50.0 * n, "launch_us": 1.0 * n}
        for n in (1, 2)
    ],
    "by_level": [
        {"level": level, "threads": n, "working_set_bytes": n * size, "read_gb_per_s": rate * n / 2}
        for n in (1, 2)
        for level, size, rate in (("L1", 16 * KIB, 400.0), ("L2", 512 * KIB, 40.0), ("memory", 128 * MIB, 20.0))
    ],
    "timer_ns": 10.0, "timer_call_ns": 40.0, "took_s": 3.0,
}  # fmt: skip
ENVIRONMENT = {"cpu": "Test", "cores": 2, "date": "2026-01-01", "machine": MACHINE}
DENSE, THIN = "mb1ic64ih56oc64oh56kh3ph1", "g64mb1ic64ih56oc64oh56kh3ph1"


def row(layer: str, label: str, backend: str, gflops: float, **changes: Any) -> dict[str, Any]:
    flops = Conv2dProblem.from_label(label).flops
    return {
        "workload": "resnet50", "layer": layer, "label": label, "count": 1, "backend": backend,
        "algorithm": "numba_simd", "threads": 2, "direction": "fwd", "status": "ok",
        "median_s": flops / gflops / 1e9, "gflops_effective": gflops, "executed_flops": float(flops),
        "fma_peak_gflops": 200.0, "weak": "",
    } | changes  # fmt: skip


def test_utilisation_counts_executed_operations_and_effective_ones_side_by_side() -> None:
    flops = Conv2dProblem.from_label(DENSE).flops
    table = pd.DataFrame(
        [
            row("a", DENSE, "auto", 400.0, executed_flops=flops / 4),
            row("a", DENSE, "torch_nchw", 150.0, executed_flops=float("nan")),
            row("b", DENSE, "auto", 100.0, fma_peak_gflops=float("nan")),
            row("b", DENSE, "scipy_fft", float("nan"), status="timeout"),
        ]
    )
    found = utilisation(table)
    assert list(found.layer) == ["a", "a", "b"]
    assert list(found.gflops_effective) == [400, 150, 100]
    assert found.gflops_executed[0] == pytest.approx(100)
    assert found.executed_percent_of_peak[0] == pytest.approx(50)
    assert found.gflops_executed.isna().tolist() == [False, True, False]
    assert found.executed_percent_of_peak.isna().tolist() == [False, True, True]


def texts(table: pd.DataFrame, environment: dict[str, Any] = ENVIRONMENT) -> tuple[str, list[str]]:
    """Title on one line, and all texts within the axes and the legend."""
    figure = roofline(table, environment)
    (axes,) = figure.axes
    (legend,) = figure.legends
    return " ".join(figure.get_suptitle().split()), [text.get_text() for text in [*axes.texts, *legend.get_texts()]]


def test_the_roofline_counts_layers_by_what_the_roof_allows_them() -> None:
    table = pd.DataFrame(
        [
            row("dense", DENSE, "auto", 180.0),
            row("winograd", DENSE, "auto", 380.0, algorithm="numba_winograd_f4"),
            row("slow", DENSE, "auto", 90.0),
            row("slow", DENSE, "numba_simd", 195.0),
            # 2.2 FLOP/byte at 40 GB/s allow 90 GFLOP/s: far from the peak, and not from the roof.
            row("thin", THIN, "auto", 80.0),
            row("slow", DENSE, "torch_nchw", 150.0),
            row("slow", DENSE, "onnxruntime", 120.0),
            row("dense", DENSE, "auto", 90.0, threads=1),
        ]
    )
    title, told = texts(table)
    assert title == "resnet50: 3 of 4 layers reach 85% of the machine's roof, 1 of them by doing fewer operations"
    assert {"winograd: 190%", "slow: 45%", "FMA peak 200 GFLOP/s", "L2 40 GB/s", "memory 20 GB/s"} <= set(told)
    assert told[-3:] == ["ours", "ours, fewer operations", "best library"]


def test_the_roofline_takes_the_fastest_of_ours_without_auto_and_no_failed_case() -> None:
    table = pd.DataFrame(
        [
            row("a", DENSE, "numba_simd", 100.0),
            row("a", DENSE, "numba_direct", 50.0),
            row("a", DENSE, "numba_winograd", 500.0, status="wrong_result"),
        ]
    )
    title, told = texts(table)
    assert title == "resnet50: 0 of 1 layers reach 85% of the machine's roof"
    assert "a: 50%" in told
    assert told[-1] == "ours"


def test_a_run_of_one_thread_is_held_to_the_peak_of_one() -> None:
    title, told = texts(pd.DataFrame([row("a", DENSE, "auto", 90.0, threads=1)]))
    assert "1 of 1 layers" in title
    assert {"FMA peak 100 GFLOP/s", "L2 20 GB/s"} <= set(told)


def test_no_roofline_without_layers_or_without_the_machine() -> None:
    table = pd.DataFrame([row("a", DENSE, "auto", 90.0)])
    with pytest.raises(NothingToDraw, match="no measured layers"):
        roofline(table.assign(status="timeout"), ENVIRONMENT)
    with pytest.raises(NothingToDraw, match="no measurement of the machine"):
        roofline(table, {"cpu": "Test"})


def test_the_same_data_draw_the_same_file(tmp_path: Path) -> None:
    for name in ("one", "two"):
        save(roofline(pd.DataFrame([row("a", DENSE, "auto", 90.0)]), ENVIRONMENT), tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
