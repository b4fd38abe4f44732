"""Start the pytest session of a request in this process, for `python -m bench run`.

It is the session that ``python -m pytest bench --benchmark-only`` starts, isolated from pytest settings of the folder
and the shell: no configuration file, no conftest, no PYTEST_ADDOPTS, no automatic loading of installed plug-ins.
"""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from ..program import FOLDER, PACKAGE, ROOT
from ..store.benchmark_json import TEST
from . import session
from .harness import Harness
from .request import Request

TESTS = FOLDER / "test_bench_conv2d.py"
# Shell variables with pytest settings; they are removed for the session.
VARIABLES = ("PYTEST_ADDOPTS", "PYTEST_PLUGINS")


class _Modules:
    """Collects the test from the package of this process: pytest would import it by the name of its folder.

    The ids of items, by which files are compared, are the same for both names.
    """

    def pytest_collect_directory(self, path: Path, parent: pytest.Collector) -> pytest.Dir:
        return pytest.Dir.from_parent(parent, path=path)

    def pytest_pycollect_makemodule(self, module_path: Path, parent: pytest.Collector) -> pytest.Module:
        module: pytest.Module = pytest.Module.from_parent(parent, path=module_path, nodeid=TEST.partition("::")[0])
        module.obj = import_module(f"{PACKAGE}.{module_path.stem}")
        return module


class _Errors:
    """Collects errors that pytest itself reports: these are faults of the harness."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def pytest_internalerror(self, excrepr: Any) -> None:
        self.texts.append(str(excrepr))

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            self.texts.append(str(report.longrepr))

    def pytest_runtest_logreport(self, report: Any) -> None:
        # A bad case fails in its call phase; the setup measures, and fails only if the harness fails.
        if report.failed and report.when != "call":
            self.texts.append(str(report.longrepr))


def start(request: Request) -> tuple[int, list[str]]:
    """Measure; returns the exit code of pytest, and the texts of faults of the harness itself.

    Raises
    ------
    UsageError, StoreError
        The run cannot be opened.
    """
    harness, errors = Harness(request, timed=True), _Errors()
    # Opened here, because in the session pytest would report an error in its own wording.
    with harness.open_run().writing():
        pass
    arguments = [
        # Files are compared by item names, so these must not depend on the current folder.
        "-c", os.devnull, "--rootdir", str(ROOT), "--noconftest", "-s",
        "-p", "no:cacheprovider", "-p", "no:terminal", "-p", "no:faulthandler", "-p", "pytest_benchmark.plugin",
        "-p", session.__name__, "--benchmark-only", "--benchmark-quiet",
        # Without it, the session makes a folder in the current one.
        "--benchmark-storage", str(request.folder), str(TESTS),
    ]  # fmt: skip
    before = {name: os.environ.pop(name) for name in VARIABLES if name in os.environ}
    autoload = os.environ.get("PYTEST_DISABLE_PLUGIN_AUTOLOAD")
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    try:
        return int(pytest.main(arguments, plugins=[session.Front(harness), _Modules(), errors])), errors.texts
    finally:
        os.environ.update(before)
        if autoload is None:
            del os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"]
        else:
            os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = autoload
