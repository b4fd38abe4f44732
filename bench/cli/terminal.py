"""What the commands write to the terminal: lines and tables.

Names come from files of the user and stand as they are: Rich would read ``[new]`` as markup and ``:x:`` as a
sign, so both are off.
"""

from __future__ import annotations

import sys
from typing import Any

from rich.console import Console
from rich.table import Table

# Exit codes.
WRONG, USAGE, INTERRUPTED = 1, 2, 130

console = Console(markup=False, emoji=False, highlight=False)


def say(text: str) -> None:
    """A line of the answer, however wide the terminal is."""
    print(text, flush=True)


def complain(text: str) -> None:
    """A line on stderr: an error or a warning."""
    print(text, file=sys.stderr, flush=True)


def print_table(content: Any, title: str = "") -> None:
    """A DataFrame, with marks before weak numbers; see `bench.analysis.numbers`."""
    # Here, not above: most commands print no table and need no pandas.
    from ..analysis.numbers import shown

    texts, note = shown(content)
    table = Table(title=title or None)
    for i, column in enumerate(texts.columns):
        table.add_column(str(column), no_wrap=i == 0, justify="left" if i == 0 else "right")
    for row in texts.itertuples(index=False):
        table.add_row(*row)
    console.print(table)
    if note:
        say(note)
