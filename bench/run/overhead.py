"""What the harness itself adds: a backend whose every call takes a millisecond, to the tenth of a microsecond.

    python -m bench run --plugin bench.run.overhead --backends spin_1ms --workload smoke

Whatever the medians of that run have beyond 1 ms is the harness. It is also the shortest example of a plug-in. Limits:
a call that is interrupted by the machine takes longer, and is rightly seen to.
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
