"""A fixed piece of work of a layer's size, done by NumPy's BLAS: what the machine makes of it now.

Two runs are minutes or months apart, and what other programs leave of caches and memory differs by then; the peak of
the multiply-adds, which live in registers, does not see it. Work of the same size on arrays of the same size does. No
version of a backend changes it, so times of two runs can be compared in its units (`bench.analysis.compare`).
The work: for each tap of the filter the product of a weight matrix with the image's channels. These are the
multiply-adds of the layer, up to `MOST_MACS`. Limits: another BLAS is another yardstick.
"""

from __future__ import annotations

from time import perf_counter
from typing import Any

import numpy as np

from conv_impls import Conv2dProblem

# A call of the yardstick has no more multiply-adds than this: about a millisecond on one core of today.
MOST_MACS = 5 * 10**7
# Calls, of which the median counts; the one before them fills the caches.
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
        # With one channel a group the product is an outer one, for which a BLAS call a group is slow.
        self._product = np.multiply if columns == 1 else np.matmul
        self._weight = np.ones((g, rows, columns), problem.dtype)
        self._image = np.ones((images, g, columns, pixels), problem.dtype)
        self._out = np.empty((images, g, rows, pixels), problem.dtype)

    def seconds(self) -> float:
        """The median time of some calls."""
        times = [self._call() for _ in range(1 + CALLS)]
        return float(np.median(times[1:]))

    def _call(self) -> float:
        start = perf_counter()
        for _ in range(self.taps):
            self._product(self._weight, self._image, out=self._out)
        return perf_counter() - start


def yardstick_s(label: str, known: dict[str, Any]) -> float:
    """Seconds of the yardstick of a label; ``known`` holds the one that was used last."""
    if label not in known:
        known.clear()
        known[label] = Yardstick(Conv2dProblem.from_label(label))
    return float(known[label].seconds())
