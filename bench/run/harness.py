"""The measurements of one pytest session, and how an item passes its recorded times to pytest-benchmark.

`Harness` returns the `Result` of each case; `replay` passes the turns of a record on. `Clock` advances by a recorded
time between the two readings that pytest-benchmark takes around a round. So its JSON, tables, comparisons and
histograms use exactly the recorded values, and its median is that of the record.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from conv_impls.text import visible

from ..store.benchmark_json import extra_info, group
from ..store.folder import Run
from ..store.records import Case, Record
from .driver import Driver, check_cases
from .progress import Bar
from .request import Request

# Statuses that are not failures: pytest skips these cases.
SKIPPED = ("unsupported", "over_budget", "unreliable", "interrupted")


class Clock:
    """A timer that returns recorded times: 0, t1, 0, t2, ..., so that differences are exact."""

    __name__ = "recorded"

    def __init__(self) -> None:
        self._left: list[float] = []

    def load(self, times_s: list[float]) -> None:
        """Set the durations of the next rounds."""
        self._left = [reading for time_s in times_s for reading in (0.0, time_s)][::-1]

    def __call__(self) -> float:
        """The next reading."""
        return self._left.pop()


CLOCK = Clock()


@dataclass(frozen=True)
class Result:
    """Status of a case, its record if it was timed, and the command that repeats it."""

    status: str
    reason: str
    record: Record | None = None
    repeat: str = ""


@dataclass
class Harness:
    """The cases and the progress of one session.

    Parameters
    ----------
    request : Request
    timed : bool
        Whether cases are timed; otherwise each is only checked, and no run is created.
    progress : Bar
    selected : list of Case
        The cases of the request that the session has items for.
    """

    request: Request
    timed: bool
    progress: Bar = field(default_factory=Bar)
    selected: list[Case] = field(default_factory=list)
    run: Run | None = None
    driver: Driver | None = None
    _checks: Generator[tuple[Case, str, str]] | None = None
    _checked: dict[str, Result] = field(default_factory=dict)

    def open_run(self) -> Run:
        """The run folder, created or found once; then also prints the warnings of the environment."""
        if self.run is None:
            self.run = self.request.open()
            for text in self.run.environment.get("warnings") or []:
                self.progress.say(f"warning: {text}")
        return self.run

    def environment_id(self) -> str:
        """The id of the run's environment; before the run is opened, that of the current machine."""
        return str((self.run.environment if self.run else self.request.environment())["id"])

    def open(self) -> None:
        """Start measuring for the run."""
        driver = Driver(self.open_run(), self.selected, self.progress.show, self.request.versions)
        self.driver = driver.__enter__()
        self.progress.__enter__()

    def result(self, case: Case) -> Result:
        """The result of a case; the first case of a layer measures, or checks, the whole layer."""
        if self.driver is None or self.run is None:
            return self._check(case)
        record = self.driver.record(case)
        if record is None:
            return Result(
                "interrupted", f"the budget ended before this case; finish with --bench-resume {self.request.folder}"
            )
        return Result(record.status, record.reason, record, self.run.repeat(case))

    def close(self) -> None:
        """End all processes; mark the run as finished if all its cases are measured."""
        self.progress.__exit__()
        if self._checks is not None:
            self._checks.close()
        if self.driver is not None and self.run is not None:
            driver, self.driver = self.driver, None
            driver.__exit__()
            if len(self.run.done()) == len(self.request.cases):
                self.run.finish({"seconds": round(driver.seconds, 1)})

    def _check(self, case: Case) -> Result:
        options = self.request.options
        if self._checks is None:
            self._checks = check_cases(
                self.selected, options.timeout, options.variables(), options.seed, self.request.versions
            )
        while case.key not in self._checked:
            checked, status, reason = next(self._checks)
            # Without timing, an unsupported or too slow case is not a failure.
            self._checked[checked.key] = Result("ok" if status in SKIPPED else status, reason)
        return self._checked[case.key]


def replay(result: Result, benchmark: BenchmarkFixture) -> None:
    """Pass the recorded turns of a case to pytest-benchmark; skip or fail the test by the status of the case."""
    record = result.record
    # pytest prints the text without escaping it.
    said = visible(f"{result.status}: {result.reason}")
    if result.status in SKIPPED:
        pytest.skip(said)
    if result.status != "ok":
        # pytest-benchmark then saves nothing, and does not warn about an unused fixture.
        benchmark.has_error = True
        again = f"\nrepeat: {result.repeat}" if result.repeat else ""
        pytest.fail(visible(said + again), pytrace=False)
    times_s = record.turns_s if record else [0.0]
    if record:
        benchmark.group = visible(group(record.case), lines=False)
        benchmark.extra_info |= extra_info(record)
    CLOCK.load(times_s)
    benchmark.pedantic(lambda: None, rounds=len(times_s), iterations=1)
