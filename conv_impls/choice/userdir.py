"""What the package remembers of this machine between processes: JSON files in one folder of the user's.

The folder is ``$CONV_IMPLS_CACHE_DIR``, else ``$XDG_CACHE_HOME/conv_impls``, else ``~/.cache/conv_impls``, for its
owner alone. A file holds the facts of every CPU that shares the folder, each under a stamp of what they depend on:

    {cpu: {"stamp": text, "facts": {key: value}}}

Nothing here fails a call: a file that is broken or has another stamp counts as empty, with one warning, and where
nothing can be written the facts live as long as the process. A file is replaced as a whole, so readers never see half
of one. Limits: of two processes that add a fact at the same moment, one may lose its own.
"""

from __future__ import annotations

import os
import tempfile
import warnings
from contextlib import suppress
from functools import cache
from pathlib import Path
from threading import get_ident
from typing import Any


def folder() -> Path:
    """Where the files are; it need not exist."""
    if own := os.environ.get("CONV_IMPLS_CACHE_DIR"):
        return Path(own)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "conv_impls"
    except RuntimeError:  # a user without a home
        return Path(tempfile.gettempdir()) / f"conv_impls-{os.getuid()}"


def read(name: str, stamp: str) -> dict[str, Any]:
    """The facts of this CPU in file ``name``, if they are there and carry this stamp."""
    import json

    path = folder() / name
    try:
        entry = json.loads(path.read_text(encoding="utf-8")).get(_cpu(), {"stamp": stamp, "facts": {}})
        facts = dict(entry["facts"])
        current = entry["stamp"] == stamp
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        reject(name, f"cannot be read ({type(error).__name__}: {error})")
        return {}
    if not current:
        reject(name, "is of another version of the package, its kernels or Numba")
    return facts if current else {}


def reject(name: str, reason: str) -> None:
    """Say that a file counts as empty."""
    text = f"{folder() / name} {reason}; it is ignored, and replaced when there is something new to remember"
    warnings.warn(text, RuntimeWarning, stacklevel=2)


def add(name: str, stamp: str, facts: dict[str, Any]) -> None:
    """Add facts of this CPU to those of this stamp in file ``name``; does nothing where nothing can be written."""
    import json

    path = folder() / name
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        facts = read(name, stamp) | facts
    everyone: dict[str, Any] = {}
    with suppress(OSError, ValueError, TypeError):
        everyone = dict(json.loads(path.read_text(encoding="utf-8")))
    everyone[_cpu()] = {"stamp": stamp, "facts": facts}
    partial = path.with_name(f"{name}.{os.getpid()}.{get_ident()}")
    with suppress(OSError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            partial.write_text(json.dumps(everyone, indent=1, sort_keys=True), encoding="utf-8")
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)


@cache
def _cpu() -> str:
    """What Numba compiles for, and the number of cores."""
    import hashlib

    from conv_impls.kernels.runtime import target

    return hashlib.sha256(f"{target.name()} {os.cpu_count()}".encode()).hexdigest()[:16]
