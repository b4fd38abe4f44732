"""Frame -> what a terminal shows after a run: one sentence, and the ratios with the least of each column marked. Pure.

The callers choose the colours. Limits: rows that are too wide for the terminal wrap, as every text does.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pandas as pd

from .overview import Overview, overview
from .sentences import headline, sentences


class Piece(NamedTuple):
    """A piece of a line; ``best`` if it is to be seen first."""

    text: str
    best: bool = False


def findings(table: pd.DataFrame) -> list[list[Piece]]:
    """Lines of pieces: the sentence of the run, the ratios, the sentences of each network.

    Parameters
    ----------
    table : DataFrame
        From `bench.analysis.frame.frame`.
    """
    said, first, found = sentences(table), headline(table), overview(table)
    lines = [[Piece(first, best=True)]] if first else []
    if found is not None and len(found.ratios) > 1:
        about = f"time over that of {found.reference}, {found.threads} thread{'s' * (found.threads > 1)}:"
        lines += [[], [Piece(about)], *_rows(found)]
    others = [text for text in said if text != first]
    return lines + ([[]] if others else []) + [[Piece(text)] for text in others]


def _rows(found: Overview) -> Iterator[list[Piece]]:
    texts = found.texts()
    names = [found.name(name) for name in texts.index]
    wide = [max(map(len, ["", *names])), *(max(len(str(name)), *map(len, texts[name])) for name in texts)]
    yield [Piece(" " * wide[0] + "".join(f"  {name!s:>{width}}" for name, width in zip(texts, wide[1:], strict=True)))]
    for name, (backend, row) in zip(names, texts.iterrows(), strict=True):
        cells = [
            Piece(f"  {text:>{width}}", bool(found.best[network][backend]))
            for (network, text), width in zip(row.items(), wide[1:], strict=True)
        ]
        yield [Piece(f"{name:<{wide[0]}}"), *cells]
    if found.note:
        yield [Piece(found.note)]
