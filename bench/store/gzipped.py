"""Gzipped files of a run: every reader of `bench.store` accepts a file NAME or its gzipped form NAME.gz."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

from .files import write_whole

GZ = ".gz"
# The other files of a run are small and remain readable.
PACKED = ("config.json", "records.jsonl", "benchmark.json")


def gzipped(path: Path) -> Path:
    """The name of a file's gzipped form."""
    return path.with_name(path.name + GZ)


def stored(path: Path) -> Path:
    """The file, or its gzipped form if only that exists."""
    return path if path.exists() or not gzipped(path).exists() else gzipped(path)


def unzipped(path: Path) -> bytes:
    """The bytes of a file, decompressed if its name ends in ".gz".

    Raises
    ------
    OSError
        The file cannot be read, or it is not complete gzip data.
    """
    read = path.read_bytes()
    if path.suffix != GZ:
        return read
    try:
        return gzip.decompress(read)
    except (EOFError, zlib.error) as error:
        raise OSError(f"not complete gzip data: {error}") from None


def compress(path: Path) -> None:
    """Replace a file by its gzipped form. Equal content gives equal bytes: no name and no time are stored."""
    write_whole(gzipped(path), gzip.compress(path.read_bytes(), mtime=0))
    path.unlink()


def unpack(folder: Path) -> None:
    """Replace the gzipped files of a run folder by plain ones; do nothing if there are none."""
    for path in (folder / name for name in PACKED):
        if gzipped(path).exists():
            if not path.exists():
                write_whole(path, unzipped(gzipped(path)))
            gzipped(path).unlink()


def stored_runs(folder: Path) -> list[Path]:
    """The run folders in a folder, by name; packed ones too."""
    return sorted({path.parent for path in folder.glob("*/config.json*")})
