"""The disk cache of compiled kernels: what makes an entry stale, and that no state of the disk breaks a call."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import conv_impls
from conv_impls.kernels.runtime.compile import entry, helper

# One kernel that calls a function of another module; 3 * 2 = 6 until that module is edited.
ENTRY = """
from conv_impls.kernels.runtime.compile import entry
from conv_impls.kernels.inner import twice

@entry()
def run(value, out):
    out[0] = twice(value)
"""
INNER = "from conv_impls.kernels.runtime.compile import helper\n\n@helper\ndef twice(value):\n    return 2 * value\n"
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


# Kernels of one signature that one function makes, and those of another backend.
LAYERS = """
import numpy as np
from conv_impls import conv2d
x, w = np.ones((1, 1, 5, 5), np.float32), np.ones((1, 1, 3, 3), np.float32)
for backend in ("numba_winograd_f2", "numba_winograd_f4", "numba_depthwise"):
    assert (conv2d(x, w, backend=backend, threads=2) == 9).all()
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the package whose kernels are the two above."""
    source, target = Path(conv_impls.__file__).parent, tmp_path / "conv_impls"
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "kernels"))
    (target / "kernels" / "runtime").mkdir(parents=True)
    for name in (
        "__init__.py",
        "runtime/__init__.py",
        "runtime/cache.py",
        "runtime/compile.py",
        "runtime/cores.py",
        "runtime/target.py",
    ):
        shutil.copy(source / "kernels" / name, target / "kernels" / name)
    (target / "kernels" / "entry.py").write_text(ENTRY)
    (target / "kernels" / "inner.py").write_text(INNER)
    return tmp_path


def process(package: Path, cache: Path | None = None) -> subprocess.CompletedProcess[str]:
    """`CALL` in a new process."""
    variables = {"PYTHONPATH": str(package), "NUMBA_CACHE_DIR": str(cache or package / "cache"), "HOME": str(package)}
    done = subprocess.run(
        [sys.executable, "-c", CALL], cwd=package, env=os.environ | variables, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done


def call(package: Path, cache: Path | None = None) -> list[float]:
    """In a new process: the results of two signatures, how many came from the disk, how many warnings."""
    result: list[float] = json.loads(process(package, cache).stdout)
    return result


def test_a_process_says_once_that_it_compiles(package: Path) -> None:
    said = process(package).stderr
    assert said.count("\n") == 1
    assert said.startswith("compiling kernels for this CPU, about ")
    assert "python -m conv_impls warmup" in said
    assert process(package).stderr == ""


def test_a_second_process_loads_what_the_first_compiled(package: Path) -> None:
    assert call(package) == [6, 6, 0, 0]
    assert call(package) == [6, 6, 2, 0]


def test_a_second_process_compiles_no_kernel_of_a_layer_again(tmp_path: Path) -> None:
    variables = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path), "CONV_IMPLS_CACHE_DIR": str(tmp_path)}
    said = [
        subprocess.run([sys.executable, "-c", LAYERS], env=variables, capture_output=True, text=True, check=True).stderr
        for _ in range(2)
    ]
    assert said[0].startswith("compiling kernels")
    assert said[1] == ""


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


def test_a_helper_is_for_compiled_callers_alone() -> None:
    @helper
    def twice(value: Any) -> Any:
        return 2 * value

    @entry()
    def both(value: Any) -> Any:
        return twice(value) + twice(1.0)

    assert both(3.0) == 8
    with pytest.raises(TypeError):
        twice(3.0)
