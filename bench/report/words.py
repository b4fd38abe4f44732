"""Phrases that several titles use. Pure."""

from __future__ import annotations

import pandas as pd

from ..analysis.numbers import sign
from ..analysis.sums import depends

FASTER, SLOWER, CLOSE = "faster", "slower", "about as fast"


def verdicts(low: pd.Series, high: pd.Series) -> pd.Series:
    """The verdict of each speed (their time over ours): `FASTER`, `SLOWER`, or `CLOSE` if its interval contains 1.

    Examples
    --------
    >>> list(verdicts(pd.Series([1.1, 0.7, 0.9]), pd.Series([1.2, 0.8, 1.1])))
    ['faster', 'slower', 'about as fast']
    """
    words = pd.Series(CLOSE, low.index, dtype=object)
    return words.mask(low > 1, FASTER).mask(high < 1, SLOWER)


def tally(name: str, rival: str, found: pd.Series, weak: pd.Series, things: str, one: str) -> str:
    """How often ``name`` is faster than ``rival``, slower or about as fast: the most frequent verdict comes first.

    The text of a single thing is ``one`` instead of a count.

    Examples
    --------
    >>> tally("a", "b", pd.Series([CLOSE, SLOWER, CLOSE]), pd.Series([False] * 3), "layers", "l1")
    'a is about as fast as b on 2 of 3 layers, slower on 1'
    >>> tally("a", "b", pd.Series([CLOSE]), pd.Series([True]), "layers", "l1")
    'a is about as fast as b on ~l1'
    """
    counts = {word: int((found == word).sum()) for word in (FASTER, SLOWER, CLOSE)}
    first, *others = sorted((word for word in counts if counts[word]), key=lambda word: -counts[word])
    mark = sign(depends(found.notna(), weak))
    where = f"{counts[first]} of {len(found)} {things}" if len(found) > 1 else one
    text = f"{name} is {first} {'as' if first == CLOSE else 'than'} {rival} on {mark}{where}"
    return text + "".join(f", {word} on {counts[word]}" for word in others)
