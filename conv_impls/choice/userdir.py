"""What the package remembers of this machine between processes: JSON files in one folder of the user's.

The folder is ``$CONV_IMPLS_CACHE_DIR``, else ``$XDG_CACHE_HOME/conv_impls``, else ``~/.cache/conv_impls``, for its
owner alone. A file holds the facts of every CPU that shares the folder, each under a stamp of what they depend on:

    {cpu: {"stamp": text, "facts": {key: value}}}

Nothing here fails or blocks a call: what is no such file, however it is spoiled, counts as empty, with one warning, and
where nothing can be written the facts live as long as the process. A file is replaced as a whole, so readers never see
half of one. Limits: of two processes that add a fact at the same moment, one may lose its own, unless they take turns
(`locked`).
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

# No file of ours is nearly as large: a winner of tuning takes 100 bytes.
MOST_BYTES = 16 * 2**20
# A turn takes a second or two, ten where its probes are compiled on a busy machine.
TURN_S, POLL_S = 30.0, 0.01


def folder() -> Path:
    """Where the files are; it need not exist."""
    if own := os.environ.get("CONV_IMPLS_CACHE_DIR"):
        return Path(own)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "conv_impls"
    except RuntimeError:  # a user without a home
        return Path(tempfile.gettempdir()) / f"conv_impls-{os.getuid()}"


def check_writable(fn: str) -> None:
    """Refuse, in words, to look for facts that could not be remembered."""
    with suppress(OSError):
        folder().mkdir(mode=0o700, parents=True, exist_ok=True)
    if not os.access(folder(), os.W_OK | os.X_OK) or not folder().is_dir():
        raise ConvError(
            f"{fn}: expected a folder that can be written, got {folder()}; set CONV_IMPLS_CACHE_DIR to another"
        )


def read(name: str, stamp: str, quiet: bool = False) -> dict[str, Any]:
    """The facts of this CPU in file ``name``, if they are there and carry this stamp."""
    reason = "is of another version of the package, its kernels or Numba"
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
    """Say, once a process, that a file counts as empty."""
    text = f"{folder() / name} {reason}; it is ignored, and replaced when there is something new to remember"
    if text not in _said:
        _said.add(text)
        warnings.warn(text, RuntimeWarning, stacklevel=2)


def add(name: str, stamp: str, facts: dict[str, Any]) -> None:
    """Add facts of this CPU to those of this stamp in file ``name``; does nothing where nothing can be written."""
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
    """A turn of this process with file ``name``: others wait for its end, for `TURN_S` at most.

    The lock goes with the process that holds it, however that ends. Where there is none to be had (a folder that cannot
    be written, a system without flock) everybody goes on at once.
    """
    lock: int | None = None
    with suppress(OSError, ImportError):
        import fcntl

        path = folder() / f"{name}.lock"
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
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
            # A child that was forked meanwhile shares the lock, and would keep it.
            with suppress(OSError):
                fcntl.flock(lock, fcntl.LOCK_UN)
            os.close(lock)


def _load(name: str) -> dict[str, Any]:
    """The content of a file, which must be an ordinary one; opening it never waits for another process."""
    import json

    opened = os.open(folder() / name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        about = os.fstat(opened)
        if not stat.S_ISREG(about.st_mode):
            raise OSError("it is no ordinary file")
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
    """Everything of this CPU that code or limits depend on: its identity, what Numba compiles for, number of cores."""
    import hashlib

    from conv_impls.kernels.runtime import target

    return hashlib.sha256(f"{target.name()} {os.cpu_count()} {target.identity()}".encode()).hexdigest()[:16]
