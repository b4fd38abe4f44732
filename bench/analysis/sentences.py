"""Frame -> results of a run, one plain sentence per network, number of threads and mode. Pure.

    auto is 1.24 times as fast as onnxruntime, the best other library, on resnet50, planned, 2 threads (1.21 to 1.27)

The best other library is the one library with the least sum over the whole network. It differs from the "best peer" of
the tables, which can be another library in each layer. If a run has no library, the two fastest backends are compared.
Versions of one backend are compared in separate sentences (`bench.analysis.versions`). Limits: the sentences about a
network leave out backends that did not measure all of its layers.
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
    """The results of the run as sentences; empty if nothing was measured.

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
        name, count = _whole(network, table), f"{threads} thread{'s' * bool(threads > 1)}"
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
    """The network's name; if it has the number of covered convolutions, the reasons for the others are added."""
    said = table[table.network == network].coverage.max()
    share = said.partition(";")[0]
    return network.replace(f"({share})", f"({said})") if share else network


def _pairs(ranked: list[str], modes: pd.Series) -> Iterator[tuple[str, str, str]]:
    """Pairs of backends to compare, and their mode; ``ranked`` has the backends in order, the fastest first."""
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
