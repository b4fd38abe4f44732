"""A JSON file of pytest-benchmark -> a run that can be reported and compared, read in place. It may be gzipped.

The format is described in `bench.store.benchmark_json`. Three kinds are supported: files of this suite; exports of
version 0.3.0, with the environment in machine_info; and any other file whose benchmarks have ``extra_info["label"]``.
Limits: benchmarks without a label are left out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta

from conv_impls import ConvError

from .folder import StoredRun, check_config
from .gzipped import unzipped
from .records import Case, Record, StoreError, plain, problem_of
from .schema import Count, Seconds, check_environment, decoded, fitted, is_name, short

# Key of the data that only this suite writes.
OURS = "conv_impls"
CASE_FIELDS, RECORD_FIELDS = Case.__struct_fields__, Record.__struct_fields__[1:]


class _Document(msgspec.Struct, forbid_unknown_fields=True):
    """The value of the top-level key `conv_impls`."""

    environment: dict[str, Any]
    config: dict[str, Any]
    records: list[Record]


class _File(msgspec.Struct):
    """The fields of a file that are read."""

    machine_info: dict[str, Any]
    benchmarks: list[dict[str, Any]]
    datetime: Any = None
    conv_impls: _Document | None = None


class _Times(msgspec.Struct):
    """The fields of a benchmark's stats that are read."""

    data: Annotated[list[Seconds], Meta(min_length=1)]
    iterations: Count = 1


class _Cpu(msgspec.Struct):
    brand_raw: str | None = None
    count: int | None = None


class _MachineInfo(msgspec.Struct):
    """The fields of pytest-benchmark's machine_info that are read; the clock rate and similar fields are left out."""

    cpu: _Cpu = msgspec.field(default_factory=_Cpu)
    processor: str | None = None
    system: str | None = None
    machine: str | None = None
    python_version: str | None = None


class BenchmarkFile(StoredRun):
    """A run read from pytest-benchmark's JSON; ``left_out`` are the names of benchmarks without a label."""

    def __init__(self, file: Path) -> None:
        self.folder = file
        try:
            content = decoded(unzipped(file), _File)
        except (OSError, ValueError) as error:
            raise StoreError(f"{file}: not pytest-benchmark's JSON: {error}") from None
        ours = content.conv_impls
        try:
            self._environment = ours.environment if ours else _environment(content.machine_info, content.datetime)
            check_environment(self._environment)
        except ValueError as error:
            raise StoreError(f"{file}: environment: {error}") from None
        self._records, self.left_out = _read_benchmarks(file, content.benchmarks, self._environment.get("id", ""))
        try:
            for record in ours.records if ours else []:
                _add(self._records, record)
            cases = [plain(record)["case"] for record in self._records.values()]
            self._config = ours.config if ours else {"command": f"import {file.name}", "options": {}, "cases": cases}
            check_config(self._config)
            # In the file, records that are not ok are at the end.
            places = {case.key: place for place, case in enumerate(self.cases)}
            self._records = dict(sorted(self._records.items(), key=lambda item: places.get(item[0], len(places))))
        except ValueError as error:
            raise StoreError(f"{file}: {OURS}: {error}") from None
        if not self._records:
            listed = ", ".join(self.left_out[:5]) + (", ..." if len(self.left_out) > 5 else "")
            raise StoreError(
                f'{file}: no benchmark has a label ({listed or "it is empty"}); set extra_info["label"] to a benchdnn '
                "descriptor such as mb1ic64ih56oc64oh56kh3ph1, and backend and threads too"
            )

    @property
    def config(self) -> dict[str, Any]:
        """The requested configuration; for a foreign file, only its cases."""
        return self._config

    @property
    def environment(self) -> dict[str, Any]:
        """The machine that the run used."""
        return self._environment

    @property
    def source(self) -> str:
        """Path of the records, for readers of a report."""
        return self.folder.name

    def records(self) -> list[Record]:
        """All finished cases, in the order of the cases."""
        return list(self._records.values())


def _read_benchmarks(file: Path, entries: Iterable[dict[str, Any]], where: str) -> tuple[dict[str, Record], list[str]]:
    """The records of all benchmarks that have a label, by key, and the names of the others."""
    records: dict[str, Record] = {}
    nameless = []
    for number, entry in enumerate(entries):
        name = next((entry[k] for k in ("fullname", "name") if is_name(entry.get(k))), f"benchmark {number}")
        facts = entry.get("extra_info")
        if not isinstance(facts, dict) or "label" not in facts:
            nameless.append(name)
            continue
        try:
            _add(records, _record(name, facts, entry.get("stats"), where))
        except (ValueError, ConvError) as error:
            raise StoreError(f"{file}: {name}: {error}") from None
    return records, nameless


def _add(records: dict[str, Record], record: Record) -> None:
    """Add a record by its key; ValueError if its texts are not printable or the key exists already."""
    problem_of(record.case.label)
    for name in (*CASE_FIELDS, *RECORD_FIELDS):
        value = getattr(record.case if name in CASE_FIELDS else record, name)
        # Fields that identify a case must not be empty.
        if isinstance(value, str) and not is_name(value) and (value or name in CASE_FIELDS):
            raise ValueError(f"{name}: expected printable text, got {short(value)!r}")
    if record.case.key in records:
        raise ValueError("another benchmark has the same case; give them different extra_info.backend")
    records[record.case.key] = record


def _record(name: str, facts: dict[str, Any], stats: Any, where: str) -> Record:
    """The record of a benchmark. Fields in its extra_info take precedence; missing ones are derived from its times."""
    label = facts["label"]
    if not is_name(label):
        raise ValueError(f"extra_info.label: expected a benchdnn descriptor, got {short(repr(label))}")
    problem = problem_of(label)
    defaults = {"workload": "imported", "layer": problem.name or label, "count": 1, "backend": name, "threads": 1}
    values = defaults | {name: facts[name] for name in CASE_FIELDS if name in facts}
    case = fitted(values, Case, "extra_info")
    known = {name: facts[name] for name in RECORD_FIELDS if name in facts}
    if "samples_s" not in known:
        if not isinstance(stats, dict) or "data" not in stats:
            raise ValueError(
                "stats.data: expected the samples, got none; save with --benchmark-json or --benchmark-save-data"
            )
        times = fitted(stats, _Times, "stats")
        middle = float(np.median(times.data))
        derived = {
            "environment_id": where, "status": "ok", "samples_s": times.data, "iterations": times.iterations,
            "median_s": middle, "iqr_s": float(np.subtract(*np.percentile(times.data, [75, 25]))),
            "gflops_effective": problem.flops / middle / 1e9,
        }  # fmt: skip
        known = derived | known
    return fitted({"case": case} | known, Record, "extra_info")


def _environment(machine: dict[str, Any], date: Any) -> dict[str, Any]:
    """The machine of a file without `conv_impls`: as written by version 0.3.0, else as written by pytest-benchmark."""
    ours = machine.get(OURS, {})
    if not isinstance(ours, dict):
        raise ValueError(f"machine_info.{OURS}: expected the environment of a run, got {short(repr(ours))}")
    if not is_name(ours.get("id", "-")):
        raise ValueError(f"machine_info.{OURS}.id: expected a name, got {short(repr(ours['id']))}")
    if len(ours) > 1:
        return ours
    info = fitted(machine, _MachineInfo, "machine_info")
    facts = {
        "cpu": info.cpu.brand_raw or info.processor, "cores": info.cpu.count, "python": info.python_version,
        "system": f"{info.system} {info.machine}",
    }  # fmt: skip
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]
    return facts | {"packages": {}, "date": iso(date), "id": digest} | ours


def iso(date: Any) -> str | None:
    """A date in ISO format, or None if it is not a date."""
    try:
        return datetime.fromisoformat(str(date).replace(" UTC", "+00:00")).isoformat()
    except ValueError:
        return None
