"""The disk cache of compiled kernels: what makes an entry stale, and that no state of the disk breaks a call."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import conv_impls

# One kernel that calls a function of another module; 3 * 2 = 6 until that module is edited.
ENTRY = """
from numba import njit
from conv_impls.kernels.runtime.cache import kernel
from conv_impls.kernels.inner import twice

@kernel()
def run(value, out):
    out[0] = twice(value)
"""
INNER = "from numba import njit\n\n@njit\ndef twice(value):\n    return 2 * value\n"
CALL = """
import json, warnings
import numpy as np
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    from conv_impls.kernels.entry import run
    out, wide = np.zeros(1), np.zeros(1, np.float32)
    run(3.0, out)
    run(3, wide)
print(json.dumps([out[0], wide[0].item(), sum(run.stats.cache_hits.values()), len(seen)]))
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the package whose kernels are the two above."""
    source, target = Path(conv_impls.__file__).parent, tmp_path / "conv_impls"
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "kernels"))
    (target / "kernels" / "runtime").mkdir(parents=True)
    for name in ("__init__.py", "runtime/__init__.py", "runtime/cache.py", "runtime/target.py"):
        shutil.copy(source / "kernels" / name, target / "kernels" / name)
    (target / "kernels" / "entry.py").write_text(ENTRY)
    (target / "kernels" / "inner.py").write_text(INNER)
    return tmp_path


def call(package: Path, cache: Path | None = None) -> list[float]:
    """In a new process: the results of two signatures, how many came from the disk, how many warnings."""
    variables = {"PYTHONPATH": str(package), "NUMBA_CACHE_DIR": str(cache or package / "cache"), "HOME": str(package)}
    done = subprocess.run(
        [sys.executable, "-c", CALL], cwd=package, env=os.environ | variables, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    result: list[float] = json.loads(done.stdout)
    return result


def test_a_second_process_loads_what_the_first_compiled(package: Path) -> None:
    assert call(package) == [6, 6, 0, 0]
    assert call(package) == [6, 6, 2, 0]


def test_an_edit_of_another_module_of_the_kernels_recompiles(package: Path) -> None:
    call(package)
    (package / "conv_impls" / "kernels" / "inner.py").write_text(INNER.replace("2 *", "5 *"))
    assert call(package) == [15, 15, 0, 0]


@pytest.mark.parametrize(
    ("pattern", "keep"),
    [
        ("*.nbc", 0.5), ("*.nbi", 0),
        pytest.param("*.nbc", 0, marks=pytest.mark.long), pytest.param("*.nbi", 0.5, marks=pytest.mark.long),
    ],
)  # fmt: skip
def test_a_truncated_file_is_compiled_anew_and_mended(package: Path, pattern: str, keep: float) -> None:
    call(package)
    for path in (package / "cache").rglob(pattern):
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * keep)])
    assert call(package) == [6, 6, 0, 1]
    assert call(package) == [6, 6, 2, 0]


def test_a_cache_that_cannot_be_made_costs_one_warning(package: Path) -> None:
    # Plain files where the three folders that Numba tries would be: this holds for root too, unlike a mode.
    for name in ("cache", ".cache", "conv_impls/kernels/__pycache__"):
        (package / name).write_text("")
    assert call(package) == [6, 6, 0, 1]


def test_a_cache_that_is_lost_before_the_first_save_costs_one_warning(package: Path) -> None:
    # The folder goes between the import, which looks at it, and the first compilation.
    path = package / "conv_impls" / "kernels" / "entry.py"
    vanish = f"import pathlib, shutil\nshutil.rmtree({str(package / 'cache')!r})\n"
    path.write_text(f"{ENTRY}\n{vanish}pathlib.Path({str(package / 'cache')!r}).write_text('')\n")
    assert call(package) == [6, 6, 0, 1]
