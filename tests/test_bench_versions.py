"""Other versions of a backend, NAME@REV and NAME@FOLDER: which sources they are, what is refused, how they run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import Bench, one_line
from msgspec.structs import asdict
from scripted import CONFIG, FACTS, Answer, Log, Scripted

from bench.machine import probes
from bench.run import fleet, versions
from bench.run.directions import as_forward
from bench.run.driver import Driver, make_cases
from bench.run.fleet import Fleet
from bench.run.options import Options, UsageError, read_backends
from bench.run.public_calls import PublicCalls
from bench.run.request import Request
from bench.run.versions import Version, resolved
from bench.run.worker import VERSION
from bench.store.folder import Run
from bench.store.records import Case
from conv_impls import Conv2dProblem, plan, workloads
from conv_impls.choice import limits, userdir
from conv_impls.reference import reference

ROOT = Path(__file__).parent.parent
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
    """The checkout, of which revisions are named, beside a user's folder of its own."""
    folder = shutil.copytree(template, tmp_path / "repo")
    monkeypatch.setattr(versions, "CHECKOUT", folder)
    monkeypatch.setenv("CONV_IMPLS_CACHE_DIR", str(tmp_path / "user"))
    monkeypatch.chdir(tmp_path)
    return folder


def one(name: str) -> Version:
    return resolved([name])[name]


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
    "auto@nosuch": "no such revision; git fetch --tags may bring it", "auto@-h": "no such revision",
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
        with pytest.raises(UsageError, match="is no git checkout with revisions; name a folder"):
            resolved(["auto@v0.3.0"])
    assert one("auto@./repo").folder == repo, "a folder needs no checkout"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("auto@", "expected NAME@REV or NAME@FOLDER"), ("@v0.3.0", "expected NAME@REV"), ("@", "expected NAME@REV"),
        ("fast@v0.3.0", "a set has no version"), ("auto,all@.", "a set has no version"),
        ("torch_nchw@v0.3.0", "torch_nchw is a library's"),
    ],
)  # fmt: skip
def test_what_can_have_no_version_is_refused(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        read_backends(text)
    assert read_backends("auto@v0.3.0, auto ,auto@v0.3.0,auto@/a@b c") == ["auto@v0.3.0", "auto", "auto@/a@b c"]


def test_each_version_compiles_and_remembers_in_a_folder_of_its_own(repo: Path) -> None:
    found = [one(name).variables() for name in ("auto@v0.3.0", "auto@main", "auto@./repo")]
    for variable in (VERSION, "NUMBA_CACHE_DIR", "CONV_IMPLS_CACHE_DIR"):
        assert len({each[variable] for each in found} | {str(userdir.folder())}) == 4


def test_what_this_version_knows_of_the_machine_is_handed_on_while_it_is_newer(repo: Path) -> None:
    version, ours = one("auto@v0.3.0"), userdir.folder() / limits.FILE
    theirs = Path(version.variables()["CONV_IMPLS_CACHE_DIR"]) / limits.FILE
    assert not theirs.exists()
    ours.write_text("ours")
    version.variables()
    assert theirs.read_text() == "ours"
    theirs.write_text("measured by itself")
    version.variables()
    assert theirs.read_text() == "measured by itself"
    os.utime(theirs, (0, 0))
    version.variables()
    assert theirs.read_text() == "ours"


def test_a_resumed_run_needs_the_same_sources(repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "measure_machine", lambda: {})
    options = Options(workload="smoke", layers="1x1", backends="auto,auto@topic/one", threads="1")
    first = Request.new(options, tmp_path / "run")
    assert first.open().config["versions"] == {"auto@topic/one": one("auto@v0.3.0").facts}
    assert Request.resumed(tmp_path / "run", {}).open().config["versions"]
    git(repo, "branch", "-f", "topic/one", "main")
    with pytest.raises(UsageError, match=r"versions of .* would not be the same now; start a new run"):
        Request.resumed(tmp_path / "run", {}).open()


def test_the_process_of_a_version_uses_public_names_alone(tmp_path: Path) -> None:
    modules = "bench.run.worker, bench.run.public_calls, bench.run.exchange, bench.machine.usage, bench.store.records"
    loaded = "print(conv_impls.__file__, [m for m in sys.modules if m.startswith('conv_impls.')])"
    for hidden, fails in (("", False), ("plan", True)):
        folder = package(tmp_path / f"without {hidden}", PUBLIC.replace("plan =", "_ =" if hidden else "plan ="))
        code = f"import sys; sys.path.insert(0, {str(folder)!r}); import {modules}, conv_impls; {loaded}"
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
        assert (done.returncode != 0) == fails, done.stderr
        assert fails or done.stdout.strip() == f"{folder / 'conv_impls' / '__init__.py'} []"


@pytest.mark.parametrize("direction", ["fwd", "bwd_d", "bwd_w"])
@pytest.mark.parametrize("name", ["auto", "auto_eager", "auto_strict", "numpy_strided"])
def test_public_calls_compute_what_is_asked_on_every_new_image(name: str, direction: Any) -> None:
    problem = Conv2dProblem.from_label("mb2ic3ih9iw8oc4oh4ow3kh3kw4sh2sw2ph0pw0dh0dw0")
    forward, rng = as_forward(problem, direction), np.random.default_rng(0)
    x, weight = (rng.integers(-2, 3, shape).astype(np.float32) for shape in (forward.input_shape, forward.weight_shape))
    if direction == "bwd_d":
        x[:, :, 1::2], x[..., 1::2] = 0, 0
    calls = PublicCalls(Case("w", "l", problem.label, 1, f"{name}@v0.3.0", 1, direction))
    bound, facts = calls.bound(problem, x, weight)
    expected = reference(x, weight, None, forward)
    np.testing.assert_allclose(bound.read(bound.call()), expected, atol=1e-3)
    np.multiply(x, -2, out=bound.x)
    bound.renew()
    np.testing.assert_allclose(bound.read(bound.call()), -2 * expected / 1, atol=1e-3)
    other = bound.other(np.zeros_like(x))
    assert not other.read(other.call()).any()
    plain = {"bwd_d": "conv2d_input", "bwd_w": "conv2d_weight"}.get(direction) if name == "auto" else None
    if plain:
        assert (facts["algorithm"], calls.mode) == (plain, "eager")
    else:
        assert calls.mode == ("eager" if name == "auto_eager" else "planned")


def test_gradients_are_planned_where_the_version_can(monkeypatch: pytest.MonkeyPatch) -> None:
    problem, asked = Conv2dProblem.from_label("mb1ic2ih5oc3kh3ph1"), []

    def plan_input(given: Conv2dProblem, weight: Any, **how: Any) -> Callable[..., Any]:
        asked.append((given, weight.shape, how))
        return plan(as_forward(given, "bwd_d"), np.ascontiguousarray(weight[..., ::-1, ::-1].swapaxes(0, 1)), **how)

    monkeypatch.setattr("conv_impls.plan_input", plan_input, raising=False)
    calls = PublicCalls(Case("w", "l", problem.label, 1, "numpy_strided@x", 1, "bwd_d"))
    forward, rng = as_forward(problem, "bwd_d"), np.random.default_rng(0)
    x, weight = (rng.standard_normal(s).astype(np.float32) for s in (forward.input_shape, forward.weight_shape))
    bound, facts = calls.bound(problem, x, weight)
    np.testing.assert_allclose(bound.read(bound.call()), reference(x, weight, None, forward), atol=1e-5)
    assert asked == [(problem, (3, 2, 3, 3), {"backend": "numpy_strided", "threads": 1, "precision": "standard"})]
    assert (facts["algorithm"], calls.mode) == ("numpy_strided", "planned")


@pytest.mark.parametrize("direction", ["fwd", "bwd_d"])
def test_a_run_asks_both_sides_alike_and_records_the_commit(
    repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, direction: Any
) -> None:
    log: Log = []

    def named(name: str, threads: int, do: str, order: Answer) -> Answer | None:
        return {"facts": FACTS | {"version": "what a process says does not count"}} if do == "start" else None

    monkeypatch.setattr(fleet, "Worker", type("Worker", (Scripted,), {"log": log, "spoil": staticmethod(named)}))
    names = ["auto", "auto@v0.3.0", "b"]
    layer = workloads.load("smoke")[0]
    cases = make_cases([layer], names, [1], 1, [direction], ["warm"])
    run = Run.create(tmp_path / "run", CONFIG | {"cases": [asdict(case) for case in cases]}, {"id": "e"})
    found = resolved(names)
    with Driver(run, cases, versions=found) as measuring:
        commits = [(record := measuring.record(case)) and record.version for case in cases]
    assert commits == ["", found["auto@v0.3.0"].commit, ""]
    public = {name: order["public"] for name, _, do, order in log if do == "start"}
    assert public == {"auto": direction != "fwd", "auto@v0.3.0": True, "b": False}
    folders = {name: order.get(VERSION) for name, _, do, order in log if do == "start up"}
    assert folders == dict.fromkeys(["auto", "b", "machine"]) | {"auto@v0.3.0": str(found["auto@v0.3.0"].folder)}
    labels = {order["case"]["label"] for _, _, do, order in log if do == "start"}
    assert labels == {layer.problem.replace(name="").label}, "another version may not know how a name is spelled"


def test_fresh_kernels_are_fresh_for_every_version(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Fleet(1.0, {"NUMBA_CACHE_DIR": "/fresh"}, resolved(["auto@main"]))
    assert made.worker("auto@main")._variables["NUMBA_CACHE_DIR"] == "/fresh"


def test_a_run_measures_the_sources_of_the_folder(bench: Bench, tmp_path: Path) -> None:
    for name in ("wrong", "same"):
        shutil.copytree(ROOT / "conv_impls", tmp_path / name / "conv_impls", ignore=shutil.ignore_patterns("__pyc*"))
    file = tmp_path / "wrong" / "conv_impls" / "backends" / "numpy_strided.py"
    right = file.read_text()
    assert right.count("if bias is not None:") == 1
    file.write_text(right.replace("if bias is not None:", "out += 1\n            if bias is not None:"))
    names = "numpy_strided", "numpy_strided@./wrong", "numpy_strided@same"
    asked = "--workload", 'mb1ic3ih8oc4kh3ph1n"tiny"', "--threads", "1", "--backends", ",".join(names)
    done = bench("run", *asked, "--out", "run")
    records = {record.case.backend: record for record in Run.open(tmp_path / "run").records()}
    assert [records[name].status for name in names] == ["ok", "wrong_result", "ok"]
    assert records[names[2]].version.endswith(", no commit")
    assert done.returncode == 1
    assert "numpy_strided and numpy_strided@./wrong" in done.stdout
    assert "numpy_strided and numpy_strided@same" in done.stdout or "numpy_strided@same (" in done.stdout
    one_line(bench("check", *asked[:-1], "numpy_strided@./none"), "no folder './none'")
