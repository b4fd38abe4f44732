"""One case of a run, and the record of its result.

Both are immutable structs. Their types are the schema: records from a file or from a backend's process are checked by
`bench.store.schema` against the annotations here. A contradiction between fields always raises StoreError.
"""

from __future__ import annotations

import math
import shlex
import warnings
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any, Literal, get_args

import msgspec
from msgspec.structs import asdict

from conv_impls import Conv2dProblem

from ..program import COMMAND
from .schema import Amount, Count, Seconds, Share, Whole

Direction = Literal["fwd", "bwd_d", "bwd_w"]
Cache = Literal["warm", "cold", "weights"]
# How a backend gets its weights; empty if unknown.
Mode = Literal["", "planned", "eager"]
Status = Literal[
    "ok", "wrong_result", "too_fast", "unsupported", "over_budget", "timeout", "crashed", "oom", "error",
    "interrupted", "unreliable",
]  # fmt: skip
DIRECTIONS: tuple[Direction, ...] = get_args(Direction)
CACHES: tuple[Cache, ...] = get_args(Cache)
STATUSES: tuple[Status, ...] = get_args(Status)
FAILED: tuple[Status, ...] = ("wrong_result", "too_fast", "crashed", "timeout", "oom", "error")


class StoreError(ValueError):
    """A run that cannot be read or written."""


@cache
def problem_of(label: str) -> Conv2dProblem:
    """The problem of a label; each label is parsed once per process."""
    # The caller that supplied the label already got the warning about its padding.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Conv2dProblem.from_label(label)


@cache
def _unnamed(label: str) -> str:
    return problem_of(label).replace(name="").label


def split_version(backend: str) -> tuple[str, str]:
    """Name and version of a backend; the version is empty for this version.

    Examples
    --------
    >>> split_version("auto@v0.3.0"), split_version("auto"), split_version("auto@/tmp/a@b")
    (('auto', 'v0.3.0'), ('auto', ''), ('auto', '/tmp/a@b'))
    """
    name, _, version = backend.partition("@")
    return name, version


class Case(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One unit of measurement: strings and integers only, so that its key identifies it everywhere.

    Attributes
    ----------
    workload
        Name of the workload.
    layer
        Name of the layer in the workload.
    label
        The problem as a benchdnn label.
    count
        How often the network has this layer.
    backend
        Name of the backend; NAME@REV for a backend of another version.
    threads
        Number of threads that the backend may use.
    direction
        fwd (forward), bwd_d (gradient of the image), bwd_w (gradient of the weights).
    repetition
        Number of the repetition, from 1.
    cache
        State of the caches before each call: warm, cold, or weights (only the weights are cold).
    """

    workload: str
    layer: str
    label: str
    count: Count
    backend: str
    threads: Count
    direction: Direction = "fwd"
    repetition: Count = 1
    cache: Cache = "warm"

    @property
    def key(self) -> str:
        """Identity of the case inside a run."""
        where = f"{self.workload}/{self.layer}/{self.label}/{self.direction}/{self.cache}"
        return f"{where}/{self.backend}/t{self.threads}/r{self.repetition}"

    @property
    def id(self) -> str:
        """Readable id, like that of a pytest item; `ids` makes the ids of a list unique.

        Examples
        --------
        >>> Case("resnet50", "res2a 2b", "ic64ih56oc64oh56kh3ph1", 3, "numba_simd", 2).id
        'resnet50/res2a_2b-numba_simd-t2-fwd-warm-r1'
        """
        return self._id(self.layer)

    @property
    def problem(self) -> Conv2dProblem:
        """The parsed label."""
        return problem_of(self.label)

    @property
    def unnamed_label(self) -> str:
        """The label without the layer's name: layers of one shape share it."""
        return _unnamed(self.label)

    @property
    def repro(self) -> str:
        """The command that repeats this case."""
        return (
            f"{COMMAND} run --workload {shlex.quote(self.label)} --backends {shlex.quote(self.backend)} "
            f"--threads {self.threads} --direction {self.direction} --cache {self.cache}"
        )

    def _id(self, layer: str) -> str:
        what = f"{self.workload}/{layer}-{self.backend}-t{self.threads}-{self.direction}-{self.cache}"
        return f"{what}-r{self.repetition}".replace(" ", "_")


def ids(cases: Sequence[Case]) -> list[str]:
    """The ids of cases, all different.

    Equal ids (a layer at several batch sizes, dtypes or shapes) get the label without its name after the layer. Ids
    that are still equal ("a b" and "a_b" are one layer here) get a number.

    Examples
    --------
    >>> labels = "mb1ic8ih12oc8oh12kh3ph1", "mb4ic8ih12oc8oh12kh3ph1"
    >>> for one in ids([Case("w", "l", label, 1, "auto", 1) for label in labels]):
    ...     print(one)
    w/l-mb1ic8ih12oc8oh12kh3ph1-auto-t1-fwd-warm-r1
    w/l-mb4ic8ih12oc8oh12kh3ph1-auto-t1-fwd-warm-r1
    """
    plain = [case.id for case in cases]
    times = Counter(plain)
    unique: dict[str, None] = {}
    for case, name in zip(cases, plain, strict=True):
        wanted = made = name if times[name] == 1 else case._id(f"{case.layer}-{case.unnamed_label}")
        number = 1
        while made in unique:
            number += 1
            made = f"{wanted}-{number}"
        unique[made] = None
    return list(unique)


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One finished case. A field is empty or None if it is unknown or was not measured.

    Attributes
    ----------
    case
        What was measured.
    status
        How the case ended.
    reason
        Why the status is not ok.
    environment_id
        Identifies machine and package versions; equal to ``id`` of environment.json.
    version
        Commit of a backend of another version, with "+changes" if its files differ from it.
    algorithm
        What the backend did, if it reports it.
    mode
        How the backend gets its weights: planned or eager.
    threads_seen
        Thread pools of the process with their number of threads, such as "numba 2, openblas 2".
    error
        max |y - reference| / max |reference|, over all outputs.
    error_over_bound
        The largest error as a fraction of the bound of the backend's accuracy class.
    estimate_s
        Estimated time of one call, from a part of the work.
    compile_s
        Time to compile.
    prepare_s
        Time to prepare: pack weights, make tables.
    first_call_s
        Time of the first call.
    samples_s
        Time per call of each sample.
    turns_s
        Median of the samples of each turn. Turns that another load disturbed are not among them.
    turn_rounds
        Round of each turn. Turns of different backends in the same round ran one after the other. Empty means 0, 1,
        2, ... (version 0.3.0).
    turn_switches
        Involuntary context switches of the backend's process in each turn.
    turn_peaks_gflops
        FMA peak of the machine in the round of each turn; 0 where it was not measured.
    turn_yardsticks_s
        Time of a fixed piece of work of the layer's size in the round of each turn (`bench.machine.yardstick`).
    disturbed_s
        Medians of the turns that another load disturbed; they are not used.
    stalled_share
        Share of the samples that took more than twice the best turn.
    iterations
        Calls in each sample.
    median_s
        Median of ``turns_s``.
    iqr_s
        Interquartile range of ``turns_s``.
    gflops_effective
        Operations of the definition of convolution divided by ``median_s``.
    executed_flops
        Operations of the algorithm, if it reports them.
    fma_peak_gflops
        Median of ``turn_peaks_gflops``.
    packed_bytes
        Memory of the packed weights.
    workspace_bytes
        Memory that a call needs in addition to its arrays.
    peak_bytes
        Maximum that preparing and the first call added to the memory of the process.
    coverage
        Which convolutions of the model are not layers of the run.
    equal_to
        "workload/layer" of an equal layer whose measurement is used; empty if this case was measured.
    """

    case: Case
    status: Status
    reason: str = ""
    environment_id: str = ""
    version: str = ""
    algorithm: str = ""
    mode: Mode = ""
    threads_seen: str = ""
    error: Amount | None = None
    error_over_bound: Amount | None = None
    estimate_s: Amount | None = None
    compile_s: Amount | None = None
    prepare_s: Amount | None = None
    first_call_s: Amount | None = None
    samples_s: list[Seconds] = []
    turns_s: list[Seconds] = []
    turn_rounds: list[Whole] = []
    turn_switches: list[Whole] = []
    turn_peaks_gflops: list[Amount] = []
    turn_yardsticks_s: list[Seconds] = []
    disturbed_s: list[Seconds] = []
    stalled_share: Share | None = None
    iterations: Count = 1
    median_s: Seconds | None = None
    iqr_s: Amount | None = None
    gflops_effective: Amount | None = None
    executed_flops: Amount | None = None
    fma_peak_gflops: Amount | None = None
    packed_bytes: Whole | None = None
    workspace_bytes: Whole | None = None
    peak_bytes: Whole | None = None
    coverage: str = ""
    equal_to: str = ""

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise StoreError(f"status: expected one of {', '.join(STATUSES)}, got {self.status!r}")
        if {self.status == "ok"} != {self.median_s is not None, bool(self.samples_s)}:
            raise StoreError(f"{self.case.key}: times go with status ok, and only with it")
        if any(not 0 < s < math.inf for s in self.samples_s + self.turns_s + self.disturbed_s):
            raise StoreError(f"{self.case.key}: times must be finite and above 0")
        for name in ("turn_rounds", "turn_switches", "turn_peaks_gflops", "turn_yardsticks_s"):
            if len(getattr(self, name)) not in (0, len(self.turns_s)):
                raise StoreError(f"{self.case.key}: {name}: expected one for each of {len(self.turns_s)} turns")


def plain(record: Record) -> dict[str, Any]:
    """The fields of a record, and of its case, as dictionaries."""
    return asdict(record) | {"case": asdict(record.case)}
