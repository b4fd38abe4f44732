"""How much of a model a run measured: which of its convolutions are layers, and why the others are not.

A run keeps it in its configuration under "models", by workload, where something is left out; each record has the words.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

from conv_impls.workloads import coverage

from .schema import Count, Whole, short


class Taken(TypedDict):
    """Of one model: the convolutions that are layers, and the numbers of the others by their reason."""

    taken: Whole
    left_out: dict[str, Count]


def words(config: Mapping[str, Any], workload: str) -> str:
    """What a reader of a sum must know of a workload, empty where nothing is left out.

    Parameters
    ----------
    config : mapping
        Of a stored run (`bench.store.folder.StoredRun.config`), or of one about to be made.
    workload : str
        The column ``workload`` of a frame, or the field of a case.

    Examples
    --------
    >>> models = {"rec": {"taken": 35, "left_out": {"have sizes known only at run time": 3}}}
    >>> words({"models": models}, "rec"), words({"models": models}, "resnet50")
    ('35 of 38 convolutions; 3 have sizes known only at run time', '')
    """
    model = config.get("models", {}).get(workload)
    return coverage(model["taken"], {short(why): count for why, count in model["left_out"].items()}) if model else ""


def all_words(config: Mapping[str, Any]) -> dict[str, str]:
    """Those of every model with something left out, by workload."""
    return {short(workload): words(config, workload) for workload in config.get("models", {})}
