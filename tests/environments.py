"""The library's tests in environments of their own: the lowest versions we declare, or every Python that is here.

    python tests/environments.py lowest      numba, numpy and scipy at their bounds; then the extra `bench` at its own
    python tests/environments.py pythons     each Python from 3.11 on that is on PATH or known to pyenv, except this one

Each environment is made in a temporary folder, tests a copy of nothing but this checkout, and goes away. The bounds are
read from pyproject.toml. It says which Pythons it ran and which it did not find; where it found none, it says that too,
and that is no failure. Exit code 1 when an environment failed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent
# Small and real: plans and calls by every backend, the kernels' parts, gradients, refusals, and drawn layers, which are
# the same with all versions. Two minutes, most of it compiling.
TESTS = (
    "test_conformance.py", "test_gradients.py", "test_plan.py", "test_properties.py", "test_registry.py",
    "test_target.py", "test_without_compiler.py", "test_kernel_cache.py", "test_workloads_random.py",
)  # fmt: skip
OLDEST, NEWEST = (3, 11), (3, 14)


def declared(extra: str | None = None) -> list[str]:
    """Requirements of the package, or of an extra without what it takes from other extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found: list[str] = project["optional-dependencies"][extra] if extra else project["dependencies"]
    return [line for line in found if not line.startswith("conv-impls")]


def lowest(requirements: Sequence[str]) -> list[str]:
    """The same at their lower bounds.

    Examples
    --------
    >>> lowest(["numba>=0.61", "pytest-benchmark[histogram]>=5.3.1"])
    ['numba==0.61', 'pytest-benchmark[histogram]==5.3.1']
    """
    return [line.replace(">=", "==") for line in requirements]


def interpreters() -> dict[tuple[int, int], str]:
    """The command of each Python that answers, by version."""
    found = {}
    for minor in range(OLDEST[1], NEWEST[1] + 1):
        name = f"python3.{minor}"
        pyenv = sorted(
            Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")).glob(f"versions/3.{minor}.*/bin/{name}")
        )
        for command in (shutil.which(name), *map(str, pyenv)):
            # Shims of pyenv are there for versions that it does not run.
            if command and subprocess.run([command, "-c", "import venv"], capture_output=True).returncode == 0:
                found[3, minor] = command
                break
    return found


def run(folder: Path, *command: str) -> bool:
    variables = {"NUMBA_CACHE_DIR": str(folder / "numba"), "CONV_IMPLS_CACHE_DIR": str(folder / "user")}
    return subprocess.run(command, cwd=ROOT, env=os.environ | variables).returncode == 0


def install(python: str, folder: Path, requirements: Sequence[str]) -> str | None:
    """The Python of a new environment with these packages and this checkout, or None where that failed."""
    print(f"  {' '.join(requirements)}", flush=True)
    inside = folder / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
    made = run(folder, python, "-m", "venv", str(folder / "venv"))
    pip = str(inside), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"
    # Without dependencies: those of pyproject.toml are among the requirements, with their bounds or without.
    done = made and run(folder, *pip, *requirements) and run(folder, *pip, "--no-deps", "-e", ".")
    return str(inside) if done else None


def library(python: str, folder: Path, requirements: Sequence[str]) -> bool:
    """Whether the library's tests pass."""
    # The tests' own helpers take parts of `bench`.
    inside = install(python, folder, [*requirements, *declared("onnx"), *declared("bench"), "hypothesis"])
    if inside is None:
        return False
    versions = "import numba, numpy, scipy, sys; print(' ', sys.version.split()[0], *(f'{m.__name__} {m.__version__}' "
    run(folder, inside, "-c", f"{versions}for m in (numba, numpy, scipy)))")
    paths = [str(Path("tests") / name) for name in TESTS]
    return run(folder, inside, "-m", "pytest", "-q", "-p", "no:cacheprovider", *paths)


def command_line(python: str, folder: Path) -> bool:
    """Whether the command line works with the extra ``bench`` at its lower bounds, and warns of nothing."""
    inside = install(python, folder, [*lowest(declared()), *lowest(declared("bench")), *lowest(declared("onnx"))])
    listed = "-W", "error::DeprecationWarning", "-m", "bench", "list"
    checked = "-m", "bench", "check", "--workload", "smoke", "--backends", "numpy_im2col,numba_simd"
    return inside is not None and run(folder, inside, *listed) and run(folder, inside, *checked)


def main(which: str) -> int:
    failed = []

    def case(name: str, passes: bool) -> None:
        print(f"{name}: {'passed' if passes else 'FAILED'}", flush=True)
        failed.extend([] if passes else [name])

    if which == "lowest":
        with tempfile.TemporaryDirectory() as folder:
            case("the library at its lower bounds", library(sys.executable, Path(folder), lowest(declared())))
        with tempfile.TemporaryDirectory() as folder:
            case("the command line at its lower bounds", command_line(sys.executable, Path(folder)))
    elif which == "pythons":
        here, others = sys.version_info[:2], interpreters()
        others.pop(here, None)
        for version, command in others.items():
            name = f"Python {version[0]}.{version[1]}"
            print(f"== {name}: {command}", flush=True)
            with tempfile.TemporaryDirectory() as folder:
                case(name, library(command, Path(folder), declared()))
        missing = [f"3.{minor}" for minor in range(OLDEST[1], NEWEST[1] + 1) if (3, minor) not in {*others, here}]
        ran = ", ".join(f"{a}.{b}" for a, b in others) or "none, for no other was found"
        print(f"Pythons tested: {ran}. Not found: {', '.join(missing) or 'none'}.")
        print(f"Python {here[0]}.{here[1]}, which runs this, is left to `make test`.")
    else:
        print(__doc__)
        return 2
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:] or ["help"]))
