"""Frame -> comparison of this version of a backend with its other versions, turn by turn: NAME, NAME@REV. Pure.

Ratios, intervals and verdicts are those of `bench.analysis.ratios`: the other version's time over ours, above 1 if ours
is faster. A run regressed if ours is "slower" on the sum of a workload, or if a single layer's whole interval is beyond
`ALONE` and not weak: among many layers some are slower by chance, a sum very rarely.
"""

from __future__ import annotations

import pandas as pd

from ..store.records import split_version
from .intervals import Ratio
from .numbers import compared, interval
from .ratios import by_layer, measured_pairs, network_ratio
from .sums import KEYS, by_backend, marks

# Added to a sentence whose figure depends on weak measurements.
WEAK = "; weak: one of the two may be more than 10% off"
# A layer that is slower by more than this share is a regression by itself.
ALONE = 0.25


def this_version(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of this version's backends."""
    return table[table.version == ""]


def by_network(table: pd.DataFrame) -> pd.DataFrame:
    """One row per network, thread count and pair of versions: ratio of the sums, interval, and a verdict of ours.

    Parameters
    ----------
    table : DataFrame
        From `bench.analysis.frame.frame`.

    Returns
    -------
    DataFrame
        Columns network, threads, ours, "our commit" (empty for this version), theirs, "their commit", layers (how many
        of all layers both measured in common turns), ratio, low, high (NaN unless this holds for all layers), "ours is"
        and weak. Empty if no backend was measured in two versions.
    """
    if not _pairs(table):
        return pd.DataFrame()
    ok, sums, rows = table[table.status == "ok"], by_backend(table), []
    for (network, threads), known in sums.groupby(KEYS, sort=False):
        mine, total = ok[(ok.network == network) & (ok.threads == threads)], int(known.layers.iloc[0])
        for (ours, our_commit), (theirs, their_commit) in _pairs(table):
            both = known[known.backend.isin([ours, theirs])]
            found, common = network_ratio(mine, ours, theirs, total), len(measured_pairs(mine, ours, theirs))
            row = {
                "network": network, "threads": threads, "ours": ours, "our commit": our_commit, "theirs": theirs,
                "their commit": their_commit, "layers": f"{common} of {total}", "ratio": None, "low": None,
                "high": None, "ours is": "not measured in the same turns",
            }  # fmt: skip
            if found is not None:
                row |= {"ratio": found.value, "low": found.low, "high": found.high, "ours is": found.verdict}
            rows.append(row | {"weak": marks({"ratio": found is not None and both.weak.any()})})
    return pd.DataFrame(rows).astype({"ratio": float, "low": float, "high": float})


def by_layers(table: pd.DataFrame) -> pd.DataFrame:
    """One row per layer and pair of versions that both measured it; columns as in `bench.analysis.ratios.by_layer`."""
    found = [by_layer(table, ours, theirs).assign(ours=ours) for (ours, _), (theirs, _) in _pairs(table)]
    rows = [each for each in found if len(each)]
    return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame()


def regressed(table: pd.DataFrame) -> bool:
    """Whether the first version is slower than one of the others."""
    return bool(_slower(by_network(table)).any() or _alone(by_layers(table)).any())


def sentences(table: pd.DataFrame) -> list[str]:
    """One for each row of `by_network`, and one for each layer that is a regression by itself."""
    layers, said = by_layers(table), []
    for row in by_network(table).to_dict("records"):
        ours, theirs = _named(row["ours"], row["our commit"]), _named(row["theirs"], row["their commit"])
        where = f"on {row['network']}, {row['threads']} thread{'s' * (row['threads'] > 1)}"
        if pd.isna(row["ratio"]):
            said.append(f"{compared(ours, theirs, None, where)}: {row['layers']} layers have common turns")
            continue
        found = Ratio(row["ratio"], row["low"], row["high"], 0, row["ours is"])
        said.append(compared(ours, theirs, found, where) + WEAK * bool(row["weak"]))
    for row in layers[_alone(layers)].itertuples() if len(layers) else ():
        value = interval(row.ratio, row.low, row.high, row.weak)
        said.append(f"slower by itself: layer {row.layer} of {row.network}, {row.ours} against {row.theirs}: {value}")
    return said


def _pairs(table: pd.DataFrame) -> list[tuple[tuple[str, str], tuple[str, str]]]:
    """For each backend with several versions: (backend, commit) of the first version and of each other version."""
    versions: dict[str, dict[str, str]] = {}
    for row in table.itertuples():
        commits = versions.setdefault(split_version(row.backend)[0], {})
        commits[row.backend] = commits.get(row.backend) or row.version
    return [(first, other) for first, *others in (each.items() for each in versions.values()) for other in others]


def _named(backend: str, commit: str) -> str:
    return f"{backend} ({commit})" if commit else backend


def _slower(content: pd.DataFrame) -> pd.Series:
    return content["ours is"] == "slower" if len(content) else pd.Series(dtype=bool)


def _alone(content: pd.DataFrame) -> pd.Series:
    """Which layers are slower by more than `ALONE` without a weak measurement."""
    if content.empty:
        return pd.Series(dtype=bool)
    weak = content.weak.str.split("; ").map(lambda names: "ratio" in names)
    return _slower(content) & (content.high < 1 / (1 + ALONE)) & ~weak
