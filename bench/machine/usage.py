"""What a process uses: its peak memory over a stretch of code, and the threads its libraries are set to.

Linux records the largest resident size of a process and resets it on request (proc(5), clear_refs). Limits: memory is
None on other systems, and with another C library than glibc pages that its allocator kept do not count as new.
"""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType

# Parameters of glibc's mallopt(3), and the largest values it takes.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, MOST_TRIM_BYTES, MOST_MMAP_BYTES = -1, -3, 2**30, 2**25
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class PeakMemory:
    """A with-block; afterwards ``added_bytes`` is how far memory rose above what it was, at most."""

    added_bytes: int | None = None

    def __enter__(self) -> PeakMemory:
        try:
            # Memory that was freed and kept would be used again without a trace.
            with suppress(OSError, AttributeError):
                ctypes.CDLL(None).malloc_trim(0)
            CLEAR.write_text("5")
            self._before = _kib("VmRSS")
        except OSError:
            self._before = None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        peak = _kib("VmHWM") if self._before is not None else None
        if peak is not None and self._before is not None:
            self.added_bytes = max(0, peak - self._before) * 1024


def keep_freed_memory() -> None:
    """Have the C library use freed memory again, rather than give it back to the system and ask for new.

    A call that allocates its result then finds the memory of the last one. Otherwise, where a result is larger than
    glibc's threshold, each call pays for fresh pages: 768 page faults a call in torch's first layer of ResNet-50.
    """
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(M_MMAP_THRESHOLD, MOST_MMAP_BYTES)
        library.mallopt(M_TRIM_THRESHOLD, MOST_TRIM_BYTES)


def involuntary_switches() -> int:
    """How often a thread of this process had to leave its core to another task, so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


# Thread counts that threadpoolctl does not see: library -> function that asks it.
READ_BACK: dict[str, Callable[[], int]] = {}


def thread_pools() -> str:
    """The thread count that every loaded library reports, such as "numba 2, openblas 2"."""
    from threadpoolctl import threadpool_info

    pools = {pool["internal_api"]: int(pool["num_threads"]) for pool in threadpool_info()}
    # Only if the backend has loaded it: an import here would be the first.
    if numba := sys.modules.get("numba"):
        pools["numba"] = numba.get_num_threads()
    pools |= {name: int(ask()) for name, ask in READ_BACK.items()}
    return ", ".join(f"{name} {count}" for name, count in sorted(pools.items()))


def pin(threads: int) -> None:
    """Pin this process to one CPU on each of ``threads`` cores: for libraries that count the cores themselves."""
    if not hasattr(os, "sched_setaffinity"):
        return
    cores: dict[str, int] = {}
    for cpu in sorted(os.sched_getaffinity(0)):
        siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        cores.setdefault(siblings.read_text() if siblings.exists() else str(cpu), cpu)
    if len(cores) >= threads:
        os.sched_setaffinity(0, list(cores.values())[:threads])


def _kib(field: str) -> int | None:
    try:
        lines = STATUS.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{field}:")), None)
