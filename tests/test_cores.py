"""How many threads a call gets: the affinity of the moment, the quotas of control groups, and other limits."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import numba
import numpy as np
import pytest

from conv_impls import Conv2dProblem, plan
from conv_impls.kernels.runtime import cores, launch


@pytest.fixture
def one_core() -> Iterator[None]:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)


def test_cores_are_those_of_the_moment(one_core: None) -> None:
    assert cores.affinity() == launch.usable(8) == 1
    problem = Conv2dProblem.from_label("ic4ih9oc4oh9kh3ph1")
    assert plan(problem, np.ones(problem.weight_shape, "f4"), backend="numba_simd", threads=2).threads == 1


def group(root: Path, path: str, **files: str) -> None:
    folder = root / "sys/fs/cgroup" / path
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / f"cpu.{name}").write_text(text)


@pytest.mark.parametrize(
    ("mine", "files", "expected"),
    [
        ("0::/\n", {"": {"max": "150000 100000\n"}}, 1.5),
        ("0::/\n", {"": {"max": "max 100000\n"}}, float("inf")),
        ("0::/a/b\n", {"a": {"max": "200000 100000"}, "a/b": {"max": "300000 100000"}}, 2.0),
        ("0::/seen/from/outside\n", {"": {"max": "50000 100000"}}, 0.5),
        (
            "4:memory:/\n3:cpu,cpuacct:/c\n",
            {"cpu,cpuacct/c": {"cfs_quota_us": "400000\n", "cfs_period_us": "100000\n"}},
            4.0,
        ),
        ("3:cpu:/\n", {"cpu": {"cfs_quota_us": "-1\n", "cfs_period_us": "100000\n"}}, float("inf")),
        ("4:memory:/m\n", {"memory/m": {"max": "1 2"}}, float("inf")),
        ("0::/\n", {"": {"max": "junk"}}, float("inf")),
        ("0::/\n", {"": {"max": "100000 0"}}, float("inf")),
        ("", {}, float("inf")),
    ],
)
def test_quotas_of_control_groups(tmp_path: Path, mine: str, files: dict[str, dict[str, str]], expected: float) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(mine)
    for path, texts in files.items():
        group(tmp_path, path, **texts)
    assert cores.quota(tmp_path) == expected


def test_a_quota_is_read_again_after_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    now, grants = 1000.0, [1.2, 64.0, 1.6, 0.2]
    monkeypatch.setattr(cores, "_quota", (0.0, 0))
    monkeypatch.setattr(cores, "quota", lambda: grants.pop(0))
    monkeypatch.setattr(time, "monotonic", lambda: now)
    found = []
    for step in (0.0, 0.9, 0.2, 1.1, 1.1):
        now += step
        found.append(cores.granted())
    assert found == [1, 1, 64, 2, 1]


@pytest.mark.parametrize("allowed", [1, 2, 5])
def test_a_quota_limits_threads(monkeypatch: pytest.MonkeyPatch, allowed: int) -> None:
    monkeypatch.setattr(launch, "granted", lambda: allowed)
    monkeypatch.setattr(launch, "affinity", lambda: 64)
    monkeypatch.setattr(numba.config, "NUMBA_NUM_THREADS", 64)
    assert launch.usable(8) == allowed
    asked = []
    monkeypatch.setattr(launch._team, "call", lambda seats, *given: asked.append(seats))
    monkeypatch.setattr(launch._team, "alone", lambda *given: asked.append(1))
    launch.launch(8, np.ones(1), np.ones(1), 0)
    assert asked == [allowed]
