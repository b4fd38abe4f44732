"""DataFrames -> figures, Markdown tables and one HTML page.

Matplotlib is imported here, before any module that draws, without the settings it would read then: a file that it
cannot read, or an unknown backend, would make the import fail. `bench.report.style` sets all that the figures need.
"""

import importlib
import os
from contextlib import chdir
from pathlib import Path


def _import_matplotlib() -> None:
    before = {name: os.environ.pop(name) for name in ("MATPLOTLIBRC", "MPLBACKEND") if name in os.environ}
    os.environ["MATPLOTLIBRC"] = os.devnull
    try:
        # A matplotlibrc where the command is run would come first.
        with chdir(Path(__file__).parent):
            importlib.import_module("matplotlib")
    finally:
        del os.environ["MATPLOTLIBRC"]
        os.environ.update(before)


_import_matplotlib()
