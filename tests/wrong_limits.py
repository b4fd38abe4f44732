"""What do wrong limits of this machine cost, measured? An experiment, about four minutes on two cores.

    python tests/wrong_limits.py
    python tests/wrong_limits.py --threads 1 --networks resnet50,convnext_tiny

Right limits are measured here. Each spoiled file (one number, or all, of one thread, of several or of both divided or
multiplied by 2, 4 or 8; and one that was written while the machine was busy) is put where the package looks for it, and
`auto` is asked for every layer, planned and eager. Every backend that some file leads to is then timed, all in turns,
so that a change of load meets all of them; a layer's time is the median of its turns. The exit code is 1 if a layer
takes more than 1.5 times, or a network more than 1.15 times, as long as with the right limits.
Limits: backends that no file leads to are not timed; the machine must be quiet.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np

from conv_impls import Conv2dProblem, conv2d, plan
from conv_impls.api import thread_count
from conv_impls.backends import auto
from conv_impls.choice import limits, probes, userdir
from conv_impls.choice.limits import FALLBACK, Numbers
from conv_impls.workloads import load

NETWORKS = "resnet50,vgg16,mobilenet_v2,convnext_tiny"
LAYER, SUM = 1.5, 1.15
FACTORS = 1 / 8, 1 / 4, 1 / 2, 2, 4, 8
# Another program held a core: of two threads one waits, and starting them takes milliseconds.
BUSY = dict.fromkeys(FALLBACK, 1 / 30) | {"call_s": 3000}
# Moments of the right limits; turns of each backend, and the seconds one takes at least.
MOMENTS, TURNS, TURN_S = 3, 5, 0.01


class Case(NamedTuple):
    """A layer as it is called."""

    problem: Conv2dProblem
    threads: int
    eager: bool


def files(right: dict[int, Numbers]) -> Iterator[tuple[str, dict[int, Numbers]]]:
    """Spoiled files, each with what is wrong in words."""
    every = tuple(right)
    for where in dict.fromkeys([*((threads,) for threads in every), every]):
        for names in [(name,) for name in FALLBACK] + [tuple(FALLBACK)]:
            for factor in FACTORS:
                words = (
                    f"{names[0] if len(names) == 1 else 'all'} x {factor:g} of {' and '.join(map(str, where))} threads"
                )
                yield words, changed(right, where, dict.fromkeys(names, factor))
    yield f"busy while {every[-1]} threads were measured", changed(right, every[-1:], BUSY)


def changed(right: dict[int, Numbers], where: tuple[int, ...], factors: Numbers) -> dict[int, Numbers]:
    return {
        threads: {name: value * (factors.get(name, 1) if threads in where else 1) for name, value in numbers.items()}
        for threads, numbers in right.items()
    }


def picks(file: dict[int, Numbers], cases: list[Case]) -> list[str]:
    """The backend for each case, by a file of these numbers."""
    date = datetime.now(UTC).isoformat(timespec="seconds")
    facts = {str(threads): [{"date": date, **numbers}] for threads, numbers in file.items()}
    userdir.add(limits.FILE, limits._stamp(), facts)
    limits.limits.cache_clear()
    limits._known.clear()
    return [auto.choose(case.problem, "standard", case.threads, case.eager) for case in cases]


def timed(wanted: list[tuple[Case, str]]) -> dict[tuple[Case, str], float]:
    """Median seconds of a call by each backend; turns are shuffled."""
    calls = {each: call(*each) for each in wanted}
    times: dict[tuple[Case, str], list[float]] = {each: [] for each in wanted}
    for turn in range(TURNS):
        print(f"turn {turn + 1} of {TURNS}: {len(wanted)} calls", file=sys.stderr)
        for each in random.Random(turn).sample(wanted, len(wanted)):
            times[each].append(seconds(calls[each]))
    return {each: median(found) for each, found in times.items()}


def call(case: Case, backend: str) -> Callable[[], object]:
    p, rng = case.problem, np.random.default_rng(0)
    x, weight = (rng.standard_normal(shape).astype(p.dtype) for shape in (p.input_shape, p.weight_shape))
    out = np.empty(p.output_shape, p.dtype)
    if not case.eager:
        ready = plan(p, weight, backend=backend, threads=case.threads)
        return lambda: ready(x, out)
    given: dict[str, Any] = {"stride": p.stride, "padding": p.padding, "dilation": p.dilation, "groups": p.groups}
    return lambda: conv2d(x, weight, backend=backend, threads=case.threads, out=out, **given)


def seconds(run: Callable[[], object]) -> float:
    """Least seconds of one call of a turn; the first finds the caches as another backend left them."""
    run()
    best, until = float("inf"), time.perf_counter() + TURN_S
    while best == float("inf") or time.perf_counter() < until:
        start = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - start)
    return best


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default=NETWORKS, help="names of workloads")
    parser.add_argument("--threads", default=f"1,{thread_count('wrong_limits', None)}", help="for example 1,2")
    asked = parser.parse_args()
    counts = sorted({int(count) for count in asked.threads.split(",")})
    networks = {name: list(load(name)) for name in asked.networks.split(",")}
    problems = list(dict.fromkeys(layer.problem for layers in networks.values() for layer in layers))
    cases = [Case(problem, threads, eager) for threads in counts for eager in (False, True) for problem in problems]
    right = {n: probes.best([probes.measure(n) for _ in range(MOMENTS)]) for n in sorted({1, *counts})}
    with TemporaryDirectory() as folder:
        os.environ["CONV_IMPLS_CACHE_DIR"] = folder
        rightly = picks(right, cases)
        wrongly = {words: picks(file, cases) for words, file in files(right)}
    every = [list(zip(cases, names, strict=True)) for names in (rightly, *wrongly.values())]
    times = timed(list(dict.fromkeys(each for pairs in every for each in pairs)))

    good, worst_layer, worst_sum = dict(every[0]), (1.0, "none"), (1.0, "none")
    for words, pairs in zip(wrongly, every[1:], strict=True):
        taken = dict(pairs)
        for case in cases:
            ratio = times[case, taken[case]] / times[case, good[case]]
            worst_layer = max(worst_layer, (ratio, f"{described(case)}: {taken[case]} for {good[case]}; {words}"))
        for name, layers in networks.items():
            for threads, eager in dict.fromkeys(case[1:] for case in cases):
                of = [(Case(layer.problem, threads, eager), layer.count) for layer in layers]
                new, old = (sum(count * times[case, names[case]] for case, count in of) for names in (taken, good))
                worst_sum = max(worst_sum, (new / old, f"{name}, {threads} threads, {mode(eager)}; {words}"))
    other = sum(names != rightly for names in wrongly.values())
    print(f"{len(wrongly)} files, {len(cases)} cases; {other} files lead to other backends somewhere")
    for most, (ratio, words), what in ((LAYER, worst_layer, "layer"), (SUM, worst_sum, "network")):
        print(f"{'holds' if ratio <= most else 'FAILS'}: no {what} above {most} times: {ratio:.3f} ({words})")
    return 0 if worst_layer[0] <= LAYER and worst_sum[0] <= SUM else 1


def described(case: Case) -> str:
    return f"{case.problem.label}, {case.threads} threads, {mode(case.eager)}"


def mode(eager: bool) -> str:
    return "eager" if eager else "planned"


if __name__ == "__main__":
    sys.exit(main())
