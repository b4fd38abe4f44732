"""Make untrusted text safe to display: no escape sequences, no control characters, no invisible characters.

Text for a terminal, a table or a page goes through `visible` at output, not at input: names and reasons are stored
unchanged. Limits: it does not escape HTML or spreadsheet formulas.
"""

from __future__ import annotations


def visible(text: str, lines: bool = True) -> str:
    r"""Replace characters that cannot be printed by Python escapes such as ``\x1b``.

    Parameters
    ----------
    text : str
    lines : bool
        Whether to keep line feeds and tabs, for messages of several lines.

    Examples
    --------
    >>> print(visible("a\x1b[31mb"))
    a\x1b[31mb
    """
    if text.isprintable():
        return text
    stays = "\n\t" if lines else ""
    return "".join(
        letter if letter.isprintable() or letter in stays else letter.encode("unicode_escape").decode()
        for letter in text
    )
