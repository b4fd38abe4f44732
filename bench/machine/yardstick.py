"""A fixed amount of work of a layer's size in NumPy's BLAS; its time shows the current speed of the machine.

Two runs are minutes or months apart, and other programs then leave different shares of caches and memory free. The FMA
peak uses only registers and does not show this; work of the same size on arrays of the same size does. The work does
not depend on the version of a backend, so it is a unit for times of two runs (`bench.analysis.compare`).
The work: for each filter tap, the product of a weight matrix with the image's channels. These are the
multiply-adds of the layer, up to `MOST_MACS`. Limits: times with different BLAS libraries cannot be compared.
"""

from __future__ import annotations

from time import perf_counter
from typing import Any

import numpy as np

from conv_impls import Conv2dProblem

# Maximum multiply-adds of one call: about a millisecond on one current core.
MOST_MACS = 5 * 10**7
# Timed calls; the result is their median. One call before them warms the caches.
CALLS = 3


class Yardstick:
    """The arrays of the work for one layer."""

    def __init__(self, problem: Conv2dProblem) -> None:
        g, pixels = problem.groups, max(1, problem.out_size[0] * problem.out_size[1])
        rows, columns = problem.out_channels // g, problem.in_channels // g
        macs = problem.out_channels * columns * pixels
        images = max(1, min(problem.batch, MOST_MACS // max(macs, 1)))
        taps = problem.kernel_size[0] * problem.kernel_size[1]
        self.taps = max(1, min(taps, MOST_MACS // max(images * macs, 1)))
        # With one channel per group the product is an outer product, and one BLAS call per group is slow.
        self._product = np.multiply if columns == 1 else np.matmul
        self._weight = np.ones((g, rows, columns), problem.dtype)
        self._image = np.ones((images, g, columns, pixels), problem.dtype)
        self._out = np.empty((images, g, rows, pixels), problem.dtype)

    def seconds(self) -> float:
        """Median time of `CALLS` calls."""
        times = [self._call() for _ in range(1 + CALLS)]
        return float(np.median(times[1:]))

    def _call(self) -> float:
        start = perf_counter()
        for _ in range(self.taps):
            self._product(self._weight, self._image, out=self._out)
        return perf_counter() - start


def yardstick_s(label: str, known: dict[str, Any]) -> float:
    """Seconds of the yardstick of a label; ``known`` caches the last one."""
    if label not in known:
        known.clear()
        known[label] = Yardstick(Conv2dProblem.from_label(label))
    return float(known[label].seconds())
