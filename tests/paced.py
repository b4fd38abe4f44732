"""A plug-in of `bench run` with one backend, `auto` whose every call takes a share longer: ``PACED_SHARE=0.1``."""

from __future__ import annotations

import os
from dataclasses import replace
from time import perf_counter
from typing import Any

from conv_impls import Conv2dProblem, plan, register
from conv_impls.validation import Array

SHARE = float(os.environ.get("PACED_SHARE", "0"))


@register("paced", idea="auto, slowed on purpose", source="ours")
def prepare(problem: Conv2dProblem, weight: Array, bias: Array | None, threads: int) -> Any:
    right = plan(problem, weight, bias, backend="auto", threads=threads)

    def call(x: Array, out: Array) -> None:
        start = perf_counter()
        right(x, out=out)
        end = perf_counter()
        until = end + SHARE * (end - start)
        while perf_counter() < until:
            pass

    return replace(right.prepared, call=call, algorithm=right.backend)
