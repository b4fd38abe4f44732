"""The examples work: each notebook runs, and the plug-in is installed, found, right, and tested by its own tests."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from pages import DOCS, ROOT

EXAMPLES = ROOT / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))
# tests/test_examples_autograd.py runs the one that needs torch.
OWN = [path for path in NOTEBOOKS if "autograd" not in path.name]


def execute(path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Run a notebook from top to bottom; returns what its cells print."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return [output.text for output in outputs if output.output_type == "stream" and output.name == "stdout"]


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.name)
def test_a_notebook_runs(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert execute(path, monkeypatch)


def test_a_notebook_that_fails_would_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("assert 1 == 2")])
    nbformat.write(notebook, tmp_path / "wrong.ipynb")
    with pytest.raises(CellExecutionError, match="AssertionError"):
        execute(tmp_path / "wrong.ipynb", monkeypatch)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_is_committed_without_outputs_and_is_on_the_site(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    page = (DOCS / "exercises.md").read_text(encoding="utf-8")
    assert f"(../examples/{path.name})" in page
    assert f"made/examples/{path.stem}\n" in page


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plug-in as a user has it: a copy of its folder, installed with pip into a folder of its own."""
    folder = tmp_path_factory.mktemp("plugin")
    # A build writes next to the sources.
    shutil.copytree(EXAMPLES / "plugin", folder / "source")
    subprocess.run(
        [
            sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-index",
            "--no-build-isolation", "--target", str(folder / "target"), str(folder / "source"),
        ],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return folder


def with_plugin(installed: Path, *words: str) -> subprocess.CompletedProcess[str]:
    # Not in the folder of the sources: Python would import these.
    variables = os.environ | {"PYTHONPATH": f"{installed / 'target'}{os.pathsep}{ROOT}"}
    return subprocess.run([sys.executable, "-m", *words], cwd=installed, env=variables, capture_output=True, text=True)


def test_the_commands_know_an_installed_plugin(installed: Path) -> None:
    checked = with_plugin(installed, "bench", "check", "--workload", "basic", "--backends", "fft_rows")
    assert checked.returncode == 0, checked.stderr
    assert ", 0 wrong" in checked.stdout
    assert [int(count) for count in re.findall(r"\d+", checked.stdout.split("fft_rows")[1])[:2]] == [8, 10]
    assert re.search(r"^fft_rows .*FFT along rows", with_plugin(installed, "bench", "list").stdout, re.MULTILINE)


def test_the_tests_of_the_plugin_pass(installed: Path) -> None:
    done = with_plugin(installed, "pytest", "-q", "-p", "no:cacheprovider", "source/tests")
    assert done.returncode == 0, done.stdout
    assert "5 passed" in done.stdout


def test_a_wrong_plugin_would_be_seen(installed: Path) -> None:
    backend = installed / "target" / "conv_backend_template" / "fft_rows.py"
    right = backend.read_text(encoding="utf-8")
    try:
        backend.write_text(right.replace("np.conj(fft.rfft(weight, points))", "fft.rfft(weight, points)"), "utf-8")
        assert with_plugin(installed, "pytest", "-q", "-p", "no:cacheprovider", "source/tests").returncode == 1
    finally:
        backend.write_text(right, encoding="utf-8")
