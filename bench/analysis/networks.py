"""Which workloads of a run are networks, and the time of a network relative to the best library. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from math import nan

import pandas as pd

from ..peers import OWN, PEERS
from .ratios import network_ratio
from .sums import KEYS, by_backend
from .tables import LADDER

# Built-in workloads that are not networks. Every other workload, such as a new file or a model of a user, is one.
NO_NETWORKS = ("basic", "kernel_sizes", "sizes", "smoke", "vit_patch")
# The name of the workload of a single label.
LABEL = "label"


def networks(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of all networks; all rows if there is no network."""
    found = table[~table.workload.isin([*NO_NETWORKS, LABEL]) & ~table.workload.str.startswith("random:")]
    return table if found.empty else found


def batches(table: pd.DataFrame) -> str:
    """The batch of all layers, or "the batch of each layer".

    Examples
    --------
    >>> batches(pd.DataFrame({"batch": [4, 4]}))
    'batch 4'
    """
    return f"batch {table.batch.iloc[0]}" if table.batch.nunique() == 1 else "the batch of each layer"


def threads_of(table: pd.DataFrame) -> str:
    """The largest number of threads, with its unit."""
    count = int(table.threads.max())
    return f"{count} thread{'s' * (count > 1)}"


def contenders(names: Iterable[str]) -> list[str]:
    """The backends that a comparison with libraries shows, sorted: without the rungs below `auto` if it has both.

    Examples
    --------
    >>> contenders(["auto", "numba_simd", "onnxruntime", "mine"])
    ['auto', 'mine', 'onnxruntime']
    >>> contenders(["auto", "numba_simd"])
    ['auto', 'numba_simd']
    """
    known = set(names)
    if "auto" in known and known & PEERS.keys():
        known -= {*LADDER} - {"auto", *OWN}
    return sorted(known)


def relative(table: pd.DataFrame) -> pd.DataFrame:
    """The time of each backend on each network, relative to the best library or, without one, to the best backend.

    Parameters
    ----------
    table : DataFrame
        From `bench.analysis.frame.frame`, one number of threads.

    Returns
    -------
    DataFrame
        One row per network and backend: network, backend, mode, sum_s, measured and layers (numbers of layers), weak
        (of its sum or that of the reference), reference (the library or backend with the least sum, whose time is 1;
        empty if no backend measured all layers), reference_s, library (whether the reference is one), relative (time
        over that of the reference; NaN if a layer is missing), low and high (its 95% interval; NaN if a layer was not
        measured by both in the same rounds). Ratios of turns and of sums may differ in their last digits. The backends
        are `contenders`.
    """
    rows = []
    ok = table[table.status == "ok"]
    modes = ok.drop_duplicates("backend").set_index("backend")["mode"]
    for (network, threads), sums in by_backend(table).groupby(KEYS, sort=False):
        part = ok[(ok.network == network) & (ok.threads == threads)]
        whole = sums[sums.whole].sort_values("sum_s").set_index("backend")
        libraries = [name for name in whole.index if name in PEERS]
        best = (libraries or list(whole.index) or [""])[0]
        for each in sums.itertuples():
            if each.backend == best:
                found = (1.0, 1.0, 1.0)
            elif not each.whole:
                found = (nan, nan, nan)
            else:
                ratio = network_ratio(part, best, str(each.backend), each.layers)
                found = (ratio.value, ratio.low, ratio.high) if ratio else (each.sum_s / whole.sum_s[best], nan, nan)
            rows.append({
                "network": network, "backend": each.backend, "mode": modes.get(each.backend, ""), "sum_s": each.sum_s,
                "measured": each.measured, "layers": each.layers,
                "weak": bool(each.weak or (best and whole.weak[best])), "reference": best,
                "reference_s": whole.sum_s[best] if best else nan, "library": bool(libraries),
                "relative": found[0], "low": found[1], "high": found[2],
            })  # fmt: skip
    made = pd.DataFrame(rows)
    return made if made.empty else made[made.backend.isin(contenders(made.backend))].reset_index(drop=True)
