"""Frame -> what a run found, one plain sentence a network, number of threads and mode. Pure.

    auto is 1.24 times as fast as onnxruntime, the best other library, on resnet50, planned, 2 threads (1.21 to 1.27)

The best other library is the one with the least sum over the whole network; it is named, unlike the "best peer" of the
tables, which is another one at each layer. Where a run has no library, the fastest backend and the next are compared.
Limits: a backend that did not measure every layer of a network is in no sentence about it.
"""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from ..peers import PEERS
from ..store.folder import StoredRun
from .frame import frame
from .intervals import Ratio
from .numbers import number, times
from .ratios import ANCHOR, network_ratio
from .sums import KEYS, by_backend

# What follows the figure of a sentence that stands on weak measurements.
WEAK = "; weak: one of the two may be more than 10% off"


def of_run(run: StoredRun) -> list[str]:
    """What a stored run found."""
    return sentences(frame(run.records(), run.cases, environment=run.environment))


def sentences(table: pd.DataFrame) -> list[str]:
    """What the run found; empty where nothing was measured.

    Parameters
    ----------
    table : DataFrame
        From `bench.analysis.frame.frame`.
    """
    if table.empty:
        return []
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
            text = _compared(ours, theirs + also, ratio, f"on {name}, {mode}, {count}" if mode else where)
            found.append(text + weak if ratio else text)
        if len(ranked) == 1:
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


def _compared(ours: str, theirs: str, ratio: Ratio | None, where: str) -> str:
    if ratio is None:
        return f"{ours} and {theirs} were not measured in the same rounds {where}"
    shown = f"({times(ratio.low)} to {times(ratio.high)})"
    if ratio.verdict == "faster":
        return f"{ours} is {times(ratio.value)} times as fast as {theirs} {where} {shown}"
    if ratio.verdict == "slower":
        shown = f"({times(1 / ratio.high)} to {times(1 / ratio.low)})"
        return f"{ours} takes {times(1 / ratio.value)} times as long as {theirs} {where} {shown}"
    why = "had too few common turns" if ratio.verdict == "too few repetitions" else "cannot be told apart"
    return f"{ours} and {theirs} {why} {where}: {times(ratio.value)} times as fast {shown}"
