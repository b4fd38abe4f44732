"""The processor: model, vector width, caches, cores that this process may use.

Sources: /proc/cpuinfo, sysfs, and `conv_impls.kernels.runtime.target` for Numba's compile target.
Limits: family, model, stepping, caches, governor and hypervisor are known on Linux only, elsewhere None or empty.
"""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path
from typing import Any

from conv_impls.kernels.runtime import target
from conv_impls.kernels.runtime.target import CPUS, text_of

CPUINFO = Path("/proc/cpuinfo")
# Identifies the CPU if the model name does not: virtual machines show "AMD EPYC" for every generation.
IDENTITY = {"cpu_family": "cpu family", "cpu_model": "model", "cpu_stepping": "stepping"}


def facts() -> dict[str, Any]:
    """All facts of the processor that affect speed, as plain JSON values."""
    info = text_of(CPUINFO)
    return {
        "cpu": _name(info),
        **_identity(info),
        "cores": cores(),
        "cpus": os.cpu_count(),
        "smt": {"0": False, "1": True}.get(text_of(CPUS / "smt/active")),
        "hypervisor": "hypervisor" in info if info else None,
        "governor": text_of(CPUS / "cpu0/cpufreq/scaling_governor") or None,
        "caches": {level: size for level, size, _ in target.caches_of(0)},
        "vector_bits": 8 * target.vector_bytes(),
    }


def cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpus() -> list[int]:
    """Numbers of the CPUs that this process may use."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(cores()))


def _name(info: str) -> str:
    found = _field(info, "model name")
    return found or platform.processor() or platform.machine()


def _identity(info: str) -> dict[str, int | None]:
    found = {key: _field(info, name) for key, name in IDENTITY.items()}
    return {key: int(value) if value.isdecimal() else None for key, value in found.items()}


def _field(info: str, name: str) -> str:
    """The first value of this name in /proc/cpuinfo, or ""."""
    # Not \s: it also matches a newline, so an empty value would match the next line.
    found = re.search(rf"^{re.escape(name)}[ \t]*:[ \t]*(.*)$", info, re.MULTILINE)
    return found[1].strip() if found else ""
