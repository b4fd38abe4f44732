"""Frame -> what a run found, one plain sentence a network, number of threads and mode. Pure.

    auto is 1.24 times as fast as onnxruntime, the best other library, on resnet50, planned, 2 threads (1.21 to 1.27)

The best other library is the one with the least sum over the whole network; it is named, unlike the "best peer" of the
tables, which is another one at each layer. Where a run has no library, the fastest backend and the next are compared.
Versions of one backend are compared in a sentence of their own (`bench.analysis.versions`). Limits: a backend that did
not measure every layer of a network is in no sentence about it.
"""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from ..peers import PEERS
from . import versions
from .numbers import compared, number
from .ratios import ANCHOR, network_ratio
from .sums import KEYS, by_backend
from .versions import WEAK


def sentences(table: pd.DataFrame) -> list[str]:
    """What the run found; empty where nothing was measured.

    Parameters
    ----------
    table : DataFrame
        From `bench.analysis.frame.frame`.
    """
    if table.empty:
        return []
    of_versions = versions.sentences(table)
    return _of_networks(versions.this_version(table), bool(of_versions)) + of_versions


def _of_networks(table: pd.DataFrame, versions_follow: bool) -> list[str]:
    sums, ok = by_backend(table), table[table.status == "ok"]
    modes = ok.drop_duplicates("backend").set_index("backend")["mode"]
    found = []
    for (network, threads), each in sums.groupby(KEYS, sort=False):
        name, count = _whole(network, table), f"{threads} thread{'s' * (threads > 1)}"
        where = f"on {name}, {count}"
        part = ok[(ok.network == network) & (ok.threads == threads)]
        ranked = each[each.whole].sort_values("sum_s").set_index("backend")
        for ours, theirs, mode in _pairs(list(ranked.index), modes):
            ratio = network_ratio(part, ours, theirs, each.layers.iloc[0])
            also = ", the best other library," if theirs in PEERS else ", the next,"
            weak = WEAK if ranked.weak[[ours, theirs]].any() else ""
            text = compared(ours, theirs + also, ratio, f"on {name}, {mode}, {count}" if mode else where)
            found.append(text + weak if ratio else text)
        if len(ranked) == 1 and not versions_follow:
            time = f"{number(1e3 * ranked.sum_s.iloc[0], ranked.weak.iloc[0])} ms"
            found.append(f"{ranked.index[0]} takes {time} {where}; nothing to compare it with")
        if ranked.empty:
            most = each.measured.max()
            found.append(f"no backend measured all {each.layers.iloc[0]} layers {where}: {most} at most")
    return found


def _whole(network: str, table: pd.DataFrame) -> str:
    """The network's name, with why convolutions of a model are left out where it says how many are."""
    said = table[table.network == network].coverage.max()
    share = said.partition(";")[0]
    return network.replace(f"({share})", f"({said})") if share else network


def _pairs(ranked: list[str], modes: pd.Series) -> Iterator[tuple[str, str, str]]:
    """Who is compared with whom, and in which mode; ``ranked`` are the backends from the fastest on."""
    libraries = [name for name in ranked if name in PEERS]
    compared = False
    for mode, ours in ANCHOR.items():
        # Against planned convolutions an eager one may win as well; against eager ones a planned one has less to do.
        rivals = [name for name in libraries if mode == "planned" or modes[name] == mode]
        if ours in ranked and rivals:
            compared = True
            yield ours, rivals[0], mode
    if not compared and len(ranked) > 1:
        yield ranked[0], ranked[1], ""
