"""What a pytest session in this folder leaves out, and what it ends with: verdicts on versions of a backend."""

from __future__ import annotations

from typing import Any

import pytest

from .run.session import HARNESS

# A plug-in registers its backend when it is imported.
collect_ignore = ["run/overhead.py"]
VERDICTS = pytest.StashKey[list[str]]()


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Exit code 1 where the first named of several versions of a backend is slower than another."""
    harness = session.config.stash.get(HARNESS, None)
    if harness is None or harness.run is None or not harness.request.versions:
        return
    from .analysis import versions
    from .analysis.frame import frame

    table = frame(harness.run.records(), harness.run.cases, environment=harness.run.environment)
    session.config.stash[VERDICTS] = versions.sentences(table)
    if versions.regressed(table) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    for text in config.stash.get(VERDICTS, []):
        terminalreporter.write_line(text)
