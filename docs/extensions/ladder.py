"""The time of each rung of the tutorial, from a stored run.

The rungs are timed on one dense layer, and the last rung also on one depthwise layer. Both are the largest 3x3 layers
with stride 1 that all rungs of the comparison have measured. A run that lacks them has no ladder.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from bench.analysis.frame import frame_of
from bench.analysis.numbers import NOTE, SIGN, duration, times
from bench.run.options import RUNS
from bench.store.folder import Run
from bench.store.records import StoreError, problem_of

# The sections of docs/tutorial.md, in order.
RUNGS = (
    "python_loops", "numpy_im2col", "numpy_strided", "scipy_fft", "numba_direct", "numba_simd", "numba_winograd",
    "numba_depthwise",
)  # fmt: skip
DENSE, DEPTHWISE = RUNGS[:-1], ("python_loops", "numba_simd", "numba_depthwise")


@dataclass(frozen=True)
class Time:
    """The time of one call of a rung."""

    seconds: float
    weak: bool


@dataclass(frozen=True)
class Layer:
    """One layer, and the time of each rung on it."""

    label: str
    threads: int
    times: dict[str, Time]

    @property
    def words(self) -> str:
        """The layer in words.

        Examples
        --------
        >>> Layer("mb1ic32ih64oc32oh64kh3ph1", 2, {}).words
        '3x3, 32 to 32 channels, 64x64 pixels, 2 threads'
        >>> Layer("g8mb1ic8ih9oc8oh9kh3ph1", 1, {}).words
        'depthwise 3x3, 8 channels, 9x9 pixels, 1 thread'
        """
        p = problem_of(self.label)
        kernel, pixels = ("x".join(map(str, sizes)) for sizes in (p.kernel_size, p.in_size))
        threads = f"{self.threads} thread{'s' * (self.threads > 1)}"
        if p.groups > 1:
            return f"depthwise {kernel}, {p.in_channels} channels, {pixels} pixels, {threads}"
        return f"{kernel}, {p.in_channels} to {p.out_channels} channels, {pixels} pixels, {threads}"


@dataclass(frozen=True)
class Ladder:
    """The two layers, and the machine and date of the run."""

    dense: Layer
    depthwise: Layer
    machine: str

    def layer(self, rung: str) -> Layer:
        """The layer on which the tutorial times this rung."""
        return self.depthwise if rung == RUNGS[-1] else self.dense

    def sentence(self, rung: str) -> str:
        """The time of a rung, and how it compares with the rung below it on the same layer."""
        layer = self.layer(rung)
        mine, known = layer.times[rung], list(layer.times)
        text = f"{duration(mine.seconds, mine.weak)} for one call ({layer.words})"
        if rung == known[0]:
            return f"{text}."
        below = known[known.index(rung) - 1]
        theirs = layer.times[below]
        weak = mine.weak or theirs.weak
        return f"{text}: {compared(theirs.seconds / mine.seconds, f'rung {number_of(below)}', weak)}."

    def rows(self) -> list[list[str]]:
        """Rung, backend, time, and the ratio to the first rung on the same layer, as texts."""
        found = []
        for rung in RUNGS:
            layer = self.layer(rung)
            mine, first = layer.times[rung], layer.times[RUNGS[0]]
            ratio = times(first.seconds / mine.seconds, mine.weak or first.weak)
            found.append([str(number_of(rung)), rung, duration(mine.seconds, mine.weak), ratio])
        return found

    def note(self) -> str:
        """Layers, machine and date, and the meaning of the mark if a time has one."""
        weak = any(time.weak for layer in (self.dense, self.depthwise) for time in layer.times.values())
        marks = f" {NOTE}." if weak else ""
        first = f"Rungs {number_of(DENSE[0])} to {number_of(DENSE[-1])}: {self.dense.words}"
        return f"{first}. Rung {number_of(RUNGS[-1])}: {self.depthwise.words}. {self.machine}.{marks}"


def number_of(rung: str) -> int:
    """The number of a rung in the tutorial."""
    return RUNGS.index(rung) + 1


def compared(ratio: float, other: str, weak: bool = False) -> str:
    """How many times as fast, or as slow.

    Examples
    --------
    >>> compared(2.0, "rung 1"), compared(0.5, "rung 2", weak=True), compared(1.004, "rung 3")
    ('2.00 times as fast as rung 1', '~2.00 times as long as rung 2', 'as fast as rung 3')
    """
    if times(ratio) == times(1.0):
        return f"{SIGN * weak}as fast as {other}"
    if ratio > 1:
        return f"{times(ratio, weak)} times as fast as {other}"
    return f"{times(1 / ratio, weak)} times as long as {other}"


def newest(runs: Path) -> Ladder:
    """The ladder of the newest run that has one. Runs of the user come before runs that belong to the repository.

    Raises
    ------
    LookupError
        If no run has a ladder.
    """
    dated = []
    for config in runs.glob("*/config.json"):
        # A run that cannot be read is not the only one.
        with suppress(StoreError):
            run = Run.open(config.parent)
            dated.append((run.folder.name not in committed(), str(run.environment.get("date", "")), run.folder.name))
    for *_, name in sorted(dated, reverse=True):
        run = Run.open(runs / name)
        if found := ladder(frame_of(run), run.environment):
            return found
    raise LookupError(f"{runs}: expected a run that measured {', '.join(RUNGS)} on common layers; make one: make bench")


@cache
def committed() -> frozenset[str]:
    """Names of the runs that belong to the repository: those that .gitignore excepts."""
    ignored = (RUNS.parents[1] / ".gitignore").read_text(encoding="utf-8")
    return frozenset(re.findall(r"^!results/runs/([^/\n]+)/", ignored, re.MULTILINE))


def ladder(table: pd.DataFrame, environment: dict[str, Any]) -> Ladder | None:
    """The ladder of a frame of cases (`bench.analysis.frame.frame`); None if no layer has all rungs."""
    if table.empty:
        return None
    right = table[(table.status == "ok") & (table.threads == table.threads.max()) & (table.batch == 1)]
    right = right[(right.direction == "fwd") & (right.cache == "warm") & (right.dtype == "float32")]
    dense, depthwise = _largest(right, DENSE, depthwise=False), _largest(right, DEPTHWISE, depthwise=True)
    if dense is None or depthwise is None:
        return None
    facts = environment.get("cpu"), f"{environment.get('cores', '?')} cores", environment.get("date")
    return Ladder(dense, depthwise, ", ".join(str(fact) for fact in facts if fact))


def _largest(right: pd.DataFrame, rungs: Collection[str], depthwise: bool) -> Layer | None:
    """The layer of this kind with the most operations that all rungs measured, with their times."""
    best: tuple[int, Layer] | None = None
    for label, rows in right[right.backend.isin(rungs)].groupby("label", sort=False):
        problem = problem_of(str(label))
        wanted = problem.groups == (problem.in_channels if depthwise else 1) and problem.in_channels > 1
        if not wanted or problem.kernel_size != (3, 3) or problem.stride != (1, 1):
            continue
        mine = rows.drop_duplicates("backend").set_index("backend")
        if set(mine.index) == set(rungs) and (best is None or problem.flops > best[0]):
            found = {name: Time(float(mine.median_s[name]), bool(mine.weak[name])) for name in rungs}
            best = problem.flops, Layer(str(label), int(mine.threads.iloc[0]), found)
    return best[1] if best else None
