"""What a terminal shows after a run: the sentence, the ratios with the best in colour, and the path of the page."""

from __future__ import annotations

import subprocess
import sys
from io import StringIO
from pathlib import Path

import handmade
import pytest
from commands import TINY, Bench
from rich.console import Console

from bench.analysis.sentences import headline
from bench.cli import terminal

ROOT = Path(__file__).parent.parent
QUICK = ("--threads", "1", "--seconds", "0.01", "--backends", "numpy_strided,numpy_im2col")


def printed(monkeypatch: pytest.MonkeyPatch, terminal_like: bool | None = None) -> str:
    file = StringIO()
    console = Console(file=file, width=70, markup=False, highlight=False, force_terminal=terminal_like)
    monkeypatch.setattr(terminal, "console", console)
    terminal.print_findings(handmade.table())
    return file.getvalue()


def test_the_best_is_coloured_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    lines = printed(monkeypatch, terminal_like=True).splitlines()
    assert lines[0] == f"\x1b[1;32m{headline(handmade.table())}\x1b[0m", "one line, however wide the terminal is"
    (row,) = [line for line in lines if line.startswith("auto  ")]
    assert "\x1b[1;32m" in row
    (row,) = [line for line in lines if line.startswith("onnxruntime ")]
    assert "\x1b" not in row


def test_there_is_no_colour_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b" not in printed(monkeypatch)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[1;32m" not in printed(monkeypatch, terminal_like=True)


def test_a_run_names_its_page(bench: Bench, tmp_path: Path) -> None:
    done = bench("run", "--workload", TINY, *QUICK, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    page = tmp_path / "run" / "report.html"
    assert f"page: {page}" in done.stdout
    assert "times as fast as" in done.stdout
    text = page.read_text(encoding="utf-8")
    assert "numpy_im2col" in text
    assert "python -m bench report" in text, "the page says how to get its figures"


def test_a_pytest_session_names_its_page(tmp_path: Path) -> None:
    options = [f"--bench-{name[2:]}" if name.startswith("--") else name for name in QUICK]
    command = [
        sys.executable, "-m", "pytest", "bench", "--benchmark-only", "-p", "no:cacheprovider", "--color=no",
        "--bench-workload", TINY, *options, "--bench-out", str(tmp_path / "run"),
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    page = tmp_path / "run" / "report.html"
    assert f"page: {page}" in done.stdout
    assert "\x1b" not in done.stdout
    assert page.is_file()
