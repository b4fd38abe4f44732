"""Tables -> CSV and Markdown files. Names of any origin are escaped.

A CSV cell that a spreadsheet would parse as a formula (OWASP, "CSV Injection") gets a ' in front; numbers stay
numbers. In Markdown, HTML, links and code in a name have no effect, and no pipe or line feed ends a cell. `escaped` and
`code` do the same for texts outside tables. Limits: a viewer may turn a bare address into a link.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from conv_impls.text import visible

from .numbers import shown

if TYPE_CHECKING:
    import pandas as pd

# First characters of a formula; the wide forms are valid in some locales.
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
ENTITIES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"} | {sign: f"\\{sign}" for sign in "\\`|[]"})


def csv(content: pd.DataFrame) -> str:
    """The table as CSV, with plain numbers of six digits, also in columns that contain texts."""
    plain = content.map(_csv_cell)
    return str(plain.to_csv(index=False, float_format="%.6g", header=[_csv_cell(str(name)) for name in plain]))


def markdown(content: pd.DataFrame, weak: pd.DataFrame | None = None) -> str:
    """A Markdown table, and a note that explains its marks; ``weak`` as for `bench.analysis.numbers.shown`."""
    if content.empty:
        return "none"
    texts, note = shown(content, weak)
    texts = texts.map(escaped).rename(columns=lambda name: escaped(str(name)))
    return str(texts.to_markdown(index=False, disable_numparse=True)) + (f"\n\n{note}." if note else "")


def escaped(text: str) -> str:
    r"""A text as one line of Markdown, escaped so that it is shown unchanged.

    Examples
    --------
    >>> print(escaped("<b>a|b</b>"))
    &lt;b&gt;a\|b&lt;/b&gt;
    """
    return visible(text, lines=False).translate(ENTITIES)


def code(text: str) -> str:
    """A text as a code span; the text may contain backticks.

    Examples
    --------
    >>> code("a"), code("a`b")
    ('`a`', '`` a`b ``')
    """
    text = visible(text, lines=False)
    longest = max(map(len, re.findall("`+", text)), default=0)
    space = " " * (longest > 0)
    return f"{'`' * (longest + 1)}{space}{text}{space}{'`' * (longest + 1)}"


def _csv_cell(value: object) -> object:
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if not isinstance(value, str):
        return value
    return ("'" if value.startswith(FORMULA) else "") + visible(value, lines=False)
