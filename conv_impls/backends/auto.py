"""The backend that a cost model, calibrated on this machine's measured limits, expects to be fastest.

The model is `conv_impls.choice.cost`. It chooses among direct summation, Winograd F(2x2), F(4x4) and F(2x2, 5x5),
depthwise and FFT. Precision "strict" allows only the direct ones. Backends that would need more memory than
`workspace_bound` are excluded.
A winner measured by `conv_impls.plan(..., tune=True)` has priority over the model.
Limits: F(6x6) is never chosen, because its error is larger than a user would expect.
"""

from __future__ import annotations

from collections.abc import Iterator

from conv_impls.choice.cost import estimates, fits
from conv_impls.kernels.runtime import target
from conv_impls.problem import Conv2dProblem
from conv_impls.registry import get_backend, register

# Backends used if NUMBA_DISABLE_JIT is set, best first; the model's numbers are for compiled code.
UNCOMPILED = ("numpy_strided", "scipy_fft", "numpy_im2col")


@register(
    "auto",
    idea="whichever of the fast backends a cost model expects to be fastest here",
    source="Williams, Waterman & Patterson 2009, doi:10.1145/1498765.1498785",
    accuracy="image",
    nan_spread="that of the backend it picks, the image at most",
    # The choice may depend on the number of threads.
    deterministic="no",
    threads="argument",
)
def choose(problem: Conv2dProblem, precision: str, threads: int, eager: bool) -> str:
    return next(_able(problem, precision, threads, eager))


def candidates(problem: Conv2dProblem, precision: str, threads: int, eager: bool) -> list[str]:
    """Backends worth measuring for this problem, the best guess first."""
    return list(_able(problem, precision, threads, eager))


def _able(problem: Conv2dProblem, precision: str, threads: int, eager: bool) -> Iterator[str]:
    """Yield one at a time, so that a choice imports no backend after the chosen one.

    numba_simd and numpy_im2col predict no workspace, so one backend is always left.
    """
    for name in _ranked(problem, threads, eager) if target.compiles() else UNCOMPILED:
        backend = get_backend(name)
        able = backend.supports(problem) is None and (precision != "strict" or backend.accuracy == "direct")
        if able and fits(backend, problem, threads):
            yield name


def _ranked(problem: Conv2dProblem, threads: int, eager: bool) -> list[str]:
    expected = estimates(problem, threads, eager)
    return sorted(expected, key=expected.__getitem__)
