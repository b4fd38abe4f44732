"""Coverage of a model by a run: how many of its convolutions are layers, and why the others are not.

A run stores it in its configuration under "models", by workload, if something is left out. Each record has the text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

from conv_impls.workloads import coverage

from .schema import Count, Whole, short


class Taken(TypedDict):
    """For one model: number of convolutions that are layers, and numbers of the others by reason."""

    taken: Whole
    left_out: dict[str, Count]


def words(config: Mapping[str, Any], workload: str) -> str:
    """Coverage of a workload as text, for readers of its sum; empty if nothing is left out.

    Parameters
    ----------
    config : mapping
        Configuration of a stored run (`bench.store.folder.StoredRun.config`) or of a new run.
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
    """The coverage texts of all models with something left out, by workload."""
    return {short(workload): words(config, workload) for workload in config.get("models", {})}
