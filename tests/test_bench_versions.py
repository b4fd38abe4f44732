"""Other versions of a backend, NAME@REV and NAME@FOLDER: which sources they are, what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from checkout import PUBLIC, git, one, package

from bench.run import versions
from bench.run.options import UsageError, read_backends
from bench.run.versions import resolved
from conv_impls.choice import userdir


def test_a_revision_is_unpacked_once_whatever_it_is_called(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, head = git(repo, "rev-parse", "v0.3.0"), git(repo, "rev-parse", "HEAD")
    found = one("auto@v0.3.0")
    assert (found.commit, found.backends) == (first[:12], ("auto", "mine"))
    assert found.folder == userdir.folder() / "versions" / first[:12] / "source"
    assert sorted(path.name for path in (found.folder / "conv_impls").glob("*.py")) == ["__init__.py"]
    assert (one("auto@main").folder / "conv_impls" / "more.py").is_file()
    monkeypatch.setattr(versions, "_unpack", lambda *given: pytest.fail("unpacked again"))
    assert one("mine@topic/one") == one(f"auto@{first}") == one(f"auto@{first[:8]}") == one("auto@HEAD~1") == found
    assert one("auto@main").commit == head[:12] != found.commit
    assert not git(repo, "status", "--porcelain")
    assert len(git(repo, "worktree", "list").splitlines()) == 1, "the checkout is left alone"


def test_what_is_left_of_an_unpacking_that_was_cut_short_is_not_used(repo: Path) -> None:
    home = userdir.folder() / "versions" / git(repo, "rev-parse", "HEAD")[:12]
    (home / "tmpabc" / "source").mkdir(parents=True)
    assert (one("auto@HEAD").folder / "conv_impls" / "more.py").is_file()


def test_a_folder_is_at_its_commit_and_says_what_was_changed(repo: Path, tmp_path: Path) -> None:
    head, state = git(repo, "rev-parse", "HEAD")[:12], versions._state_of
    before = one("auto@repo")
    assert before.commit == head
    (repo / "README").write_text("not measured")
    assert state(repo) == head
    (repo / "conv_impls" / "new.py").write_text("")
    after = one("mine@./repo")
    assert (after.commit, after.folder) == (f"{head}+changes", repo)
    assert after.sources != before.sources
    git(repo, "add", ".")
    assert state(repo) == f"{head}+changes"
    git(repo, "commit", "-qm", "third")
    assert state(repo) == git(repo, "rev-parse", "HEAD")[:12]
    shutil.copytree(repo / "conv_impls", repo / "ignored" / "conv_impls")
    assert not state(repo / "ignored"), "the commit of the checkout around it is not its own"
    assert one(f"auto@{package(tmp_path / 'a @ b')}").commit == "0.3.0, no commit"


def test_a_word_for_both_is_the_revision(repo: Path, tmp_path: Path) -> None:
    package(tmp_path / "v0.3.0")
    assert one("auto@v0.3.0").commit == git(repo, "rev-parse", "v0.3.0")[:12]
    assert one("auto@./v0.3.0").commit == "0.3.0, no commit"


REFUSED = {
    "auto@nosuch": "no such revision; git fetch --tags may fetch it", "auto@-h": "no such revision",
    "auto@v0.3.0:conv_impls": "no such revision", "auto@v0.3.0..main": "no such revision",
    "auto@" + "0" * 40: "no such revision", "auto@a\nb": "printable", "auto@./none": "no folder './none'",
    "auto@/none": "no folder '/none'", "auto@~/none/none": "no folder", "auto@bare": "has no folder conv_impls",
    "auto@./empty": "expected a folder that holds conv_impls/__init__.py",
    "auto@./repo/conv_impls": "expected a folder that holds",
    "nosuch@v0.3.0": "no backend 'nosuch'; it has auto, mine", "machine@v0.3.0": "no backend 'machine'",
    "auto@./old": "cannot be used (ImportError: cannot import name", "auto@./broken": "(ZeroDivisionError",
    "auto@./older": "conv_impls 0.2.9 is older than 0.3.0",
}  # fmt: skip


def test_what_is_no_version_is_refused_in_one_line(repo: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    package(tmp_path / "old", "__version__ = '0.1.0'\n")
    package(tmp_path / "broken", "1 / 0\n")
    package(tmp_path / "older", PUBLIC.replace("0.3.0", "0.2.9"))
    for name, words in REFUSED.items():
        with pytest.raises(UsageError) as refused:
            resolved([name])
        text = str(refused.value)
        assert words in text, name
        assert repr(name) in text
        assert len(text.splitlines()) == 1, text


def test_two_names_of_one_version_are_refused(repo: Path) -> None:
    for names in (["auto@v0.3.0", "auto@topic/one"], ["auto@repo", "auto", "auto@./repo"]):
        with pytest.raises(UsageError, match=rf"{names[-1]}.: the same version as .{names[0]}. \("):
            resolved(names)
    assert len(resolved(["auto@v0.3.0", "auto@v0.3.0", "mine@topic/one", "auto", "auto@main"])) == 3


def test_a_shallow_clone_and_no_checkout_are_told(repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = git(repo, "rev-parse", "v0.3.0")
    git(tmp_path, "clone", "-q", "--depth", "1", repo.as_uri(), "shallow")
    monkeypatch.setattr(versions, "CHECKOUT", tmp_path / "shallow")
    with pytest.raises(
        UsageError, match=r"this clone, which is shallow, has no such revision; git fetch --tags --unsh"
    ):
        resolved([f"auto@{first}"])
    for elsewhere in (tmp_path / "shallow" / "conv_impls", package(tmp_path / "installed")):
        monkeypatch.setattr(versions, "CHECKOUT", elsewhere)
        with pytest.raises(UsageError, match="is not a git checkout with revisions; give a folder"):
            resolved(["auto@v0.3.0"])
    assert one("auto@./repo").folder == repo, "a folder needs no checkout"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("auto@", "expected NAME@REV or NAME@FOLDER"), ("@v0.3.0", "expected NAME@REV"), ("@", "expected NAME@REV"),
        ("fast@v0.3.0", "a set has no version"), ("auto,all@.", "a set has no version"),
        ("torch_nchw@v0.3.0", "torch_nchw is another library"),
    ],
)  # fmt: skip
def test_what_can_have_no_version_is_refused(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        read_backends(text)
    assert read_backends("auto@v0.3.0, auto ,auto@v0.3.0,auto@/a@b c") == ["auto@v0.3.0", "auto", "auto@/a@b c"]
