"""Number of cores this process may use now, from the thread's affinity and the control groups' CPU quota.

An extra thread waits for the core of another thread, for scheduler time slices of milliseconds. Both limits may change
while the process runs (taskset, a container's limits), so every call checks them.
Source: sched_setaffinity(2); Linux, "Control Group v2", cpu.max, and "CFS Bandwidth Control" for version 1.
Limits: the quota is read at most once a second, because reading its files takes some ten microseconds. It is rounded to
whole cores: with a quota of 1.4 a process uses one core; with 1.6 it uses two, which are idle a fifth of the time.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

QUOTA_AGE_S = 1.0
# (time of reading, cores), replaced as one tuple.
_quota = (-QUOTA_AGE_S, 1)


def affinity() -> int:
    """Cores that the calling thread may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def granted() -> int:
    """The quota in whole cores, at least 1."""
    global _quota
    read, whole = _quota
    now = time.monotonic()
    if now - read >= QUOTA_AGE_S:
        whole = max(1, int(min(quota(), 2.0**31) + 0.5))
        _quota = now, whole
    return whole


def quota(root: Path = Path("/")) -> float:
    """CPU quota of the control groups in cores (CPU seconds per second); infinity without a limit.

    Parameters
    ----------
    root : Path
        Folder that contains ``proc`` and ``sys``.
    """
    return min(_limits(root), default=float("inf"))


def _limits(root: Path) -> Iterator[float]:
    """Limits of each group that this process is in, and of their parent groups."""
    base = root / "sys/fs/cgroup"
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        # A container may see its own group as the root, while the path in /proc exists only outside the container.
        inside = Path(path.strip().lstrip("/"))
        for group in (inside, *inside.parents):
            if controllers:
                folder = base / controllers / group
                pair = _text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us")
            else:
                limit, _, period = _text(base / group / "cpu.max").partition(" ")
                pair = limit, period
            with suppress(ValueError):
                limit_us, period_us = map(int, pair)
                # No limit: version 1 writes -1, version 2 "max".
                if limit_us > 0 and period_us > 0:
                    yield limit_us / period_us


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError):
        return ""
