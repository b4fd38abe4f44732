"""The fastest backend for a problem on this machine: measured and stored by `tune`, looked up by `winner`.

The likely backends (`conv_impls.backends.auto.candidates`) are prepared for the same weights and timed in turns, so
that a change of clock or load affects all of them. Winners are stored in ``tuning.json`` of
`conv_impls.choice.userdir`, with a stamp of the package version and the kernels' sources: another version measures
again. Limits: winners that another process stores after the first look-up are not seen. Calls with planned weights
are measured, but the winner is also used by `conv2d`, which packs the weights at each call.
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
# A candidate that takes more than this many times the minimum is not timed again.
HOPELESS = 3.0
# Winograd and FFT differ from direct summation by less than this, a wrong result by more; relative to the largest |y|.
AGREEMENT = {"float32": 1e-2, "float64": 1e-6}


def winner(problem: Conv2dProblem, precision: str, threads: int) -> str | None:
    """The stored backend for this problem (the problem's name is ignored); None if none was measured."""
    known = _winners()
    return known.get(_key(problem, precision, threads)) if known else None


def winners() -> dict[tuple[Conv2dProblem, str, int], str]:
    """All stored winners, by problem, precision and number of threads."""
    return {question: name for key, name in _winners().items() if (question := _question(key))}


def tune(problem: Conv2dProblem, precision: str, threads: int) -> str:
    """Measure the candidates, store the fastest and return its name."""
    from conv_impls.backends.auto import candidates

    # Not the caller's weights: with a NaN every result would look wrong, and denormals would slow down every call.
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
    """Name of the call with minimum time: on a busy machine, the median depends on which threads lost their cores."""
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
    # Warm-up call, not counted: it starts with the caches and threads as the previous backend left them.
    call(x, out)
    start = time.perf_counter()
    call(x, out)
    return time.perf_counter() - start


@cache
def _winners() -> dict[str, str]:
    facts = userdir.read(FILE, _stamp())
    if not all(isinstance(name, str) for name in facts.values()):
        userdir.reject(FILE, "contains winners that are not names of backends")
        return {}
    return facts


@cache
def _stamp() -> str:
    from conv_impls.kernels.runtime.cache import sources_hash

    return f"conv_impls {__version__} kernels {sources_hash()[:16]}"


@lru_cache(maxsize=4096)
def _key(problem: Conv2dProblem, precision: str, threads: int) -> str:
    # Equal problems differ only in their name, so the key of the first one without its name is valid for all.
    compiled = "" if target.compiles() else " uncompiled"
    return f"{problem.replace(name='').label} {precision} {threads}{compiled}"


def _question(key: str) -> tuple[Conv2dProblem, str, int] | None:
    """Inverse of `_key`; None if the text is not from `_key`."""
    from conv_impls.problem import Conv2dProblem

    with suppress(ConvError, ValueError):
        label, precision, threads = key.rsplit(" ", 2)
        problem, cores = Conv2dProblem.from_label(label), int(threads)
        if key == _key(problem, precision, cores):
            return problem, precision, cores
    return None
