"""What the tests of limits share: a user's folder of their own, and numbers that stand for measured ones."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from conv_impls.choice import limits as module
from conv_impls.choice import probes, tuning
from conv_impls.choice.limits import Limits, limits

MEASURED = {"float32": 100e9, "float64": 50e9, "cache": 100e9, "l3": 50e9, "memory": 20e9, "call_s": 1e-6}
BELIEVED = Limits(100e9, 100e9, 50e9, 20e9, 1e-6)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of this test's own, and no limits in memory before or after it."""
    monkeypatch.setenv("CONV_IMPLS_CACHE_DIR", str(tmp_path / "user"))
    forget()
    yield tmp_path / "user"
    forget()


def forget() -> None:
    limits.cache_clear()
    module._known.clear()
    tuning._winners.cache_clear()


@pytest.fixture
def measurements(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Nothing is measured; the list has the number of rounds of each request."""
    asked: list[int] = []

    def measure(threads: int, rounds: int) -> dict[str, float]:
        asked.append(rounds)
        return MEASURED

    monkeypatch.setattr(probes, "measure", measure)
    return asked


def moment(age_s: float, **changes: Any) -> dict[str, Any]:
    """Numbers measured so many seconds ago."""
    date = datetime.now(UTC) - timedelta(seconds=age_s)
    return {"date": date.isoformat(timespec="seconds"), **MEASURED, **changes}
