"""Frame -> who is faster, by how much, how sure: ratios of network sums and of layers, paired turn by turn. Pure.

Like is compared with like: planned backends with `auto`, eager ones, which get the weights at each call, with
`auto_eager`. Against the best peer everything of the peers counts, eager or planned: it is the sum of each layer's
fastest peer, and no one library is that fast. Ratios above 1: ours is faster.
"""

from __future__ import annotations

import pandas as pd

from ..peers import OWN, PEERS
from .stats import Ratio, ratio

KEYS = ["network", "threads"]
BEST = "best peer"
# Whom each mode is measured against.
ANCHOR = {"planned": "auto", "eager": "auto_eager"}
# Headline comparisons: ours, theirs.
HEADLINES = (("auto", BEST), ("auto_eager", "torch_nchw"), ("auto_strict", "torch_nchw"))


def measured(table: pd.DataFrame) -> pd.DataFrame:
    """Rows with a time, and once more those of each layer's fastest peer, as a backend named "best peer"."""
    ok = table[table.status == "ok"]
    peers = ok[ok.backend.isin(PEERS)]
    if peers.empty:
        return ok
    fastest = peers.loc[peers.groupby([*KEYS, "layer"], sort=False).median_s.idxmin()]
    return pd.concat([ok, fastest.assign(algorithm=fastest.backend, backend=BEST, mode="")])


def against(table: pd.DataFrame) -> pd.DataFrame:
    """A row a network, thread count and backend: its sum in ms, and how many times as long as ours of its mode."""
    ok, rows = measured(table), []
    for (network, threads), part in table.groupby(KEYS, sort=False):
        layers = part.layer.nunique()
        mine = ok[(ok.network == network) & (ok.threads == threads)]
        for backend, theirs in mine.groupby("backend", sort=False):
            mode = theirs["mode"].iloc[0]
            row = {"network": network, "threads": threads, "backend": backend, "mode": mode or "either"}
            if len(theirs) < layers:
                rows.append(row | {"sum (ms)": None, "layers": f"{len(theirs)} of {layers}"})
                continue
            row |= {"sum (ms)": 1e3 * float((theirs["count"] * theirs.median_s).sum()), "layers": f"all {layers}"}
            anchor = ANCHOR[mode or "planned"]
            found = network_ratio(mine, anchor, str(backend), layers) if backend != anchor else None
            if found is not None:
                row |= {"ours": anchor, "ratio": found.value, "low": found.low, "high": found.high}
                row |= {"pairs": found.pairs, "ours is": found.verdict}
            rows.append(row)
    return pd.DataFrame(rows)


def headlines(table: pd.DataFrame) -> pd.DataFrame:
    """A row a network, thread count and comparison of `HEADLINES`: ratio of sums, interval, verdict, worst layer."""
    ok, rows = measured(table), []
    for (network, threads), part in table.groupby(KEYS, sort=False):
        mine = ok[(ok.network == network) & (ok.threads == threads)]
        for ours, theirs in HEADLINES:
            found = network_ratio(mine, ours, theirs, part.layer.nunique())
            if found is None:
                continue
            each = by_layer(mine, ours, theirs)
            worst = each.loc[each.ratio.idxmin()]
            rows.append({
                "network": network, "threads": threads, "ours": ours, "theirs": theirs, "ratio": found.value,
                "low": found.low, "high": found.high, "ours is": found.verdict, "layers below 0.9":
                f"{int((each.ratio < 0.9).sum())} of {len(each)}", "worst layer": worst.layer, "its ratio": worst.ratio,
            })  # fmt: skip
    return pd.DataFrame(rows)


def regret(table: pd.DataFrame) -> pd.DataFrame:
    """How much slower the backend that `auto` picks is than the best of ours, sums and worst layer.

    F(6x6) is no contender: `auto` leaves it to those who ask for it. Nor is what hands the work to another backend.
    """
    rows = []
    ours = table[(table.status == "ok") & ~table.backend.isin([*PEERS, *OWN, "numba_winograd_f6", "numba_winograd"])]
    for (network, threads), part in ours.groupby(KEYS, sort=False):
        picked = part[part.backend == "auto"].set_index("layer").algorithm
        times = part[part.backend != "auto"].pivot(index="layer", columns="backend", values="median_s")
        layers = [layer for layer, name in picked.items() if layer in times.index and times.get(name, {}).get(layer)]
        if not layers:
            continue
        count = part.drop_duplicates("layer").set_index("layer")["count"][layers]
        chosen = pd.Series({layer: times[picked[layer]][layer] for layer in layers})
        best = times.loc[layers].min(axis=1)
        worst = (chosen / best).idxmax()
        rows.append({
            "network": network, "threads": threads, "layers": len(layers), "auto (ms)": 1e3 * (count * chosen).sum(),
            "best of ours by layer (ms)": 1e3 * (count * best).sum(),
            "regret": (count * chosen).sum() / (count * best).sum(), "worst layer": worst,
            "its regret": (chosen / best)[worst], "picked": picked[worst], "best": times.loc[worst].idxmin(),
        })  # fmt: skip
    return pd.DataFrame(rows)


def by_layer(table: pd.DataFrame, ours: str, theirs: str) -> pd.DataFrame:
    """A row a layer both measured: times in ms, theirs over ours with its interval, and a verdict of ours."""
    rows = []
    for (network, threads, layer), part in measured_pairs(table, ours, theirs):
        a, b = (part[part.backend == name].iloc[0] for name in (theirs, ours))
        found = ratio([(1.0, a.turns, b.turns)])
        rows.append({
            "network": network, "threads": threads, "layer": layer, "count": a["count"], "kernel": a.kernel,
            "theirs": a.algorithm if theirs == BEST else theirs, "their ms": 1e3 * a.median_s, "ours": b.algorithm,
            "our ms": 1e3 * b.median_s, "our GFLOP/s": b.gflops_effective, "ratio": found.value, "low": found.low,
            "high": found.high, "ours is": found.verdict,
        })  # fmt: skip
    return pd.DataFrame(rows)


def measured_pairs(table: pd.DataFrame, ours: str, theirs: str) -> list[tuple[tuple[str, int, str], pd.DataFrame]]:
    """The rows of both, for each layer that both measured in at least one common turn."""
    both = table[table.backend.isin([ours, theirs])]
    groups = both.groupby([*KEYS, "layer"], sort=False)
    return [
        (key, part)
        for key, part in groups
        if part.backend.nunique() == 2 and set.intersection(*(set(turns) for turns in part.turns))
    ]


def network_ratio(part: pd.DataFrame, ours: str, theirs: str, layers: int) -> Ratio | None:
    """Theirs over ours, sums over the layers of one network; None unless both measured all."""
    pairs = [
        (float(a["count"]), a.turns, b.turns)
        for _, rows in measured_pairs(part, ours, theirs)
        for a, b in [[rows[rows.backend == name].iloc[0] for name in (theirs, ours)]]
    ]
    return ratio(pairs) if len(pairs) == layers else None
