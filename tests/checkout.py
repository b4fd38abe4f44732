"""A checkout with revisions, for the tests of other versions of a backend."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from bench.run import versions
from bench.run.versions import Version, resolved

# What every version since 0.3.0 shows, and all that the process of another version may use.
PUBLIC = """
__version__ = "0.3.0"
class UnsupportedError(Exception): ...
class Conv2dProblem: ...
def conv2d(): ...
def backends(): return ("auto", "mine")
plan = conv2d_input = conv2d_weight = get_backend = conv2d
"""


def git(folder: Path, *arguments: str) -> str:
    who = {f"GIT_{role}_{what}": "a@b" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    variables = os.environ | who | {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    done = subprocess.run(["git", *arguments], cwd=folder, env=variables, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def package(folder: Path, text: str = PUBLIC) -> Path:
    (folder / "conv_impls").mkdir(parents=True)
    (folder / "conv_impls" / "__init__.py").write_text(text)
    return folder


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout with a tag, a branch with a slash, a commit on top, and one without the package."""
    folder = package(tmp_path_factory.mktemp("template") / "repo")
    git(folder, "init", "-q", "-b", "main")
    (folder / ".gitignore").write_text("__pycache__\nignored\n")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "first")
    git(folder, "tag", "v0.3.0")
    git(folder, "branch", "topic/one")
    git(folder, "checkout", "-qb", "bare")
    git(folder, "rm", "-rq", "conv_impls")
    git(folder, "commit", "-qm", "without the package")
    git(folder, "checkout", "-q", "main")
    (folder / "conv_impls" / "more.py").write_text("")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "second")
    return folder


@pytest.fixture
def repo(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with named revisions, next to a folder for the user's files."""
    folder = shutil.copytree(template, tmp_path / "repo")
    monkeypatch.setattr(versions, "CHECKOUT", folder)
    monkeypatch.setenv("CONV_IMPLS_CACHE_DIR", str(tmp_path / "user"))
    monkeypatch.chdir(tmp_path)
    return folder


def one(name: str) -> Version:
    return resolved([name])[name]
