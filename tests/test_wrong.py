"""The wrong versions of `tests/wrong`: each still applies, and the command that tries them reports what is missed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
# One quick test of those that the command runs.
TEST = "tests/test_claims_runs.py::test_a_network_changes_by_its_weighted_sums"
STATS = "bench/analysis/stats.py"
MEDIAN = "    return float(np.median(np.asarray(samples)))"


def wrong(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command's exit code and output."""
    command = [sys.executable, str(HERE / "wrong"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=HERE.parent)


def write_patch(folder: Path, name: str, old: str, new: str) -> None:
    """A patch that replaces one line of `STATS`."""
    lines = (HERE.parent / STATS).read_text(encoding="utf-8").splitlines()
    at = lines.index(MEDIAN)
    header = f"--- a/{STATS}\n+++ b/{STATS}\n@@ -{at},3 +{at},3 @@\n"
    body = f" {lines[at - 1]}\n-{old}\n+{new}\n {lines[at + 1]}\n"
    (folder / f"{name}.patch").write_text(f"Words on {name}.\ndiff --git a/{STATS} b/{STATS}\n{header}{body}")


@pytest.fixture
def patches(tmp_path: Path) -> Path:
    write_patch(tmp_path, "a_mean", MEDIAN, MEDIAN.replace("np.median", "np.mean"))
    write_patch(tmp_path, "no_change", MEDIAN, "    return float(np.median(np.array(samples)))")
    write_patch(tmp_path, "of_another_tree", "    return 1.0", MEDIAN)
    return tmp_path


def test_every_wrong_version_still_applies_and_says_what_is_wrong() -> None:
    done = wrong("--check")
    assert done.returncode == 0, done.stdout + done.stderr
    names = {path.stem for path in (HERE / "wrong").glob("*.patch")}
    assert done.stdout == f"{len(names)} of {len(names)} patches apply\n"
    assert len(names) >= 24


def test_a_patch_that_does_not_apply_or_has_no_words_is_told(patches: Path) -> None:
    text = (patches / "a_mean.patch").read_text()
    (patches / "wordless.patch").write_text(text.split("\n", 1)[1])
    done = wrong("--check", "--patches", str(patches))
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines[:-1]] == ["of_another_tree", "wordless"]
    assert f"does not apply: error: patch failed: {STATS}" in lines[0]
    assert "expected a sentence that says what is wrong" in lines[1]
    assert lines[-1] == "2 of 4 patches apply"


def test_a_patch_that_changes_nothing_is_not_caught(patches: Path) -> None:
    before = (HERE.parent / STATS).read_bytes()
    done = wrong("--patches", str(patches), "--jobs", "2", TEST)
    assert done.returncode == 1, done.stdout + done.stderr
    rows = [line.split(maxsplit=1) for line in done.stdout.splitlines() if line]
    assert rows[0] == ["a_mean", TEST]
    assert rows[1] == ["no_change", "NOT CAUGHT"]
    assert rows[2][1].startswith("does not apply: ")
    assert done.stdout.endswith("\n1 of 3 wrong versions are caught\n")
    assert (HERE.parent / STATS).read_bytes() == before, "the checkout is never edited"


def test_an_unknown_name_is_told_with_those_there_are(patches: Path) -> None:
    done = wrong("--patches", str(patches), "--only", "mean")
    assert done.returncode == 2
    assert "no patch mean in" in done.stderr
    assert "a_mean" in done.stderr
