"""The CPU that kernels are compiled for, features and registers, and the caches of the one they run on.

Idea
    Features are what Numba hands to LLVM, asked of Numba itself, so ``NUMBA_CPU_NAME``, ``NUMBA_CPU_FEATURES`` and
    ``NUMBA_ENABLE_AVX`` count, and a CPU that LLVM cannot describe has none. What every CPU of an architecture has is
    not a feature there: SSE2 on x86-64, NEON on 64-bit Arm, both with vectors of 16 bytes.
    Numba is imported by what needs it: the caches are known without.
Source
    `numba.core.codegen`; x86-64 and AArch64 procedure call standards for the registers; Linux's
    Documentation/ABI/testing/sysfs-devices-system-cpu for the caches.
Limits
    Caches are read on Linux, elsewhere they are those of a modest desktop CPU. Scalable vectors (SVE) are not used.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

CPUS = Path("/sys/devices/system/cpu")
# Architectures of 64 bits, by LLVM's names, that have at least 32 vector registers whatever their features.
MANY_REGISTERS = ("aarch64", "arm64", "powerpc64le", "ppc64le", "s390x")


class Caches(NamedTuple):
    """Bytes of the data caches of one core; L3 is often shared."""

    l1: int
    l2: int
    l3: int


# Where the system says nothing.
USUAL = Caches(32 * 2**10, 2**20, 8 * 2**20)


@cache
def features() -> dict[str, bool]:
    """Instruction set extensions by LLVM's names, such as "avx512f", and whether kernels use each."""
    return {item[1:]: item[0] == "+" for item in _features().split(",") if item[:1] in ("+", "-")}


@cache
def name() -> str:
    """What Numba compiles for, as one text: the CPU by LLVM's name, and its features."""
    from llvmlite import binding
    from numba import config

    return f"{config.CPU_NAME or binding.get_host_cpu_name()} {_features()}"


def vector_bytes() -> int:
    """Bytes of the widest vector register that kernels use."""
    known = features()
    # 512 bits only where all of AVX-512 that a tail needs is there.
    if known.get("avx512f") and known.get("avx512vl"):
        return 64
    return 32 if known.get("avx2") else 16


def registers() -> int:
    """Vector registers of that width that kernels may count on: 16 or 32."""
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
    # A level that is not there is as large as the one in front of it.
    l1 = found.get("L1", USUAL.l1)
    l2 = found.get("L2", l1)
    return Caches(l1, l2, found.get("L3", l2))


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
    """A file's text without surrounding space, or "" where the file cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _features() -> str:
    from numba import config
    from numba.core.codegen import get_host_cpu_features

    found: str = get_host_cpu_features() if config.CPU_FEATURES is None else config.CPU_FEATURES
    return found
