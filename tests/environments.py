"""Tests in environments of their own: the lowest versions we declare, or every Python that is here.

    python tests/environments.py lowest      each need at the lower bounds of pyproject.toml, see `needs`
    python tests/environments.py pythons     each Python from 3.11 on that is on PATH or known to pyenv, except this one

Each environment is made by uv in a temporary folder and deleted at the end. It has this checkout and nothing else of
this machine. The command prints which Pythons it ran and which it did not find; if it found none, it prints that too,
and that is no failure. Exit code 1 if an environment failed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
# Small and real: plans and calls by every backend, the kernels' parts, gradients, refusals, and drawn layers, which are
# the same with all versions. Two minutes, most of it compiling.
TESTS = tuple(
    f"tests/test_{name}.py"
    for name in (
        "conformance", "gradients", "plan", "properties", "registry", "target", "without_compiler", "kernel_cache",
        "workloads_random",
    )
)  # fmt: skip
# What uses the packages of the extras: tables, figures, pages, files, the command line, sessions, models, documents.
SUITE = tuple(
    f"tests/test_{name}.py"
    for name in (
        "bench_charts", "bench_cli", "bench_compare", "bench_environment", "bench_figures", "bench_findings",
        "bench_frame", "bench_html", "bench_machine", "bench_pack", "bench_records", "bench_report", "bench_schema",
        "bench_session", "bench_store", "bench_sweeps", "claims_page", "claims_titles", "docs", "docs_ladder",
        "docs_reference", "plan_processes", "repository", "workloads_onnx",
    )
)  # fmt: skip
# A requirement that names other extras of this package.
OWN = re.compile(r"conv-impls\[(.*)\]")
OLDEST, NEWEST = (3, 11), (3, 14)
PYTEST = "-m", "pytest", "-q", "-p", "no:cacheprovider"
# With the library alone: every backend that supports the layer, against the reference.
ALONE = """
import numpy as np
from conv_impls import Conv2dProblem, backends, get_backend, plan
from conv_impls.reference import reference
problem = Conv2dProblem(1, 4, (9, 9), 8, (3, 3), padding=((1, 1), (1, 1)))
rng = np.random.default_rng(0)
x, weight = (rng.standard_normal(shape, np.float32) for shape in (problem.input_shape, problem.weight_shape))
for name in backends():
    if get_backend(name).supports(problem) is None:
        y = plan(problem, weight, backend=name)(x)
        np.testing.assert_allclose(y, reference(x, weight, None, problem), atol=1e-4, err_msg=name)
"""
# Warnings are errors, as in the tests.
STRICT = "-W", "error"


class Need(NamedTuple):
    """An environment: what is installed at its lower bound, what else, and the arguments of Python that must pass."""

    lowest: list[str]
    newest: list[str]
    commands: list[tuple[str, ...]]


def declared(extra: str | None = None) -> list[str]:
    """Requirements of the package, or of an extra with those of the extras that it names."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found: list[str] = project["optional-dependencies"][extra] if extra else project["dependencies"]
    others = (name for line in found if (names := OWN.fullmatch(line)) for name in names[1].split(","))
    named = [line for other in others for line in declared(other)]
    return [line for line in found if not OWN.fullmatch(line)] + named


def parts(requirements: Sequence[str], names: Sequence[str]) -> list[str]:
    """The requirements of these packages.

    Examples
    --------
    >>> parts(["ruff>=0.13", "mypy>=2.4", "mypy-extensions"], ["mypy"])
    ['mypy>=2.4']
    """
    return [line for line in requirements if line.partition(">")[0] in names]


def bounded(requirements: Sequence[str]) -> list[str]:
    """The requirements with a lower bound that is not the only version.

    Examples
    --------
    >>> bounded(["jax>=0.10", "torch==2.13.0"])
    ['jax>=0.10']
    """
    return [line for line in requirements if ">=" in line]


def needs() -> dict[str, Need]:
    """One environment for each need, because not all lower bounds can be had together."""
    library, tools = declared(), parts(declared("test"), ["mypy", "ruff"])
    others = [*library, *(line for line in declared("test") if line not in tools)]
    return {
        "the library alone": Need(library, [], [(*STRICT, "-c", ALONE)]),
        # All tests would take a quarter of an hour.
        "the suite": Need(others, tools, [(*STRICT, "-m", "bench", "list"), (*PYTEST, *TESTS, *SUITE)]),
        # Type checkers read the annotations of all packages, which are best in the newest.
        "lint and types": Need(
            tools, others, [("-m", "ruff", "check", "."), ("-m", "ruff", "format", "--check", "."), ("-m", "mypy")]
        ),
        # The others of this extra are pinned to one version; `make test-peers` runs with it.
        "other libraries": Need(
            [*library, *bounded(declared("peers"))], ["hypothesis"], [(*PYTEST, "tests/test_bench_peers.py")]
        ),
    }


def interpreters() -> dict[tuple[int, int], str]:
    """The command of each Python that answers, by version."""
    found = {}
    for minor in range(OLDEST[1], NEWEST[1] + 1):
        name = f"python3.{minor}"
        pyenv = sorted(
            Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")).glob(f"versions/3.{minor}.*/bin/{name}")
        )
        for command in (shutil.which(name), *map(str, pyenv)):
            # pyenv has shims for versions that it does not run.
            if command and subprocess.run([command, "-c", "import venv"], capture_output=True).returncode == 0:
                found[3, minor] = command
                break
    return found


class Environments:
    """A context manager: uv in a temporary folder, and one environment after the other."""

    def __enter__(self) -> Environments:
        self._temporary = tempfile.TemporaryDirectory()
        self._folder = Path(self._temporary.name)
        self._tools = self._folder / "tools"
        self._failed: list[str] = []
        subprocess.run([sys.executable, "-m", "venv", str(self._tools)], check=True)
        pip = "-m", "pip", "install", "--quiet", "--disable-pip-version-check"
        subprocess.run([str(_python(self._tools)), *pip, "uv"], check=True)
        return self

    def __exit__(self, *error: object) -> None:
        self._temporary.cleanup()

    @property
    def code(self) -> int:
        """The exit code: 1 if an environment failed."""
        return 1 if self._failed else 0

    def test(self, name: str, python: str, need: Need) -> None:
        """Make the environment and run its commands; stops at the first that fails."""
        print(f"== {name}", flush=True)
        passes = self._install(python, need) and all(self._run(_python(self._venv), *words) for words in need.commands)
        print(f"{name}: {'passed' if passes else 'FAILED'}", flush=True)
        self._failed += [] if passes else [name]

    @property
    def _venv(self) -> Path:
        return self._folder / "venv"

    def _install(self, python: str, need: Need) -> bool:
        uv = str(_python(self._tools)), "-m", "uv"
        into = "pip", "install", "--python", str(_python(self._venv))
        # Only the named packages are at their bounds; what they need in turn is new.
        steps = [
            ("venv", "--quiet", "--clear", "--python", python, str(self._venv)),
            *([(*into, "--resolution", "lowest-direct", *need.lowest)] if need.lowest else []),
            *([(*into, "--quiet", *need.newest)] if need.newest else []),
            (*into, "--quiet", "--no-deps", "--editable", "."),
        ]
        return all(self._run(*uv, *step) for step in steps)

    def _run(self, *command: str | Path) -> bool:
        variables = {name: str(self._folder / name) for name in ("NUMBA_CACHE_DIR", "CONV_IMPLS_CACHE_DIR")}
        return subprocess.run([*map(str, command)], cwd=ROOT, env=os.environ | variables).returncode == 0


def _python(environment: Path) -> Path:
    return environment / ("Scripts" if os.name == "nt" else "bin") / "python"


def main(which: str) -> int:
    if which == "lowest":
        with Environments() as environments:
            for name, need in needs().items():
                environments.test(f"{name}, at its lower bounds", sys.executable, need)
        return environments.code
    if which == "pythons":
        here, others = sys.version_info[:2], interpreters()
        others.pop(here, None)
        # The helpers of the tests import parts of `bench`.
        newest = [*declared(), *declared("bench"), "hypothesis"]
        with Environments() as environments:
            for version, command in others.items():
                name = f"Python {version[0]}.{version[1]}: {command}"
                environments.test(name, command, Need([], newest, [(*PYTEST, *TESTS)]))
        missing = [f"3.{minor}" for minor in range(OLDEST[1], NEWEST[1] + 1) if (3, minor) not in {*others, here}]
        ran = ", ".join(f"{a}.{b}" for a, b in others) or "none, because no other was found"
        print(f"Pythons tested: {ran}. Not found: {', '.join(missing) or 'none'}.")
        print(f"Python {here[0]}.{here[1]}, which runs this, is left to `make test`.")
        return environments.code
    print(__doc__)
    return 2


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:] or ["help"]))
