"""The rule that picks a backend: numba_direct, unless a large dense kernel makes FFT cheaper.

Direct summation costs C_in*C_out/groups*kH*kW products for each output, whatever the image; FFT costs transforms of
C_in + C_out + C_in*C_out/groups planes and one product a frequency, whatever the kernel. The rule compares the two with
the constant below. Source: the operation counts of Mathieu, Henaff & LeCun 2014, arXiv:1312.5851, sec. 2.
Limits: one constant, fitted on one machine, no notion of caches; precision "strict" always means numba_direct.
"""

from __future__ import annotations

from math import log2

from conv_impls.problem import Conv2dProblem
from conv_impls.registry import backends, get_backend, register

# Products numba_direct does in the time scipy_fft does one operation of the count below; decision 0006 has the fit.
DIRECT_PER_FFT = 10.0


def fft_operations(problem: Conv2dProblem) -> float:
    """Multiply-adds of FFT convolution: real transforms at 2.5 P log2(P) halves, 4 for a complex product."""
    n, g = problem.batch, problem.groups
    pairs = problem.in_channels * problem.out_channels // g
    points = problem.padded_size[0] * problem.padded_size[1]
    transforms = n * (problem.in_channels + problem.out_channels) + pairs
    return transforms * 1.25 * points * log2(max(points, 2)) + 2 * n * pairs * points


@register(
    "auto",
    idea="numba_direct, unless the kernel is so large that FFT costs less",
    source="operation counts of Mathieu, Henaff & LeCun 2014, arXiv:1312.5851, sec. 2",
    accuracy="image",
    nan_spread="image where it picks FFT",
    threads="argument",
)
def choose(problem: Conv2dProblem, precision: str, threads: int, eager: bool) -> str:
    if precision == "strict" or problem.macs <= DIRECT_PER_FFT * fft_operations(problem):
        return "numba_direct"
    return "scipy_fft"


def candidates(problem: Conv2dProblem, precision: str, threads: int, eager: bool) -> list[str]:
    """Backends worth measuring for this problem, the best guess first."""
    names = [name for name in backends() if name.startswith("numba_") or name == "scipy_fft"]
    able = [
        backend.name
        for backend in map(get_backend, names)
        if backend.supports(problem) is None and (precision != "strict" or backend.accuracy == "direct")
    ]
    first = choose(problem, precision, threads, eager)
    return sorted(able, key=lambda name: name != first)
