"""The two names of this suite: `bench` in a clone, `conv_bench` where it is installed.

Users may have a folder `bench` of their own, so the installed package has the longer name (decision 0023). A process
starts other processes of the suite by its own name: a module that is imported by both names exists twice.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

INSTALLED, COMMAND_NAME = "conv_bench", "conv-bench"
# The name in this process.
PACKAGE = __package__
FOLDER = Path(__file__).parent
# The folder that Python imports the package from.
ROOT = FOLDER.parent
# An editable installation has the installed name, but the folder of the clone.
IN_CLONE = FOLDER.name != INSTALLED
# What users type to start this program.
COMMAND = COMMAND_NAME if PACKAGE == INSTALLED else f"python -m {PACKAGE}"
# What users type to install what the command line needs.
INSTALL = 'pip install -e ".[bench]"' if IN_CLONE else 'pip install "conv-impls[bench]"'
SETUP_PEERS = "make setup-peers" if IN_CLONE else 'pip install "conv-impls[peers]"'
# Start of the command of a Python process that imports the package; its current folder is `ROOT`. A clone is imported
# from there. An installed package is on the path, and its folder must not come before the standard library (-P).
PYTHON = [sys.executable] if IN_CLONE else [sys.executable, "-P"]
# Why an operation cannot run here, or None. Each backend has a process, which is stopped while others are timed.
LACKING = (
    None
    if hasattr(os, "fork")
    else f"timing and checking backends need fork and SIGSTOP (Linux; with limits, macOS), got {sys.platform}; "
    "conv_impls itself, list, report, compare, export and import work here"
)


def commands(text: str) -> str:
    """A text with the commands of a clone, with those of this process.

    Examples
    --------
    >>> commands("python -m bench run") == f"{COMMAND} run"
    True
    """
    return text.replace("python -m bench", COMMAND)
