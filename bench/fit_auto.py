"""Fit the constant of the rule in `conv_impls/backends/auto.py`: ``python -m bench.fit_auto``, about a minute.

Times numba_direct and scipy_fft on large kernels and prints, for some constants, how much slower than the better of the
two the rule's choice is: at worst and on (geometric) average. Source: decision 0006.
"""

from __future__ import annotations

import time
from itertools import product

import numpy as np

from bench.measure import SETTLE_S
from bench.stats import geometric_mean, median
from conv_impls import Conv2dProblem, plan
from conv_impls.backends.auto import fft_operations

IMAGES = (64, 128, 256)
# in_channels, out_channels, groups
CHANNELS = ((1, 1, 1), (4, 4, 1), (16, 16, 1), (64, 64, 1), (64, 64, 64))
KERNELS = (7, 15, 31, 63)
CONSTANTS = (4, 6, 8, 10, 12, 16, 20, 24, 32)
# Beyond this a single direct call takes seconds, and the answer is clear.
MOST_MACS = 6e10


def seconds(problem: Conv2dProblem, backend: str) -> float:
    """Median time of up to 15 planned calls."""
    rng = np.random.default_rng(0)
    x, weight = (rng.standard_normal(shape, np.float32) for shape in (problem.input_shape, problem.weight_shape))
    ready, out = plan(problem, weight, backend=backend), np.empty(problem.output_shape, np.float32)
    ready(x, out=out)
    time.sleep(SETTLE_S)
    ready(x, out=out)
    samples: list[float] = []
    while len(samples) < 3 or (sum(samples) < 0.3 and len(samples) < 15):
        start = time.perf_counter()
        ready(x, out=out)
        samples.append(time.perf_counter() - start)
    return median(samples)


def main() -> None:
    """Time every problem, then try every constant."""
    points = []
    for size, (ic, oc, groups), kernel in product(IMAGES, CHANNELS, KERNELS):
        if kernel >= size:
            continue
        sides = ((kernel // 2, kernel // 2), (kernel // 2, kernel // 2))
        problem = Conv2dProblem(1, ic, (size, size), oc, (kernel, kernel), padding=sides, groups=groups)
        if problem.macs > MOST_MACS:
            continue
        ratio = seconds(problem, "numba_direct") / seconds(problem, "scipy_fft")
        points.append((problem.macs / fft_operations(problem), ratio))
        print(f"{problem.label:<60} direct takes {ratio:.2f} times as long as FFT", flush=True)
    for constant in CONSTANTS:
        regret = [max(1.0, ratio if cost <= constant else 1 / ratio) for cost, ratio in points]
        print(f"constant {constant:>2}: worst choice {max(regret):.2f}, average {geometric_mean(regret):.3f}")


if __name__ == "__main__":
    main()
