"""A small process between the parent and a backend: it outlives the backend and kills all processes it started.

The guard forks the backend's process and waits. It is a child subreaper (Linux, prctl(2), PR_SET_CHILD_SUBREAPER):
an orphaned descendant becomes the guard's child, even if it has its own session (setsid and double fork, as daemons
do). When the backend's process ends, or the guard gets SIGTERM (from the parent, or from Linux when the parent has
ended), the guard kills all its children until none is left. Then it exits with the status of the backend's process.
Limits: without prctl and /proc (macOS) only the backend's process group ends. A backend that kills the guard escapes.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

# From linux/prctl.h.
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


def guard(parent: int, said: int, pipes: tuple[int, ...]) -> None:
    """Fork: the child returns, in its own process group, and writes its pid to ``said``; the guard never returns.

    Parameters
    ----------
    parent : int
        Pid of the parent; when it ends, everything ends.
    said : int
        Pipe for ``{"pid": ...}``.
    pipes : ints
        Pipes of the backend's process. The guard closes them, so that end-of-file means that the backend has ended.
    """
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    _die_with(parent, signal.SIGTERM)
    me, backend = os.getpid(), os.fork()
    if backend == 0:
        _die_with(me, signal.SIGKILL)
        os.setpgid(0, 0)
        os.write(said, b'{"pid": %d}\n' % os.getpid())
        return
    with suppress(OSError):
        # Both processes call it, so that it is done before either continues.
        os.setpgid(backend, backend)
    # Before this line SIGTERM ends the guard, and the end of the guard ends the backend.
    signal.signal(signal.SIGTERM, lambda *_: _leave(backend, 0))
    for pipe in pipes:
        os.close(pipe)
    while True:
        # This also reaps orphans.
        ended, status = os.waitpid(-1, 0)
        if ended == backend:
            _leave(backend, status)


def _leave(backend: int, status: int) -> NoReturn:
    """Kill all children and their children, which become ours; exit with the status of the backend's process."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with suppress(ProcessLookupError):
        os.killpg(backend, signal.SIGKILL)
    with suppress(ChildProcessError):
        while True:
            for child in _children():
                with suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
            os.waitpid(-1, 0)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        with suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    os._exit(os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else 1)


def _children() -> list[int]:
    """Pids of this process's children, by their parent's pid in /proc."""
    found, me = [], str(os.getpid())
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            # The process name, in brackets, may contain any character.
            if path.read_text(errors="replace").rpartition(")")[2].split()[1] == me:
                found.append(int(path.parent.name))
    return found


def _die_with(parent: int, number: signal.Signals) -> None:
    """Get this signal when the parent ends."""
    _prctl(PR_SET_PDEATHSIG, number)
    # The parent may have ended before the call of prctl.
    if os.getppid() != parent:
        sys.exit()


def _prctl(option: int, value: int) -> None:
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(option, value)
