"""The time of each rung of the tutorial, from a stored run.

The rungs are timed on one dense layer, and the last rung also on one depthwise layer. Both are the largest 3x3 layers
with stride 1 that all rungs of the comparison have measured. A run that lacks them has no ladder.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from bench.analysis.frame import frame_of
from bench.analysis.numbers import NOTE, SIGN, duration, times
from bench.store.folder import Run
from bench.store.records import StoreError, problem_of

# The sections of docs/tutorial.md, in order.
RUNGS = (
    "python_loops", "numpy_im2col", "numpy_strided", "scipy_fft", "numba_direct", "numba_simd", "numba_winograd",
    "numba_depthwise",
)  # fmt: skip
DENSE, DEPTHWISE = RUNGS[:-1], ("python_loops", "numba_simd", "numba_depthwise")
# Runs that belong to the repository. Of these, only the run of `make bench` has all rungs.
COMMITTED, FALLBACK = {"bench", "reference", "networks"}, "bench"


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
        return (
            f"{text}: {compared(theirs.seconds / mine.seconds, f'rung {number_of(below)}', mine.weak or theirs.weak)}."
        )

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
    return (
        f"{times(ratio, weak)} times as fast as {other}"
        if ratio > 1
        else f"{times(1 / ratio, weak)} times as long as {other}"
    )


def newest(runs: Path) -> Ladder:
    """The ladder of the user's newest run that has one, else of the committed run.

    Raises
    ------
    LookupError
        If no run has a ladder.
    """
    dated = []
    for folder in runs.iterdir():
        if folder.name not in COMMITTED and (folder / "config.json").is_file():
            try:
                dated.append((str(Run.open(folder).environment.get("date", "")), folder))
            except StoreError:
                # Not a complete run: the next one may have a ladder.
                continue
    committed = [runs / FALLBACK] if (runs / FALLBACK).is_dir() else []
    for folder in [*(folder for _, folder in sorted(dated, reverse=True)), *committed]:
        run = Run.open(folder)
        found = ladder(frame_of(run), run.environment)
        if found:
            return found
    raise LookupError(f"{runs}: expected a run that measured {', '.join(RUNGS)} on common layers; make one: make bench")


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


def _largest(right: pd.DataFrame, rungs: Iterable[str], depthwise: bool) -> Layer | None:
    """The layer of this kind with the most operations that all rungs measured, with their times."""
    rungs = tuple(rungs)
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
