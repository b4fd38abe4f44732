"""A run -> pytest-benchmark's JSON, and back: for ``pytest-benchmark compare`` and for what pytest has measured.

    benchmarks[].stats        the samples and what pytest-benchmark derives from them
    benchmarks[].extra_info   the fields of `Case` and `Record`; a file of anybody else's needs the label alone
    machine_info.conv_impls   environment.json; without it, the machine is known by what pytest-benchmark wrote

Everything read is checked before anything is written. Format: pytest-benchmark 5, ``--benchmark-json``.
Limits: the format knows measured benchmarks only, so cases that are not ok stay behind.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import reprlib
import shutil
from collections.abc import Callable
from dataclasses import MISSING, asdict, dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from pytest_benchmark import __version__ as pytest_benchmark_version
from pytest_benchmark.stats import Stats

from conv_impls import Conv2dProblem, ConvError

from .files import write_whole
from .folder import Run
from .records import CACHES, DIRECTIONS, Case, Record, StoreError

TEST = "bench/test_bench_conv2d.py::test_conv2d"
# Where machine_info keeps environment.json.
OURS = "conv_impls"
# Seconds that a sample may be, and numbers that a count may: far beyond any, and their products stay finite.
SAMPLE_S, MOST = (1e-12, 1e6), 10**15
# Lists and objects inside each other in environment.json: machine, by_threads, a row of it.
DEPTH = 4
NAMES = {"direction": DIRECTIONS, "cache": CACHES, "status": ("ok",)}


def export_run(run: Run, out: Path, force: bool = False) -> tuple[int, int]:
    """Write the ok cases of a run to ``out``.

    Returns
    -------
    (int, int)
        Cases written, and cases left out since they are not ok.

    Raises
    ------
    StoreError
        If ``out`` exists and ``force`` is not set, or cannot be written, or no case is ok.
    """
    records = run.records()
    entries = [_entry(record) for record in records if record.status == "ok"]
    if not entries:
        raise StoreError(f"{run.folder}: no case is ok, so there is nothing to export")
    environment = run.environment
    commit = str(environment.get("commit"))
    content = {
        "machine_info": {
            "processor": environment.get("cpu"), "system": environment.get("system"),
            "python_version": environment.get("python"), OURS: environment,
        },
        "commit_info": {
            "id": commit.removesuffix("-dirty"), "dirty": commit.endswith("-dirty"), "project": OURS,
            "time": None, "author_time": None, "branch": "(unknown)",
        },
        "benchmarks": entries, "datetime": _iso(environment.get("date")), "version": pytest_benchmark_version,
    }  # fmt: skip
    try:
        if out.is_dir() or (out.exists() and not force):
            raise StoreError(f"{out}: exists already; name another file" + ("" if out.is_dir() else ", or use --force"))
        write_whole(out, json.dumps(content, indent=1, allow_nan=False) + "\n")
    except OSError as error:
        raise StoreError(f"{out}: cannot be written: {error}") from None
    return len(entries), len(records) - len(entries)


def import_run(file: Path, out: Path) -> tuple[Run, list[str]]:
    """Make a run folder of a file that pytest-benchmark, or `export_run`, wrote.

    Returns
    -------
    (Run, list of str)
        The run, and the names of the benchmarks left out since they tell no label.

    Raises
    ------
    StoreError
        If the file is not what it should be, no benchmark has a label, or ``out`` holds something already.
    """
    try:
        content = _parsed(file)
        environment = _environment(content.get("machine_info"), content.get("datetime"))
        benchmarks = content.get("benchmarks")
        if not isinstance(benchmarks, list) or not all(isinstance(entry, dict) for entry in benchmarks):
            raise _Wrong("benchmarks: expected a list of objects, as pytest-benchmark writes it")
    except _Wrong as error:
        raise StoreError(f"{file}: {error}") from None
    records: dict[str, Record] = {}
    nameless = []
    for number, entry in enumerate(benchmarks):
        name = next((entry[k] for k in ("fullname", "name") if _is_text(entry.get(k))), f"benchmark {number}")
        facts = entry.get("extra_info")
        if not isinstance(facts, dict) or "label" not in facts:
            nameless.append(name)
            continue
        try:
            record = _record(name, facts, entry.get("stats"), environment["id"])
        except (_Wrong, ConvError) as error:
            raise StoreError(f"{file}: {name}: {error}") from None
        if record.case.key in records:
            raise StoreError(
                f"{file}: {name}: a case that another benchmark is too; tell them apart by extra_info.backend"
            )
        records[record.case.key] = record
    if not records:
        listed = ", ".join(nameless[:5]) + (", ..." if len(nameless) > 5 else "")
        raise StoreError(
            f'{file}: no benchmark has a label ({listed or "it is empty"}); set extra_info["label"] to a benchdnn '
            "descriptor such as mb1ic64ih56oc64oh56kh3ph1, and backend and threads too"
        )
    return _written(file, out, environment, list(records.values())), nameless


def _entry(record: Record) -> dict[str, Any]:
    facts = asdict(record)
    case, data, iterations = facts.pop("case"), facts.pop("samples_s"), facts.pop("iterations")
    # Named as pytest names the tests of bench/test_bench_conv2d.py, so that both can be compared.
    key = record.case.key.replace(" ", "_")
    derived = Stats()
    derived.data = data
    return {
        "group": record.case.label, "name": f"test_conv2d[{key}]", "fullname": f"{TEST}[{key}]", "param": key,
        "params": {"case_key": record.case.key}, "extra_info": case | facts, "options": {"timer": "perf_counter"},
        "stats": derived.as_dict() | {"data": data, "iterations": iterations},
    }  # fmt: skip


class _Wrong(ValueError):
    """What is wrong with the file or with one benchmark."""


@dataclass(frozen=True)
class _Kind:
    """What a field may hold, in words and as a check."""

    words: str
    holds: Callable[[Any], bool]


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value.isprintable() and 0 < len(value) < 1000


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= MOST


def _is_count(value: Any) -> bool:
    return _is_number(value) and isinstance(value, int) and value >= 1


def _is_samples(value: Any) -> bool:
    return isinstance(value, list) and all(_is_number(s) and SAMPLE_S[0] <= s <= SAMPLE_S[1] for s in value)


# By the annotations of `Case` and `Record`.
KINDS = {
    "str": _Kind("printable text", lambda value: value == "" or _is_text(value)),
    "int": _Kind("a whole number >= 1", _is_count),
    "float | None": _Kind("a number >= 0 or null", lambda value: value is None or _is_number(value)),
    "int | None": _Kind(
        "a whole number >= 0 or null", lambda v: v is None or (_is_number(v) and isinstance(v, int))
    ),
    "list[float]": _Kind("a list of seconds above 0", _is_samples),
}  # fmt: skip


def _record(name: str, facts: dict[str, Any], given: Any, environment_id: str) -> Record:
    """One benchmark, each field checked; `Case` and `Record` say which there are."""
    if not isinstance(given, dict) or "data" not in given:
        raise _Wrong("stats.data: expected the samples, got none; save with --benchmark-json or --benchmark-save-data")
    label = facts["label"]
    if not _is_text(label):
        raise _Wrong(f"extra_info.label: expected a benchdnn descriptor, got {_short(label)}")
    problem = Conv2dProblem.from_label(label)
    defaults = {"workload": "imported", "layer": problem.name or label, "count": 1, "backend": name, "threads": 1}
    case = Case(**_checked(Case, defaults | facts))
    samples = given["data"]
    values = _checked(Record, facts | {"status": facts.get("status", "ok"), "iterations": given.get("iterations", 1)})
    if not _is_samples(samples) or not samples:
        raise _Wrong(
            f"stats.data: expected at least one time of {SAMPLE_S[0]:g} to {SAMPLE_S[1]:g} s, got {_short(samples)}"
        )
    middle = float(np.median(samples))
    values |= {
        "environment_id": environment_id, "samples_s": [float(s) for s in samples], "median_s": middle,
        "iqr_s": float(np.subtract(*np.percentile(samples, [75, 25]))),
        "gflops_effective": problem.flops / middle / 1e9,
    }  # fmt: skip
    return Record(case, **values)


def _checked(of: type[Case] | type[Record], facts: dict[str, Any]) -> dict[str, Any]:
    """Those of the facts that are fields of ``of``."""
    values = {}
    for field in fields(of):
        if field.name not in facts or field.name == "case":
            continue
        value, kind = facts[field.name], KINDS[str(field.type)]
        # What identifies a case cannot be empty.
        if not kind.holds(value) or (value == "" and field.default is MISSING):
            raise _Wrong(f"extra_info.{field.name}: expected {kind.words}, got {_short(value)}")
        if field.name in NAMES and value not in NAMES[field.name]:
            raise _Wrong(f"extra_info.{field.name}: expected {' or '.join(NAMES[field.name])}, got {_short(value)}")
        values[field.name] = value
    return values


def _environment(machine: Any, date: Any) -> dict[str, Any]:
    """The machine of the file: as this suite describes it, else what pytest-benchmark says of it."""
    if not isinstance(machine, dict):
        raise _Wrong(f"machine_info: expected an object, as pytest-benchmark writes it, got {_short(machine)}")
    if OURS in machine:
        ours = machine[OURS]
        if not isinstance(ours, dict) or not _is_text(ours.get("id")) or not _is_plain(ours, DEPTH):
            raise _Wrong(f"machine_info.{OURS}: expected the environment of a run, got {_short(ours)}")
        return ours
    cpu = machine["cpu"] if isinstance(machine.get("cpu"), dict) else {}
    facts = {
        "cpu": cpu.get("brand_raw") or machine.get("processor"), "cores": cpu.get("count"),
        "system": f"{_short(machine.get('system'))} {_short(machine.get('machine'))}",
        "python": machine.get("python_version"),
    }  # fmt: skip
    if not _is_plain(facts, 1):
        raise _Wrong(f"machine_info: expected texts and numbers, got {_short(facts)}")
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]
    return facts | {"packages": {}, "date": _iso(date), "id": digest}


def _is_plain(value: Any, depth: int) -> bool:
    """Whether it is a text or number, or holds such, in at most so many lists and objects."""
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return inside is None or (depth > 0 and all(_is_plain(item, depth - 1) for item in inside))


def _iso(date: Any) -> str | None:
    try:
        return datetime.fromisoformat(str(date).replace(" UTC", "+00:00")).isoformat()
    except ValueError:
        return None


def _parsed(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_bytes(), parse_constant=_finite, parse_float=_finite)
    except (OSError, ValueError, RecursionError) as error:
        raise _Wrong(f"not pytest-benchmark's JSON: {_short(str(error))}") from None
    if isinstance(content, dict):
        return content
    raise _Wrong(f"not pytest-benchmark's JSON: expected an object, got {_short(content)}")


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{text} is no JSON number")
    return value


def _short(value: Any) -> str:
    """A value in one short line, however long or deep it is."""
    text = value if _is_text(value) else f"{type(value).__name__} {reprlib.repr(value)}"
    return text if len(text) <= 100 else text[:97] + "..."


def _written(file: Path, out: Path, environment: dict[str, Any], records: list[Record]) -> Run:
    """The run folder, made beside its place and moved there when it is complete."""
    temporary = out.with_name(f".{out.name}.{os.getpid()}")
    config = {"command": f"import {file.name}", "options": {}, "cases": [asdict(record.case) for record in records]}
    try:
        run = Run.create(temporary, config, environment)
        with run.writing() as journal:
            for record in records:
                journal.append(record)
        run.finish({"imported": datetime.now().strftime("%Y-%m-%d %H:%M")})
        # An empty folder may be there; anything else makes this fail.
        temporary.replace(out)
    except OSError as error:
        raise StoreError(f"{out}: cannot be made, or holds something already: {error}; name another folder") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Run.open(out)
