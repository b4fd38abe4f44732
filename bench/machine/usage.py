"""Resource use of a process: peak memory of a block of code, and the thread counts of its libraries.

Linux records the peak resident size of a process and resets it on request (proc(5), clear_refs). Limits: memory is
None on other systems. With a C library other than glibc, reuse of freed memory is not counted.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType

# Parameters of glibc's mallopt(3), and their largest allowed values.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, MOST_TRIM_BYTES, MOST_MMAP_BYTES = -1, -3, 2**30, 2**25
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class PeakMemory:
    """Context manager; ``added_bytes`` is how far the peak memory in the block is above the memory at its start."""

    added_bytes: int | None = None

    def __enter__(self) -> PeakMemory:
        try:
            # Return freed memory to the system first: its reuse would not raise the resident size.
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
    """Make the C library reuse freed memory instead of returning it to the system.

    A call that allocates its result then reuses the memory of the last result. Otherwise, if a result is larger than
    glibc's threshold, each call has page faults: 768 per call in torch's first layer of ResNet-50.
    """
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(M_MMAP_THRESHOLD, MOST_MMAP_BYTES)
        library.mallopt(M_TRIM_THRESHOLD, MOST_TRIM_BYTES)


def involuntary_switches() -> int:
    """Number of involuntary context switches of this process so far."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


# Thread counts that threadpoolctl does not report: library -> function that returns its count.
READ_BACK: dict[str, Callable[[], int]] = {}


def thread_pools() -> str:
    """The thread count that every loaded library reports, such as "numba 2, openblas 2"."""
    from threadpoolctl import threadpool_info

    pools = {pool["internal_api"]: int(pool["num_threads"]) for pool in threadpool_info()}
    # Only if the backend has already imported it: this function must not import it.
    if numba := sys.modules.get("numba"):
        pools["numba"] = numba.get_num_threads()
    pools |= {name: int(ask()) for name, ask in READ_BACK.items()}
    return ", ".join(f"{name} {count}" for name, count in sorted(pools.items()))


def pin(threads: int) -> None:
    """Pin this process to one CPU on each of ``threads`` cores, for libraries that use all cores of the process."""
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
