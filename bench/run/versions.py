"""Another version of the package as a backend: NAME@REV or NAME@FOLDER -> the folder from which its process imports.

    auto@v0.3.0, auto@7d5c456, auto@main~3     a revision of the git checkout that contains this file
    auto@../other, auto@/path, auto@.          a folder that contains conv_impls, with uncommitted changes

The sources of a revision are unpacked once (`git archive`) into ``versions`` of the user's folder
(`conv_impls.choice.userdir`), where each version also stores its compiled kernels and its facts about the machine. All
of it can be deleted.
`bench.run.public_calls` calls the version. If a word is both a revision and a folder, the revision is used.
Limits: only the package is of that version; harness, Python, NumPy and Numba are those of this environment.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from conv_impls.choice import limits, tuning, userdir

from ..peers import OWN
from ..program import PACKAGE as HARNESS
from ..program import PYTHON, ROOT
from ..store.records import split_version
from .options import UsageError
from .worker import VERSION

PACKAGE = "conv_impls"
# The checkout whose revisions can be named.
CHECKOUT = ROOT
# Major and minor number of the first version that has all public calls.
OLDEST = (0, 3)
# Digits of a commit, as in an environment.
DIGITS = 12
# Run in a process of that version: checks its imports and lists its backends. The harness is imported first: the folder
# of that version may contain another one.
PROBE = (
    f"import sys, json, {HARNESS}; sys.path.insert(0, sys.argv[1]); "
    f"import {HARNESS}.run.public_calls, {PACKAGE} as found; "
    "print(json.dumps([found.__file__, found.__version__, list(found.backends())]))"
)


@dataclass(frozen=True)
class Version:
    """One other version of the package.

    Attributes
    ----------
    folder : Path
        Contains its package.
    commit : str
        With "+changes" if the package differs from it; the version number of the package if there is no commit.
    sources : str
        Digest of its files.
    backends : tuple of str
    cache : Path
        Folder where its process stores compiled kernels and facts about the machine.
    """

    folder: Path
    commit: str
    sources: str
    backends: tuple[str, ...]
    cache: Path

    @property
    def facts(self) -> dict[str, str]:
        """The entry of this version in the configuration of a run."""
        return {"commit": self.commit, "sources": self.sources}

    def variables(self) -> dict[str, str]:
        """Environment variables of its processes; also copies the facts about the machine from this version to it.

        It uses the facts that have its own stamp, and measures the others again.
        """
        facts = self.cache / "facts"
        for name in (limits.FILE, tuning.FILE):
            ours, theirs = userdir.folder() / name, facts / name
            with suppress(OSError):
                if not theirs.exists() or theirs.stat().st_mtime < ours.stat().st_mtime:
                    facts.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(ours, theirs)
        return {
            VERSION: str(self.folder), "CONV_IMPLS_CACHE_DIR": str(facts), "NUMBA_CACHE_DIR": str(self.cache / "numba"),
        }  # fmt: skip


def resolved(backends: Iterable[str]) -> dict[str, Version]:
    """The version of each backend that is of another version.

    Raises
    ------
    UsageError
        If there is no such version, it has no such backend, or two names mean the same version.
    """
    found: dict[str, Version] = {}
    known: dict[str, Version] = {}
    for backend in dict.fromkeys(backends):
        name, text = split_version(backend)
        if not text:
            continue
        version = found[backend] = known[text] = known.get(text) or _resolve(backend, text)
        if name not in (*version.backends, *OWN):
            _refuse(backend, f"that version has no backend {name!r}; it has {', '.join(version.backends)}")
        for other, same in found.items():
            if other != backend and split_version(other)[0] == name and same.folder == version.folder:
                _refuse(backend, f"the same version as {other!r} ({version.commit}); leave out one of them")
    return found


def _resolve(backend: str, text: str) -> Version:
    if not text.isprintable():
        _refuse(backend, "expected a revision or a folder of printable characters")
    path = Path(text).expanduser() if text.startswith("~") else Path(text)
    commit = "" if text.startswith("-") or _is_path(text) else _commit_of(text)
    if commit:
        home = userdir.folder() / "versions" / commit[:DIGITS]
        folder, words = home / "source", commit[:DIGITS]
        if not folder.exists():
            _unpack(backend, commit, folder)
    elif path.is_dir():
        folder = path.resolve()
        digest = hashlib.sha256(str(folder).encode(errors="surrogateescape")).hexdigest()[:DIGITS]
        home, words = userdir.folder() / "versions" / f"folder-{digest}", _state_of(folder)
    else:
        _refuse(backend, _why_unknown(text))
    if not (folder / PACKAGE / "__init__.py").is_file():
        _refuse(backend, f"expected a folder that holds {PACKAGE}/__init__.py, got {folder}")
    where, version, names = _probe(backend, folder)
    if Path(where).parent.resolve() != (folder / PACKAGE).resolve():
        _refuse(backend, f"Python imports {PACKAGE} from {Path(where).parent} in place of {folder}")
    return Version(folder, words or f"{version}, no commit", _digest(folder / PACKAGE), tuple(names), home)


def _is_path(text: str) -> bool:
    """Whether it cannot be a revision."""
    return text.startswith(("/", "./", "../", "~")) or text in (".", "..")


def _commit_of(text: str) -> str:
    """The commit of a revision of this checkout, or an empty string."""
    return _git(CHECKOUT, "rev-parse", "--verify", "--quiet", f"{text}^{{commit}}") if _is_checkout() else ""


def _state_of(folder: Path) -> str:
    """The commit of a folder, with "+changes" if its package differs from it; empty outside a checkout."""
    if not _git(folder, "ls-files", f"{PACKAGE}/__init__.py"):
        return ""
    changed = _git(folder, "status", "--porcelain", "--", PACKAGE)
    return _git(folder, "rev-parse", "HEAD")[:DIGITS] + ("+changes" if changed else "")


def _unpack(backend: str, commit: str, folder: Path) -> None:
    """Unpack the package of a commit atomically."""
    archive = _run_git(CHECKOUT, "archive", "--format=zip", commit, PACKAGE)
    if archive is None:
        _refuse(backend, f"revision {commit[:DIGITS]} has no folder {PACKAGE}")
    try:
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as partial:
            zipfile.ZipFile(io.BytesIO(archive)).extractall(Path(partial) / "source")
            # Another process may have created the folder at the same time.
            with suppress(FileExistsError):
                os.rename(Path(partial) / "source", folder)
    except OSError as error:
        if not folder.exists():
            _refuse(backend, f"its sources cannot be unpacked: {error}; set CONV_IMPLS_CACHE_DIR to a folder with room")


def _why_unknown(text: str) -> str:
    """Why the text is neither a revision nor a folder, and what to do."""
    if _is_path(text):
        return f"there is no folder {text!r}"
    if not _is_checkout():
        return (
            f"no folder of that name, and {CHECKOUT} is not a git checkout with revisions; "
            "give a folder, such as auto@../other"
        )
    shallow = _git(CHECKOUT, "rev-parse", "--is-shallow-repository") == "true"
    fetch = "git fetch --tags --unshallow" if shallow else "git fetch --tags"
    clone = "this clone, which is shallow, has" if shallow else "this clone has"
    return f"no folder of that name, and {clone} no such revision; {fetch} may fetch it, and a commit works like a tag"


def _probe(backend: str, folder: Path) -> tuple[str, str, list[str]]:
    """File, version and backends of the package in this folder, from a process that imports it like a worker."""
    done = subprocess.run([*PYTHON, "-c", PROBE, str(folder)], cwd=ROOT, capture_output=True, text=True)
    try:
        where, version, names = json.loads(done.stdout)
    except ValueError:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        _refuse(backend, f"its public calls cannot be used ({lines[-1]}); versions since 0.3.0 have them")
    if (number := re.match(r"(\d+)\.(\d+)", version)) and tuple(map(int, number.groups())) < OLDEST:
        _refuse(
            backend,
            f"{PACKAGE} {version} is older than {'.'.join(map(str, OLDEST))}.0, the oldest that can be measured",
        )
    return where, version, names


def _digest(package: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(package)} {len(content)}\n".encode() + content)
    return digest.hexdigest()[:DIGITS]


def _is_checkout() -> bool:
    """Whether this file belongs to a git checkout, not to an environment inside another checkout."""
    top = _git(CHECKOUT, "rev-parse", "--show-toplevel")
    return bool(top) and Path(top).resolve() == CHECKOUT.resolve()


def _git(folder: Path, *arguments: str) -> str:
    """The output of git without the line end; empty if git fails or is not installed."""
    return (_run_git(folder, *arguments) or b"").decode(errors="surrogateescape").strip()


def _run_git(folder: Path, *arguments: str) -> bytes | None:
    # In a git hook these variables select a repository, whatever the folder.
    variables = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, env=variables, capture_output=True)
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None


def _refuse(backend: str, why: str) -> NoReturn:
    raise UsageError(f"--backends: {backend!r}: {why}")
