"""The machine and the versions: what makes two runs comparable. The only reader of the machine.

`environment` is what every run stores; its ``id`` leaves out what drifts (clock, load, date, what `auto` remembers), so
that two runs on one machine with one set of versions share it. `measure_machine` is what the machine can do at best,
by the probes of `conv_impls.limits`: multiply-adds, reads from each level of cache, the start of threads, the timer.
Source: the roofline model, Williams, Waterman & Patterson 2009, doi:10.1145/1498765.1498785.
Limits: caches, governor and hypervisor are known on Linux only; other programs on the cores lower what is measured.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import platform
import re
import subprocess
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

PACKAGES = ("numpy", "numba", "llvmlite", "scipy", "pytest-benchmark")
# What drifts between two runs on one machine, or says nothing of speed; tuning and limits decide what `auto` picks, and
# are another's each time something is tuned.
VOLATILE = ("date", "commit", "load_1min", "id", "tuning", "limits")
CPUS = Path("/sys/devices/system/cpu")
# Each probe runs so often, with all the others in between: a disturbance of a second spoils one visit, not the result.
ROUNDS = 3
# Where the caches are unknown: large for a private cache, small for a shared one.
SOME_CACHE_BYTES = 16 * 2**20
# Four times the last cache is read from memory; at least and at most this, for it must be filled as well.
MEMORY_BYTES = 128 * 2**20, 2**30


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def environment(packages: Iterable[str] = ()) -> dict[str, Any]:
    """Facts stored with every run; ``packages`` are those it measures beside our own."""
    from conv_impls import limits, tuning

    facts: dict[str, Any] = {
        "cpu": _cpu_model(),
        "cores": cores(),
        "memory_gib": _memory_gib(),
        "cpus": os.cpu_count(),
        "smt": {"0": False, "1": True}.get(_text(CPUS / "smt/active")),
        "cpu_quota_cores": _cpu_quota(),
        "hypervisor": "hypervisor" in info if (info := _text(Path("/proc/cpuinfo"))) else None,
        "governor": _text(CPUS / "cpu0/cpufreq/scaling_governor") or None,
        "transparent_huge_pages": _huge_pages(),
        "caches": {level: size for level, size, _ in _caches(0)},
        "vector_bits": _vector_bits(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in (*PACKAGES, *packages)},
        "blas": _blas(),
        "tuning": _remembered(tuning.FILE),
        "limits": _remembered(limits.FILE),
        "commit": _commit(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "load_1min": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }
    stable = {key: value for key, value in facts.items() if key not in VOLATILE}
    facts["id"] = hashlib.sha256(json.dumps(stable, sort_keys=True).encode()).hexdigest()[:12]
    return facts


def thread_variables(threads: int) -> dict[str, str]:
    """Environment variables that hold every library to this many threads; to be set before it is imported."""
    libraries = "OMP", "OPENBLAS", "MKL", "NUMBA"
    names = *(f"{library}_NUM_THREADS" for library in libraries), "VECLIB_MAXIMUM_THREADS"
    # 2**24 cycles, some ms: the reference check uses BLAS in the process of the backend it checks, whose idle threads
    # spin for 2**26 otherwise, into that backend's own next turn.
    return dict.fromkeys(names, str(threads)) | {"OPENBLAS_THREAD_TIMEOUT": "24"}


def fma_peak(threads: int, seconds: float = 0.6) -> float:
    """Measured peak in GFLOP/s of float32 multiply-adds on this many threads."""
    from conv_impls.limits import fma_flops_per_s

    return fma_flops_per_s(threads, "float32", seconds) / 1e9


def measure_machine(seconds: float = 3.0) -> dict[str, Any]:
    """What this machine can do at best, measured.

    Parameters
    ----------
    seconds : float, > 0
        For all probes together; compiling them, where no cache holds them, comes on top (3 s).

    Returns
    -------
    dict
        Plain JSON values. ``by_threads``: a row a thread count, with the peak of float32 and float64 multiply-adds
        and the least time of starting a parallel kernel. ``by_level``: a row a level of cache and thread count (one
        and all), with the bandwidth of reading. Then the timer and ``took_s``, all that measuring took.

    Raises
    ------
    ValueError
        If ``seconds`` is not a positive number.

    Examples
    --------
    >>> measured = measure_machine(0.01)
    >>> measured["by_threads"][0]["threads"], measured["by_level"][-1]["level"]
    (1, 'memory')
    """
    if not 0 < seconds < float("inf"):
        raise ValueError(f"measure_machine: seconds: expected a number above 0, got {seconds}; 3 are enough")
    from conv_impls import limits
    from conv_impls.kernels.launch import usable

    start, most = time.perf_counter(), usable(cores())
    by_threads: list[dict[str, Any]] = [{"threads": threads} for threads in thread_counts(most)]
    by_level: list[dict[str, Any]] = [
        {"level": level, "threads": threads, "working_set_bytes": size}
        for threads in sorted({1, most})
        for level, size in working_sets(threads).items()
    ]
    data = limits.working_set(max(row["working_set_bytes"] for row in by_level))
    # The row a number goes to, its key, and the probe that gives it for some seconds.
    probes: list[tuple[dict[str, Any], str, Any]] = []
    for row in by_threads:
        for dtype in ("float32", "float64"):
            probes.append((row, f"fma_{dtype}_gflops", partial(limits.fma_flops_per_s, row["threads"], dtype)))
        probes.append((row, "launch_us", partial(limits.launch_s, row["threads"])))
    for row in by_level:
        part = data[: row["working_set_bytes"] // 8]
        probes.append((row, "read_gb_per_s", partial(limits.read_bytes_per_s, row["threads"], part)))
    found = [[probe(seconds / ROUNDS / len(probes)) for _, _, probe in probes] for _ in range(ROUNDS)]
    for (row, key, _), values in zip(probes, zip(*found, strict=True), strict=True):
        row[key] = _four_digits(1e6 * min(values) if key == "launch_us" else max(values) / 1e9)
    return {
        "by_threads": by_threads, "by_level": by_level, **_timer(),
        "took_s": _four_digits(time.perf_counter() - start),
    }  # fmt: skip


def thread_counts(most: int) -> list[int]:
    """All counts up to 4, then the powers of two, and ``most``.

    Examples
    --------
    >>> thread_counts(12)
    [1, 2, 3, 4, 8, 12]
    """
    return sorted({*range(1, min(most, 4) + 1), *(2**k for k in range(most.bit_length())), most})


def working_sets(threads: int) -> dict[str, int]:
    """Bytes that stay in each level of cache, and in none: by level, for one thread or for all.

    Halfway between what the smaller caches hold and what this one holds, so that neither a cache that also keeps the
    content of the smaller ones nor one that does not is taken for its neighbour.
    """
    caches = {(level, shared): size_bytes(size) for cpu in _cpus() for level, size, shared in _caches(cpu)}
    caches = caches or {("cache", ""): SOME_CACHE_BYTES}
    one, total = {level: size for (level, _), size in caches.items()}, Counter[str]()
    for (level, _), size in caches.items():
        total[level] += size
    sizes = one if threads == 1 else total
    sets, below = dict[str, int](), 0
    for level, size in sizes.items():
        sets[level], below = (below + size) // 2, size
    least, most = MEMORY_BYTES
    return sets | {"memory": min(max(4 * max(total.values()), least), most)}


def size_bytes(size: str) -> int:
    """Bytes of a size as Linux writes it: "32K", "16M", or a number of bytes."""
    return int(size.rstrip("KMG")) * {"K": 2**10, "M": 2**20, "G": 2**30}.get(size[-1], 1)


def tables(measured: dict[str, Any]) -> dict[str, pd.DataFrame]:
    """What `measure_machine` found, for people: a title and a table each, units in the column names."""
    import pandas as pd

    threads, levels = pd.DataFrame(measured["by_threads"]), pd.DataFrame(measured["by_level"])
    each = threads.fma_float32_gflops / threads.threads
    peaks = {
        "threads": threads.threads,
        "float32 (GFLOP/s)": threads.fma_float32_gflops.map("{:.1f}".format),
        "float64 (GFLOP/s)": threads.fma_float64_gflops.map("{:.1f}".format),
        "each, of 1 alone (%)": (100 * each / each[0]).map("{:.0f}".format),
        "start (us)": threads.launch_us.map("{:.2f}".format),
    }
    reads = {
        "level": levels.level,
        "threads": levels.threads,
        "working set (KiB)": (levels.working_set_bytes // 1024).map("{:,}".format),
        "read (GB/s)": levels.read_gb_per_s.map("{:.1f}".format),
    }
    timer = {"resolution (ns)": [measured["timer_ns"]], "cost of a call (ns)": [measured["timer_call_ns"]]}
    titles = "Fused multiply-adds, and starting a parallel kernel", "Reading, by where the data is", "time.perf_counter"
    return {title: pd.DataFrame(columns) for title, columns in zip(titles, (peaks, reads, timer), strict=True)}


def _timer() -> dict[str, float]:
    """Smallest step of the clock that samples are taken with, and what asking it costs."""
    steps: set[float] = set()
    call_s = float("inf")
    for _ in range(5):
        times = [time.perf_counter() for _ in range(5000)]
        steps.update(after - before for before, after in itertools.pairwise(times))
        call_s = min(call_s, (times[-1] - times[0]) / (len(times) - 1))
    return {"timer_ns": _four_digits(1e9 * min(steps - {0.0})), "timer_call_ns": _four_digits(1e9 * call_s)}


def _four_digits(value: float) -> float:
    return float(f"{value:.4g}")


def _cpu_model() -> str:
    for line in _text(Path("/proc/cpuinfo")).splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError, AttributeError):
        return None


def _text(path: Path) -> str:
    """A file's text, or nothing where it cannot be read."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _cpus() -> list[int]:
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(cores()))


def _caches(cpu: int) -> Iterator[tuple[str, str, str]]:
    """Of each data cache of a CPU: level, size as in "32K", and the CPUs that share it."""
    for folder in sorted((CPUS / f"cpu{cpu}/cache").glob("index*")):
        level, kind, size, shared = (_text(folder / name) for name in ("level", "type", "size", "shared_cpu_list"))
        if level and size and kind != "Instruction":
            yield f"L{level}", size, shared


def _cpu_quota() -> float | None:
    """Cores' worth of time a container allows, which may be less than the cores it shows."""
    quota, _, period = _text(Path("/sys/fs/cgroup/cpu.max")).partition(" ")
    return int(quota) / int(period) if quota.isdigit() else None


def _huge_pages() -> str | None:
    chosen = re.search(r"\[(\w+)\]", _text(Path("/sys/kernel/mm/transparent_hugepage/enabled")))
    return chosen and chosen[1]


def _vector_bits() -> int:
    import llvmlite.binding as llvm

    features = llvm.get_host_cpu_features()
    return 512 if features.get("avx512f") else 256 if features.get("avx2") else 128


def _blas() -> str:
    import numpy as np

    config: Any = np.show_config(mode="dicts")
    blas = config.get("Build Dependencies", {}).get("blas", {})
    return f"{blas.get('name', 'unknown')} {blas.get('version', '')}".strip()


def _remembered(name: str) -> str:
    """Digest of a file that the package keeps of this machine (`conv_impls.userdir`)."""
    from conv_impls import userdir

    try:
        return hashlib.sha256((userdir.folder() / name).read_bytes()).hexdigest()[:12]
    except OSError:
        return "none"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    here = Path(__file__).parent
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"], cwd=here, capture_output=True, text=True
        )
    except OSError:
        return None
    return done.stdout.strip() or None
