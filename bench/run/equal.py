"""Equal layers are measured once: layers with the same problem share their turns, also across networks.

Two layers are equal if their labels differ only in the name. The first one of a run is measured. Each of the others
gets its own record with the same times; its ``equal_to`` names the layer that was measured. So every network has all
its layers, and tables, figures and sums need no special case.
Limits: if one workload has equal layers under different names, a sum over them is treated as a sum of independent
times. Equal layers with the same name are counted instead (`conv_impls.workloads`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from msgspec.structs import replace

from ..store.coverage import words
from ..store.records import Case, Record

Group = tuple[Any, ...]


def group_of(case: Case) -> Group:
    """Key of the cases that share turns: equal layers with equal threads, repetition, direction and caches."""
    return case.threads, case.repetition, case.direction, case.cache, case.unnamed_label


def measured(group: list[Case]) -> list[Case]:
    """The cases of a group that are really measured: the first one of each backend."""
    first: dict[str, Case] = {}
    for case in group:
        first.setdefault(case.backend, case)
    return list(first.values())


def shared(records: Iterable[Record], group: list[Case], config: Mapping[str, Any]) -> list[Record]:
    """A record for each case of a group, from one record of each backend, with the coverage text of its workload."""
    found = {record.case.backend: record for record in records}
    return [_record_for(case, found[case.backend], words(config, case.workload)) for case in group]


def unfinished(group: list[Case], finished: set[str]) -> list[Case]:
    """All cases of each incomplete layer of a group: turns of different measurements cannot be paired."""
    lacking = {_layer(case) for case in group if case.key not in finished}
    return [case for case in group if _layer(case) in lacking]


def finished_elsewhere(cases: list[Case], records: Iterable[Record]) -> list[Record]:
    """Records of an equal layer that was measured with all backends of the cases; empty if there is no such layer.

    Parameters
    ----------
    cases : list of Case
        Cases of one group.
    records : iterable of Record
        Finished records of that group; their cases need not be part of this session.
    """
    layers: dict[tuple[str, str, str], list[Record]] = {}
    for record in records:
        layers.setdefault(_layer(record.case), []).append(record)
    wanted = {case.backend for case in cases}
    whole = (mine for mine in layers.values() if wanted <= {record.case.backend for record in mine})
    return next(whole, []) if cases else []


def _layer(case: Case) -> tuple[str, str, str]:
    return case.workload, case.layer, case.label


def _record_for(case: Case, record: Record, coverage: str) -> Record:
    if case == record.case:
        return replace(record, coverage=coverage)
    # Its kernels were compiled for the measured layer, so its own compile time is 0.
    compile_s = record.compile_s and 0.0
    equal_to = record.equal_to or f"{record.case.workload}/{record.case.layer}"
    return replace(record, case=case, coverage=coverage, compile_s=compile_s, equal_to=equal_to)
