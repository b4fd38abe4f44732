"""What is built: the sdist has the whole repository, the wheel both packages, and the suite works from the wheel."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from collections.abc import Iterable
from configparser import ConfigParser
from pathlib import Path

import pytest
from commands import PATIENT, Bench

from conv_impls import __version__

ROOT = Path(__file__).parent.parent
# Written by setuptools into every sdist.
GENERATED = "PKG-INFO", "setup.cfg", "conv_impls.egg-info/"
CACHES = "__pycache__", ".venv", ".git", ".pytest_cache", ".mypy_cache", ".ruff_cache", ".hypothesis"
# Folders of the repository, by the names of their packages.
FOLDERS = {"conv_bench": "bench", "conv_impls": "conv_impls"}
TWICE = "imported by both names"
PLUGIN = f"""
import atexit, sys
from conv_impls import register
from conv_impls.reference import reference
def check():
    if {set(FOLDERS) | set(FOLDERS.values())} <= sys.modules.keys():
        print("{TWICE}", file=sys.stderr)
atexit.register(check)
def made(name, factor):
    @register(name)
    def run(x, weight, bias, problem):
        return reference(x, weight, bias, problem).astype(x.dtype) * factor
made("mine", 1)
made("wrong", 2)
"""
# A folder whose files must not be read.
HOSTILE = {
    "bench/__init__.py": "raise SystemExit('this is another bench')\n",
    "bench/conftest.py": "raise SystemExit('this is the conftest of another bench')\n",
    "conftest.py": "raise SystemExit('this is the conftest of another project')\n",
    "pytest.ini": "[pytest]\naddopts = --no-such-option\n",
    "pyproject.toml": "[tool.pytest.ini_options]\naddopts = '--no-such-option'\n",
    "mine.py": PLUGIN,
}
LAYER = 'mb1ic2ih6oc2oh6kh3ph1n"first"'
QUICK = "--workload", LAYER, "--threads", "1", "--seconds", "0.01", "--timeout", "60", "--plugin", "./mine.py"


def sources() -> set[str]:
    """Every file of the repository; of an unpacked sdist, every file that it had."""
    if (ROOT / ".git").exists():
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    else:
        found = (path.relative_to(ROOT) for path in ROOT.rglob("*") if path.is_file())
        listed = [path.as_posix() for path in found if not set(path.parts) & set(CACHES)]
    return {name for name in listed if name and (ROOT / name).is_file() and not name.startswith(GENERATED)}


def difference(names: Iterable[str], expected: Iterable[str]) -> dict[str, set[str]]:
    """Names that are missing, and names that should not be there."""
    found = {"missing": set(expected) - set(names), "too many": set(names) - set(expected)}
    return {what: which for what, which in found.items() if which}


def of_wheel(names: Iterable[str]) -> set[str]:
    """The files that the wheel must have for these files of the repository."""
    packages = {folder: package for package, folder in FOLDERS.items()}
    parts = (name.partition("/") for name in names)
    return {f"{packages[folder]}/{rest}" for folder, _, rest in parts if rest and folder in packages}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The sdist, and the wheel that is made from it."""
    folder = tmp_path_factory.mktemp("sources")
    for name in sources():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, folder / name)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", "dist", "."]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    ((sdist,), (wheel,)) = (folder / "dist").glob("*.tar.gz"), (folder / "dist").glob("*.whl")
    return sdist, wheel


@pytest.fixture(scope="module")
def unpacked(built: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's files in a folder, as pip installs them."""
    folder = tmp_path_factory.mktemp("site")
    zipfile.ZipFile(built[1]).extractall(folder)
    return folder


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    folder = tmp_path / "hostile"
    for name, text in HOSTILE.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def state(folder: Path) -> dict[str, str]:
    """The content of every file, except results."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.relative_to(folder).parts[0] != "results")
    return {str(path.relative_to(folder)): path.read_text() for path in files if "__pycache__" not in path.parts}


def run(folder: Path, *command: str | Path, path: str = "") -> subprocess.CompletedProcess[str]:
    """A command in this folder, without settings of the shell that would change what it imports."""
    variables = os.environ | {"PYTHONPATH": path, "PYTHONSAFEPATH": "1"}
    return subprocess.run([*map(str, command)], cwd=folder, env=variables, capture_output=True, text=True)


def suite(folder: Path, site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The suite in this folder, imported from an unpacked wheel."""
    return run(folder, sys.executable, "-m", "conv_bench", *arguments, path=str(site))


def test_the_sdist_has_every_file_of_the_repository(built: tuple[Path, Path]) -> None:
    with tarfile.open(built[0]) as archive:
        names = {member.name.partition("/")[2] for member in archive if member.isfile()}
    assert not difference({name for name in names if not name.startswith(GENERATED)}, sources())


def test_the_wheel_has_both_packages_and_no_module_called_bench(built: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(built[1]) as archive:
        about = f"conv_impls-{__version__}.dist-info"
        names = {name for name in archive.namelist() if not name.startswith(f"{about}/")}
        entry_points, metadata = ConfigParser(), archive.read(f"{about}/METADATA").decode()
        entry_points.read_string(archive.read(f"{about}/entry_points.txt").decode())
    assert not difference(names, of_wheel(sources()))
    assert dict(entry_points["console_scripts"]) == {"conv-bench": "conv_bench.__main__:main"}
    assert {f"Provides-Extra: {name}" for name in ("onnx", "bench", "peers", "test")} <= set(metadata.splitlines())


def test_a_file_that_is_missing_or_too_many_would_be_seen() -> None:
    assert of_wheel(["bench/run/start.py", "conv_impls/api.py", "README.md", "tests/bench/x.py"]) == {
        "conv_bench/run/start.py", "conv_impls/api.py",
    }  # fmt: skip
    assert difference(["a", "b"], ["b", "a"]) == {}
    assert difference(["a", "bench/x.py"], ["a", "c"]) == {"missing": {"c"}, "too many": {"bench/x.py"}}


def test_a_run_from_the_wheel_reads_and_writes_nothing_of_a_folder_but_results(hostile: Path, unpacked: Path) -> None:
    before = state(hostile)
    done = suite(hostile, unpacked, "run", *QUICK, "--backends", "numpy_strided,mine")
    assert (done.returncode, "2 cases in " in done.stdout) == (0, True), done.stdout + done.stderr
    (folder,) = (hostile / "results" / "runs").iterdir()
    assert f"run folder {folder}" in done.stdout
    assert TWICE not in done.stderr
    assert state(hostile) == before


def test_a_run_of_an_installation_can_be_resumed_in_a_clone(bench: Bench, tmp_path: Path) -> None:
    asked = "--workload", LAYER, "--backends", "numpy_strided", "--threads", "1", "--seconds", "0.01", *PATIENT
    assert bench("run", *asked, "--out", tmp_path / "run").returncode == 0
    config = tmp_path / "run" / "config.json"
    config.write_text(config.read_text().replace("python -m bench run", "conv-bench run"))
    assert bench("run", "--resume", tmp_path / "run").returncode == 0
    config.write_text(config.read_text().replace('"budget_s": 280', '"budget_s": 281'))
    assert "budget_s of" in bench("run", "--resume", tmp_path / "run").stderr


def test_the_commands_that_an_installation_prints_are_its_own(hostile: Path, unpacked: Path) -> None:
    done = suite(hostile, unpacked, "run", *QUICK, "--backends", "wrong")
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"  repeat: conv-bench run --workload '{LAYER}' --backends wrong " in done.stderr
    for command in ([], ["run"]):
        shown = suite(hostile, unpacked, *command, "--help").stdout
        assert f"Usage: conv-bench {' '.join(command)}" in shown
        assert "python -m" not in shown
    empty = suite(hostile / "bench", unpacked, "report")
    assert (empty.returncode, empty.stderr.endswith("make one with: conv-bench run\n")) == (2, True)


def test_a_version_is_measured_from_the_wheel_by_the_wheels_own_harness(hostile: Path, unpacked: Path) -> None:
    # The folder of the version has another `bench` and another `conv_bench`; both would end the process.
    shutil.copytree(unpacked / "conv_impls", hostile / "other" / "conv_impls")
    for name in ("bench", "conv_bench"):
        shutil.copytree(hostile / "bench", hostile / "other" / name)
    asked = "--workload", LAYER, "--backends", "numpy_strided,numpy_strided@./other"
    done = suite(hostile, unpacked, "check", *asked)
    assert (done.returncode, "2 cases, 0 wrong" in done.stdout) == (0, True), done.stdout + done.stderr


def test_without_its_extra_the_suite_prints_what_to_install(hostile: Path, unpacked: Path) -> None:
    (hostile / "without").mkdir()
    absent = "raise ModuleNotFoundError(\"No module named 'typer'\", name='typer')\n"
    (hostile / "without" / "typer.py").write_text(absent)
    done = run(hostile, sys.executable, "-m", "conv_bench", "list", path=f"{hostile / 'without'}{os.pathsep}{unpacked}")
    line = 'conv-bench: the package typer is missing; install the extra bench: pip install "conv-impls[bench]"\n'
    assert (done.returncode, done.stderr) == (2, line)


@pytest.mark.parametrize("module", ["conv_bench", "bench", "conv_impls"])
def test_every_program_prints_its_version(hostile: Path, unpacked: Path, module: str) -> None:
    site = ROOT if module == "bench" else unpacked
    done = run(hostile, sys.executable, "-m", module, "--version", path=str(site))
    assert (done.returncode, done.stdout) == (0, f"conv-impls {__version__}\n"), done.stderr


@pytest.mark.long
def test_the_installed_program_works_in_any_folder(hostile: Path, built: tuple[Path, Path], tmp_path: Path) -> None:
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=True)
    bin_ = environment / "bin"
    done = run(hostile, bin_ / "python", "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", built[1])
    assert done.returncode == 0, done.stderr
    done = run(hostile, bin_ / "conv-bench", "list")
    assert (done.returncode, done.stderr.count("\n"), 'pip install "conv-impls[bench]"' in done.stderr) == (2, 1, True)
    # The other packages are those of this environment, without its own installation of this one.
    (installed,) = environment.glob("lib/python*/site-packages")
    (installed / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    asked = "--backends", "numpy_strided,numba_simd", "--workload", "smoke", "--timeout", "60"
    before = state(hostile)
    done = run(hostile, bin_ / "conv-bench", "run", *asked)
    assert (done.returncode, "8 cases in " in done.stdout) == (0, True), done.stdout + done.stderr
    assert state(hostile) == before
    done = run(hostile, bin_ / "conv-bench", "report")
    assert (done.returncode, (hostile / "results" / "report.html").exists()) == (0, True), done.stderr


@pytest.mark.long
def test_tests_run_from_the_sdist(built: tuple[Path, Path], tmp_path: Path) -> None:
    with tarfile.open(built[0]) as archive:
        archive.extractall(tmp_path, filter="data")
    (folder,) = tmp_path.iterdir()
    # Documents, stored results, the command line, a session of pytest in the folder.
    names = "docs", "results", "surface", "bench_store", "bench_options", "bench_plugin", "problem", "labels"
    paths = [f"tests/test_{name}.py" for name in names]
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", *paths], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
