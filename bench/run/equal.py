"""Equal layers are measured once: layers of one problem share their turns, whatever network they are of.

Two layers are equal where their labels differ in the name alone. The first one of a run is measured; each of the others
gets a record of its own with the same times, whose ``equal_to`` names the one that was measured. So every network has
all its layers, and tables, figures and sums need to know nothing of it.
Limits: a sum over equal layers that have different names in one workload is taken for one of independent times. Equal
layers of one name are counted instead (`conv_impls.workloads`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from msgspec.structs import replace

from ..store.coverage import words
from ..store.records import Case, Record

Group = tuple[Any, ...]


def group_of(case: Case) -> Group:
    """Whose turns a case shares: equal layers with equal threads, repetition, direction and caches."""
    return case.threads, case.repetition, case.direction, case.cache, case.unnamed_label


def measured(group: list[Case]) -> list[Case]:
    """The cases of a group that stand for the others: the first one of each backend."""
    first: dict[str, Case] = {}
    for case in group:
        first.setdefault(case.backend, case)
    return list(first.values())


def shared(records: Iterable[Record], group: list[Case], config: Mapping[str, Any]) -> list[Record]:
    """A record for each case of a group, from one record of each backend; each has the words of its own workload."""
    found = {record.case.backend: record for record in records}
    return [_record_for(case, found[case.backend], words(config, case.workload)) for case in group]


def unfinished(group: list[Case], finished: set[str]) -> list[Case]:
    """All cases of the layers of a group that lack one: turns of different measurements are no pairs."""
    lacking = {_layer(case) for case in group if case.key not in finished}
    return [case for case in group if _layer(case) in lacking]


def finished_elsewhere(cases: list[Case], records: Iterable[Record]) -> list[Record]:
    """Records of an equal layer that was measured with all backends of the cases; none where there is no such layer.

    Parameters
    ----------
    cases : list of Case
        Of one group.
    records : iterable of Record
        Finished ones of that group, of cases that this session may not have.
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
    # Its kernels were compiled for the other one.
    compile_s = record.compile_s and 0.0
    equal_to = record.equal_to or f"{record.case.workload}/{record.case.layer}"
    return replace(record, case=case, coverage=coverage, compile_s=compile_s, equal_to=equal_to)
