"""Overhead of the harness: a backend whose calls all take 1 ms, accurate to 0.1 us.

    python -m bench run --plugin bench.run.overhead --backends spin_1ms --workload smoke

The overhead is the excess of the medians of that run over 1 ms. This file is also the shortest example of a plug-in.
Limits: a call that the machine interrupts takes longer, and the times correctly show it.
"""

from __future__ import annotations

import time

from conv_impls import Conv2dProblem, get_backend
from conv_impls.registry import Prepared, register
from conv_impls.validation import Array

CALL_S = 1e-3


@register("spin_1ms", idea="numba_simd, then waiting until a millisecond is over", source="this package")
def prepare(problem: Conv2dProblem, weight: Array, bias: Array | None, threads: int) -> Prepared:
    convolve, clock = get_backend("numba_simd").prepare(problem, weight, bias, threads).call, time.perf_counter

    def call(x: Array, out: Array) -> None:
        until = clock() + CALL_S
        convolve(x, out)
        while clock() < until:
            pass

    return Prepared(call)
