"""DataFrames -> figures, Markdown tables and one HTML page.

Matplotlib is imported here, before any module that draws. The import ignores the user's settings: an unreadable
matplotlibrc or an unknown backend would make it fail. `bench.report.style` sets all that the figures need.
"""

import importlib
import os
from contextlib import chdir
from pathlib import Path


def _import_matplotlib() -> None:
    before = {name: os.environ.pop(name) for name in ("MATPLOTLIBRC", "MPLBACKEND") if name in os.environ}
    os.environ["MATPLOTLIBRC"] = os.devnull
    try:
        # A matplotlibrc in the current directory would take precedence.
        with chdir(Path(__file__).parent):
            importlib.import_module("matplotlib")
    finally:
        del os.environ["MATPLOTLIBRC"]
        os.environ.update(before)


_import_matplotlib()
