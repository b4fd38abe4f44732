"""Frame -> this version of a backend against other versions of it, turn by turn: NAME against NAME@REV. Pure.

Ratios, intervals and verdicts are those of `bench.analysis.ratios`: the other version's time over ours, above 1 where
ours is faster. A run regressed where ours is "slower" on the sum of a workload, or where a single layer's whole
interval is beyond `ALONE`: of many layers some are slower by chance, a sum hardly ever is.
"""

from __future__ import annotations

import pandas as pd

from ..store.records import split_version
from .numbers import interval
from .ratios import by_layer, measured_pairs, network_ratio
from .sums import KEYS, by_backend, marks

# A layer that is slower by more than this share is a regression by itself.
ALONE = 0.25


def this_version(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of backends that are of no other version."""
    return table[table.version == ""]


def by_network(table: pd.DataFrame) -> pd.DataFrame:
    """A row a network, thread count and other version: the ratio of the sums, its interval, and a verdict of ours.

    Parameters
    ----------
    table : DataFrame
        From `bench.analysis.frame.frame`.

    Returns
    -------
    DataFrame
        Columns network, threads, ours, theirs, commit, layers (how many both measured in common turns, of all),
        ratio, low, high (missing unless both so measured all), "ours is" and weak. Empty where no backend was measured
        beside another version of it.
    """
    ok, sums, rows = table[table.status == "ok"], by_backend(table), []
    for (network, threads), known in sums.groupby(KEYS, sort=False):
        mine, total = ok[(ok.network == network) & (ok.threads == threads)], int(known.layers.iloc[0])
        for ours, theirs, commit in _pairs(table):
            both = known[known.backend.isin([ours, theirs])]
            found, common = network_ratio(mine, ours, theirs, total), len(measured_pairs(mine, ours, theirs))
            row = {
                "network": network, "threads": threads, "ours": ours, "theirs": theirs, "commit": commit,
                "layers": f"{common} of {total}", "ratio": None, "low": None, "high": None,
                "ours is": "not measured in the same turns",
            }  # fmt: skip
            if found is not None:
                row |= {"ratio": found.value, "low": found.low, "high": found.high, "ours is": found.verdict}
            rows.append(row | {"weak": marks({"ratio": found is not None and both.weak.any()})})
    made = pd.DataFrame(rows)
    return made.astype({"ratio": float, "low": float, "high": float}) if rows else made


def by_layers(table: pd.DataFrame) -> pd.DataFrame:
    """A row a layer that both versions measured, with the columns of `bench.analysis.ratios.by_layer`."""
    found = [by_layer(table, ours, theirs).assign(ours=ours) for ours, theirs, _ in _pairs(table)]
    return (
        pd.concat([each for each in found if len(each)], ignore_index=True) if any(map(len, found)) else pd.DataFrame()
    )


def regressed(table: pd.DataFrame) -> bool:
    """Whether ours became slower than one of the other versions."""
    return bool(_slower(by_network(table)).any() or _alone(by_layers(table)).any())


def sentences(table: pd.DataFrame) -> list[str]:
    """One for each row of `by_network`, and one for each layer that is a regression by itself."""
    networks, layers, said = by_network(table), by_layers(table), []
    for row in networks.itertuples():
        theirs, threads = f"{row.theirs} ({row.commit})", "1 thread" if row.threads == 1 else f"{row.threads} threads"
        where = f"{row.network}, {threads}"
        if pd.isna(row.ratio):
            said.append(f"{row.ours} and {theirs} have no ratio on {where}: {row.layers} layers have common turns")
            continue
        value, _, between = interval(row.ratio, row.low, row.high, row.weak).partition(" ")
        verdict, weak = networks["ours is"][row.Index], "; it depends on weak times" if row.weak else ""
        said.append(f"{row.ours} is {value} times as fast as {theirs} on {where} {between}: {verdict}{weak}")
    for row in layers[_alone(layers)].itertuples() if len(layers) else ():
        value = interval(row.ratio, row.low, row.high, row.weak)
        said.append(f"slower by itself: layer {row.layer} of {row.network}, {row.ours} against {row.theirs}: {value}")
    return said


def _pairs(table: pd.DataFrame) -> list[tuple[str, str, str]]:
    """A backend, another version of it and that one's commit, for all that were both asked for."""
    others = table[table.version != ""].drop_duplicates("backend")
    names = set(this_version(table).backend)
    pairs = [(split_version(row.backend)[0], row.backend, row.version) for row in others.itertuples()]
    return [pair for pair in pairs if pair[0] in names]


def _slower(content: pd.DataFrame) -> pd.Series:
    return content["ours is"] == "slower" if len(content) else pd.Series(dtype=bool)


def _alone(content: pd.DataFrame) -> pd.Series:
    return _slower(content) & (content.high < 1 / (1 + ALONE)) if len(content) else pd.Series(dtype=bool)
