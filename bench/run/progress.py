"""Progress of a run: a bar on a terminal, otherwise a line from time to time."""

from __future__ import annotations

import time
from typing import IO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from conv_impls.text import visible

# Seconds between two lines if the output is no terminal (CI, a log file).
QUIET_S = 15.0


class Bar:
    """Cases done, time left and the current step. A context manager; `show` has the type `bench.run.driver.Progress`.

    The bar is drawn only in `show`: a refresh thread would wake up while a backend is timed. Names are escaped: Rich
    does not read ``[new]`` as markup, and the terminal gets no escape sequences.
    """

    def __init__(self, stream: IO[str] | None = None) -> None:
        self._console = Console(file=stream, markup=False, emoji=False, highlight=False)
        texts = (TextColumn(text, markup=False) for text in ("{task.fields[left]}", "{task.description}"))
        left, at = texts
        self._bar = Progress(
            MofNCompleteColumn(), left, BarColumn(20), at, console=self._console, auto_refresh=False, transient=True,
            disable=not self._console.is_terminal, redirect_stdout=False, redirect_stderr=False,
        )  # fmt: skip
        self._task = self._bar.add_task("starting", total=None, left="")
        self._said = time.monotonic()

    def __enter__(self) -> Bar:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def say(self, text: str) -> None:
        """Print a line that stays."""
        print(visible(text), file=self._console.file, flush=True)

    def show(self, done: int, total: int, at: str, left: float | None) -> None:
        """Show the number of finished cases, the current step and the seconds left."""
        at = visible(at, lines=False)
        clock = "" if left is None else f"{int(left) // 60}:{int(left) % 60:02d} left"
        self._bar.update(self._task, completed=done, total=total, description=at[:44], left=clock, refresh=True)
        if not self._console.is_terminal and time.monotonic() - self._said > QUIET_S:
            self._said = time.monotonic()
            self.say(f"{done}/{total} {clock} {at}".rstrip())
