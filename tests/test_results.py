"""The committed runs: no honest backend and no library in them is faster than its machine can compute."""

from __future__ import annotations

from pathlib import Path

import pytest
from committed import RUNS

from bench.machine.peaks import Peaks
from bench.run.directions import as_forward
from bench.run.floor import least_s
from bench.store.folder import Run
from bench.store.gzipped import stored_runs


def faster_than_possible(run: Run, slack: float = 1.0) -> list[str]:
    """Cases whose time, divided by ``slack``, is below the floor of their machine."""
    known, records = Peaks(run.environment), [record for record in run.records() if record.status == "ok"]
    for record in records:
        for peak in [*record.turn_peaks_gflops, record.fma_peak_gflops or 0.0]:
            known.learn(record.case.threads, record.case.problem.dtype, peak)
    found = []
    for record in records:
        problem = as_forward(record.case.problem, record.case.direction)
        least = least_s(problem, record.executed_flops, *known.most(record.case.threads, problem.dtype))
        if (record.median_s or 0.0) / slack < least:
            found.append(record.case.key)
    return found


@pytest.mark.parametrize("folder", stored_runs(RUNS), ids=lambda path: path.name)
def test_no_case_of_a_committed_run_is_too_fast(folder: Path) -> None:
    run = Run.open(folder)
    assert not [record.case.key for record in run.records() if record.status == "too_fast"]
    assert faster_than_possible(run) == []
    assert faster_than_possible(run, slack=10.0), "ten times as fast would be seen"
