"""Text of any origin -> text that can be shown: no escape sequence, no control character, nothing that hides itself.

What a terminal, a table or a page shows goes through `visible` where it leaves the program, not where it arises: names
and reasons are stored as they are. Limits: it says nothing of HTML or of formulas, which mean something elsewhere.
"""

from __future__ import annotations


def visible(text: str, lines: bool = True) -> str:
    r"""The same text; what cannot be printed is spelled as Python would, ``\x1b``.

    Parameters
    ----------
    text : str
    lines : bool
        Whether line feeds and tabs stay, as a message of several lines needs.

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
