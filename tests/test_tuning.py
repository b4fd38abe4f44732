"""Tuning: the fastest that is right wins, is remembered across processes, and serves "auto" alone."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conv_impls import Conv2dProblem, ProblemError, conv2d, get_backend, plan, register, registry
from conv_impls.backends import auto
from conv_impls.choice import tuning
from conv_impls.choice.cost import workspace_bound
from conv_impls.validation import Array

ROOT = Path(__file__).parent.parent
P = Conv2dProblem(1, 2, (8, 8), 3, (3, 3), padding=((1, 1), (1, 1)), name="some layer")
X, W = np.ones(P.input_shape, "f4"), np.ones(P.weight_shape, "f4")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of this test's own, and no winners in memory before or after it."""
    monkeypatch.setenv("CONV_IMPLS_CACHE_DIR", str(tmp_path))
    tuning._winners.cache_clear()
    yield tmp_path
    tuning._winners.cache_clear()


@pytest.fixture
def contenders(registered: dict[str, registry.Backend], monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Three backends: slow and right, fast and right, fastest and wrong, on a clock that only they move."""
    clock = Clock()
    monkeypatch.setattr(tuning, "time", clock)
    for name, seconds, value in (("slow", 2e-3, 1.0), ("fast", 1e-3, 1.0), ("wrong", 0.0, 2.0)):
        register(name)(backend(clock, seconds, value))
    monkeypatch.setattr(auto, "_able", lambda *facts: iter(["slow", "fast", "wrong"]))


class Clock:
    """In place of the module time."""

    now_s = 0.0

    def perf_counter(self) -> float:
        return self.now_s


def backend(clock: Clock, seconds: float, value: float) -> Callable[..., Any]:
    def prepare(problem: Any, weight: Any, bias: Any, threads: Any) -> Callable[[Array, Array], None]:
        def call(x: Array, out: Array) -> None:
            clock.now_s += seconds
            out.fill(value)

        return call

    return prepare


@pytest.mark.usefixtures("contenders")
def test_the_fastest_right_one_wins_and_serves_auto_from_then_on(folder: Path) -> None:
    assert plan(P, W, threads=1, tune=True).backend == "fast"
    tuning._winners.cache_clear()
    assert plan(P.replace(name="another name"), W, threads=1).backend == "fast"
    assert conv2d(X, W, padding=1, threads=1).max() == 1
    # Whatever else the problem, the precision or the backend are, nothing has changed: auto takes its first guess.
    assert plan(P.replace(batch=2), W, threads=1).backend == "slow"
    assert plan(P, W, threads=1, precision="strict").backend == "slow"
    assert plan(P, W, threads=1, backend="numpy_strided").backend == "numpy_strided"
    (entry,) = json.loads((folder / tuning.FILE).read_text()).values()
    assert entry["facts"] == {f"{P.replace(name='').label} standard 1": "fast"}


@pytest.mark.usefixtures("contenders")
def test_a_winner_that_would_take_too_much_memory_leaves_the_choice_to_auto() -> None:
    plan(P, W, threads=1, tune=True)
    for more, winner in ((0, "fast"), (1, "slow")):
        taken = workspace_bound(P) + more
        registry._registered["fast"] = replace(get_backend("fast"), workspace=partial(lambda n, *facts: n, taken))
        assert plan(P, W, threads=1).backend == winner


@pytest.mark.usefixtures("contenders")
def test_a_winner_that_is_gone_leaves_the_choice_to_auto() -> None:
    plan(P, W, threads=1, tune=True)
    del registry._registered["fast"]
    assert plan(P, W, threads=1).backend == "slow"


@pytest.mark.usefixtures("contenders")
def test_weights_that_are_no_numbers_do_not_disturb_the_measuring() -> None:
    assert plan(P, np.full_like(W, np.nan), threads=1, tune=True).backend == "fast"


def test_tuning_a_named_backend_is_refused() -> None:
    with pytest.raises(ProblemError, match=r"plan: tune: expected False with a backend of your choice, got True"):
        plan(P, W, backend="numba_direct", tune=True)


@pytest.mark.parametrize("content", ["", "[1]", '{"CPU": {"stamp": STAMP, "facts": {"x": 3}}}', "old"])
def test_a_broken_or_stale_file_costs_one_warning_and_is_replaced(folder: Path, content: str) -> None:
    plan(P, W, threads=1, tune=True)
    path = folder / tuning.FILE
    good = path.read_text()
    cpu, entry = next(iter(json.loads(good).items()))
    old = good.replace(entry["stamp"], "conv_impls 0.0.1")
    path.write_text(
        old if content == "old" else content.replace("CPU", cpu).replace("STAMP", json.dumps(entry["stamp"]))
    )
    tuning._winners.cache_clear()
    with pytest.warns(
        RuntimeWarning, match=r"tuning\.json (cannot be read|was written with another version|contains winners)"
    ) as seen:
        plan(P, W, threads=1)
    assert len(seen) == 1
    plan(P, W, threads=1)  # warnings are errors here: there is no second one
    plan(P, W, threads=1, tune=True)
    assert json.loads(path.read_text())[cpu]["stamp"] == entry["stamp"]


def test_another_process_knows_the_winner(folder: Path) -> None:
    name = plan(P, W, threads=1, tune=True).backend
    code = (
        "from conv_impls import Conv2dProblem\nfrom conv_impls.choice import tuning\n"
        f"print(tuning.winner(Conv2dProblem.from_label({P.label!r}), 'standard', 1))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == name


def test_looking_up_reads_no_file_twice(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = plan(P, W, threads=1, tune=True).backend
    assert tuning.winner(P, "standard", 1) == name
    monkeypatch.setattr("conv_impls.choice.userdir.read", None)
    assert tuning.winner(P, "standard", 1) == name


@pytest.mark.parametrize("precision", ["standard", "strict"])
def test_candidates_can_do_the_problem_and_begin_with_the_choice(precision: str) -> None:
    names = auto.candidates(P, precision, 1, False)
    assert names[0] == auto.choose(P, precision, 1, False)
    assert len(set(names)) == len(names)
    assert all(registry.resolve("test", name, P, precision, 1, False).name == name for name in names)
