"""Facts about the machine and the versions, which make two runs comparable.

Every run stores the result of `environment`. Its ``id`` is a hash of all stable facts that affect speed: two runs on
one machine with the same versions have the same id. `VOLATILE` facts are not part of it.
Limits: a run of an older version has fewer facts, so readers must use ``.get``.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from conv_impls.kernels.runtime import target

from . import cpu, libraries, probes

PACKAGES = ("numpy", "numba", "llvmlite", "scipy", "pytest-benchmark")
# Not part of the id: facts that change between two runs on one machine, and facts that do not affect speed. `tuning`,
# `limits` and `known_peaks` depend on the files of `auto`, which change with each tuning.
VOLATILE = ("date", "commit", "load_1min", "id", "tuning", "limits", "known_peaks", "warnings")


def environment(packages: Iterable[str] = ()) -> dict[str, Any]:
    """Facts stored with every run.

    Parameters
    ----------
    packages : iterable of str
        Distributions whose versions are stored in addition to `PACKAGES`: those of the peers that a run measures.

    Returns
    -------
    dict
        Plain JSON values; None if a fact is unknown. ``warnings`` is a list of one-line texts for people.
    """
    from conv_impls.choice import limits, tuning

    facts: dict[str, Any] = {
        **cpu.facts(),
        "memory_gib": _memory_gib(),
        "cpu_quota_cores": _cpu_quota(),
        "transparent_huge_pages": _huge_pages(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in (*PACKAGES, *packages)},
        "blas": libraries.blas(),
        "blas_kernel": libraries.blas_kernel(),
        "tuning": _remembered(tuning.FILE),
        "limits": _remembered(limits.FILE),
        "known_peaks": probes.known_peaks(),
        "warnings": libraries.restrictions(),
        "commit": _commit(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "load_1min": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }
    stable = {key: value for key, value in facts.items() if key not in VOLATILE}
    facts["id"] = hashlib.sha256(json.dumps(stable, sort_keys=True).encode()).hexdigest()[:12]
    return facts


def thread_variables(threads: int) -> dict[str, str]:
    """Environment variables that limit every library to this many threads. Set them before the import."""
    names = *(f"{library}_NUM_THREADS" for library in ("OMP", "OPENBLAS", "MKL", "NUMBA")), "VECLIB_MAXIMUM_THREADS"
    # 2**24 cycles, some ms. The reference check calls BLAS in the process of the backend. With the default of 2**26,
    # idle BLAS threads would still spin during the next turn of that backend.
    return dict.fromkeys(names, str(threads)) | {"OPENBLAS_THREAD_TIMEOUT": "24"}


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError, AttributeError):
        return None


def _cpu_quota() -> float | None:
    """CPU quota of the container in cores; it may be lower than the number of visible cores."""
    quota, _, period = target.text_of(Path("/sys/fs/cgroup/cpu.max")).partition(" ")
    return int(quota) / int(period) if quota.isdigit() else None


def _huge_pages() -> str | None:
    chosen = re.search(r"\[(\w+)\]", target.text_of(Path("/sys/kernel/mm/transparent_hugepage/enabled")))
    return chosen and chosen[1]


def _remembered(name: str) -> str:
    """Hash of a file that the package stores for this machine (`conv_impls.choice.userdir`)."""
    from conv_impls.choice import userdir

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
