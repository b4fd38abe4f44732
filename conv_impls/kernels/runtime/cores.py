"""How many cores this process may use now: those of the thread's affinity, and what the control groups' quota leaves.

A thread beyond that waits for the core of another one, a scheduler's slice of milliseconds at a time. Both may change
while the process runs (taskset, a container's limits), so calls ask again.
Source: sched_setaffinity(2); Linux, "Control Group v2", cpu.max, and "CFS Bandwidth Control" for version 1.
Limits: the quota is read once a second, since its files take some ten microseconds. It is rounded to whole cores: a
process with a quota of 1.4 uses one, one of 1.6 two, which then rest for a fifth of the time.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

QUOTA_AGE_S = 1.0
# (when it was read, cores), replaced as one.
_quota = (-QUOTA_AGE_S, 1)


def affinity() -> int:
    """Cores that the calling thread may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def granted() -> int:
    """Cores that the quota is worth, at least 1."""
    global _quota
    read, whole = _quota
    now = time.monotonic()
    if now - read >= QUOTA_AGE_S:
        whole = max(1, int(min(quota(), 2.0**31) + 0.5))
        _quota = now, whole
    return whole


def quota(root: Path = Path("/")) -> float:
    """Cores' worth of time a second that the control groups grant, infinity where they set no limit.

    Parameters
    ----------
    root : Path
        Where ``proc`` and ``sys`` are.
    """
    return min(_limits(root), default=float("inf"))


def _limits(root: Path) -> Iterator[float]:
    """Of each group that this process is in, and of the groups around it."""
    base = root / "sys/fs/cgroup"
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        # A container may see its own group as the root, under a path that exists only outside.
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
                # Version 1 writes -1 for none, version 2 "max".
                if limit_us > 0 and period_us > 0:
                    yield limit_us / period_us


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError):
        return ""
