"""pytest-benchmark as the stopwatch: cases come in as strings, records go out as they finish.

Without --bench-run the smoke workload is the matrix, so that an ordinary test run executes every benchmark once. With
it (python -m bench run does this in a child process) the cases of that run which are not finished yet are measured, and
each writes its record before the next begins: pytest-benchmark itself would save only when the session ends.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.measure import Limits
from bench.store import Case, Run
from conv_impls import backends, workloads


def pytest_addoption(parser: pytest.Parser) -> None:
    """Where the run lies, and which of its cases this process does."""
    parser.addoption("--bench-run", type=Path, help="run folder whose unfinished cases are measured")
    parser.addoption("--bench-repetition", type=int, default=1, help="only cases of this repetition")
    parser.addoption("--bench-threads", type=int, default=1, help="only cases of this thread count")
    parser.addoption("--bench-parent", type=int, help="process to stop with: nobody else may be at this run")
    parser.addoption("--bench-deadline-s", type=float, default=float("inf"), help="seconds left of the run's budget")


def unfinished(config: pytest.Config) -> list[Case]:
    """Cases for this process; the whole smoke workload where no run is given."""
    folder = config.getoption("--bench-run")
    if folder is None:
        layers = workloads.load("smoke")
        return [Case("smoke", la.name, la.problem.label, la.count, name, 1) for la in layers for name in built_in()]
    run = Run.open(folder)
    done = run.done()
    group = config.getoption("--bench-repetition"), config.getoption("--bench-threads")
    return [case for case in run.cases if (case.repetition, case.threads) == group and case.key not in done]


def built_in() -> list[str]:
    """Backends that come with the package: tests may have registered others in this process."""
    from conv_impls import registry

    return [name for name in backends() if name in registry.sources()]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test a case, parametrised by its key, a string: pytest-benchmark keeps parameters to the session's end."""
    if "case_key" in metafunc.fixturenames:
        keys = [case.key for case in unfinished(metafunc.config)]
        metafunc.parametrize("case_key", keys, ids=[key.replace(" ", "_") for key in keys])


@pytest.fixture(scope="session")
def cases(request: pytest.FixtureRequest) -> dict[str, Case]:
    """The cases by key."""
    return {case.key: case for case in unfinished(request.config)}


@pytest.fixture(scope="session")
def run(request: pytest.FixtureRequest) -> Run | None:
    """The run to write to, if any."""
    folder = request.config.getoption("--bench-run")
    return None if folder is None else Run.open(folder)


@pytest.fixture(scope="session")
def limits(request: pytest.FixtureRequest, run: Run | None) -> Limits:
    """Limits of the run, its deadline on this process's clock."""
    left = request.config.getoption("--bench-deadline-s")
    case_s = run.config["timeout_s"] if run else Limits.case_s
    return Limits(case_s=case_s, deadline=time.monotonic() + left)


@pytest.fixture
def orphaned(request: pytest.FixtureRequest) -> Callable[[], bool]:
    """Whether the process that drives the run is gone: a resumed run may then be at the same cases."""
    parent = request.config.getoption("--bench-parent")
    return lambda: parent is not None and os.getppid() != parent


@pytest.fixture
def started(case_key: str, run: Run | None, orphaned: Callable[[], bool]) -> Iterator[None]:
    """Leave a note of what is running, for the progress display and for the autopsy after a crash."""
    if run is None:
        yield
        return
    if orphaned():
        pytest.exit("the process that drives this run is gone")
    note = run.folder / f"running-{os.getpid()}"
    note.write_text(case_key, encoding="utf-8")
    yield
    note.unlink(missing_ok=True)
