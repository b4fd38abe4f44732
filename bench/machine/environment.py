"""The machine and the versions: what makes two runs comparable. The only reader of the machine.

`environment` is what every run stores; its ``id`` leaves out what drifts (clock, load, date, what `auto` remembers), so
that two runs on one machine with one set of versions share it.
Limits: caches, governor and hypervisor are known on Linux only.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import subprocess
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("numpy", "numba", "llvmlite", "scipy", "pytest-benchmark")
# What drifts between two runs on one machine, or says nothing of speed; tuning and limits decide what `auto` picks, and
# are another's each time something is tuned.
VOLATILE = ("date", "commit", "load_1min", "id", "tuning", "limits")
CPUS = Path("/sys/devices/system/cpu")


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
        "caches": {level: size for level, size, _ in caches_of(0)},
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


def size_bytes(size: str) -> int:
    """Bytes of a size as Linux writes it: "32K", "16M", or a number of bytes."""
    return int(size.rstrip("KMG")) * {"K": 2**10, "M": 2**20, "G": 2**30}.get(size[-1], 1)


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


def cpus() -> list[int]:
    """The CPUs this process may use, by number."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(cores()))


def caches_of(cpu: int) -> Iterator[tuple[str, str, str]]:
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
