"""Packing a finished run, so that it can be committed: it takes about a tenth of the space.

The records of a packed run keep every turn and lose the single samples, which no report or comparison uses;
``samples_left_out`` of a record has their number. config.json, records.jsonl and benchmark.json are gzipped
(`bench.store.gzipped`). A resumed run is unpacked first.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from .benchmark_json import export_run
from .files import write_whole
from .folder import Run
from .gzipped import PACKED, compress, unpack
from .records import Record, StoreError, plain


def without_samples(record: Record) -> Record:
    """The same record with one sample for each turn, its median; `Record.samples_left_out` counts the others."""
    left_out = len(record.samples_s) - len(record.turns_s)
    if not record.turns_s or left_out <= 0:
        return record
    return replace(record, samples_s=record.turns_s, samples_left_out=record.samples_left_out + left_out)


def pack(run: Run) -> tuple[int, int]:
    """Pack a finished run in place; packing it again changes nothing.

    Returns
    -------
    (int, int)
        Bytes of the run's files before and after.

    Raises
    ------
    StoreError
        The run is not finished, another process measures for it, or the folder cannot be written.
    """
    folder, before = run.folder, size(run.folder)
    if not (folder / "finished.json").is_file():
        raise StoreError(f"{folder}: expected a finished run, got no finished.json; finish the run with --resume")
    with run.locked():
        try:
            _pack_files(run)
        except OSError as error:
            raise StoreError(f"{folder}: cannot be packed: {error}") from None
    return before, size(folder)


def committed_name(kind: str, environment: Mapping[str, Any]) -> str:
    """The name of a committed run: its kind and its CPU.

    Examples
    --------
    >>> committed_name("networks", {"cpu": "AMD EPYC", "vector_bits": 512})
    'networks-amd-epyc-512bit'
    """
    cpu = f"{environment.get('cpu') or 'unknown'} {environment.get('vector_bits') or 0}bit"
    return f"{kind}-{re.sub('[^a-z0-9]+', '-', cpu.lower()).strip('-')}"


def rename(run: Run, kind: str) -> Path:
    """Give the folder of a run the name of a committed run; returns its new path.

    Raises
    ------
    StoreError
        The name is taken.
    """
    path = run.folder.with_name(committed_name(kind, run.environment))
    if path.exists() and path != run.folder:
        raise StoreError(f"{path}: exists already; remove the older run, or name another --kind")
    return run.folder.rename(path)


def size(folder: Path) -> int:
    """Bytes of the files of a folder, without its subfolders."""
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())


def _pack_files(run: Run) -> None:
    folder = run.folder
    unpack(folder)
    lines = [msgspec.json.encode(plain(without_samples(record))) + b"\n" for record in run.records()]
    write_whole(folder / "records.jsonl", b"".join(lines))
    # The same format, made from the packed records.
    if (folder / "benchmark.json").exists():
        export_run(run, folder / "benchmark.json", force=True)
    for path in (folder / name for name in PACKED):
        if path.exists():
            compress(path)
