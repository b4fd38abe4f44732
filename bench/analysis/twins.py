"""Frame -> whether the same kernels took the same time. Pure.

`auto` delegates a layer to the backend in ``algorithm``. Both are measured in the same turns, so the same kernels run
twice. If one is slower in every common turn, one of the two measurements is wrong, nearly always the slower one.
Limits: this finds disturbances of one process (placement in memory, a slow core), not disturbances that both share.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pandas as pd

from .stats import median

# Backends that delegate to the backend in their ``algorithm``.
CHOOSERS = ("auto", "auto_strict")
# The two times may differ by this share.
TOLERANCE = 0.10
# Minimum number of common turns, all with the same sign: six of one sign have a probability of 1/32.
TURNS = 6
SAME = ["workload", "layer", "label", "threads", "direction", "cache"]


def disagreements(table: pd.DataFrame) -> Iterator[tuple[object, str, float]]:
    """For each row that took longer than its twin: its index, why it is weak, and the share by which it is too long.

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
            for slower, faster in ((chooser, chosen), (chosen, chooser)):
                factor = _factor(part.turns[index[slower]], part.turns[index[faster]])
                if factor > 1 + TOLERANCE:
                    reason = f"same kernels as {faster}, yet {factor:.2f} times as slow"
                    yield index[slower], reason, 1 - 1 / factor


def _factor(slow: Mapping[tuple[int, int], float], fast: Mapping[tuple[int, int], float]) -> float:
    """Slowdown factor, from the medians of the common turns; 1 if it is not slower in all of them."""
    common = slow.keys() & fast.keys()
    if len(common) < TURNS or any(slow[turn] <= fast[turn] for turn in common):
        return 1.0
    return median([slow[turn] for turn in common]) / median([fast[turn] for turn in common])
