"""NumPy's BLAS and its kernels on this CPU; environment variables that limit libraries to older instructions.

OpenBLAS contains kernels for many CPUs and picks one set at load time; ``OPENBLAS_CORETYPE`` overrides the choice. A
child process without that variable reports the default choice. No table is used.
Limits: only OpenBLAS and BLIS report their kernels. Variables of other libraries are listed, but their cost is not
measured. They affect only the libraries that read them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

from .cpu import cores

# Variables that select an instruction set -> the library that reads them. NUMBA_ENABLE_AVX restricts only if it is 0.
ISA_VARIABLES = {
    "MKL_ENABLE_INSTRUCTIONS": "oneMKL (torch)",
    "ONEDNN_MAX_CPU_ISA": "oneDNN (torch, openvino)",
    "ATEN_CPU_CAPABILITY": "torch's own kernels",
    "NUMBA_CPU_NAME": "Numba's kernels",
    "NUMBA_CPU_FEATURES": "Numba's kernels",
    "NUMBA_ENABLE_AVX": "Numba's kernels",
}
THREAD_VARIABLES = "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"
# NUMBA_CPU_FEATURES lists more than a hundred features.
SHOWN_CHARACTERS = 40
# Importing NumPy takes 0.1 s; a child process that runs this long is stuck.
CHILD_S = 30.0


def blas() -> str:
    """Name and version of the BLAS that NumPy was built with."""
    import numpy as np

    config: Any = np.show_config(mode="dicts")
    built = config.get("Build Dependencies", {}).get("blas", {})
    return f"{built.get('name', 'unknown')} {built.get('version', '')}".strip()


def blas_kernel() -> str | None:
    """The CPU type of the kernels that NumPy's BLAS uses here, such as "SkylakeX"; None if it is not reported."""
    import numpy as np
    from threadpoolctl import threadpool_info

    package = Path(np.__file__).resolve().parent
    pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    # SciPy's wheels contain their own OpenBLAS, which may be another version. NumPy's is in its folder or next to it.
    # If NumPy has none of its own, the BLAS is a shared one.
    inside = package.with_name("numpy.libs"), package
    own = [pool for pool in pools if any(Path(pool["filepath"]).resolve().is_relative_to(folder) for folder in inside)]
    return next((pool["architecture"] for pool in own or pools if pool.get("architecture")), None)


def restrictions() -> list[str]:
    """One line for each environment variable that may make a library slower than this CPU allows."""
    found = [*_coretype()]
    for name, reader in ISA_VARIABLES.items():
        value = os.environ.get(name)
        # An empty value counts too: for Numba it means a CPU without any features.
        if value is not None and (name != "NUMBA_ENABLE_AVX" or value.strip() == "0"):
            found.append(f"{name}={_short(value)} limits the instruction set of {reader}, which may make it slower")
    for name in THREAD_VARIABLES:
        value = os.environ.get(name, "").strip()
        if value.isdecimal() and int(value) < cores():
            reach = "libraries use fewer threads, except where a process sets the number, as those of backends do"
            found.append(f"{name}={value} is below the {cores()} cores: {reach}")
    return found


def _coretype() -> list[str]:
    value = os.environ.get("OPENBLAS_CORETYPE")
    if value is None:
        return []
    now, free = blas_kernel(), _free_kernel()
    if now is None or now == free:
        return []
    instead = f"the default is {free}" if free else "the default is unknown"
    return [
        f"OPENBLAS_CORETYPE={_short(value)} makes NumPy's BLAS use its {now} kernels ({instead}): "
        "it may make NumPy backends slower"
    ]


@cache
def _free_kernel() -> str | None:
    """`blas_kernel` in a process without OpenBLAS variables."""
    code = f"from {__name__} import blas_kernel; print(blas_kernel() or '')"
    variables = {name: value for name, value in os.environ.items() if not name.startswith("OPENBLAS_")}
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=Path(__file__).parents[2], env=variables, capture_output=True, text=True,
            timeout=CHILD_S,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None


def _short(value: str) -> str:
    """The value on one line, truncated if it is long."""
    value = " ".join(value.split())
    return value if len(value) <= SHOWN_CHARACTERS else f"{value[:SHOWN_CHARACTERS]}..."
