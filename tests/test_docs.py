"""The documents are true: examples run, steps work, tables agree, every public function is documented in full."""

from __future__ import annotations

import inspect
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from committed import committed
from pages import SITE

import conv_impls
from bench.analysis.frame import frame_of
from bench.report.readme import summary_block
from bench.store.folder import Run
from conv_impls import registry, workloads

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *SITE]
PUBLIC = [(n, v) for n in conv_impls.__all__ if inspect.isfunction(v := getattr(conv_impls, n))]


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)


def test_the_kernel_of_the_guide_computes_what_it_says(tmp_path: Path) -> None:
    (source,) = blocks(ROOT / "CONTRIBUTING.md", "py")
    # A file: Numba's cache belongs to one.
    (tmp_path / "guide.py").write_text(source + "\nprint(y.tolist())\n")
    variables = {"PYTHONPATH": str(ROOT), "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "guide.py"], cwd=tmp_path, env=os.environ | variables, capture_output=True, text=True
    )
    assert done.stdout.strip() == "[0.0, 3.0, 6.0, 9.0, 12.0, 15.0, 18.0]", done.stderr


def test_the_steps_to_add_a_backend_work_as_written(tmp_path: Path) -> None:
    for folder in ("conv_impls", "bench", "tests"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    (source,) = blocks(ROOT / "CONTRIBUTING.md", "python")
    (tmp_path / "conv_impls" / "backends" / "numpy_taps.py").write_text(source)
    command = next(
        line for b in blocks(ROOT / "CONTRIBUTING.md", "sh") for line in b.splitlines() if "bench check" in line
    )
    done = subprocess.run(
        [sys.executable, *command.split()[1:]], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "18 cases, 0 wrong" in done.stdout
    row = next(line for line in done.stdout.splitlines() if "numpy_taps" in line)
    assert [int(n) for n in re.findall(r"\d+", row.replace("numpy_taps", ""))] == [12, 6, 0, 0]
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "tests/test_conformance.py", "-k", "numpy_taps"],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(path: Path) -> None:
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", path.read_text(encoding="utf-8")):
        assert (path.parent / link).exists(), link


@pytest.mark.parametrize(("name", "function"), PUBLIC, ids=[name for name, _ in PUBLIC])
def test_a_public_function_is_documented_in_full(name: str, function: Any) -> None:
    text = inspect.getdoc(function) or ""
    parameters = [p for p in inspect.signature(function).parameters if p not in ("args", "kwargs")]
    wanted = ["Returns", "Examples"] + (["Parameters", "Raises"] if parameters else [])
    for section in wanted:
        assert f"{section}\n{'-' * len(section)}" in text, f"{name} lacks {section}"
    for parameter in parameters:
        assert re.search(rf"\b{parameter}\b", text.split("Returns\n")[0]), f"{name}: {parameter} is not documented"
    assert ">>>" in text


def test_the_readme_names_only_backends_that_exist() -> None:
    table = (ROOT / "README.md").read_text(encoding="utf-8").split("## The backends")[1].split("##")[0]
    named = set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE))
    assert len(named) >= 6
    assert named <= set(registry.sources())


def test_the_readme_shows_the_run_with_other_libraries() -> None:
    run = Run.open(committed("networks"))
    block = summary_block(run, frame_of(run), ROOT / "results", ROOT)
    assert block in (ROOT / "README.md").read_text(encoding="utf-8")
    assert '<picture><source media="(prefers-color-scheme: dark)" srcset="results/figures/headline-dark.svg">' in block


def test_committed_results_are_small_and_in_one_place() -> None:
    listed = subprocess.run(["git", "ls-files", "results"], cwd=ROOT, capture_output=True, text=True)
    # An sdist is no checkout, and has only the files of the repository.
    files = [ROOT / name for name in listed.stdout.splitlines()] or [*filter(Path.is_file, ROOT.glob("results/**/*"))]
    assert len(files) > 30
    assert sum(path.stat().st_size for path in files) < 12 * 2**20
    assert (ROOT / "results" / "report.html").stat().st_size < 5 * 2**20
    assert [path.name for path in files if path.suffix == ".html"] == ["report.html"]
    assert {path.name for path in files if path.suffix == ".md"} == {"README.md"}
    assert not [path for path in files if path.suffix in (".png", ".svg") and path.parent.name != "figures"]


def test_the_version_is_that_of_the_changelog() -> None:
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert newest is not None
    assert newest[1] == conv_impls.__version__


def test_make_alone_lists_every_target_with_a_line() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)[1].split())  # type: ignore[index]
    done = subprocess.run(["make", "-s"], cwd=ROOT, capture_output=True, text=True, check=True)
    listed, _, end = done.stdout.partition("\n\n")
    assert {line.split()[1] for line in listed.splitlines()} == targets
    assert all(len(line.split()) > 3 for line in listed.splitlines())
    assert ("Try first: make smoke" in end, "Exit codes: 0 fine; 2 " in end) == (True, True)


def test_documents_speak_of_targets_and_workloads_that_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for path in PAGES:
        text = path.read_text(encoding="utf-8")
        assert set(re.findall(r"`make ([a-z]+)", text)) <= targets, path
        for name in re.findall(r"--workload (\w+)(?=[ ,\n])", text):
            assert name in workloads.available(), f"{path}: {name}"
