"""One case of a run, and the record of what came of it."""

from __future__ import annotations

import math
import shlex
from dataclasses import dataclass, field

DIRECTIONS = ("fwd", "bwd_d", "bwd_w")
CACHES = ("warm", "cold", "weights")
STATUSES = (
    "ok", "wrong_result", "unsupported", "over_budget", "timeout", "crashed", "oom", "error", "interrupted",
    "unreliable",
)  # fmt: skip
FAILED = ("wrong_result", "crashed", "timeout", "oom", "error")


class StoreError(ValueError):
    """A run that cannot be read or written."""


@dataclass(frozen=True)
class Case:
    """What is measured once: strings and integers only, so that its key names it everywhere."""

    workload: str
    layer: str
    label: str
    count: int
    backend: str
    threads: int
    direction: str = "fwd"
    repetition: int = 1
    cache: str = "warm"

    @property
    def key(self) -> str:
        """Identity of the case inside a run."""
        where = f"{self.workload}/{self.layer}/{self.label}/{self.direction}/{self.cache}"
        return f"{where}/{self.backend}/t{self.threads}/r{self.repetition}"

    @property
    def repro(self) -> str:
        """The command that repeats this case."""
        return (
            f"python -m bench run --workload {shlex.quote(self.label)} --backends {shlex.quote(self.backend)} "
            f"--threads {self.threads} --direction {self.direction} --cache {self.cache}"
        )


@dataclass(frozen=True)
class Record:
    """One finished case. Times in seconds; ``error`` is max |y - reference| / max |reference|.

    ``turns_s`` are the medians of the case's turns, in order: the turn of equal number of every other backend was taken
    in the same round. ``executed_flops`` are the operations the algorithm does, where it tells; ``fma_peak_gflops`` is
    the peak of the machine measured in the same rounds; ``peak_bytes`` what preparing and the first call added at most
    to the memory of the process.
    """

    case: Case
    status: str
    reason: str = ""
    environment_id: str = ""
    algorithm: str = ""
    mode: str = ""
    threads_seen: str = ""
    error: float | None = None
    error_over_bound: float | None = None
    estimate_s: float | None = None
    compile_s: float | None = None
    prepare_s: float | None = None
    first_call_s: float | None = None
    samples_s: list[float] = field(default_factory=list)
    turns_s: list[float] = field(default_factory=list)
    turn_rounds: list[int] = field(default_factory=list)
    turn_switches: list[int] = field(default_factory=list)
    turn_peaks_gflops: list[float] = field(default_factory=list)
    disturbed_s: list[float] = field(default_factory=list)
    stalled_share: float | None = None
    iterations: int = 1
    median_s: float | None = None
    iqr_s: float | None = None
    gflops_effective: float | None = None
    executed_flops: float | None = None
    fma_peak_gflops: float | None = None
    packed_bytes: int | None = None
    workspace_bytes: int | None = None
    peak_bytes: int | None = None

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise StoreError(f"status {self.status!r} is none of {', '.join(STATUSES)}")
        if {self.status == "ok"} != {self.median_s is not None, bool(self.samples_s)}:
            raise StoreError(f"{self.case.key}: times go with status ok, and only with it")
        if any(not 0 < s < math.inf for s in self.samples_s + self.turns_s):
            raise StoreError(f"{self.case.key}: samples must be finite and above 0")
