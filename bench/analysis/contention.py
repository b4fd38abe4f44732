"""Read the JSON of `bench/contention.py`; tables of how much longer calls take while other processes are busy.

A ratio compares two means of the same trial, because slow changes of the machine affect a whole trial alike. The
tables show the median over the trials and, in brackets, the smallest and the largest. Format: pytest-benchmark 5.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import pandas as pd

from ..store.records import StoreError
from . import stats


class Info(msgspec.Struct):
    """Which calls a benchmark measures."""

    layer: str
    engine: str
    busy: Annotated[int, msgspec.Meta(ge=0)]


class Data(msgspec.Struct):
    """The mean call of each trial, in seconds."""

    data: Annotated[list[Annotated[float, msgspec.Meta(gt=0)]], msgspec.Meta(min_length=1)]


class Benchmark(msgspec.Struct):
    """One engine on one layer with a number of busy processes."""

    extra_info: Info
    stats: Data


class LeftOut(msgspec.Struct):
    """An engine without times on a layer."""

    layer: str
    engine: str
    reason: str


class Facts(msgspec.Struct):
    """How and where it was measured."""

    environment: dict[str, Any]
    seconds: float
    threads: int
    left_out: list[LeftOut]


class Document(msgspec.Struct):
    """The fields of the JSON that are read."""

    benchmarks: Annotated[list[Benchmark], msgspec.Meta(min_length=1)]
    contention: Facts

    @property
    def means_s(self) -> dict[tuple[str, str, int], list[float]]:
        """(layer, engine, busy processes) to the mean call of each trial."""
        found = {(i.layer, i.engine, i.busy): b.stats.data for b in self.benchmarks for i in [b.extra_info]}
        if len(found) < len(self.benchmarks) or len({len(means_s) for means_s in found.values()}) > 1:
            raise StoreError("expected as many trials of every engine, layer and number of busy processes, each once")
        return found

    @property
    def trials(self) -> int:
        """The number of trials."""
        return len(self.benchmarks[0].stats.data)


def read(content: bytes) -> Document:
    """The document.

    Raises
    ------
    StoreError
        The content is not JSON of `bench/contention.py`.
    """
    try:
        document = msgspec.json.decode(content, type=Document)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise StoreError(f"expected the JSON of bench/contention.py: {error}") from None
    # Raises if trials are missing.
    _ = document.means_s
    return document


def slowdowns(document: Document) -> pd.DataFrame:
    """Each engine's mean call on a quiet machine, and the slowdown factor with busy processes."""
    means_s = document.means_s
    counts = sorted({busy for _, _, busy in means_s if busy})
    return pd.DataFrame(
        {
            "layer": layer, "engine": engine, "quiet (us)": 1e6 * stats.median(means_s[layer, engine, 0]),
            **{
                f"x with {n} busy": ratio_text(means_s[layer, engine, n], means_s[layer, engine, 0])
                for n in counts if (layer, engine, n) in means_s
            },
        }
        for layer in dict.fromkeys(layer for layer, _, _ in means_s)
        for engine in dict.fromkeys(engine for _, engine, _ in means_s)
        if (layer, engine, 0) in means_s
    ).fillna("")  # fmt: skip


def against(document: Document, ours: str, theirs: str) -> pd.DataFrame:
    """The mean calls of two engines, their ratio, and in how many trials the first was not slower."""
    means_s = document.means_s
    rows = []
    for layer, engine, n in means_s:
        if engine != ours or (layer, theirs, n) not in means_s:
            continue
        mine, other = means_s[layer, ours, n], means_s[layer, theirs, n]
        not_slower = sum(a <= b for a, b in zip(mine, other, strict=True))
        rows.append(
            {
                "layer": layer, "busy": n, f"{ours} (us)": 1e6 * stats.median(mine),
                f"{theirs} (us)": 1e6 * stats.median(other), f"{ours} / {theirs}": ratio_text(mine, other),
                f"{ours} not slower in": f"{not_slower} of {len(mine)} trials",
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def ratio_text(above_s: list[float], below_s: list[float]) -> str:
    """The median of the trials' ratios, the smallest and the largest.

    Examples
    --------
    >>> ratio_text([3.0, 4.0, 2.0], [2.0, 2.0, 2.0])
    '1.50 (1.00 to 2.00)'
    """
    ratios = [above / below for above, below in zip(above_s, below_s, strict=True)]
    return f"{stats.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
