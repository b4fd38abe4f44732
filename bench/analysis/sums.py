"""Count-weighted sums of layer times, and whether they depend on weak measurements. Pure.

A network has each layer ``count`` times, so its time is the sum of count * median. A partial sum would look fast, so
`by_backend` reports how many of the network's layers a backend measured.
The random part (``noise``) partly cancels in a sum and is added in quadrature. The systematic part (``bias``) is common
to all turns of a layer and is added linearly. Limits: noise that layers share, such as another load on the host during
the whole run, does not cancel; only the machine's peak shows it. A sum that is too low is not covered.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from .stats import TOLERANCE

# A sum is taken over the layers of one such group.
KEYS = ["network", "threads"]
# A sum is weak if it may be too long by more than this share. A count or a mean is weak if weak values have more.
WEAK_SHARE = TOLERANCE


@dataclass(frozen=True)
class Sum:
    """Count-weighted seconds of some layers; ``weak`` if they may be too long by more than `WEAK_SHARE`."""

    seconds: float
    layers: int
    weak: bool


def total(rows: pd.DataFrame) -> Sum:
    """The count-weighted sum of one backend's layers.

    Parameters
    ----------
    rows : DataFrame
        One row per layer with a time: columns count, median_s, noise and bias (how much too long it may be, as shares).

    Examples
    --------
    >>> layers = pd.DataFrame({"count": [1] * 4, "median_s": [1.0] * 4, "noise": [0.18] * 4, "bias": [0.0] * 4})
    >>> total(layers)
    Sum(seconds=4.0, layers=4, weak=False)
    >>> total(layers.head(2)).weak, total(layers.assign(bias=[0.1, 0, 0, 0])).weak
    (True, True)
    """
    seconds = rows["count"] * rows.median_s
    doubt_s = float(np.sqrt(((seconds * rows.noise) ** 2).sum()) + (seconds * rows.bias).sum())
    return Sum(float(seconds.sum()), len(rows), doubt_s > WEAK_SHARE * float(seconds.sum()))


def depends(weights: pd.Series, weak: pd.Series) -> bool:
    """Whether the weak values have more than `WEAK_SHARE` of the total weight."""
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
        Correct cases of one backend.
    axis, layer : str
        Columns of the axis and of the layer's identity.

    Returns
    -------
    dict of int to Sum
        By point, in order; empty if no layer was measured at every point.
    """
    points = rows[axis].nunique()
    common = rows[rows.groupby(layer)[axis].transform("nunique") == points]
    return {int(point): total(mine) for point, mine in common.groupby(axis)}


def marks(weak: Mapping[str, object]) -> str:
    """The text of a table's ``weak`` column: the row's columns that depend on weak measurements.

    Examples
    --------
    >>> marks({"sum (ms)": False, "ratio": True, "its ratio": True})
    'ratio; its ratio'
    """
    return "; ".join(name for name, is_weak in weak.items() if is_weak)
