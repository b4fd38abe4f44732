"""The site builds without a warning and without a broken link. `make docs` does the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from pages import DOCS, ROOT

from docs.extensions.ladder import RUNGS


@pytest.mark.long
def test_the_site_builds_without_warnings(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "sphinx", "-q", "-E", "-W", "-d", str(tmp_path / "trees"), str(DOCS)]
    done = subprocess.run([*build, str(tmp_path / "html")], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    tutorial = (tmp_path / "html" / "tutorial.html").read_text(encoding="utf-8")
    assert tutorial.count('class="rung"') >= len(RUNGS)
    assert tutorial.count("Measured:") == len(RUNGS)
    pages = {str(path.relative_to(tmp_path / "html")) for path in (tmp_path / "html").rglob("*.html")}
    assert {"reference/api.html", "glossary.html", "decisions/0001-one-function-one-file.html"} <= pages
    for decision in (DOCS / "decisions").glob("0*.md"):
        assert f"decisions/{decision.stem}.html" in pages
    exercise = (tmp_path / "html" / "made" / "examples" / "1_shapes_and_receptive_fields.html").read_text(
        encoding="utf-8"
    )
    assert "seen pixels: (13, 13)" in exercise, "its cells ran"
