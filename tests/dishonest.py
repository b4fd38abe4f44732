"""Backends that seem right and fast and are not, as a plug-in of `bench run`: the usual mistakes and tricks.

Each is honest on small problems, so that it passes the checks of a cut layer, or honest for a while.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np

from bench.run import subject
from conv_impls import Conv2dProblem, get_backend, register
from conv_impls.registry import Prepared
from conv_impls.validation import Array

Call = Callable[[Array, Array], None]
# More than the layer of the tests has when it is cut to a few rows, less than the whole.
CUT_MACS = 1_000_000
# A thread that is started begins so much later: on a busy machine it could else be done before the call returns.
LATER_S = 1e-3


def honest(problem: Conv2dProblem, weight: Array) -> Call:
    return get_backend("numpy_strided").prepare(problem, weight, None, 1).call


def planned(make: Callable[[Conv2dProblem, Call], Call]) -> None:
    """Register a backend that makes its call of the right one."""

    @register(make.__name__)
    def prepare(problem: Conv2dProblem, weight: Array, bias: Array | None, threads: int) -> Any:
        return make(problem, honest(problem, weight))


def remembering(key: Callable[[Array], Any]) -> Callable[[Conv2dProblem, Call], Call]:
    def make(problem: Conv2dProblem, right: Call) -> Call:
        known: dict[Any, Array] = {}

        def call(x: Array, out: Array) -> None:
            name = key(x)
            if name not in known:
                right(x, out)
                known[name] = out.copy()
            out[...] = known[name]

        return call

    return make


def named(name: str, make: Callable[[Conv2dProblem, Call], Call]) -> None:
    make.__name__ = name
    planned(make)


named("remembers_by_id", remembering(id))
named("remembers_by_shape", remembering(lambda x: x.shape))
named("remembers_by_content", remembering(lambda x: x.tobytes()))
named("remembers_by_a_few_numbers", remembering(lambda x: (x.flat[0] > 0, x.flat[-1] > 0)))


@planned
def marks_its_output(problem: Conv2dProblem, right: Call) -> Call:
    marks: list[float] = []

    def call(x: Array, out: Array) -> None:
        if marks and out.flat[0] == marks[0]:
            return
        right(x, out)
        marks[:] = [float(out.flat[0])]

    return call


@planned
def skips_what_is_there(problem: Conv2dProblem, right: Call) -> Call:
    def call(x: Array, out: Array) -> None:
        if np.isnan(out.flat[0]):
            right(x, out)

    return call


@planned
def every_second_call(problem: Conv2dProblem, right: Call) -> Call:
    calls = [0]

    def call(x: Array, out: Array) -> None:
        calls[0] += 1
        if calls[0] % 2:
            right(x, out)

    return call


@register("lazy")
def lazy(problem: Conv2dProblem, weight: Array, bias: Array | None, threads: int) -> Prepared:
    right = honest(problem, weight)

    def bind(x: Array) -> Any:
        def read(asked: Any) -> Array:
            out = np.empty(problem.output_shape, x.dtype)
            right(x, out)
            return out

        return (lambda: x), read

    return Prepared(right, bind=bind)


@planned
def asynchronous(problem: Conv2dProblem, right: Call) -> Call:
    def call(x: Array, out: Array) -> None:
        def later() -> None:
            time.sleep(LATER_S)
            y = np.empty_like(out)
            right(x, y)
            out[...] = y

        threading.Thread(target=later).start()

    return call


@register("asynchronous_until_read")
def asynchronous_until_read(problem: Conv2dProblem, weight: Array, bias: Array | None, threads: int) -> Prepared:
    right = honest(problem, weight)

    def bind(x: Array) -> Any:
        out = np.empty(problem.output_shape, x.dtype)

        def later() -> None:
            time.sleep(LATER_S)
            right(x, out)

        def call() -> threading.Thread:
            thread = threading.Thread(target=later)
            thread.start()
            return thread

        def read(thread: threading.Thread) -> Array:
            thread.join()
            return out

        return call, read

    return Prepared(right, bind=bind)


@planned
def wrong_at_one_output(problem: Conv2dProblem, right: Call) -> Call:
    def call(x: Array, out: Array) -> None:
        right(x, out)
        if problem.macs > CUT_MACS:
            out.flat[2 * out.size // 3] *= 1.01

    return call


@planned
def wrong_at_one_output_after_forty_calls(problem: Conv2dProblem, right: Call) -> Call:
    calls = [0]

    def call(x: Array, out: Array) -> None:
        right(x, out)
        calls[0] += 1
        if calls[0] > 40:
            out.flat[2 * out.size // 3] *= 1.01

    return call


@planned
def wrong_after_forty_calls(problem: Conv2dProblem, right: Call) -> Call:
    calls = [0]

    def call(x: Array, out: Array) -> None:
        calls[0] += 1
        if calls[0] <= 40:
            right(x, out)

    return call


def rounding(round_: Callable[[Array], Array], *, both: bool) -> Callable[..., Any]:
    def prepare(problem: Conv2dProblem, weight: Array, bias: Array | None, threads: int) -> Call:
        right = honest(problem, round_(weight) if both else weight)
        return lambda x, out: right(round_(x), out)

    return prepare


def bfloat16(array: Array) -> Array:
    bits = np.ascontiguousarray(array, np.float32).view(np.uint32) & np.uint32(0xFFFF0000)
    return bits.view(np.float32)


def float16(array: Array) -> Array:
    # Halves have few exponents: scale them as a real kernel would.
    size = float(np.abs(array).max()) or 1.0
    return ((array / size).astype(np.float16).astype(np.float32) * np.float32(size)).astype(array.dtype)


for both in (True, False):
    operands = "both" if both else "image"
    register(f"float16_{operands}")(rounding(float16, both=both))
    register(f"bfloat16_{operands}")(rounding(bfloat16, both=both))
register("float16_tiles", accuracy="tile6")(rounding(float16, both=True))
register("float16_fft", accuracy="image")(rounding(float16, both=True))


@planned
def slows_the_clock(problem: Conv2dProblem, right: Call) -> Call:
    real = time.perf_counter
    start = real()
    time.perf_counter = lambda: start + (real() - start) / 50
    vars(subject)["clock"] = time.perf_counter
    return right


@planned
def stops_the_clock(problem: Conv2dProblem, right: Call) -> Call:
    real, stopped = time.perf_counter, [0.0]
    vars(subject)["clock"] = lambda: real() - stopped[0]

    def call(x: Array, out: Array) -> None:
        start = real()
        right(x, out)
        stopped[0] += real() - start

    return call


@planned
def answers_for_the_harness(problem: Conv2dProblem, right: Call) -> Call:
    line = b'{"status": "ok", "reason": "", "samples_s": [1e-9], "iterations": 1, "facts": {}}\n'
    for number in range(3, 4096):
        with suppress(OSError):
            os.write(number, line)
    return right


@planned
def replaces_the_harness(problem: Conv2dProblem, right: Call) -> Call:
    def turn(self: Any, seconds: float, scales: list[float], at: list[int]) -> dict[str, Any]:
        now = time.perf_counter()
        return {
            "began": now, "ended": time.perf_counter(), "iterations": 1, "samples_s": [1e-8] * 5, "switches": [0] * 5,
            "read_s": 1e-7, "scales": scales[:5], "values": [[0.0] * len(at)] * 5, "scales_left": 10,
        }  # fmt: skip

    subject.Subject.turn = turn  # type: ignore[method-assign]
    return right


@planned
def zeros_elsewhere(problem: Conv2dProblem, right: Call) -> Call:
    def call(x: Array, out: Array) -> None:
        if problem.macs <= CUT_MACS:
            right(x, out)
        else:
            out.fill(0)

    return call
