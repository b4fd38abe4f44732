"""Persistent data about this machine: JSON files in one folder of the user.

The folder is ``$CONV_IMPLS_CACHE_DIR``, else ``$XDG_CACHE_HOME/conv_impls``, else ``~/.cache/conv_impls``, accessible
only to its owner. A file holds the facts of every CPU that shares the folder, with a stamp of their dependencies:

    {cpu: {"stamp": text, "facts": {key: value}}}

Nothing here fails or blocks a call. A broken file of any kind counts as empty, with one warning. If nothing can be
written, the facts live as long as the process. A file is replaced as a whole, so readers never see half of one.
Limits: if two processes add a fact at the same moment, one fact may be lost, unless they use the lock (`locked`).
"""

from __future__ import annotations

import os
import stat
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from threading import get_ident
from typing import Any

from conv_impls.errors import ConvError

# Our files are much smaller: a winner of tuning takes 100 bytes.
MOST_BYTES = 16 * 2**20
# The lock is held for a second or two, or ten if the probes are compiled on a busy machine.
TURN_S, POLL_S = 30.0, 0.01
# Opening never waits for another process, and no child process gets the file. Windows has neither flag.
AT_ONCE = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)


def folder() -> Path:
    """Folder of the files; it may not exist."""
    if own := os.environ.get("CONV_IMPLS_CACHE_DIR"):
        return Path(own)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "conv_impls"
    except RuntimeError:  # a user without a home
        return Path(tempfile.gettempdir()) / f"conv_impls-{os.getuid()}"


def check_writable(fn: str) -> None:
    """Raise ConvError if the folder is not writable: new facts could not be stored."""
    with suppress(OSError):
        folder().mkdir(mode=0o700, parents=True, exist_ok=True)
    if not os.access(folder(), os.W_OK | os.X_OK) or not folder().is_dir():
        raise ConvError(f"{fn}: expected a writable folder, got {folder()}; set CONV_IMPLS_CACHE_DIR to another folder")


def read(name: str, stamp: str, quiet: bool = False) -> dict[str, Any]:
    """The facts of this CPU in file ``name``, if they exist and have this stamp."""
    reason = "was written with another version of the package, its kernels or Numba"
    try:
        entry = _load(name).get(_cpu(), {"stamp": stamp, "facts": {}})
        facts = dict(entry["facts"])
        if entry["stamp"] == stamp:
            return facts
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError, MemoryError) as error:
        reason = f"cannot be read ({type(error).__name__}: {error})"
    if not quiet:
        reject(name, reason)
    return {}


_said: set[str] = set()


def reject(name: str, reason: str) -> None:
    """Warn, once a process, that a file counts as empty."""
    text = f"{folder() / name} {reason}; it is ignored, and replaced by the next measurement"
    if text not in _said:
        _said.add(text)
        warnings.warn(text, RuntimeWarning, stacklevel=2)


def add(name: str, stamp: str, facts: dict[str, Any]) -> None:
    """Add facts of this CPU to those of this stamp in file ``name``; does nothing if nothing can be written."""
    import json

    facts = read(name, stamp, quiet=True) | facts
    ours = {_cpu(): {"stamp": stamp, "facts": facts}}
    try:
        text = json.dumps(_load(name) | ours, indent=1, sort_keys=True)
    except (OSError, ValueError, TypeError, RecursionError, MemoryError):
        text = json.dumps(ours, indent=1, sort_keys=True)
    path = folder() / name
    partial = path.with_name(f"{name}.{os.getpid()}.{get_ident()}")
    with suppress(OSError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            partial.write_text(text, encoding="utf-8")
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Lock file ``name`` for this process: other processes wait until it is released, at most `TURN_S`.

    The system releases the lock when the process ends for any reason. If no lock is possible (a folder that cannot be
    written, a system without flock), all processes continue without it.
    """
    lock: int | None = None
    with suppress(OSError, ImportError):
        import fcntl

        path = folder() / f"{name}.lock"
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(path, os.O_RDWR | os.O_CREAT | AT_ONCE | os.O_NOFOLLOW, 0o600)
        until = time.monotonic() + TURN_S
        while time.monotonic() < until:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(POLL_S)
    try:
        yield
    finally:
        if lock is not None:
            # A child forked while the lock is held shares it, and would keep it.
            with suppress(OSError):
                fcntl.flock(lock, fcntl.LOCK_UN)
            os.close(lock)


def _load(name: str) -> dict[str, Any]:
    """The content of a file, which must be a regular file; opening it never waits for another process."""
    import json

    opened = os.open(folder() / name, os.O_RDONLY | AT_ONCE)
    try:
        about = os.fstat(opened)
        if not stat.S_ISREG(about.st_mode):
            raise OSError("it is not a regular file")
        if about.st_size > MOST_BYTES:
            raise OSError(f"it has {about.st_size} bytes, more than {MOST_BYTES}")
        with open(opened, "rb", closefd=False) as file:
            content = json.loads(file.read(MOST_BYTES))
    finally:
        os.close(opened)
    if not isinstance(content, dict):
        raise TypeError(f"expected an object, got {type(content).__name__}")
    return content


@cache
def _cpu() -> str:
    """Hash of all that code or limits depend on: the CPU's identity, Numba's compilation target, number of cores."""
    import hashlib

    from conv_impls.kernels.runtime import target

    return hashlib.sha256(f"{target.name()} {os.cpu_count()} {target.identity()}".encode()).hexdigest()[:16]
