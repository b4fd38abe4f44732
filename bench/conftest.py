"""Pytest hooks of this folder: ignored files, findings in the summary, and an exit code for slower versions."""

from __future__ import annotations

from typing import Any

import pytest

from conv_impls.text import visible

from .run.session import HARNESS

# A plug-in: its import would register its backend.
collect_ignore = ["run/overhead.py"]
FOUND = pytest.StashKey[list[str]]()


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Set exit code 1 if the first named of several versions of a backend is slower than another."""
    harness = session.config.stash.get(HARNESS, None)
    if harness is None or harness.run is None:
        return
    from .analysis import versions
    from .analysis.frame import frame_of
    from .analysis.sentences import sentences

    table = frame_of(harness.run)
    session.config.stash[FOUND] = sentences(table)
    if versions.regressed(table) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    for text in config.stash.get(FOUND, []):
        terminalreporter.write_line(visible(text))
