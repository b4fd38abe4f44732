"""Every code block of README and of the site runs, or is a command that exists."""

from __future__ import annotations

import re
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from pages import ROOT, SITE, blocks, commands, run

from bench.run.options import Options
from docs.extensions import commands as reference

README, GUIDE = ROOT / "README.md", ROOT / "CONTRIBUTING.md"
NAMES = {path: str(path.relative_to(ROOT)) for path in (README, GUIDE, *SITE)}
# The blocks of CONTRIBUTING are files; tests/test_docs.py uses them.
RUNNING = [path for path in NAMES if path != GUIDE and any(b.language == "python" and not b.file for b in blocks(path))]
SHELL = [path for path in SITE if any(b.language == "sh" for b in blocks(path))]
KNOWN = {"python", "py", "sh", "console", "text"}
OPTIONS = {
    command.name: {option.names.split()[0] for option in command.options}
    for command in [*reference.bench(), *reference.library()]
}
TARGETS = set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
# Of these, other projects know the options.
OTHERS = ("pip install ", "pytest-benchmark compare ", "python -m pytest ")


def fault(command: str) -> str:
    """What is wrong with a command line of a page; empty if it exists."""
    if not command or command.startswith(OTHERS):
        unknown = set(re.findall(r" --bench-(\w+)", command)) - {f.name for f in fields(Options)} - {"out", "resume"}
        return f"no option --bench-{unknown.pop()}" if unknown else ""
    program, *words = command.split()
    if program == "make":
        return "" if not words or words[0] in TARGETS else f"no target {words[0]}"
    name = " ".join([program, *words[:3]])
    if name not in OPTIONS:
        return f"no command {name}"
    unknown = set(re.findall(r" (--[\w-]+)", command)) - OPTIONS[name]
    return f"no option {unknown.pop()}" if unknown else ""


@pytest.mark.parametrize("path", RUNNING, ids=NAMES.get)
def test_the_python_blocks_of_a_page_run_from_top_to_bottom(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert run(path, tmp_path, shell=False)


@pytest.mark.long
@pytest.mark.parametrize("path", SHELL, ids=NAMES.get)
def test_all_blocks_of_a_page_run_from_top_to_bottom(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    run(path, tmp_path, shell=True)


@pytest.mark.parametrize("path", NAMES, ids=NAMES.get)
def test_every_block_is_of_a_kind_that_is_tested(path: Path) -> None:
    assert {block.language for block in blocks(path)} <= KNOWN
    for block in blocks(path):
        if block.language == "py":
            compile(block.text, str(path), "exec")


@pytest.mark.parametrize("path", NAMES, ids=NAMES.get)
def test_the_commands_of_a_page_exist(path: Path) -> None:
    assert {command: fault(command) for command in commands(path) if fault(command)} == {}


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("python -m bench run --workload smoke --speed 3", "no option --speed"),
        ("python -m bench measure", "no command python -m bench measure"),
        ("python -m conv_impls tune --batch 3", "no option --batch"),
        ("python -m pytest bench --bench-speed 3", "no option --bench-speed"),
        ("make coffee", "no target coffee"),
        ("make bench", ""), ("python -m bench machine --json", ""), ("python -m pytest bench --bench-out a", ""),
    ],
)  # fmt: skip
def test_a_command_that_does_not_exist_would_be_seen(command: str, reason: str) -> None:
    assert fault(command) == reason


def test_a_block_that_fails_would_be_seen(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "```python\nx = 1\n```\n\n```{code-block} python\n:caption: a.py\n\ny = 2\n```\n\n```sh\nfalse\n```\n"
    )
    assert run(page, tmp_path, shell=False)["x"] == 1
    assert (tmp_path / "a.py").read_text() == "y = 2\n"
    with pytest.raises(AssertionError, match="false"):
        run(page, tmp_path, shell=True)
    page.write_text("```python\nassert 1 == 2\n```\n")
    with pytest.raises(AssertionError):
        run(page, tmp_path, shell=False)
