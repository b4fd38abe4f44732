"""Correctness checks. The parent process checks results; a backend process only computes and never has the reference.

`Expected` is one layer: its data, its float64 reference and the error bounds of every accuracy class. They are computed
once and shared by all backends. It checks whole outputs. It also checks a few outputs of an image that was scaled by a
power of two or its negative. The correct result then has the same scale, bit for bit, so a cached answer is wrong.

Integers test the sum exactly: direct methods and F(2x2) must reproduce them bit for bit, all others after rounding.
Normal data tests the rounding: each output must be within the bound of its class, and so must the norm of all errors
(`conv_impls.reference.error_bounds`, `norm_bound`). Sources: integer filling, oneDNN benchdnn doc/driver_conv.md;
float64 checks before any timing, XNNPACK bench/dequantization_bmm.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import lcm

import numpy as np
from numpy.typing import NDArray

from conv_impls import Conv2dProblem
from conv_impls.reference import Float64, error_bounds, norm_bound, reference
from conv_impls.validation import Array, Pair

# With |x| and |w| <= 2, sums of up to 2**22 products are exact in float32, and the errors of FFT stay below 0.5.
INTEGERS = (-2, 3)
# Classes whose arithmetic on integers is exact: the transforms of F(2x2) only multiply by halves and quarters.
EXACT = ("direct", "tile2")
# Largest exponent of a scale: sums of products of normal data times 2**70, or 2**-70, stay inside float32.
EXPONENT = 70


@dataclass(frozen=True)
class Verdict:
    """``problem`` is empty if the result is correct; otherwise it describes the error."""

    problem: str
    error: float | None = None
    error_over_bound: float | None = None


class Expected:
    """Data of one layer and its correct result.

    Parameters
    ----------
    problem : Conv2dProblem
        The convolution that is computed; for gradients, the one of `bench.run.directions.as_forward`.
    seed : int
    integers : bool
        Small integers instead of standard normal data.
    every : (int, int)
        Only every ``every``-th row and column of the image is non-zero.
    """

    def __init__(self, problem: Conv2dProblem, seed: int, integers: bool = False, every: Pair = (1, 1)) -> None:
        self.problem, self.integers = problem, integers
        rng = np.random.default_rng(seed)
        kind = np.dtype(problem.dtype).type
        shapes = problem.input_shape, problem.weight_shape
        if integers:
            self.x, self.weight = (rng.integers(*INTEGERS, shape, np.int8).astype(kind) for shape in shapes)
        else:
            self.x, self.weight = (rng.standard_normal(shape, kind) for shape in shapes)
        if every != (1, 1):
            kept = (..., slice(None, None, every[0]), slice(None, None, every[1]))
            full, self.x = self.x, np.zeros_like(self.x)
            self.x[kept] = full[kept]
        self._bounds: dict[str, Float64] = {}
        # Stride phases: pixels of a tile are a multiple of the stride apart (`conv_impls.adjoint`).
        self._spacing = lcm(every[0], problem.dilation[0]), lcm(every[1], problem.dilation[1])

    @cached_property
    def y(self) -> Float64:
        """The correct output, (N, C_out, H_out, W_out) in float64."""
        return reference(self.x, self.weight, None, self.problem)

    @cached_property
    def size(self) -> float:
        """The largest absolute value of the correct output; 1 if all are zero."""
        return float(np.abs(self.y).max()) or 1.0

    def bounds(self, accuracy: str) -> Float64:
        """The largest allowed error of each output."""
        if accuracy not in self._bounds:
            found = error_bounds(self.x, self.weight, None, self.problem, accuracy, self._spacing)
            self._bounds[accuracy] = np.broadcast_to(found, self.problem.output_shape)
        return self._bounds[accuracy]

    def whole(self, y: Array, accuracy: str, scale: float = 1.0) -> Verdict:
        """Check every output of the image times ``scale``."""
        if y.shape != self.problem.output_shape or y.dtype != self.problem.dtype:
            return Verdict(f"got {y.shape} {y.dtype}, expected {self.problem.output_shape} {self.problem.dtype}")
        # A power of two or its negative: the division is exact.
        got = y.astype(np.float64) / scale
        if self.integers and accuracy in EXACT:
            return self._exact(got, got)
        with np.errstate(invalid="ignore"):
            distance = np.abs(got - self.y)
        bounds = self.bounds(accuracy)
        # Negated `<=` instead of `>`: NaN counts as outside.
        outside = ~(distance <= bounds)
        if outside.any():
            return Verdict(self._words(outside, got, distance, bounds))
        if self.integers:
            return self._exact(np.rint(got), got)
        # Sums of squares by NumPy itself: threads of BLAS would still spin during the next turn.
        relative = float(np.sqrt(np.square(distance).sum() / (np.square(self.y).sum() or 1.0)))
        if relative > (allowed := norm_bound(self.problem, accuracy)):
            return Verdict(f"normal inputs: relative L2 error {relative:.2g}, at most {allowed:.2g} is allowed")
        ratio = distance / np.maximum(bounds, np.finfo(np.float64).tiny)
        return Verdict("", float(distance.max()) / self.size, float(ratio.max()))

    def some(self, values: NDArray[np.float64], at: NDArray[np.intp], accuracy: str, scale: float) -> Verdict:
        """Check a few outputs, at these flat indices, of the image times ``scale``."""
        expected, bounds = self.y.reshape(-1)[at], self.bounds(accuracy)[np.unravel_index(at, self.y.shape)]
        with np.errstate(invalid="ignore"):
            got = values / scale
            outside = ~(np.abs(got - expected) <= bounds)
        if not outside.any():
            return Verdict("")
        first = int(np.argmax(outside))
        where = tuple(int(i) for i in np.unravel_index(at[first], self.y.shape))
        return Verdict(f"at {where} of a new image: got {got[first]:.8g}, expected {expected[first]:.8g}")

    def _exact(self, rounded: Float64, got: Float64) -> Verdict:
        wrong = rounded != self.y
        if not wrong.any():
            return Verdict("")
        at = tuple(int(i) for i in np.argwhere(wrong)[0])
        facts = f"{int(wrong.sum())} of {got.size} outputs differ, first at {at}: got {got[at]}"
        return Verdict(f"integer inputs: {facts}, expected {self.y[at]:g}")

    def _words(self, outside: NDArray[np.bool_], got: Float64, distance: Float64, bounds: Float64) -> str:
        over = np.where(np.isfinite(distance), distance - bounds, np.inf)
        at = tuple(int(i) for i in np.unravel_index(int(over.argmax()), over.shape))
        kind = "integer" if self.integers else "normal"
        facts = f"{int(outside.sum())} of {got.size} outputs beyond the bound, worst at {at}"
        return f"{kind} inputs: {facts}: got {got[at]:.8g}, expected {self.y[at]:.8g} +- {bounds[at]:.2g}"


def scales(seed: int) -> list[float]:
    """Powers of two and their negatives, each once, in random order (seeded).

    The image times a scale is a new image. Its correct output is the old one times the scale, bit for bit.

    Examples
    --------
    >>> drawn = scales(0)
    >>> len(drawn), len(set(drawn)), min(map(abs, drawn)) == 2.0**-EXPONENT
    (282, 282, True)
    """
    exponents = np.random.default_rng(seed).permutation(2 * (2 * EXPONENT + 1))
    return [float((-1.0) ** (i % 2) * 2.0 ** (int(i) // 2 - EXPONENT)) for i in exponents]
