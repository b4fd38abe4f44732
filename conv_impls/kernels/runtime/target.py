"""Features and registers of the CPU that kernels are compiled for; identity and caches of the CPU they run on.

Idea
    Features are those that Numba passes to LLVM, read from Numba itself. So ``NUMBA_CPU_NAME``, ``NUMBA_CPU_FEATURES``
    and ``NUMBA_ENABLE_AVX`` have an effect, and a CPU that LLVM does not know has no features. The baseline of an
    architecture is not listed as a feature: SSE2 on x86-64, NEON on 64-bit Arm, both with vectors of 16 bytes.
    Functions that need Numba import it themselves: reading the caches does not need it.
Source
    `numba.core.codegen`; x86-64 and AArch64 procedure call standards for the registers; Linux's
    Documentation/ABI/testing/sysfs-devices-system-cpu for the caches.
Limits
    Caches are read on Linux only; elsewhere, sizes of a modest desktop CPU are used. Scalable vectors (SVE) are not
    used.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

CPUINFO, CPUS = Path("/proc/cpuinfo"), Path("/sys/devices/system/cpu")
# Fields that identify a CPU, on x86 and on Arm; virtual machines show the same model name for many CPUs.
IDENTITY = ("cpu family", "model", "stepping", "CPU implementer", "CPU variant", "CPU part")
# 64-bit architectures, by LLVM's names, that always have at least 32 vector registers.
MANY_REGISTERS = ("aarch64", "arm64", "powerpc64le", "ppc64le", "s390x")


class Caches(NamedTuple):
    """Bytes of the data caches of one core; L3 is often shared."""

    l1: int
    l2: int
    l3: int


# Default if the system gives no sizes.
USUAL = Caches(32 * 2**10, 2**20, 8 * 2**20)


@cache
def features() -> dict[str, bool]:
    """Instruction set extensions by LLVM's names, such as "avx512f", and whether kernels use them."""
    return {item[1:]: item[0] == "+" for item in _features().split(",") if item[:1] in ("+", "-")}


@cache
def name() -> str:
    """Numba's compilation target as one string: the CPU by LLVM's name, and its features."""
    from llvmlite import binding
    from numba import config

    return f"{config.CPU_NAME or binding.get_host_cpu_name()} {_features()}"


def vector_bytes() -> int:
    """Bytes of the widest vector register that kernels use."""
    known = features()
    # 512 bits only if the CPU has all AVX-512 extensions that a tail needs.
    if known.get("avx512f") and known.get("avx512vl"):
        return 64
    return 32 if known.get("avx2") else 16


def registers() -> int:
    """Number of vector registers of that width: 16 or 32."""
    return 32 if vector_bytes() == 64 or architecture() in MANY_REGISTERS else 16


def architecture() -> str:
    """The first word of LLVM's triple, such as "x86_64" or "aarch64"."""
    from llvmlite import binding

    triple: str = binding.get_process_triple()
    return triple.partition("-")[0]


@cache
def caches() -> Caches:
    """The data caches of the first core."""
    found = {level: size_bytes(size) for level, size, _ in caches_of(0)}
    if not found:
        return USUAL
    # A missing level gets the size of the level before it.
    l1 = found.get("L1", USUAL.l1)
    l2 = found.get("L2", l1)
    return Caches(l1, l2, found.get("L3", l2))


def identity() -> dict[str, str]:
    """Identity of this CPU: family, model and stepping or similar fields, and the size of each cache."""
    # The lines of the first core.
    fields = (line.partition(":") for line in text_of(CPUINFO).partition("\n\n")[0].splitlines())
    known = {field.strip(): value.strip() for field, _, value in fields if field.strip() in IDENTITY}
    return known | {level: size for level, size, _ in caches_of(0)}


def caches_of(cpu: int) -> Iterator[tuple[str, str, str]]:
    """For each data cache of a CPU: level as in "L1", size as in "32K", and the CPUs that share it."""
    for folder in sorted((CPUS / f"cpu{cpu}/cache").glob("index*")):
        level, kind, size, shared = (text_of(folder / part) for part in ("level", "type", "size", "shared_cpu_list"))
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
    """A file's text without surrounding space, or "" if the file cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def compiles() -> bool:
    """Whether Numba compiles at all; debuggers and coverage turn it off (``NUMBA_DISABLE_JIT``)."""
    numba = sys.modules.get("numba")
    if numba is not None:
        return not numba.config.DISABLE_JIT
    return os.environ.get("NUMBA_DISABLE_JIT", "").strip() in ("", "0")


def _features() -> str:
    from numba import config
    from numba.core.codegen import get_host_cpu_features

    found: str = get_host_cpu_features() if config.CPU_FEATURES is None else config.CPU_FEATURES
    return found
