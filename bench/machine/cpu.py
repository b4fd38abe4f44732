"""The processor: model, features, caches, cores this process may use. The only reader of CPU features in `bench`.

Sources: /proc/cpuinfo, sysfs, and LLVM's detection of features (the same that Numba compiles for).
Limits: family, model, stepping, caches, governor and hypervisor are known on Linux only, elsewhere None or empty.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CPUINFO, CPUS = Path("/proc/cpuinfo"), Path("/sys/devices/system/cpu")
# Identifies the silicon where the model name does not: virtual machines show "AMD EPYC" for every generation.
IDENTITY = {"cpu_family": "cpu family", "cpu_model": "model", "cpu_stepping": "stepping"}


def facts() -> dict[str, Any]:
    """All facts of the processor that change speed, as plain JSON values."""
    info = text_of(CPUINFO)
    return {
        "cpu": _name(info),
        **_identity(info),
        "cores": cores(),
        "cpus": os.cpu_count(),
        "smt": {"0": False, "1": True}.get(text_of(CPUS / "smt/active")),
        "hypervisor": "hypervisor" in info if info else None,
        "governor": text_of(CPUS / "cpu0/cpufreq/scaling_governor") or None,
        "caches": {level: size for level, size, _ in caches_of(0)},
        "vector_bits": vector_bits(),
    }


def cores() -> int:
    """Number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpus() -> list[int]:
    """The CPUs this process may use, by number."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(cores()))


def features() -> dict[str, bool]:
    """Instruction set extensions by LLVM's names, such as "avx512f", and whether this CPU has each."""
    import llvmlite.binding as llvm

    return {name: bool(on) for name, on in llvm.get_host_cpu_features().items()}


def vector_bits() -> int:
    """Width of the widest vector registers of float32."""
    known = features()
    return 512 if known.get("avx512f") else 256 if known.get("avx2") else 128


def caches_of(cpu: int) -> Iterator[tuple[str, str, str]]:
    """For each data cache of a CPU: level, size as in "32K", and the CPUs that share it."""
    for folder in sorted((CPUS / f"cpu{cpu}/cache").glob("index*")):
        level, kind, size, shared = (text_of(folder / name) for name in ("level", "type", "size", "shared_cpu_list"))
        if level and size and kind != "Instruction":
            yield f"L{level}", size, shared


def size_bytes(size: str) -> int:
    """Bytes of a size as Linux writes it: "32K", "16M", or a number of bytes.

    Examples
    --------
    >>> size_bytes("32K")
    32768
    """
    return int(size.rstrip("KMG")) * {"K": 2**10, "M": 2**20, "G": 2**30}.get(size[-1], 1)


def text_of(path: Path) -> str:
    """A file's text without surrounding space, or "" where the file cannot be read."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _name(info: str) -> str:
    found = _field(info, "model name")
    return found or platform.processor() or platform.machine()


def _identity(info: str) -> dict[str, int | None]:
    found = {key: _field(info, name) for key, name in IDENTITY.items()}
    return {key: int(value) if value.isdecimal() else None for key, value in found.items()}


def _field(info: str, name: str) -> str:
    """The first value of this name in /proc/cpuinfo, or ""."""
    # Not \s: an empty value must not reach into the next line.
    found = re.search(rf"^{re.escape(name)}[ \t]*:[ \t]*(.*)$", info, re.MULTILINE)
    return found[1].strip() if found else ""
