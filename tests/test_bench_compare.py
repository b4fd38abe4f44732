"""The command `compare`: its exit codes, what it refuses, what it lists."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import asdict
from two_runs import FACTS, SIX, record, scaled

from bench.store.folder import Run
from bench.store.records import Record

ROOT = Path(__file__).parent.parent


def stored(folder: Path, records: list[Record], environment: dict[str, Any] = FACTS, **options: Any) -> Path:
    config = {"options": options, "cases": [asdict(r.case) for r in records]}
    run = Run.create(folder, config, environment)
    with run.writing() as journal:
        for r in records:
            if r.status != "interrupted":
                journal.append(r)
    return folder


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "bench", "compare", *map(str, arguments)]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True)


def test_the_command_exits_1_where_something_became_worse(tmp_path: Path) -> None:
    a, b = stored(tmp_path / "a", [record(SIX)]), stored(tmp_path / "b", [record(scaled(2.0))])
    worse, better, same = command(a, b), command(b, a), command(a, a)
    assert (worse.returncode, better.returncode, same.returncode) == (1, 0, 0), worse.stderr
    assert "1 slower" in worse.stdout
    assert "1 faster" in better.stdout
    gone = stored(tmp_path / "c", [record(SIX), record(status="interrupted", backend="late")])
    full = stored(tmp_path / "d", [record(SIX), record(SIX, backend="late")])
    lost = command(full, gone, "--csv", tmp_path / "changes.csv")
    assert (lost.returncode, "1 gone" in lost.stdout) == (1, True)
    assert "late" in (tmp_path / "changes.csv").read_text()


def test_other_machines_and_versions_are_refused_by_what_differs(tmp_path: Path) -> None:
    other = FACTS | {"id": "two", "packages": {"numba": "9", "numpy": "2"}, "date": "friday", "machine": {}}
    a, b = stored(tmp_path / "a", [record(SIX)], isa=""), stored(tmp_path / "b", [record(SIX)], other, isa="avx2")
    refused = command(a, b)
    assert (refused.returncode, refused.stdout, refused.stderr.count("\n")) == (2, "", 1)
    assert "packages numba: 1 -> 9; --force" in refused.stderr
    forced = command(a, b, "--force")
    assert forced.returncode == 0
    assert "warning: the runs come from different machines or versions: packages numba: 1 -> 9" in forced.stderr
    assert "--isa: '' -> 'avx2'" in forced.stderr


@pytest.mark.parametrize("margin", ["-1", "nan", "inf"])
def test_a_margin_is_a_fraction(tmp_path: Path, margin: str) -> None:
    refused = command(tmp_path, tmp_path, f"--margin={margin}")
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "--margin: expected a fraction" in refused.stderr
