"""A run as pytest-benchmark's JSON: export from a run folder, import, and opening (`bench.store.benchmark_file`).

    benchmarks[].stats        `data` has the times of the turns, per call; the other fields are derived from them
    benchmarks[].params       the fields of `Case`
    benchmarks[].extra_info   the fields of `Case` and `Record`; a foreign file needs `label` only
    conv_impls                {environment, config, records}: only records that are not ok
    machine_info.conv_impls   {id}; in exports of version 0.3.0 the whole environment

The format lists measured benchmarks only, hence the second list of records. A foreign file has no key `conv_impls`: its
machine is taken from pytest-benchmark's fields, and medians are computed from its times.
All input is checked before any output is written. Format: pytest-benchmark 5, ``--benchmark-json``.
"""

from __future__ import annotations

import json
import os
import shutil
from datetime import datetime
from pathlib import Path
from typing import Any

from pytest_benchmark import __version__ as pytest_benchmark_version
from pytest_benchmark.stats import Stats

from .benchmark_file import OURS, BenchmarkFile, iso
from .files import write_whole
from .folder import Run, StoredRun
from .records import Case, Record, StoreError, ids, plain

TEST = "bench/test_bench_conv2d.py::test_conv2d"


def open_stored(path: Path) -> StoredRun:
    """A run, from its folder or from a JSON file of pytest-benchmark.

    Raises
    ------
    StoreError
        If the path does not exist or does not contain a run.
    """
    if path.is_file():
        return BenchmarkFile(path)
    run = Run.open(path)
    run.check_readable()
    return run


def extra_info(record: Record) -> dict[str, Any]:
    """The fields of a record and of its case, in one flat dictionary."""
    facts = plain(record)
    case: dict[str, Any] = facts.pop("case")
    return case | facts


def document(run: StoredRun) -> dict[str, Any]:
    """The value of the top-level key ``conv_impls``: the data that the benchmarks of the file do not contain."""
    others = [plain(record) for record in run.records() if record.status != "ok"]
    return {"environment": run.environment, "config": run.config, "records": others}


def group(case: Case) -> str:
    """Name of a pytest-benchmark group: the backends that are compared with each other."""
    return f"{case.workload} {case.label} {case.direction} {case.cache} t{case.threads} r{case.repetition}"


def export_run(run: StoredRun, out: Path, force: bool = False) -> tuple[int, int]:
    """Write a run to ``out``, as the harness does.

    Returns
    -------
    (int, int)
        Number of ok cases (the benchmarks of the file) and number of other records.

    Raises
    ------
    StoreError
        If ``out`` exists and ``force`` is not set, if it cannot be written, or if no case is ok.
    """
    records, environment = run.records(), run.environment
    cases = list({case.key: case for case in [*run.cases, *(record.case for record in records)]}.values())
    names = {case.key: name for case, name in zip(cases, ids(cases), strict=True)}
    entries = [_entry(record, names[record.case.key]) for record in records if record.status == "ok"]
    if not entries:
        raise StoreError(f"{run.folder}: no case is ok, so there is nothing to export")
    commit, (system, _, machine) = str(environment.get("commit")), str(environment.get("system")).partition(" ")
    content = {
        "machine_info": {
            "processor": environment.get("cpu"), "system": system, "machine": machine,
            "python_version": environment.get("python"), OURS: {"id": environment.get("id")},
        },
        "commit_info": {
            "id": commit.removesuffix("-dirty"), "dirty": commit.endswith("-dirty"), "project": OURS,
            "time": None, "author_time": None, "branch": "(unknown)",
        },
        "benchmarks": entries, "datetime": iso(environment.get("date")), "version": pytest_benchmark_version,
        OURS: document(run),
    }  # fmt: skip
    try:
        if out.is_dir() or (out.exists() and not force):
            raise StoreError(f"{out}: already exists; use another file" + ("" if out.is_dir() else ", or use --force"))
        write_whole(out, json.dumps(content, indent=1, allow_nan=False) + "\n")
    except OSError as error:
        raise StoreError(f"{out}: cannot be written: {error}") from None
    return len(entries), len(records) - len(entries)


def import_run(file: Path, out: Path) -> tuple[Run, list[str]]:
    """Create a run folder from a file of pytest-benchmark, the harness or `export_run`.

    Returns
    -------
    (Run, list of str)
        The run, and the names of the benchmarks left out because they have no label.

    Raises
    ------
    StoreError
        If the file is not valid, no benchmark has a label, or ``out`` is not empty.
    """
    read = BenchmarkFile(file)
    # Written completely under a temporary name, then renamed.
    temporary = out.with_name(f".{out.name}.{os.getpid()}")
    config = {name: value for name, value in read.config.items() if name != "schema"}
    try:
        run = Run.create(temporary, config, read.environment)
        with run.writing() as journal:
            for record in read.records():
                journal.append(record)
        run.finish({"imported": datetime.now().strftime("%Y-%m-%d %H:%M")})
        # Succeeds if ``out`` is missing or an empty folder, else fails.
        temporary.replace(out)
    except OSError as error:
        raise StoreError(f"{out}: cannot be created, or is not empty: {error}; use another folder") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Run.open(out), read.left_out


def _entry(record: Record, name: str) -> dict[str, Any]:
    facts = plain(record)
    derived = Stats()
    derived.data = record.turns_s or record.samples_s
    return {
        "group": group(record.case), "name": f"test_conv2d[{name}]", "fullname": f"{TEST}[{name}]", "param": name,
        "params": facts["case"], "extra_info": extra_info(record), "options": {"timer": "recorded"},
        "stats": derived.as_dict() | {"data": derived.data, "iterations": 1},
    }  # fmt: skip
