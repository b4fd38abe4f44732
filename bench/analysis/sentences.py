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
from .intervals import Ratio
from .numbers import compared, number, times
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


def headline(table: pd.DataFrame) -> str:
    """The result of the whole run in one sentence, for the largest number of threads; empty if nothing was measured.

    With several workloads it counts those on which ours is faster and slower than the best library (or, without a
    library, those on which one backend is the fastest); with one workload it is the sentence about that.

    Parameters
    ----------
    table : DataFrame
        From `bench.analysis.frame.frame`.
    """
    if table.empty:
        return ""
    part = versions.this_version(table[table.threads == table.threads.max()])
    sums = by_backend(part)
    whole = sums[sums.whole]
    libraries = whole[whole.backend.isin(PEERS)]
    if part.network.nunique() == 1 or whole.empty:
        return next(iter(sentences(table[table.threads == table.threads.max()])), "")
    threads = int(part.threads.iloc[0])
    count = f"{threads} thread{'s' * (threads > 1)}"
    ours = next((name for name in ANCHOR.values() if name in set(whole.backend)), "")
    if not ours or libraries.empty:
        return _most_wins(whole, count)
    found = []
    for network, rivals in libraries.groupby("network", sort=False):
        mine, best = (
            part[(part.network == network) & (part.status == "ok")],
            rivals.sort_values("sum_s").backend.iloc[0],
        )
        ratio = network_ratio(mine, ours, best, rivals.layers.iloc[0])
        found += [ratio] if ratio else []
    return _counted(ours, found, count)


def _counted(ours: str, ratios: list[Ratio], count: str) -> str:
    """How often ours is faster and slower, and by how much.

    Examples
    --------
    >>> ratios = [Ratio(1.5, 1.4, 1.6, 9, "faster"), Ratio(2.5, 2.4, 2.6, 9, "faster")]
    >>> ratios.append(Ratio(0.5, 0.4, 0.6, 9, "slower"))
    >>> print(_counted("auto", ratios, "2 threads"))
    With 2 threads, auto is faster than the best other library on 2 of 3 workloads (1.50 to 2.50 times as fast)
    and slower on 1 (takes 2.00 times as long)
    """
    sides = {word: [one.value for one in ratios if one.verdict == word] for word in ("faster", "slower")}
    faster, slower = sides["faster"], [1 / value for value in sides["slower"]]
    text = f"With {count}, {ours} is faster than the best other library on {len(faster)} of {len(ratios)} workloads"
    text += f" ({_range(faster)} times as fast)" if faster else ""
    text += f" and slower on {len(slower)} (takes {_range(slower)} times as long)" if slower else ""
    left = len(ratios) - len(faster) - len(slower)
    return text + (f"; {left} cannot be told apart" if left else "")


def _range(values: list[float]) -> str:
    low, high = times(min(values)), times(max(values))
    return low if low == high else f"{low} to {high}"


def _most_wins(whole: pd.DataFrame, count: str) -> str:
    """Which backend has the least sum on the most workloads."""
    fastest = whole.loc[whole.groupby("network", sort=False).sum_s.idxmin()]
    wins = fastest.backend.value_counts()
    return f"With {count}, {wins.index[0]} takes the least time on {wins.iloc[0]} of {len(fastest)} workloads"


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
