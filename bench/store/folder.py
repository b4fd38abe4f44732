"""The run store: one folder per run, one JSON line per finished case, appended and fsynced at once, never edited.

    RUN/config.json        the requested cases and settings
    RUN/environment.json   the machine and the versions
    RUN/records.jsonl      one `Record` per line
    RUN/finished.json      number of cases by status, and the time; exists only if the run completed
    RUN/benchmark.json     the same results in pytest-benchmark's format (`bench.store.benchmark_json`)
    RUN/lock               locked while a process measures for this run

A torn last line (a crash while writing) is dropped. Any other unreadable line is left out with a warning that has its
line number; its case counts as not measured. Every other file is written atomically. Data is validated before writing
with the same check as when reading. Only this module reads or writes these files, except benchmark.json.
"""

from __future__ import annotations

import json
import os
import tempfile
import warnings
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache, cached_property
from io import FileIO
from pathlib import Path
from typing import Any, Required, TextIO, TypedDict

import msgspec

from conv_impls import ConvError

from .coverage import Taken
from .files import write_whole
from .records import Case, Record, StoreError, plain, problem_of
from .schema import Amount, Whole, check_environment, decoded, fitted, printable

# 3: rounds, context switches and peaks of turns, disturbed turns, stalls. 2 (version 0.3.0): without these; read only.
SCHEMA, READ = 3, (2, 3)


class Config(TypedDict, total=False):
    """The keys of config.json that readers use; other keys are allowed."""

    cases: Required[list[Case]]
    options: dict[str, str | int | float]
    command: str
    repeat: str
    timeout_s: Amount
    budget_s: Amount
    seconds: Amount
    seed: int
    variables: dict[str, str]
    fresh_cache: bool
    rotate_bytes: Whole
    models: dict[str, Taken]
    versions: dict[str, dict[str, str]]


class StoredRun(ABC):
    """The data of a run that reports and comparisons read, stored in a folder or in a file."""

    folder: Path

    @property
    @abstractmethod
    def config(self) -> dict[str, Any]:
        """The requested configuration: the keys of `Config` and others."""

    @property
    @abstractmethod
    def environment(self) -> dict[str, Any]:
        """The machine that the run used: the keys of `Environment` and others."""

    @property
    @abstractmethod
    def source(self) -> str:
        """Path of the records, for readers of a report."""

    @abstractmethod
    def records(self) -> list[Record]:
        """All finished cases, the newest record of each."""

    @property
    def cases(self) -> list[Case]:
        """All cases of the configuration, in order."""
        return msgspec.convert(self.config["cases"], list[Case])

    @cached_property
    def _further(self) -> str:
        # Cached: the configuration of 12,500 cases takes 30 ms to read, and a report needs this for each case.
        return str(self.config.get("repeat", ""))

    def repeat(self, case: Case) -> str:
        """The command that repeats a case of this run, with the run's own options."""
        return f"{case.repro} {self._further}".strip()


class Journal:
    """The open records file of a run."""

    def __init__(self, folder: Path, file: FileIO) -> None:
        self._folder, self._file = folder, file

    def append(self, record: Record) -> None:
        """Add one finished case and fsync; StoreError before writing if the record would not be readable."""
        # Same check as when reading: a record that could not be read again would take the others with it.
        line = msgspec.json.encode(checked(plain(record))) + b"\n"
        with _plain_errors(self._folder):
            while line:
                line = line[self._file.write(line) :]
            os.fsync(self._file.fileno())


class Run(StoredRun):
    """One run folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def create(cls, folder: Path, config: dict[str, Any], environment: dict[str, Any]) -> Run:
        """Create a new run folder; an existing run is never overwritten."""
        run = cls(folder)
        run.check_free()
        try:
            check_config(config)
            check_environment(environment)
        except ValueError as error:
            raise StoreError(f"{folder}: {error}") from None
        with _plain_errors(folder):
            # If two processes start at once, only one creates this file.
            run._config.touch(exist_ok=False)
            _write(folder / "environment.json", environment)
            _write(run._config, {"schema": SCHEMA, **config})
        return run

    def check_free(self) -> None:
        """Create the folder; StoreError if it cannot be written or contains a run."""
        with _plain_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            if self._config.exists():
                raise FileExistsError
            tempfile.TemporaryFile(dir=self.folder).close()

    @classmethod
    def open(cls, folder: Path) -> Run:
        """An existing run."""
        run = cls(folder)
        if not run._config.is_file():
            raise StoreError(f"{folder}: no run here (no config.json)")
        # Checked first: the meaning of another version's fields is unknown.
        schema = _read(run._config).get("schema")
        if schema not in READ:
            raise StoreError(f"{run._config}: schema {str(schema)[:40]!r}, this version reads {READ[0]} and {READ[1]}")
        return run

    @property
    def _config(self) -> Path:
        return self.folder / "config.json"

    @property
    def config(self) -> dict[str, Any]:
        """The requested configuration: the keys of `Config` and others."""
        return _read(self._config, check_config)

    @property
    def environment(self) -> dict[str, Any]:
        """The machine that the run used: the keys of `Environment` and others."""
        return _read(self.folder / "environment.json", check_environment)

    @property
    def source(self) -> str:
        """Path of the records, for readers of a report."""
        return f"runs/{self.folder.name}/records.jsonl"

    @contextmanager
    def writing(self) -> Iterator[Journal]:
        """The only writer of this run; a torn last line is removed first.

        Raises
        ------
        StoreError
            Another process measures for this run, the folder cannot be written, or another version created it.
        """
        if (schema := self.config.get("schema")) != SCHEMA:
            raise StoreError(f"{self.folder}: schema {schema}, this version writes {SCHEMA}; start a new run")
        with ExitStack() as stack:
            with _plain_errors(self.folder):
                lock = stack.enter_context((self.folder / "lock").open("w"))
                file = stack.enter_context((self.folder / "records.jsonl").open("ab+", buffering=0))
                _lock(lock)
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)
            yield Journal(self.folder, file)

    def finish(self, facts: dict[str, Any]) -> None:
        """Mark the run as complete, with the number of cases by status."""
        counts = Counter(record.status for record in self.records())
        with _plain_errors(self.folder):
            _write(self.folder / "finished.json", {"statuses": dict(sorted(counts.items())), **facts})

    def records(self) -> list[Record]:
        """All finished cases, the newest record of each; warns of unreadable lines, once per process."""
        found: dict[str, Record] = {}
        for record, problem in self._lines():
            if record is None:
                _warn_once(f"{problem}; left out")
            else:
                found[record.case.key] = record
        return list(found.values())

    def check_readable(self) -> None:
        """StoreError if there are lines and none of them is readable."""
        problems = []
        for record, problem in self._lines():
            if record is not None:
                return
            problems.append(problem)
        if problems:
            raise StoreError(problems[0])

    def done(self) -> set[str]:
        """Keys of the finished cases; an interrupted case is not finished."""
        return {record.case.key for record in self.records() if record.status != "interrupted"}

    def _lines(self) -> Iterator[tuple[Record | None, str]]:
        """Each line's record, or None and the error of the line; a torn last line is skipped."""
        path = self.folder / "records.jsonl"
        if not path.exists():
            return
        for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], 1):
            try:
                record = decoded(line, Record)
                # An invalid label would make the whole report fail.
                problem_of(record.case.label)
            except (ValueError, ConvError) as error:
                yield None, f"{path}:{number}: {error}"
            else:
                yield record, ""


@cache
def _warn_once(text: str) -> None:
    warnings.warn(text, UserWarning, stacklevel=3)


def check_config(values: dict[str, Any]) -> None:
    """Raise ValueError if a configuration is not a `Config`."""
    fitted(values, Config)


def checked(values: dict[str, Any]) -> Record:
    """A record from the fields that a backend reports, with the same check as when reading.

    Lone surrogates in texts become "?".

    Parameters
    ----------
    values : dict
        Fields of a `Record`; ``case`` has the fields of its `Case`.

    Raises
    ------
    StoreError
        If a field is unknown, missing or of the wrong type; the text names the field.
    """
    texts = {name: printable(value) for name, value in values.items() if isinstance(value, str)}
    try:
        record = fitted(values | texts, Record)
        # A case is never changed, so JSON must be able to store its texts.
        record.case.key.encode()
    except ValueError as error:
        raise StoreError(str(error)) from None
    return record


def _write(path: Path, values: dict[str, Any]) -> None:
    write_whole(path, printable(json.dumps(values, indent=1, allow_nan=False, ensure_ascii=False)) + "\n")


def _read(path: Path, check: Any = None) -> dict[str, Any]:
    try:
        values = decoded(path.read_bytes(), dict[str, Any])
        if check:
            check(values)
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: {error}") from None
    return values


def _lock(file: TextIO) -> None:
    """Lock an open file; OSError if another process has locked it. Without fcntl nothing can measure, see `program`."""
    with suppress(ModuleNotFoundError):
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextmanager
def _plain_errors(folder: Path) -> Iterator[None]:
    """Convert OS errors of a run folder to a one-line StoreError."""
    try:
        yield
    except BlockingIOError:
        raise StoreError(f"{folder}: another process is measuring for this run") from None
    except OSError as error:
        why = f"cannot be written: {error}"
        if isinstance(error, FileExistsError) and folder.is_dir():
            why = f"already contains a run; use another folder, or finish it with --resume {folder}"
        raise StoreError(f"{folder}: {why}") from None
