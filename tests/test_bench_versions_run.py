"""Other versions of a backend, as they run: folders of their own, public names alone, the commit in the records."""

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
from checkout import PUBLIC, git, one, package
from commands import Bench, one_line
from msgspec.structs import asdict
from scripted import CONFIG, FACTS, Answer, Log, Scripted

from bench.machine import probes
from bench.run import fleet
from bench.run.directions import as_forward
from bench.run.driver import Driver, make_cases
from bench.run.fleet import Fleet
from bench.run.options import Options, UsageError
from bench.run.public_calls import PublicCalls
from bench.run.request import Request
from bench.run.versions import resolved
from bench.run.worker import VERSION
from bench.store.folder import Run
from bench.store.records import Case
from conv_impls import Conv2dProblem, plan, workloads
from conv_impls.choice import limits, userdir
from conv_impls.reference import reference

ROOT = Path(__file__).parent.parent


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
    with pytest.raises(UsageError, match=r"versions of .* would differ now; start a new run"):
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


@pytest.mark.parametrize("planned", [True, False], ids=["planned gradients", "none"])
@pytest.mark.parametrize("direction", ["fwd", "bwd_d", "bwd_w"])
@pytest.mark.parametrize("name", ["auto", "auto_eager", "auto_strict", "numpy_strided"])
def test_public_calls_compute_what_is_asked_on_every_new_image(
    name: str, direction: Any, planned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not planned:
        monkeypatch.delattr("conv_impls.plan_input")
        monkeypatch.delattr("conv_impls.plan_weight")
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
    plain = {"bwd_d": "conv2d_input", "bwd_w": "conv2d_weight"}.get(direction)
    plain = plain if name == "auto" and not planned else None
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
