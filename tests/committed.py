"""The committed runs, by kind: their folders are named after the kind and the CPU."""

from __future__ import annotations

from pathlib import Path

RUNS = Path(__file__).parents[1] / "results" / "runs"


def committed(kind: str) -> Path:
    """The committed run of a kind; of several CPUs, the first by name."""
    found = sorted(RUNS.glob(f"{kind}-*bit"))
    assert found, f"no committed run {kind}"
    return found[0]
