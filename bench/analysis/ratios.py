"""Frame -> ratios of network sums and of layers, paired turn by turn, with intervals and verdicts. Pure.

Backends are compared within their mode: planned backends with `auto`, eager backends (which get the weights at each
call) with `auto_eager`. The best peer includes eager and planned peers: it is the sum of each layer's fastest peer, and
no single library is that fast. Ratios above 1: ours is faster.
A column ``weak`` names the columns of a row that depend on weak measurements (`bench.analysis.sums`).
Limits: times are medians over all turns, ratios medians over common turns; their last digits may differ.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from ..peers import OWN, PEERS
from .intervals import Ratio, ratio
from .sums import KEYS, by_backend, depends, marks, total

BEST = "best peer"
# Reference backend of each mode.
ANCHOR = {"planned": "auto", "eager": "auto_eager"}
# Headline comparisons: ours, theirs.
HEADLINES = (("auto", BEST), ("auto_eager", "torch_nchw"), ("auto_strict", "torch_nchw"))
# A layer with a smaller ratio is counted in the headlines.
CLEARLY_SLOWER = 0.9


def with_best_peer(table: pd.DataFrame) -> pd.DataFrame:
    """All rows, plus a copy of each layer's fastest-peer row as a backend named "best peer"."""
    peers = table[(table.status == "ok") & table.backend.isin(PEERS)]
    if peers.empty:
        return table
    fastest = peers.loc[peers.groupby([*KEYS, "layer"], sort=False).median_s.idxmin()]
    return pd.concat([table, fastest.assign(algorithm=fastest.backend, backend=BEST, mode="")])


def against(table: pd.DataFrame) -> pd.DataFrame:
    """One row per network, thread count and backend: sum in ms, and its ratio to our backend of the same mode."""
    everything, rows = with_best_peer(table), []
    ok, sums = everything[everything.status == "ok"], by_backend(everything)
    for (network, threads), each in sums[sums.measured > 0].groupby(KEYS, sort=False):
        mine = ok[(ok.network == network) & (ok.threads == threads)]
        known = each.set_index("backend")
        for backend, theirs in known.iterrows():
            mode = mine["mode"][mine.backend == backend].iloc[0]
            row = {"network": network, "threads": threads, "backend": backend, "mode": mode or "either"}
            if not theirs.whole:
                rows.append(row | {"sum (ms)": None, "layers": f"{theirs.measured} of {theirs.layers}", "weak": ""})
                continue
            row |= {"sum (ms)": 1e3 * theirs.sum_s, "layers": f"all {theirs.layers}"}
            anchor = ANCHOR[mode or "planned"]
            found = network_ratio(mine, anchor, str(backend), theirs.layers) if backend != anchor else None
            if found is not None:
                row |= {"ours": anchor, "ratio": found.value, "low": found.low, "high": found.high}
                row |= {"pairs": found.pairs, "ours is": found.verdict}
            doubt = theirs.weak or (found is not None and known.weak[anchor])
            rows.append(row | {"weak": marks({"sum (ms)": theirs.weak, "ratio": found is not None and doubt})})
    return _weak_last(pd.DataFrame(rows))


def headlines(table: pd.DataFrame) -> pd.DataFrame:
    """One row per network, thread count and comparison of `HEADLINES`: sum ratio, interval, verdict, worst layer."""
    everything, rows = with_best_peer(table), []
    ok, sums = everything[everything.status == "ok"], by_backend(everything)
    for (network, threads), known in sums.groupby(KEYS, sort=False):
        mine = ok[(ok.network == network) & (ok.threads == threads)]
        for ours, theirs in HEADLINES:
            found = network_ratio(mine, ours, theirs, known.layers.iloc[0])
            if found is None:
                continue
            each = by_layer(mine, ours, theirs)
            worst = each.loc[each.ratio.idxmin()]
            below = f"layers below {CLEARLY_SLOWER:g}"
            weak = {
                "ratio": known.weak[known.backend.isin([ours, theirs])].any(),
                below: depends(each.ratio.notna(), _names(each, "ratio")),
                "its ratio": _names(each, "ratio")[worst.name],
            }
            rows.append({
                "network": network, "threads": threads, "ours": ours, "theirs": theirs, "ratio": found.value,
                "low": found.low, "high": found.high, "ours is": found.verdict,
                below: f"{int((each.ratio < CLEARLY_SLOWER).sum())} of {len(each)}", "worst layer": worst.layer,
                "its ratio": worst.ratio, "weak": marks(weak),
            })  # fmt: skip
    return pd.DataFrame(rows)


def regret(table: pd.DataFrame) -> pd.DataFrame:
    """How much slower the backend selected by `auto` is than the best of ours: sums and worst layer.

    Excluded: F(6x6), which `auto` never selects, backends that delegate to another backend, and other versions.
    """
    rows = []
    excluded = [*PEERS, *OWN, "numba_winograd_f6", "numba_winograd"]
    ours = table[(table.status == "ok") & (table.version == "") & ~table.backend.isin(excluded)]
    for (network, threads), part in ours.groupby(KEYS, sort=False):
        picked = part[part.backend == "auto"].set_index("layer").algorithm
        timed = part[part.backend != "auto"].set_index("layer")
        # One row per layer whose selected backend was measured, for the selected and for the fastest backend.
        chosen = timed[timed.backend == picked.reindex(timed.index)]
        if chosen.empty:
            continue
        fastest = timed.sort_values("median_s").groupby(level="layer").head(1).loc[chosen.index]
        auto, best = total(chosen), total(fastest)
        lost = chosen.median_s / fastest.median_s
        worst = lost.idxmax()
        weak = {
            "auto (ms)": auto.weak, "best of ours by layer (ms)": best.weak, "regret": auto.weak or best.weak,
            "its regret": chosen.weak[worst] or fastest.weak[worst],
        }  # fmt: skip
        rows.append({
            "network": network, "threads": threads, "layers": len(chosen), "auto (ms)": 1e3 * auto.seconds,
            "best of ours by layer (ms)": 1e3 * best.seconds, "regret": auto.seconds / best.seconds,
            "worst layer": worst, "its regret": lost[worst], "picked": chosen.backend[worst],
            "best": fastest.backend[worst], "weak": marks(weak),
        })  # fmt: skip
    return pd.DataFrame(rows)


def fastest_by_network(table: pd.DataFrame) -> pd.DataFrame:
    """The fastest backend of each network by the count-weighted sum of its layers.

    Parameters
    ----------
    table : DataFrame
        From `bench.analysis.frame.frame`.

    Returns
    -------
    DataFrame
        Columns network, threads, fastest, sum_ms, second, second_takes (its time over that of the fastest: a `Ratio`,
        None if the two have no turns in common), verdict (of the fastest), layers and weak. ``fastest`` is empty if no
        backend measured every layer.
    """
    rows: list[dict[str, Any]] = []
    for (network, threads), mine in by_backend(table).groupby(KEYS, sort=False):
        ranked = mine[mine.whole].sort_values("sum_s")
        row = {"network": network, "threads": threads, "layers": mine.layers.iloc[0], "fastest": "", "weak": ""}
        if ranked.empty:
            rows.append(row | {"verdict": "no backend measured every layer"})
            continue
        first = ranked.iloc[0]
        row |= {"fastest": first.backend, "sum_ms": 1e3 * first.sum_s, "verdict": "alone"}
        if len(ranked) > 1:
            part = table[(table.network == network) & (table.threads == threads) & (table.status == "ok")]
            found = network_ratio(part, first.backend, ranked.backend.iloc[1], first.layers)
            verdict = found.verdict if found else "not measured in the same rounds"
            row |= {"second": ranked.backend.iloc[1], "second_takes": found, "verdict": verdict}
        rows.append(row | {"weak": marks({"sum_ms": first.weak, "second_takes": ranked.weak.head(2).any()})})
    columns = ["network", "threads", "fastest", "sum_ms", "second", "second_takes", "verdict", "layers", "weak"]
    return pd.DataFrame(rows, columns=columns)


def best_peer_by_layer(table: pd.DataFrame) -> pd.DataFrame:
    """`auto` and the fastest peer of each layer."""
    return by_layer(with_best_peer(table), "auto", BEST)


def by_layer(table: pd.DataFrame, ours: str, theirs: str) -> pd.DataFrame:
    """One row per layer that both measured: times in ms, theirs over ours with its interval, and a verdict of ours."""
    rows = []
    for (network, threads, layer), part in measured_pairs(table, ours, theirs):
        a, b = (part[part.backend == name].iloc[0] for name in (theirs, ours))
        found = ratio([(1.0, a.turns, b.turns)])
        weak = {"their ms": a.weak, "our ms": b.weak, "our GFLOP/s": b.weak, "ratio": a.weak or b.weak}
        rows.append({
            "network": network, "threads": threads, "layer": layer, "count": a["count"], "kernel": a.kernel,
            "theirs": a.algorithm if theirs == BEST else theirs, "their ms": 1e3 * a.median_s, "ours": b.algorithm,
            "our ms": 1e3 * b.median_s, "our GFLOP/s": b.gflops_effective, "ratio": found.value, "low": found.low,
            "high": found.high, "ours is": found.verdict, "weak": marks(weak),
        })  # fmt: skip
    return pd.DataFrame(rows)


def measured_pairs(table: pd.DataFrame, ours: str, theirs: str) -> list[tuple[tuple[str, int, str], pd.DataFrame]]:
    """The rows of both, for each layer that both measured in at least one common turn."""
    both = table[(table.status == "ok") & table.backend.isin([ours, theirs])]
    groups = both.groupby([*KEYS, "layer"], sort=False)
    return [
        (key, part)
        for key, part in groups
        if part.backend.nunique() == 2 and set.intersection(*(set(turns) for turns in part.turns))
    ]


def network_ratio(part: pd.DataFrame, ours: str, theirs: str, layers: int) -> Ratio | None:
    """Theirs over ours, summed over the layers of one network; None unless both measured all layers."""
    # Few columns: pandas copies all of them for each layer.
    few = part[[*KEYS, "layer", "backend", "status", "count", "turns"]]
    pairs = [
        (float(a["count"]), a.turns, b.turns)
        for _, rows in measured_pairs(few, ours, theirs)
        for a, b in [[rows[rows.backend == name].iloc[0] for name in (theirs, ours)]]
    ]
    return ratio(pairs) if len(pairs) == layers else None


def _names(content: pd.DataFrame, column: str) -> pd.Series:
    """For each row, whether its ``weak`` contains this column."""
    return pd.Series([column in weak.split("; ") for weak in content.weak], content.index)


def _weak_last(content: pd.DataFrame) -> pd.DataFrame:
    """Move the column ``weak`` to the end: the first rows may lack columns (no ratio) that later rows add."""
    return content[[name for name in content if name != "weak"] + ["weak"]] if len(content) else content
