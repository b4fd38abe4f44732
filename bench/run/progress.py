"""How far a run is: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from typing import IO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from conv_impls.text import visible

# Seconds between two lines where nobody watches (CI, a log file).
QUIET_S = 15.0


class Bar:
    """Cases done, time left and what is under way. A context; `show` fits `bench.run.driver.Progress`.

    The bar is drawn when it is told something: a thread of its own would wake up while a backend is timed. Rich would
    read ``[new]`` in a name as markup, and a terminal obey an escape sequence: neither happens.
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
        """A line that stays."""
        print(visible(text), file=self._console.file, flush=True)

    def show(self, done: int, total: int, at: str, left: float | None) -> None:
        """Show how many cases of all are done, what is under way, and the seconds that are left."""
        at = visible(at, lines=False)
        clock = "" if left is None else f"{int(left) // 60}:{int(left) % 60:02d} left"
        self._bar.update(self._task, completed=done, total=total, description=at[:44], left=clock, refresh=True)
        if not self._console.is_terminal and time.monotonic() - self._said > QUIET_S:
            self._said = time.monotonic()
            self.say(f"{done}/{total} {clock} {at}".rstrip())
