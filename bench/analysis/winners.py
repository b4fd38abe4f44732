"""Frame -> who is fastest on each network, and its lead over the next with an interval. Pure, as `tables` is.

A network is won only by a backend that measured all its layers: a partial sum would look fast.
Limits: times are medians over all samples, ratios of medians over common turns; the last digits may differ.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from .ratios import KEYS, network_ratio


def fastest_by_network(table: pd.DataFrame) -> pd.DataFrame:
    """The fastest backend of each network by the count-weighted sum of its layers.

    Parameters
    ----------
    table : DataFrame
        From `bench.analysis.frame.frame`.

    Returns
    -------
    DataFrame
        Columns network, threads, fastest, sum_ms, second, second_takes (how many times as long: a `Ratio`, None where
        the two have no turns in common), verdict (of the fastest) and layers. ``fastest`` is empty where no backend
        measured every layer.
    """
    rows: list[dict[str, Any]] = []
    for (network, threads), part in table.groupby(KEYS, sort=False):
        ok, layers = part[part.status == "ok"], part.layer.nunique()
        sums_s = (ok["count"] * ok.median_s).groupby(ok.backend).sum()
        sums_s = sums_s[ok.groupby("backend").layer.nunique() == layers].sort_values()
        row = {"network": network, "threads": threads, "layers": layers, "fastest": ""}
        if len(sums_s):
            row |= {"fastest": sums_s.index[0], "sum_ms": 1e3 * sums_s.iloc[0]} | _lead(ok, list(sums_s.index), layers)
        else:
            row["verdict"] = "no backend measured every layer"
        rows.append(row)
    columns = ["network", "threads", "fastest", "sum_ms", "second", "second_takes", "verdict", "layers"]
    return pd.DataFrame(rows, columns=columns)


def _lead(part: pd.DataFrame, ranked: list[str], layers: int) -> dict[str, object]:
    """The second of the ranked backends, and how many times as long it takes as the first."""
    if len(ranked) < 2:
        return {"verdict": "alone"}
    found = network_ratio(part, ranked[0], ranked[1], layers)
    verdict = found.verdict if found else "not measured in the same rounds"
    return {"second": ranked[1], "second_takes": found, "verdict": verdict}
