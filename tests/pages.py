"""The code blocks of a Markdown page, in order: what they are, and where they run.

python                 runs in the tests, from top to bottom of the page
python with :caption:  is written to a file of that name
sh                     runs in the long form of the tests, its commands exist
console                is shown only (it installs, or measures for minutes); its commands exist
py                     is shown only (it needs another library)
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
# docs/made and docs/build come from a build.
SITE = sorted(path for path in DOCS.rglob("*.md") if not {"made", "build"} & set(path.relative_to(DOCS).parts))
FENCE = re.compile(r"^```(?:\{code-block\} )?(\w+)\n(?::caption: (\S+)\n\n?)?(.*?)^```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """One block: its language, its file name (empty if none), its text."""

    language: str
    file: str
    text: str


def blocks(path: Path) -> list[Block]:
    return [Block(*(part or "" for part in found)) for found in FENCE.findall(path.read_text(encoding="utf-8"))]


def run(path: Path, folder: Path, shell: bool) -> dict[str, Any]:
    """Run a page in a folder, which is the current one; returns the names that its Python blocks define."""
    names: dict[str, Any] = {}
    for block in blocks(path):
        if block.file:
            (folder / block.file).write_text(block.text)
        elif block.language == "python":
            exec(compile(block.text, str(path), "exec"), names)
        elif block.language == "sh" and shell:
            paths = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
            done = subprocess.run(
                ["bash", "-e", "-c", block.text], cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT), "PATH": paths},
                capture_output=True, text=True,
            )  # fmt: skip
            assert done.returncode == 0, f"{block.text}\n{done.stdout}\n{done.stderr}"
    return names


def commands(path: Path) -> Iterator[str]:
    """The command lines of a page, without prompts and comments."""
    for block in blocks(path):
        if block.language in ("sh", "console"):
            for line in block.text.splitlines():
                yield re.sub(r"(^\$ |\s+# .*$)", "", line).replace(".venv/bin/", "")
