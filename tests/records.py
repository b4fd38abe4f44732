"""What the tests of stored results share: records of one small layer, and runs that hold them."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from msgspec.structs import asdict, replace

from bench.analysis import stats
from bench.machine.environment import environment
from bench.machine.probes import measure_machine
from bench.store.folder import Run
from bench.store.records import Case, Record, Status

LABEL = 'mb1ic8ih12oc8oh12kh3ph1n"l"'
CASE = Case("resnet50", "l1", LABEL, 2, "python_loops", 1)


def record(
    backend: str = "python_loops", layer: str = "l1", times: tuple[float, ...] = (1.0, 1.0, 1.0), **changes: Any
) -> Record:
    """One that is right; ``case`` among the changes are fields of its case."""
    case = replace(CASE, backend=backend, layer=layer, **changes.pop("case", {}))
    values: dict[str, Any] = {
        "samples_s": list(times), "turns_s": list(times), "median_s": stats.median(times), "iqr_s": stats.iqr(times),
        "gflops_effective": 1.0, "environment_id": "e", "error": 1e-7, "error_over_bound": 0.1, "algorithm": backend,
    }  # fmt: skip
    return Record(case, "ok", **(values | changes))


def failed(status: Status, backend: str, layer: str = "l1") -> Record:
    return Record(replace(CASE, backend=backend, layer=layer), status, "because", "e", estimate_s=9.0)


def new_run(folder: Path, *cases: Case) -> Run:
    config = {"command": "cmd", "seed": 0, "timeout_s": 1, "budget_s": 9, "cases": [asdict(case) for case in cases]}
    return Run.create(folder, config, machine())


@cache
def machine() -> dict[str, Any]:
    return environment() | {"machine": measure_machine(0.05)}


def store(run: Run, *records: Record) -> None:
    with run.writing() as journal:
        for one in records:
            journal.append(one)
