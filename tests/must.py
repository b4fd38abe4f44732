"""What each registered backend must accept, written from what it promises and not from its code.

Limits: a backend without a row is held to its own ``supports``.
"""

from __future__ import annotations

from collections.abc import Callable

from conv_impls import Conv2dProblem, get_backend, registry


def everything(problem: Conv2dProblem) -> bool:
    return True


def depthwise(problem: Conv2dProblem) -> bool:
    return problem.groups == problem.in_channels


Limits = Callable[[Conv2dProblem], bool]


def tiles(taps: dict[int, set[int]]) -> Limits:
    """Square kernels, rows and columns of so many taps by stride, which is equal along both axes.

    Dilation only with stride 1, and groups have at least four channels.
    """

    def must(problem: Conv2dProblem) -> bool:
        sizes, strides = set(problem.kernel_size) - {1}, set(problem.stride)
        dilated = any(d > 1 for d, k in zip(problem.dilation, problem.kernel_size, strict=True) if k > 1)
        if len(sizes) != 1 or len(strides) != 1 or (dilated and strides != {1}):
            return False
        deep = problem.groups == 1 or problem.in_channels // problem.groups >= 4
        return deep and sizes <= taps.get(min(strides), set())

    return must


MUST: dict[str, Limits] = {
    "auto": everything,
    "numba_depthwise": depthwise,
    "numba_direct": everything,
    "numba_simd": everything,
    "numba_winograd": tiles({1: {2, 3, 4, 5, 6, 7}, 2: {3, 4, 5, 6, 7}}),
    "numba_winograd_f2": tiles({1: {2, 3, 6}, 2: {3, 4, 5, 6}}),
    "numba_winograd_f2_5x5": tiles({1: {4, 5, 7}, 2: {7}}),
    "numba_winograd_f4": tiles({1: {2, 3}, 2: {3}}),
    "numba_winograd_f6": tiles({1: {2, 3}}),
    "numpy_im2col": everything,
    "numpy_strided": everything,
    "python_loops": everything,
    "scipy_fft": everything,
}
BACKENDS = sorted(registry.sources())


def limits(backend: str) -> Limits:
    return MUST.get(backend, lambda problem: get_backend(backend).supports(problem) is None)
