"""Count-weighted sums of layer times, and whether weak measurements decide them. Pure.

A network holds each layer ``count`` times, so its time is the sum of count * median. A partial sum would look fast:
`by_backend` therefore says how many of the network's layers a backend measured.
Limits: a measurement that is wrong is nearly always too slow, so a sum whose weak layers hold 10% of it is at most
10% too high. A sum that is too low is not covered.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

# What a sum is taken over the layers of.
KEYS = ["network", "threads"]
# Share of a sum (or of a mean) that weak measurements may hold before it is marked as weak itself.
WEAK_SHARE = 0.10


@dataclass(frozen=True)
class Sum:
    """Count-weighted seconds of some layers; ``weak`` where weak layers hold more than `WEAK_SHARE` of them."""

    seconds: float
    layers: int
    weak: bool


def total(rows: pd.DataFrame) -> Sum:
    """The count-weighted sum of one backend's layers.

    Parameters
    ----------
    rows : DataFrame
        A row a layer with a time: columns count, median_s and weak (why the time may be wrong; empty if it is fine).

    Examples
    --------
    >>> layers = pd.DataFrame({"count": [3, 1], "median_s": [3.0, 1.0], "weak": ["", "spread 20% of the median"]})
    >>> total(layers)
    Sum(seconds=10.0, layers=2, weak=False)
    >>> total(layers.assign(count=[1, 1])).weak
    True
    """
    seconds = rows["count"] * rows.median_s
    return Sum(float(seconds.sum()), len(rows), depends(seconds, rows.weak != ""))


def depends(weights: pd.Series, weak: pd.Series) -> bool:
    """Whether the weak ones hold more than `WEAK_SHARE` of all weights."""
    return bool(weights[weak.astype(bool)].sum() > WEAK_SHARE * weights.sum())


def by_backend(table: pd.DataFrame) -> pd.DataFrame:
    """The sum of each backend on each network.

    Parameters
    ----------
    table : DataFrame
        From `bench.analysis.frame.frame`.

    Returns
    -------
    DataFrame
        Columns network, threads, backend, sum_s (of the layers it measured), measured (their number), layers (of the
        network), whole (whether it measured all) and weak.
    """
    rows = []
    for (network, threads), part in table.groupby(KEYS, sort=False):
        layers = part.layer.nunique()
        for backend, mine in part.groupby("backend", sort=False):
            found = total(mine[mine.status == "ok"])
            rows.append((network, threads, backend, found.seconds, found.layers, layers, found.weak))
    sums = pd.DataFrame(rows, columns=[*KEYS, "backend", "sum_s", "measured", "layers", "weak"])
    return sums.assign(whole=sums.measured == sums.layers)


def along(rows: pd.DataFrame, axis: str, layer: str = "label") -> dict[int, Sum]:
    """The sum at each point of an axis (threads, batch), over the layers that were measured at all of its points.

    Parameters
    ----------
    rows : DataFrame
        Right cases of one backend.
    axis, layer : str
        Columns of the point and of the layer's identity.

    Returns
    -------
    dict of int to Sum
        By point, in order; empty where no layer was measured at every point.
    """
    points = rows[axis].nunique()
    common = rows[rows.groupby(layer)[axis].transform("nunique") == points]
    return {int(point): total(mine) for point, mine in common.groupby(axis)}


def marks(weak: Mapping[str, object]) -> str:
    """The text of a table's ``weak`` column: those of the row's columns that depend on weak measurements.

    Examples
    --------
    >>> marks({"sum (ms)": False, "ratio": True, "its ratio": True})
    'ratio; its ratio'
    """
    return "; ".join(name for name, is_weak in weak.items() if is_weak)
