"""Why a number of a table is weak or missing: a column ``why`` for tables whose rows name their backends. Pure.

The reasons are those of the cases behind the row. The case that matters most is named; the others are counted:

    conv1_2: may be 25% too long; 2 more layers

Limits: a row of sums gets the reasons of its whole backends, also for a number that depends on some of their layers.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from ..store.schema import short
from .ratios import with_best_peer
from .sums import total

# Columns of a table that select cases; a table has some of them.
WHERE = ("network", "workload", "layer", "threads", "direction", "cache", "dtype", "batch")


def explained(content: pd.DataFrame, table: pd.DataFrame, *backends: str) -> pd.DataFrame:
    """The table with a column ``why``, after all columns but ``weak``; without it if no row has a reason.

    Parameters
    ----------
    content : DataFrame
        A table of `bench.analysis` with a column ``weak``.
    table : DataFrame
        The frame of the run, from `bench.analysis.frame.frame`.
    *backends : str
        Columns of ``content`` that name backends, or names of backends that are in every row.
    """
    keys = [name for name in WHERE if name in content]
    every = with_best_peer(table)
    places: dict[tuple[Any, ...], list[int]] = {}
    for place, key in enumerate(zip(*(every[name] for name in [*keys, "backend"]), strict=True)):
        places.setdefault(key, []).append(place)
    untimed = (every.status != "ok").to_numpy()
    columns = [every[name] for name in ("status", "weak", "reason")]
    alone = [_reason(status, weak, reason) for status, weak, reason in zip(*columns, strict=True)]
    found = []
    for row in content.to_dict("records"):
        named = dict.fromkeys(str(row.get(name, name)) for name in backends)
        mine = {name: places.get((*(row[key] for key in keys), name), []) for name in named}
        # A number that is there and is not weak needs no reason.
        doubtful = row["weak"] or any(untimed[each].any() for each in mine.values())
        known = {name: each for name, each in mine.items() if each and doubtful}
        texts = {name: alone[each[0]] if len(each) == 1 else why(every.iloc[each]) for name, each in known.items()}
        found.append(_joined({name: text for name, text in texts.items() if text}))
    if not any(found):
        return content
    return content.assign(why=found)[[name for name in content if name != "weak"] + ["why", "weak"]]


def why(cases: pd.DataFrame) -> str:
    """Why a sum over these cases of one backend is weak or missing; empty if it is neither.

    Parameters
    ----------
    cases : DataFrame
        Rows of the frame: one layer, or all layers of one network or of several.

    Examples
    --------
    >>> case = {"network": "n", "status": "ok", "weak": "", "reason": "", "noise": 0.0, "bias": 0.0}
    >>> case |= {"count": 1, "median_s": 1.0}
    >>> layers = [case | {"layer": "a"}, case | {"layer": "b", "weak": "too short to time", "bias": 0.5}]
    >>> why(pd.DataFrame(layers)), why(pd.DataFrame(layers[:1]))
    ('b: too short to time', '')
    """
    texts = {network: _of_network(part) for network, part in cases.groupby("network", sort=False)}
    return _joined({str(network): text for network, text in texts.items() if text}, len(texts) > 1)


def _of_network(cases: pd.DataFrame) -> str:
    missing = cases[cases.status != "ok"]
    timed = cases[cases.status == "ok"]
    if missing.empty and not (total(timed).weak or len(timed) == 1):
        return ""
    # A sum with a missing layer does not exist, so its weak layers do not matter.
    first = missing if len(missing) else _by_doubt(timed)
    reasons = {row.layer: _reason(row.status, row.weak, row.reason) for row in first.itertuples()}
    return _listed(reasons, len(cases) > 1)


def _by_doubt(timed: pd.DataFrame) -> pd.DataFrame:
    """The weak cases, the one with the largest possible error in seconds first."""
    weak = timed[timed.weak != ""]
    doubt_s = weak["count"] * weak.median_s * (weak.noise + weak.bias)
    return weak.loc[doubt_s.sort_values(ascending=False, kind="stable").index]


def _reason(status: str, weak: str, reason: str) -> str:
    """Why one case is weak or has no time; empty if it is neither."""
    return weak if status == "ok" else short(": ".join(filter(None, [status.replace("_", " "), reason])))


def _listed(reasons: dict[str, str], named: bool) -> str:
    if not reasons:
        return ""
    (layer, first), more = next(iter(reasons.items())), len(reasons) - 1
    others = f"; {more} more layer{'s' * (more > 1)}" if more else ""
    return (f"{layer}: {first}" if named else first) + others


def _joined(texts: dict[str, str], named: bool | None = None) -> str:
    """Texts by name in one line; the names are left out if there is only one, unless ``named``."""
    named = len(texts) > 1 if named is None else named
    return " | ".join(f"{name}: {text}" if named else text for name, text in texts.items())
