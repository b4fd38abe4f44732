"""Does any layer become slower where sizes follow the caches of this machine? An experiment.

    python tests/cache_sizes.py                                          # the four networks, two minutes a thread count
    python tests/cache_sizes.py --threads 2 --turns 41 --networks vgg16
    python tests/cache_sizes.py --new 32,256,8192                        # L1, L2, L3 in KiB, not those of this machine
    python tests/cache_sizes.py --backends numba_simd --only panel       # one size of numba_simd alone

Each layer is planned twice in one process, with the caches that were assumed when sizes were constants and with those
of this machine, for the backend `auto` picks (or those named). The plans take turns, the first of a turn by chance; a
turn's time is the best of a few calls. Layers whose plans are equal, number by number, count as 1.
The exit code is 1 where new/old exceeds 1.03 for a layer or 1.01 for the sum of a network, in the median of the turns
and at the lower end of its interval. Limits: a busy machine shows itself by wide intervals; repeat it then.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from math import sqrt
from unittest.mock import patch

import numpy as np

from conv_impls import Conv2dProblem, get_backend, registry, workloads
from conv_impls.backends import numba_simd
from conv_impls.kernels.runtime import target
from conv_impls.kernels.runtime.job import Job
from conv_impls.validation import Array

NETWORKS = "resnet50", "vgg16", "mobilenet_v2", "convnext_tiny"
ASSUMED_KIB = 32, 1024, 8192
LAYER, SUM = 1.03, 1.01
# Seconds of the calls whose best is a turn's time.
TURN_S = 0.004


@contextmanager
def pretended(caches: target.Caches, budgets: numba_simd.Budgets | None = None) -> Iterator[None]:
    """Plans made here are for these caches, and those of `numba_simd` for these budgets."""
    of_simd = numba_simd.budgets if budgets is None else lambda: budgets
    with patch.object(target, "caches", lambda: caches), patch.object(numba_simd, "budgets", of_simd):
        yield


def planned(backend: str, problem: Conv2dProblem, threads: int, weight: Array) -> Job:
    call = get_backend(backend).prepare(problem, weight, None, threads).call
    assert isinstance(call, Job)
    return call


def equal(one: Job, two: Job) -> bool:
    """Whether two plans do the same: all numbers of their operands, and the size of the workspace."""
    pairs = zip(one._kept, two._kept, strict=True)
    return one.workspace_bytes == two.workspace_bytes and all(np.array_equal(a, b) for a, b in pairs)


def best_s(job: Job, x: Array, out: Array, calls: int) -> float:
    best = float("inf")
    for _ in range(calls):
        start = time.perf_counter()
        job(x, out)
        best = min(best, time.perf_counter() - start)
    return best


def turns_s(old: Job, new: Job, problem: Conv2dProblem, turns: int, rng: np.random.Generator) -> Array:
    """Seconds of (old, new) of each turn."""
    x = rng.standard_normal(problem.input_shape, "float32")
    out = np.empty(problem.output_shape, "float32")
    once_s = min(best_s(job, x, out, 2) for job in (old, new))
    calls, found = max(2, int(TURN_S / once_s)), np.empty((turns, 2))
    for turn in range(turns):
        for which in rng.permutation(2):
            found[turn, which] = best_s((old, new)[which], x, out, calls)
    return found


def interval(ratios: Array) -> tuple[float, float, float]:
    """Low, median, high: order statistics that hold the median with about 95%."""
    ordered, n = np.sort(ratios), len(ratios)
    reach = int(sqrt(n))
    return float(ordered[max(0, n // 2 - reach)]), float(np.median(ordered)), float(ordered[min(n - 1, n // 2 + reach)])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--backends", help="names instead of what auto picks; each layer by all that support it")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--turns", type=int, default=21)
    parser.add_argument("--new", help="L1,L2,L3 in KiB instead of those of this machine")
    parser.add_argument("--only", choices=numba_simd.Budgets._fields, help="the one size of numba_simd that follows")
    asked = parser.parse_args()
    rng, slower = np.random.default_rng(0), []
    old, new = (
        target.Caches(*(1024 * int(size) for size in kib)) for kib in (ASSUMED_KIB, (asked.new or "0,0,0").split(","))
    )
    new = new if asked.new else target.caches()
    budgets = None
    if asked.only:
        with pretended(new):
            following = numba_simd.budgets()
        with pretended(old):
            budgets = numba_simd.budgets()._replace(**{asked.only: getattr(following, asked.only)})
        new = old
    print(f"old: {old}\nnew: {budgets or new}")
    for network in asked.networks.split(","):
        sums = np.zeros((asked.turns, 2))
        for layer in workloads.load(network):
            problem = layer.problem
            picked = registry.resolve("cache_sizes", "auto", problem, "standard", asked.threads, False).name
            names = [picked] if asked.backends is None else asked.backends.split(",")
            for name in names:
                if get_backend(name).supports(problem) is not None or get_backend(name).kind != "prepare":
                    continue
                weight = rng.standard_normal(problem.weight_shape, "float32")
                with pretended(old):
                    before = planned(name, problem, asked.threads, weight)
                with pretended(new, budgets):
                    after = planned(name, problem, asked.threads, weight)
                times = turns_s(before, after, problem, asked.turns, rng)
                if equal(before, after):
                    times[:, 1] = times[:, 0]
                sums += layer.count * times
                low, middle, high = interval(times[:, 1] / times[:, 0])
                if low != high:
                    mark = "SLOWER" if middle > LAYER and low > 1 else ""
                    slower += [f"{network} {layer.name} {name}"] if mark else []
                    print(f"{network:<14}{layer.name:<24}{name:<20}{1e6 * np.median(times[:, 0]):9.0f} us"
                          f"  {low:.3f} {middle:.3f} {high:.3f} {mark}", flush=True)  # fmt: skip
        low, middle, high = interval(sums[:, 1] / sums[:, 0])
        mark = "SLOWER" if middle > SUM and low > 1 else ""
        slower += [network] if mark else []
        print(f"{network:<14}{'sum':<24}{'':<20}{1e6 * np.median(sums[:, 0]):9.0f} us"
              f"  {low:.3f} {middle:.3f} {high:.3f} {mark}", flush=True)  # fmt: skip
    print("holds" if not slower else "FAILS: " + ", ".join(slower))
    return 1 if slower else 0


if __name__ == "__main__":
    sys.exit(main())
