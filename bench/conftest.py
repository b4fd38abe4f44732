"""Pytest hooks of this folder: ignored files, findings in the summary, and an exit code for slower versions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from conv_impls.text import visible

from .run.session import HARNESS

if TYPE_CHECKING:
    from .analysis.findings import Piece

# A plug-in: its import would register its backend.
collect_ignore = ["run/overhead.py"]
# The findings as lines, and the path of the page.
FOUND: pytest.StashKey[tuple[list[list[Piece]], Path]] = pytest.StashKey()


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Set exit code 1 if the first named of several versions of a backend is slower than another."""
    harness = session.config.stash.get(HARNESS, None)
    if harness is None or harness.run is None:
        return
    from .analysis import versions
    from .analysis.findings import findings
    from .analysis.frame import frame_of
    from .report.write import write_page_of

    table = frame_of(harness.run)
    session.config.stash[FOUND] = findings(table), write_page_of(harness.run, table)
    if versions.regressed(table) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if FOUND not in config.stash:
        return
    lines, page = config.stash[FOUND]
    for line in lines:
        for piece in line:
            terminalreporter.write(visible(piece.text, lines=False), bold=piece.best, green=piece.best)
        terminalreporter.write_line("")
    terminalreporter.write_line(f"page: {visible(str(page), lines=False)}")
