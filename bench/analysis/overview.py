"""Frame -> the table that a README and a page open with: times relative to ours, one column per network. Pure.

    backend                 resnet50   vgg16
    auto                        1.00    1.00
    onnxruntime                 1.32    2.84      takes 1.32 times as long as auto
    torch_nchw (eager)          1.53    2.92

All numbers are for one number of threads, the largest measured. If the run has a library, the rows are ours and the
libraries; otherwise all backends. Limits: sums over whole networks only; a backend without one has no row.
"""

from __future__ import annotations

from typing import NamedTuple

import pandas as pd

from ..peers import OWN, PEERS
from .numbers import NOTE, times
from .ratios import ANCHOR, network_ratio
from .reasons import why
from .sums import by_backend

OURS = tuple(dict.fromkeys([*ANCHOR.values(), *OWN]))


class Overview(NamedTuple):
    """Ratios of network times to those of ``reference``; rows are backends, columns are networks.

    ``weak`` and ``best`` have the shape of ``ratios``: whether a number is weak, and whether it is the least of its
    column. ``eager`` has the backends that get the weights at each call. ``why`` has the reasons of weak and missing
    numbers by backend and network.
    """

    reference: str
    threads: int
    ratios: pd.DataFrame
    weak: pd.DataFrame
    best: pd.DataFrame
    eager: set[str]
    why: dict[tuple[str, str], str]

    def texts(self) -> pd.DataFrame:
        """The cells as text, two decimals, with marks; empty where a backend did not measure the whole network."""
        shown = self.ratios.astype(object)
        for network in shown:
            cells = zip(self.ratios[network], self.weak[network], strict=True)
            shown[network] = ["" if pd.isna(value) else times(value, mark) for value, mark in cells]
        return shown

    @property
    def note(self) -> str:
        """What the marks mean; empty if there is none."""
        return NOTE if self.weak.any(axis=None) else ""

    def name(self, backend: str) -> str:
        """A backend's name for the first column."""
        return f"{backend} (eager)" if backend in self.eager and backend not in OURS else backend


def overview(table: pd.DataFrame) -> Overview | None:
    """The overview of a run; None if no backend measured a whole network, or no two share their turns.

    Parameters
    ----------
    table : DataFrame
        From `bench.analysis.frame.frame`.
    """
    part = table[(table.threads == table.threads.max()) & (table.version == "")]
    part = part[part.backend.isin([*OURS, *PEERS])] if part.backend.isin(PEERS).any() else part
    sums = by_backend(part)
    whole = sums[sums.whole]
    if whole.empty:
        return None
    networks = list(whole.network.unique())
    reference = _reference(whole)
    ok, found, weak = part[part.status == "ok"], {}, {}
    for network in networks:
        mine, known = ok[ok.network == network], whole[whole.network == network].set_index("backend")
        ratios = {name: _ratio(mine, reference, name, sums, network) for name in known.index}
        found[network] = {name: value for name, value in ratios.items() if value is not None}
        weak[network] = {name: bool(known.weak[name] or known.weak.get(reference)) for name in found[network]}
    ratios = pd.DataFrame(found).dropna(how="all").dropna(axis="columns", how="all")
    if ratios.empty:
        return None
    ratios = ratios.loc[_ranked(ratios)]
    doubt = pd.DataFrame(weak).reindex_like(ratios).eq(True)
    eager = set(ok.backend[ok["mode"] == "eager"])
    return Overview(
        reference,
        int(part.threads.iloc[0]),
        ratios,
        doubt,
        ratios.eq(ratios.min()),
        eager,
        _reasons(part, ratios, doubt),
    )


def _reference(whole: pd.DataFrame) -> str:
    """`auto` if it measured a whole network, else the backend with the most whole networks and the least time."""
    if "auto" in set(whole.backend):
        return "auto"
    ranked = whole.groupby("backend").sum_s.agg(["size", "sum"]).sort_values(["size", "sum"], ascending=[False, True])
    return str(ranked.index[0])


def _ratio(mine: pd.DataFrame, reference: str, name: str, sums: pd.DataFrame, network: str) -> float | None:
    if name == reference:
        return 1.0
    layers = int(sums.layers[sums.network == network].iloc[0])
    found = network_ratio(mine, reference, name, layers)
    return found.value if found else None


def _ranked(ratios: pd.DataFrame) -> list[str]:
    """Ours first, then the others; within both those with the most networks, and of these the fastest first."""
    order = pd.DataFrame({"others": ~ratios.index.isin(OURS), "missing": ratios.isna().sum(axis=1)})
    order["middle"] = ratios.median(axis=1)
    return list(order.sort_values(["others", "missing", "middle"], kind="stable").index)


def _reasons(part: pd.DataFrame, ratios: pd.DataFrame, weak: pd.DataFrame) -> dict[tuple[str, str], str]:
    """The reason of each weak or missing number."""
    doubtful = [
        (name, network)
        for name in ratios.index
        for network in ratios
        if weak[network][name] or pd.isna(ratios[network][name])
    ]
    cases = dict(list(part.groupby(["backend", "network"], sort=False)))
    found = {key: why(cases[key]) for key in doubtful if key in cases}
    return {key: text for key, text in found.items() if text}
