"""Is a backend right on a problem? Asked before any timing, and again of the last timed output.

Direct methods get small integers, for which every order of summation is exact: the whole output must equal the
reference, bit for bit. Then everyone gets normal data, and sampled outputs must lie within the bound published for the
backend's accuracy class (`conv_impls.reference.error_bound`, `norm_bound`). Sources: integer filling, oneDNN benchdnn
doc/driver_conv.md; sampled float64 checks, XNNPACK bench/dequantization_bmm.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from conv_impls import Conv2dProblem
from conv_impls.reference import Float64, error_bound, norm_bound, reference, reference_at, sample_outputs
from conv_impls.validation import Array, Pair

SAMPLES = 256
# With |x| and |w| <= 4, sums of up to 2**20 products are exact in float32.
INTEGERS = (-4, 5)
# Data and references of a layer are made once: two of each, for the cut layer and the whole.
KEPT = 2


@dataclass(frozen=True)
class Verdict:
    """``problem`` is empty where the result is right, else says what is wrong."""

    problem: str
    error: float | None = None
    error_over_bound: float | None = None


@lru_cache(maxsize=KEPT)
def integer_inputs(problem: Conv2dProblem, seed: int, every: Pair = (1, 1)) -> tuple[Array, Array]:
    """Small integers in the problem's dtype; read-only, so that no backend can spoil them for the next.

    Rows and columns of the image between each ``every``-th are zero.
    """
    rng = np.random.default_rng(seed)
    return _ready((rng.integers(*INTEGERS, shape, np.int8).astype(problem.dtype) for shape in _shapes(problem)), every)


@lru_cache(maxsize=KEPT)
def normal_inputs(problem: Conv2dProblem, seed: int, every: Pair = (1, 1)) -> tuple[Array, Array]:
    """Standard normal data in the problem's dtype, read-only, with zeros as in `integer_inputs`."""
    rng = np.random.default_rng(seed)
    return _ready((rng.standard_normal(shape, np.dtype(problem.dtype).type) for shape in _shapes(problem)), every)


def _shapes(problem: Conv2dProblem) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return problem.input_shape, problem.weight_shape


def _ready(arrays: Iterable[Array], every: Pair) -> tuple[Array, Array]:
    x, weight = arrays
    if every != (1, 1):
        kept = (..., slice(None, None, every[0]), slice(None, None, every[1]))
        full, x = x, np.zeros_like(x)
        x[kept] = full[kept]
    x.flags.writeable = weight.flags.writeable = False
    return x, weight


@lru_cache(maxsize=KEPT)
def integer_reference(problem: Conv2dProblem, seed: int, every: Pair = (1, 1)) -> Float64:
    """The exact answer for `integer_inputs`, kept while more is asked of one layer."""
    return reference(*integer_inputs(problem, seed, every), None, problem)


def check_integers(y: Array, problem: Conv2dProblem, seed: int, every: Pair = (1, 1)) -> Verdict:
    """Every output equals the reference exactly."""
    expected = integer_reference(problem, seed, every)
    if y.shape != expected.shape:
        return Verdict(f"shape {y.shape}, expected {expected.shape}")
    wrong = ~(y == expected)
    if not wrong.any():
        return Verdict("")
    at = tuple(int(i) for i in np.argwhere(wrong)[0])
    facts = f"{int(wrong.sum())} of {y.size} outputs differ, first at {at}: got {y[at]}, expected {expected[at]:g}"
    return Verdict(f"integer inputs: {facts}")


class SampledCheck:
    """The reference and bound of one problem's normal data at sampled outputs, made once, asked often."""

    def __init__(self, problem: Conv2dProblem, accuracy: str, seed: int, every: Pair = (1, 1)) -> None:
        x, weight = normal_inputs(problem, seed, every)
        self.shape = problem.output_shape
        self.at = sample_outputs(problem, SAMPLES, seed)
        self.expected = reference_at(x, weight, None, problem, self.at)
        self.bound = error_bound(x, weight, None, problem, accuracy, self.at)
        self.norm_bound = norm_bound(problem, accuracy)

    def __call__(self, y: Array) -> Verdict:
        """Compare one output."""
        if y.shape != self.shape:
            return Verdict(f"shape {y.shape}, expected {self.shape}")
        got = y[tuple(self.at.T)].astype(np.float64)
        distance = np.abs(got - self.expected)
        scale = float(np.abs(self.expected).max()) or 1.0
        inside = distance <= self.bound
        ratio = float((distance / np.maximum(self.bound, np.finfo(np.float64).tiny)).max())
        relative_l2 = float(np.linalg.norm(distance) / (np.linalg.norm(self.expected) or 1.0))
        if inside.all() and relative_l2 > self.norm_bound:
            return Verdict(
                f"normal inputs: relative L2 error {relative_l2:.2g}, at most {self.norm_bound:.2g} is allowed"
            )
        if inside.all():
            return Verdict("", float(distance.max()) / scale, ratio)
        worst = int(np.argmax(np.where(np.isfinite(distance), distance - self.bound, np.inf)))
        at = tuple(int(i) for i in self.at[worst])
        facts = f"{int((~inside).sum())} of {len(inside)} sampled outputs beyond the bound"
        numbers = f"got {got[worst]:.8g}, expected {self.expected[worst]:.8g} +- {self.bound[worst]:.2g}"
        return Verdict(f"normal inputs: {facts}, worst at {at}: {numbers}")
