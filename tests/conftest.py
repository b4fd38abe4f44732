"""Shared fixtures, and the option that turns a missing torch from a skip into a failure."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from conv_impls import registry


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--require-torch", action="store_true", help="fail where a test would be skipped, as CI does")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """With --require-torch a skipped test is a failed run: CI must not count it as passed."""
    if session.config.getoption("--require-torch", default=False):
        terminal = session.config.pluginmanager.get_plugin("terminalreporter")
        if terminal is not None and terminal.stats.get("skipped"):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture
def registered() -> Iterator[dict[str, registry.Backend]]:
    """The registry's table, put back as it was afterwards."""
    before = dict(registry._registered)
    yield registry._registered
    registry._registered.clear()
    registry._registered.update(before)
