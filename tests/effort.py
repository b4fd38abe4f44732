"""How much of a proof one form of the tests holds: the short form in `make test`, the long one in `make test-long`.

A test that takes the fixture ``effort`` exists twice, as ``[short]`` and as ``[long]``. Tests that hold a whole grid of
which the short form has a part are marked ``long`` alone. `pyproject.toml` deselects that mark; ``pytest -m long``
selects it. The counts of the long form and the seed are options of pytest, listed by ``pytest --help``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import hypothesis
import pytest


@dataclass(frozen=True)
class Effort:
    """The seed of everything random, and how often a proof is repeated."""

    seed: int
    examples: int
    calls: int
    files: int
    kills: int
    rounds: int

    def each(self, **strategies: Any) -> Callable[[Callable[..., None]], None]:
        """Decorator that runs a check at once, on ``examples`` problems drawn by hypothesis."""

        def run(check: Callable[..., None]) -> None:
            drawn = hypothesis.settings(
                max_examples=self.examples, database=None,
                # Neither may decide a test: how long a check takes, and how long drawing its problems takes.
                deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow],
            )  # fmt: skip
            hypothesis.seed(self.seed)(drawn(hypothesis.given(**strategies)(check)))()

        return run


SHORT = Effort(seed=0, examples=20, calls=2000, files=15, kills=1, rounds=8)
LONG = Effort(seed=0, examples=300, calls=100_000, files=300, kills=10, rounds=200)
HELP = {
    "seed": "seed of everything random",
    "examples": "problems drawn for each property",
    "calls": "convolutions of drawn arrays, by every fast backend together",
    "files": "spoiled files of each kind that are read",
    "kills": "moments at which a process is killed with SIGKILL",
    "rounds": "calls of each thread where several use one plan or file",
}


def add_options(parser: pytest.Parser) -> None:
    group = parser.getgroup("long", "the long form of the tests (pytest -m long)")
    for field in fields(Effort):
        default = getattr(LONG, field.name)
        group.addoption(
            f"--{field.name}", type=int, default=default, metavar="N",
            help=f"{HELP[field.name]}; default {default}",
        )  # fmt: skip


@pytest.fixture(scope="session", params=["short", pytest.param("long", marks=pytest.mark.long)])
def effort(request: pytest.FixtureRequest) -> Effort:
    if request.param == "short":
        return SHORT
    return Effort(**{field.name: request.config.getoption(f"--{field.name}") for field in fields(Effort)})
