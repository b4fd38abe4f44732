"""What the commands write to the terminal: lines and tables. Colours only on a terminal, and not with NO_COLOR.

Names come from files of anybody. Rich would read ``[new]`` as markup and ``:x:`` as a sign, so both are off; an escape
sequence is shown and not obeyed.
"""

from __future__ import annotations

import sys
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from conv_impls.text import visible

# Exit codes.
WRONG, USAGE, INTERRUPTED = 1, 2, 130

console = Console(markup=False, emoji=False, highlight=False)


def say(text: str) -> None:
    """A line of the answer, however wide the terminal is."""
    print(visible(text), flush=True)


def complain(text: str) -> None:
    """A line on stderr: an error or a warning."""
    print(visible(text), file=sys.stderr, flush=True)


def warn(message: Warning | str, *where: Any, **more: Any) -> None:
    """A warning of Python as one line, without the place in the code; it stands for `warnings.showwarning`."""
    complain(f"warning: {message}")


def print_findings(table: Any) -> None:
    """The result of a run: one sentence, ratios, a sentence for each network; the best numbers are coloured."""
    from ..analysis.findings import findings

    for line in findings(table):
        text = Text()
        for piece in line:
            text.append(visible(piece.text, lines=False), "bold green" if piece.best else "")
        console.print(text, soft_wrap=True)


def print_table(content: Any, title: str = "") -> None:
    """A DataFrame, with marks before weak numbers; see `bench.analysis.numbers`."""
    # Here, not above: most commands print no table and need no pandas.
    from ..analysis.numbers import shown

    texts, note = shown(content)
    table = Table(title=visible(title, lines=False) or None)
    for i, column in enumerate(texts.columns):
        table.add_column(visible(str(column), lines=False), no_wrap=i == 0, justify="left" if i == 0 else "right")
    for row in texts.itertuples(index=False):
        table.add_row(*(visible(text, lines=False) for text in row))
    console.print(table)
    if note:
        say(note)
