"""The disk cache of compiled kernels: what makes an entry stale, and that no state of the disk breaks a call."""

from __future__ import annotations

import gc
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from numba import TypingError

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


# Each argument is a backend and a stride. Some of their kernels are made by one function and have one signature.
LAYERS = """
import sys
import numpy as np
from conv_impls import conv2d
x, w = np.ones((1, 9, 5, 5), np.float32), np.ones((9, 9, 3, 3), np.float32)
x[0, :, 2, 2] = 2
for one in sys.argv[1:]:
    backend, stride = one.split()
    # The second call of so small a layer is the caller's alone.
    for turn in range(2):
        y = conv2d(x, w, backend=backend, threads=2, stride=int(stride))
        assert np.allclose(y, 90, atol=1e-3), (one, y.min(), y.max())
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


def said_by(cache: Path, *layers: str) -> str:
    """What a new process writes that computes these of `LAYERS`."""
    variables = os.environ | {"NUMBA_CACHE_DIR": str(cache), "CONV_IMPLS_CACHE_DIR": str(cache)}
    command = [sys.executable, "-c", LAYERS, *layers]
    done = subprocess.run(command, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_what_processes_compiled_one_by_one_works_in_one(tmp_path: Path) -> None:
    """LLVM takes the first of two symbols of one name, so no two kernels may have parts of one name."""
    layers = "numba_winograd_f2 1", "numba_winograd_f2 2", "numba_winograd_f4 1"
    for layer in layers:
        assert said_by(tmp_path, layer).startswith("compiling kernels")
    assert said_by(tmp_path, *layers) == ""
    assert said_by(tmp_path, *reversed(layers)) == ""
    # Of functions made inside of one; others are the same code everywhere. Numba numbers them anew in each process.
    symbols = [
        {re.sub(rb"B\d+v\d+", b"", name) for name in re.findall(rb"_Z\w+", path.read_bytes()) if b"kernels_of" in name}
        for path in tmp_path.rglob("winograd.*convolve*.nbc")
    ]
    assert len(symbols) == len(layers)
    for one, other in itertools.combinations(symbols, 2):
        assert one
        assert not one & other


def test_a_function_made_with_something_else_is_refused() -> None:
    sizes = (1, 2)

    def inner() -> Any:
        return sizes

    with pytest.raises(TypeError, match=r"numbers, texts and other functions, got \(1, 2\)"):
        helper(inner)


def test_machine_code_of_other_sources_under_this_index_is_compiled_anew(package: Path) -> None:
    call(package)
    older = {path: path.read_bytes() for path in (package / "cache").rglob("*.nbc")}
    (package / "conv_impls" / "kernels" / "inner.py").write_text(INNER.replace("2 *", "5 *"))
    assert call(package) == [15, 15, 0, 0]
    assert older
    for path, code in older.items():
        path.write_bytes(code)
    assert call(package) == [15, 15, 0, 1]
    assert call(package) == [15, 15, 2, 0]


@pytest.mark.parametrize("collects", [True, False])
@pytest.mark.parametrize("fails", [True, False])
def test_garbage_is_collected_again_after_a_compilation(collects: bool, fails: bool) -> None:
    @entry()
    def made(value: Any) -> Any:
        return value.missing if fails else value

    before = gc.isenabled()
    try:
        (gc.enable if collects else gc.disable)()
        with pytest.raises(TypingError) if fails else nullcontext():
            made(1)
        assert gc.isenabled() == collects
    finally:
        (gc.enable if before else gc.disable)()


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
