"""Start the pytest session of a request in this process, for `python -m bench run`.

It is the session that ``python -m pytest bench --benchmark-only`` starts, cut off from what a folder or a shell says of
pytest: no configuration file, no conftest, no PYTEST_ADDOPTS, no plug-ins that are merely installed.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from . import session
from .harness import Harness
from .request import Request

PACKAGE = Path(__file__).parents[1]
TESTS = PACKAGE / "test_bench_conv2d.py"
# Of the shell's variables those by which pytest would listen to others.
VARIABLES = ("PYTEST_ADDOPTS", "PYTEST_PLUGINS")


class _Errors:
    """What pytest itself has to complain of, which is a fault of the harness."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def pytest_internalerror(self, excrepr: Any) -> None:
        self.texts.append(str(excrepr))

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            self.texts.append(str(report.longrepr))

    def pytest_runtest_logreport(self, report: Any) -> None:
        # A bad case fails its call; its setup measures, and fails only with the harness.
        if report.failed and report.when != "call":
            self.texts.append(str(report.longrepr))


def start(request: Request) -> tuple[int, list[str]]:
    """Measure; the exit code of pytest, and the texts of faults of the harness itself.

    Raises
    ------
    UsageError, StoreError
        The run cannot be opened.
    """
    harness, errors = Harness(request, timed=True), _Errors()
    # Here and not in the session, where pytest would report what is wrong by its own words.
    with harness.open_run().writing():
        pass
    arguments = [
        # The name of an item, by which files are compared, must not depend on where the command is run.
        "-c", os.devnull, "--rootdir", str(PACKAGE.parent), "--noconftest", "-s",
        "-p", "no:cacheprovider", "-p", "no:terminal", "-p", "no:faulthandler", "-p", "pytest_benchmark.plugin",
        "-p", session.__name__, "--benchmark-only", "--benchmark-quiet", str(TESTS),
    ]  # fmt: skip
    before = {name: os.environ.pop(name) for name in VARIABLES if name in os.environ}
    autoload = os.environ.get("PYTEST_DISABLE_PLUGIN_AUTOLOAD")
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    try:
        return int(pytest.main(arguments, plugins=[session.Front(harness), errors])), errors.texts
    finally:
        os.environ.update(before)
        if autoload is None:
            del os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"]
        else:
            os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = autoload
