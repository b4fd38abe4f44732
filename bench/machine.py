"""The machine and the versions: what makes two runs comparable. The only reader of the machine.

`environment` is what every run stores; its ``id`` leaves out what drifts (clock, load, date), so that two runs on one
machine with one set of versions share it. `fma_peak` is what the cores can do at best, as
`conv_impls.limits` measures it.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import time
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("numpy", "numba", "llvmlite", "scipy", "pytest-benchmark")
# What drifts between two runs on one machine, or says nothing of speed.
VOLATILE = ("date", "commit", "load_1min", "id")


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def environment() -> dict[str, Any]:
    """Facts stored with every run."""
    facts: dict[str, Any] = {
        "cpu": _cpu_model(),
        "cores": cores(),
        "memory_gib": _memory_gib(),
        "caches": _caches(),
        "vector_bits": _vector_bits(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "blas": _blas(),
        "commit": _commit(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "load_1min": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }
    stable = {key: value for key, value in facts.items() if key not in VOLATILE}
    facts["id"] = hashlib.sha256(json.dumps(stable, sort_keys=True).encode()).hexdigest()[:12]
    return facts


def thread_variables(threads: int) -> dict[str, str]:
    """Environment variables that hold every library to this many threads; to be set before it is imported."""
    names = (
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "NUMBA_NUM_THREADS",
        "VECLIB_MAXIMUM_THREADS",
    )
    # 2**24 cycles: idle BLAS threads then stop spinning before the next backend is timed (see bench.measure.SETTLE_S).
    return dict.fromkeys(names, str(threads)) | {"OPENBLAS_THREAD_TIMEOUT": "24"}


def fma_peak(threads: int, seconds: float = 0.6) -> float:
    """Measured peak in GFLOP/s of float32 multiply-adds on this many threads."""
    from conv_impls.limits import fma_flops_per_s

    return fma_flops_per_s(threads, "float32", seconds) / 1e9


def copy_bandwidth(size_bytes: int, seconds: float = 0.2) -> float:
    """GB/s (read plus written) of numpy.copyto on one thread, for a working set of this size."""
    import numpy as np

    source = np.ones(size_bytes // 8, np.float32)
    target = source.copy()
    best, until = 0.0, time.perf_counter() + seconds
    while time.perf_counter() < until:
        start = time.perf_counter()
        repeats = max(1, 2**22 // size_bytes)
        for _ in range(repeats):
            np.copyto(target, source)
        best = max(best, 2 * source.nbytes * repeats / (time.perf_counter() - start) / 1e9)
    return best


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError, AttributeError):
        return None


def _caches() -> dict[str, str]:
    found = {}
    for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            level, kind, size = ((folder / name).read_text().strip() for name in ("level", "type", "size"))
        except OSError:
            continue
        if kind != "Instruction":
            found[f"L{level}"] = size
    return found


def _vector_bits() -> int:
    import llvmlite.binding as llvm

    features = llvm.get_host_cpu_features()
    return 512 if features.get("avx512f") else 256 if features.get("avx2") else 128


def _blas() -> str:
    import numpy as np

    config: Any = np.show_config(mode="dicts")
    blas = config.get("Build Dependencies", {}).get("blas", {})
    return f"{blas.get('name', 'unknown')} {blas.get('version', '')}".strip()


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
