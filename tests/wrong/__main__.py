"""Wrong versions of the code that makes claims: applies each patch of this folder to a copy, and shows who catches it.

A patch begins with a line that says in plain words what is wrong. It is caught where a test of claims (`TESTS`) fails,
and only if all of them pass without it. Limits: an error while a test is set up counts as caught, too; a patch after
which no test can be collected is broken, and has to be mended as one that no longer applies.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from importlib import import_module
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TESTS = sorted(str(path.relative_to(ROOT)) for path in HERE.parent.glob("test_claims*.py"))
# What the tests need of the tree.
COPIED = ("conv_impls", "bench", "docs/extensions", "tests", "pyproject.toml")
# Loaded once, before all processes are forked: importing them takes longer than the tests. None of ours is among them.
LOADED = ("itables.options", "jinja2", "matplotlib.figure", "numba", "pandas", "PIL.Image", "pytest_benchmark.plugin")
EXAMPLES = """examples:
  python tests/wrong                                all of them, about six minutes
  python tests/wrong --only best_peer_is_the_worst
  python tests/wrong --check                        which no longer apply, in a second
  python tests/wrong --patches /tmp/mine            wrong versions of your own

A new one: edit the code, `git diff -U1 > tests/wrong/NAME.patch`, put a line in front that says what is wrong, undo.
"""


class Outcome(NamedTuple):
    """``test`` is the first that failed, ``problem`` why the tests could not run; both are empty where all passed."""

    name: str
    test: str
    problem: str

    @property
    def caught(self) -> bool:
        """Whether a test failed, as it should."""
        return bool(self.test) and not self.problem

    def __str__(self) -> str:
        return f"{self.name:42} {self.problem or self.test or 'NOT CAUGHT'}"


class _FirstFailure:
    """A plug-in of pytest that remembers which test failed first."""

    test = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and not self.test:
            self.test = report.nodeid


def tried(job: tuple[Path | None, list[str]]) -> Outcome:
    """Run the tests on a copy of the tree with this patch, or as it is, in this process."""
    patch, tests = job
    name = patch.stem if patch else "(no patch)"
    with TemporaryDirectory(prefix="wrong-") as folder:
        copy_tree(Path(folder))
        refused = git_apply(patch, Path(folder)) if patch else ""
        if refused:
            return Outcome(name, "", f"does not apply: {refused}")
        os.chdir(folder)
        sys.path.insert(0, folder)
        failure, shown = _FirstFailure(), StringIO()
        options = ["-x", "-q", "--tb=short", "--no-header", f"--rootdir={folder}"]
        # Its own temporary folder: pytest's usual one is shared, and another process may remove what is being listed.
        options += [f"--basetemp={folder}/made-by-tests"]
        # No cache is kept; importing hypothesis at the end takes as long as the tests, which do not use it.
        options += ["-p", "no:cacheprovider", "-p", "no:hypothesispytest"]
        with redirect_stdout(shown):
            code = pytest.main([*options, "-c", "pyproject.toml", *tests], plugins=[failure])
        if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
            return Outcome(name, "", f"broken: no test ran\n{shown.getvalue()}")
        ours = Path(str(sys.modules["bench"].__file__))
        assert ours.is_relative_to(folder), f"the tests ran on {ours}"
        return Outcome(name, failure.test, "")


def copy_tree(folder: Path) -> None:
    """What the tests need, into an empty folder."""
    for name in COPIED:
        if (ROOT / name).is_dir():
            # With what Python has compiled: it knows by size and time which of it a patch has made stale. Files that
            # another process is just compiling are gone before they can be copied.
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("*.pyc.*"))
        else:
            shutil.copy(ROOT / name, folder / name)


def git_apply(patch: Path, folder: Path, *options: str) -> str:
    """Apply a patch in a folder; why git refused it, or nothing."""
    # A copy is no part of a repository that lies around it.
    variables = os.environ | {"GIT_CEILING_DIRECTORIES": str(folder.parent)}
    command = ["git", "apply", *options, str(patch)]
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True)
    return " ".join(done.stderr.split()) if done.returncode else ""


def unfit(patch: Path) -> str:
    """Why a patch cannot be tried, or nothing."""
    first = patch.read_text(encoding="utf-8").partition("\n")[0]
    if first.startswith(("diff ", "--- ")) or not first.endswith("."):
        return "the first line: expected a sentence that says what is wrong"
    refused = git_apply(patch, ROOT, "--check")
    return f"does not apply: {refused}" if refused else ""


def outcomes(patches: list[Path], tests: list[str], jobs: int) -> Iterator[Outcome]:
    """Of each patch, after that of the tree as it is; the same order at every time."""
    # Our own code starts no threads at import, and neither may the libraries before a fork.
    os.environ |= dict.fromkeys(["OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"], "1")
    for name in LOADED:
        import_module(name)
    # A process runs the tests once, so each imports its own copy.
    with multiprocessing.get_context("fork").Pool(jobs, maxtasksperchild=1) as pool:
        yield from pool.imap(tried, [(patch, tests) for patch in (None, *patches)], chunksize=1)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        "python tests/wrong", description="Apply each wrong version to a copy and show which test catches it.",
        epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--only", metavar="NAME", action="append", help="this patch alone; may be repeated")
    parser.add_argument("--patches", metavar="FOLDER", type=Path, default=HERE, help="where they are (default: here)")
    parser.add_argument("--check", action="store_true", help="only say which patches no longer apply; run no tests")
    parser.add_argument("--jobs", metavar="N", type=int, default=os.cpu_count() or 1, help="at a time (default: cores)")
    parser.add_argument("tests", metavar="TEST", nargs="*", help="tests to run (default: tests/test_claims*.py)")
    chosen = parser.parse_args(arguments)
    patches = sorted(chosen.patches.resolve().glob("*.patch"))
    known = {patch.stem for patch in patches}
    unknown = sorted(set(chosen.only or ()) - known)
    if unknown or not patches:
        parser.error(f"no patch {', '.join(unknown) or '*.patch'} in {chosen.patches}; there are: {sorted(known)}")
    patches = [patch for patch in patches if not chosen.only or patch.stem in chosen.only]
    if chosen.check:
        problems = [Outcome(patch.stem, "", why) for patch in patches if (why := unfit(patch))]
        for problem in problems:
            print(problem)
        print(f"{len(patches) - len(problems)} of {len(patches)} patches apply")
        return 1 if problems else 0
    found = outcomes(patches, chosen.tests or TESTS, chosen.jobs)
    whole = next(found)
    if whole.test or whole.problem:
        print(f"The tests fail without any patch: {whole.test or whole.problem}")
        return 1
    caught = 0
    for outcome in found:
        print(outcome, flush=True)
        caught += outcome.caught
    print(f"\n{caught} of {len(patches)} wrong versions are caught")
    return 0 if caught == len(patches) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
