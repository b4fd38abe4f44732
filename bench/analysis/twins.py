"""Frame -> whether the same kernels took the same time. Pure.

`auto` hands a layer to the backend that ``algorithm`` names. Both are measured in the same turns, so they run the same
kernels twice: where their times differ, at least one of the two is wrong, nearly always the slower one.
Limits: it finds disturbances of one process (placement in memory, a slow core), not those that both share.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pandas as pd

from .stats import median

# Backends that hand the work to the one their ``algorithm`` names.
CHOOSERS = ("auto", "auto_strict")
# The two times may differ by this share.
TOLERANCE = 0.10
SAME = ["workload", "layer", "label", "threads", "direction", "cache"]


def disagreements(table: pd.DataFrame) -> Iterator[tuple[object, str]]:
    """The index of each row that took longer than its twin, and the reason why it is weak.

    Parameters
    ----------
    table : DataFrame
        Rows of `bench.analysis.frame.frame`: the columns of `SAME`, backend, algorithm, status and turns.
    """
    for _, part in table[table.status == "ok"].groupby(SAME, sort=False):
        index = dict(zip(part.backend, part.index, strict=True))
        for chooser in CHOOSERS:
            chosen = part.algorithm[index[chooser]] if chooser in index else chooser
            if chosen == chooser or chosen not in index:
                continue
            ratio = _ratio(part.turns[index[chooser]], part.turns[index[chosen]])
            slower, faster = (chooser, chosen) if ratio > 1 else (chosen, chooser)
            factor = max(ratio, 1 / ratio)
            if factor > 1 + TOLERANCE:
                yield index[slower], f"same kernels as {faster}, yet {factor:.2f} times as slow"


def _ratio(a: Mapping[tuple[int, int], float], b: Mapping[tuple[int, int], float]) -> float:
    """Median of a over median of b in the turns both took; 1 where there is none."""
    common = a.keys() & b.keys()
    return median([a[turn] for turn in common]) / median([b[turn] for turn in common]) if common else 1.0
