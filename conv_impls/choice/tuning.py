"""Which backend was fastest for a problem on this machine: measured by `tune`, remembered, looked up by `winner`.

The likely backends (`conv_impls.backends.auto.candidates`) are prepared for the same weights and timed in turns, so
that a change of clock or load meets all of them. Winners are kept in ``tuning.json`` of `conv_impls.choice.userdir`,
under a stamp of the package's version and the kernels' sources: another version measures again.
Limits: what another process has found since this one began to look is not seen; planned weights are measured, and the
winner serves `conv2d` too, which packs them at each call.
"""

from __future__ import annotations

import time
from contextlib import suppress
from functools import cache, lru_cache
from typing import TYPE_CHECKING

import numpy as np

from conv_impls._version import __version__
from conv_impls.choice import userdir
from conv_impls.errors import ConvError
from conv_impls.kernels.runtime import target
from conv_impls.registry import get_backend
from conv_impls.validation import Array

if TYPE_CHECKING:
    from conv_impls.problem import Conv2dProblem
    from conv_impls.registry import Call

FILE = "tuning.json"
# Guesses beyond the first few have not won.
MOST_CANDIDATES = 4
# Each candidate is timed for about this long in total, in this many rounds at least and at most.
CANDIDATE_S, LEAST_ROUNDS, MOST_ROUNDS = 0.1, 3, 50
# One that takes this many times the least is not timed again.
HOPELESS = 3.0
# Winograd and FFT differ from direct summation by less than this, a wrong result by more; relative to the largest |y|.
AGREEMENT = {"float32": 1e-2, "float64": 1e-6}


def winner(problem: Conv2dProblem, precision: str, threads: int) -> str | None:
    """The backend remembered for this problem, whatever its name; None where none was measured."""
    known = _winners()
    return known.get(_key(problem, precision, threads)) if known else None


def winners() -> dict[tuple[Conv2dProblem, str, int], str]:
    """All that is remembered: the winner for each problem, precision and number of threads."""
    return {question: name for key, name in _winners().items() if (question := _question(key))}


def tune(problem: Conv2dProblem, precision: str, threads: int) -> str:
    """Measure the candidates, remember the fastest and return its name."""
    from conv_impls.backends.auto import candidates

    # Not the caller's weights: a NaN among them would make every result look wrong, denormals every time long.
    rng = np.random.default_rng(0)
    x, weight = (rng.standard_normal(s).astype(problem.dtype) for s in (problem.input_shape, problem.weight_shape))
    out = np.empty(problem.output_shape, problem.dtype)
    calls: dict[str, Call] = {}
    first: Array | None = None
    for name in candidates(problem, precision, threads, False)[:MOST_CANDIDATES]:
        call = get_backend(name).prepare(problem, weight, None, threads).call
        call(x, out)
        if first is None:
            first = out.copy()
        if np.abs(out - first).max() <= AGREEMENT[problem.dtype] * np.abs(first).max():
            calls[name] = call
    fastest = _fastest(calls, x, out)
    _winners()[_key(problem, precision, threads)] = fastest
    userdir.add(FILE, _stamp(), {_key(problem, precision, threads): fastest})
    return fastest


def _fastest(calls: dict[str, Call], x: Array, out: Array) -> str:
    """Name of the call with the least time: on a busy machine, the median depends on which threads lost their cores."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(LEAST_ROUNDS):
        for name, taken in times.items():
            taken.append(_seconds(calls[name], x, out))
    least = min(map(min, times.values()))
    times = {name: taken for name, taken in times.items() if min(taken) <= HOPELESS * least}
    rounds = min(int(CANDIDATE_S / least), MOST_ROUNDS) if len(times) > 1 else 0
    for _ in range(rounds):
        for name, taken in times.items():
            taken.append(_seconds(calls[name], x, out))
    return min(times, key=lambda name: min(times[name]))


def _seconds(call: Call, x: Array, out: Array) -> float:
    # The one before finds the caches and the threads as the previous backend left them, and is not counted.
    call(x, out)
    start = time.perf_counter()
    call(x, out)
    return time.perf_counter() - start


@cache
def _winners() -> dict[str, str]:
    facts = userdir.read(FILE, _stamp())
    if not all(isinstance(name, str) for name in facts.values()):
        userdir.reject(FILE, "has winners that are no names")
        return {}
    return facts


@cache
def _stamp() -> str:
    from conv_impls.kernels.runtime.cache import sources_hash

    return f"conv_impls {__version__} kernels {sources_hash()[:16]}"


@lru_cache(maxsize=4096)
def _key(problem: Conv2dProblem, precision: str, threads: int) -> str:
    # Equal problems differ in name at most, so the one that came first may stand for all, once its name is off.
    compiled = "" if target.compiles() else " uncompiled"
    return f"{problem.replace(name='').label} {precision} {threads}{compiled}"


def _question(key: str) -> tuple[Conv2dProblem, str, int] | None:
    """What `_key` made a text of; None where it did not."""
    from conv_impls.problem import Conv2dProblem

    with suppress(ConvError, ValueError):
        label, precision, threads = key.rsplit(" ", 2)
        problem, cores = Conv2dProblem.from_label(label), int(threads)
        if key == _key(problem, precision, cores):
            return problem, precision, cores
    return None
