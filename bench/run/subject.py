"""One case from problem to samples, in the process of its backend: probe, check, time, check again.

    probe    the layer cut to a few output rows, integers, whole output compared; its time, scaled, is the estimate
    budget   a case estimated beyond what a call may take is over_budget, with the estimate, and not run
    check    integers on the whole layer where that is quick, then normal data within the published bound
    turn     samples of the call, after one that warms up; plan and output made before; compile and prepare kept apart
    check    the output of each turn, against the same reference

A `Subject` goes through this as `bench.run.worker` is told to. What goes wrong is an exception that has a status.
Cold caches are made by rotation: enough copies of image, weights and output that each is evicted before its next call;
"weights" rotates those alone, as a network does that runs layer after layer. Source: oneDNN's benchdnn,
doc/knob_cold_cache.md.
"""

from __future__ import annotations

import gc
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import ceil
from typing import Any

import numpy as np

from conv_impls import Conv2dProblem, UnsupportedError, backends, get_backend, plan
from conv_impls.validation import Array

from ..machine.usage import PeakMemory
from ..peers import GRADIENTS
from ..store.records import Case
from .check import SampledCheck, Verdict, check_integers, integer_inputs, normal_inputs
from .directions import as_forward, every

PROBE_ROWS = 16
# Estimates beyond this many times the limit are believed: a second probe of such a case would itself take long.
HOPELESS = 6
# Integers on the whole layer cost one more call and one more reference: worth it below this estimate.
WHOLE_CHECK_S = 0.15
# A sample shorter than this is made of several calls, so that the timer's resolution does not show.
SAMPLE_S = 50e-6
MAX_SAMPLES = 30
# A slower call is not made twice in a turn: reading all caches anew takes a few milliseconds of it.
SLOW_S = 0.1
# Making copies for a cold cache takes no longer than this.
ROTATION_S = 3.0
# What is about to be done: plan, call or check. The parent allows each its time.
Note = Callable[[str], None]


@dataclass(frozen=True)
class Limits:
    """Seconds a call may take and the bytes a cold cache must be flooded with."""

    call_s: float = 0.6
    rotate_bytes: int = 64 * 2**20


class WrongResult(Exception):
    """A check failed; the text says how."""


class OverBudget(Exception):
    """The estimate breaks a limit; the text says which."""


class Unreliable(Exception):
    """What was asked for cannot be measured here."""


def outcome(action: Callable[[], None]) -> tuple[str, str]:
    """The status and reason that a step of a case ends with; nothing a backend raises gets past here."""
    try:
        action()
    except UnsupportedError as error:
        return "unsupported", str(error)
    except WrongResult as error:
        return "wrong_result", str(error)
    except OverBudget as error:
        return "over_budget", str(error)
    except Unreliable as error:
        return "unreliable", str(error)
    except MemoryError as error:
        return "oom", str(error) or "out of memory"
    # A backend may raise anything, SystemExit included, and one broken backend must not end the run.
    except (Exception, SystemExit) as error:
        return "error", f"{type(error).__name__}: {error}"
    return "ok", ""


@dataclass(frozen=True)
class Bound:
    """A call with everything in place, how to read the array it computed, and that array, where it is ours."""

    call: Callable[[], Any]
    read: Callable[[Any], Array]
    out: Array | None = None


class Subject:
    """One case under way; ``facts`` are the fields of its record known so far."""

    def __init__(self, case: Case, limits: Limits, seed: int, note: Note = lambda stage: None) -> None:
        self.case, self.limits, self.seed, self.note = case, limits, seed, note
        self.given = Conv2dProblem.from_label(case.label)
        self.problem = as_forward(self.given, case.direction)
        self.every = every(self.given, case.direction)
        self.facts: dict[str, Any] = {}
        self._gradient = GRADIENTS.get((case.backend, case.direction))
        self._done = 0
        # Seconds of a call that is not the first.
        self.once_s = 0.0

    def prepare(self) -> None:
        """Probe, check and make ready; afterwards `turn` may be called any number of times."""
        facts, limit = self.facts, self.limits.call_s
        backend = get_backend(self.case.backend)
        facts["mode"] = backend.mode
        if reason := backend.supports(self.given if self._gradient else self.problem):
            raise UnsupportedError(reason)
        estimate = facts["estimate_s"] = self._estimate()
        if estimate > limit:
            raise OverBudget(f"about {estimate:.3g} s a call, over the {limit:g} s one may take")
        if estimate < WHOLE_CHECK_S:
            self._check_integers(self.given)
        x, weight = self.arrays = normal_inputs(self.problem, self.seed, self.every)
        self.digest = self._digest()
        with PeakMemory() as memory:
            bound, accuracy = self._bound(self.given, x, weight)
            self.note("call")
            start = time.perf_counter()
            returned = bound.call()
            facts["first_call_s"] = time.perf_counter() - start
        facts["peak_bytes"] = memory.added_bytes
        self.note("check")
        self.compare = SampledCheck(self.problem, accuracy, self.seed, self.every)
        verdict = self._verdict(bound, returned)
        facts |= {"error": verdict.error, "error_over_bound": verdict.error_over_bound}
        _raise(verdict)
        self.once_s = facts["first_call_s"]
        if self.once_s > 2 * limit:
            raise OverBudget(f"the first call took {self.once_s:.3g} s, one may take {limit:g}")
        # The first call may be many times as long as the next, and says nothing of how many turns there is time for.
        if self.once_s < SLOW_S:
            self.note("call")
            self.once_s = _seconds(bound.call)
        self.calls = [bound] if self.case.cache == "warm" else self._rotation(bound, x, weight)

    def turn(self, seconds: float) -> dict[str, Any]:
        """Samples of about so many seconds in all, in seconds a call; the last output is checked afterwards.

        Calls before them fill the caches anew, unless cold ones are asked for, or a call takes so long that it does not
        matter what the caches held.
        """
        self.note("call")
        calls, clock, warm = self.calls, time.perf_counter, self.case.cache == "warm"
        if warm and self.once_s < SLOW_S:
            calls[0].call()
            self.once_s = _seconds(calls[0].call)
        once = max(self.once_s, 1e-9)
        iterations = max(1, ceil(SAMPLE_S / once)) if warm else 1
        count = max(1, min(MAX_SAMPLES, int(seconds / (once * iterations))))
        samples, returned = [], None
        gc.disable()
        try:
            for i in range(self._done, self._done + count):
                bound = calls[i % len(calls)]
                call = bound.call
                start = clock()
                for _ in range(iterations):
                    # A library that allocates its output finds the memory of the last one free.
                    returned = None
                    returned = call()
                samples.append((clock() - start) / iterations)
        finally:
            gc.enable()
        self._done += count
        self.note("check")
        _raise(self._verdict(bound, returned), "after timing: ")
        return {"samples_s": samples, "iterations": iterations}

    def _estimate(self) -> float:
        """Seconds one call of the whole layer should take, from one or two cut ones, which are checked on the way."""
        limit, rows = self.limits.call_s, self.given.out_size[0]
        cut = ceil(rows / PROBE_ROWS)
        macs, seconds = self._probe(cut)
        estimate = seconds * self.given.macs / max(macs, 1)
        if not limit < estimate < HOPELESS * limit or 2 * cut >= rows:
            return estimate
        # Scaling multiplies what a call costs whatever its height (the transform of the kernels, say). Before a case
        # is given up for it, a second height tells the two parts apart.
        more_macs, more_s = self._probe(2 * cut)
        slope = max(0.0, more_s - seconds) / max(more_macs - macs, 1)
        return min(estimate, more_s + slope * (self.given.macs - more_macs))

    def _probe(self, rows: int) -> tuple[int, float]:
        """Multiply-adds and seconds of the layer cut to this many output rows, which is checked on the way."""
        small = shrunk(self.given, rows)
        bound, seconds = self._check_integers(small)
        # The first call may still pay for page faults and thread start; more tell, where they are cheap.
        if seconds < 0.05:
            self.note("call")
            seconds = min(seconds, *(_seconds(bound.call) for _ in range(3)))
        return small.macs, seconds

    def _check_integers(self, given: Conv2dProblem) -> tuple[Bound, float]:
        """The call on integers, exact where the backend sums directly, and the time of the first."""
        problem = as_forward(given, self.case.direction)
        bound, accuracy = self._bound(given, *integer_inputs(problem, self.seed, self.every))
        self.note("call")
        start = time.perf_counter()
        returned = bound.call()
        seconds = time.perf_counter() - start
        # F(2x2) has no products but with halves and quarters.
        if accuracy in ("direct", "tile2"):
            self.note("check")
            _raise(check_integers(bound.read(returned), problem, self.seed, self.every))
        return bound, seconds

    def _bound(self, given: Conv2dProblem, x: Array, weight: Array) -> tuple[Bound, str]:
        """The backend on one problem and its arrays, and the accuracy class of what it picked."""
        self.note("plan")
        case, facts = self.case, self.facts
        problem = as_forward(given, case.direction)
        start = time.perf_counter()
        if self._gradient is None:
            ready = plan(problem, weight, backend=case.backend, threads=case.threads)
            made, name, prepare_s = ready.prepared, ready.backend, ready.prepare_s
        else:
            made, name = self._gradient(given, weight, case.threads), case.backend
            prepare_s = time.perf_counter() - start
        # Our own calls tell which backend they picked; a library names an algorithm of its own.
        accuracy = get_backend(made.algorithm if made.algorithm in backends() else name).accuracy
        executed = made.executed_flops
        # A library does not tell what it does inside; direct summation of ours does what the definition says.
        if executed is None and not made.algorithm and accuracy == "direct":
            executed = problem.flops
        facts |= {
            "algorithm": made.algorithm or name, "executed_flops": executed, "prepare_s": prepare_s,
            # The probe compiles, the layer packs: the larger of both is what a user pays.
            "compile_s": max(facts.get("compile_s", 0.0), made.compile_s),
            "packed_bytes": made.packed_bytes, "workspace_bytes": made.workspace_bytes,
        }  # fmt: skip
        if made.bind is not None:
            return Bound(*made.bind(x)[:2]), accuracy
        # NaN where the backend leaves an output unwritten.
        out = np.full(problem.output_shape, np.nan, problem.dtype)
        return Bound(partial(ready, x, out=out), lambda y: y, out), accuracy

    def _verdict(self, bound: Bound, returned: Any) -> Verdict:
        if self._digest() != self.digest:
            return Verdict("it changed its input")
        verdict = self.compare(bound.read(returned))
        # A later call that writes nothing must not live on what this one left.
        if bound.out is not None:
            bound.out.fill(np.nan)
        return verdict

    def _digest(self) -> list[int]:
        return [zlib.crc32(array.data) for array in self.arrays]

    def _rotation(self, first: Bound, x: Array, weight: Array) -> list[Bound]:
        """Calls on copies that together are larger than the caches by far."""
        one = weight.nbytes if self.case.cache == "weights" else self.problem.min_bytes
        needed = max(2, -(-self.limits.rotate_bytes // one))
        calls, until = [first], time.perf_counter() + ROTATION_S
        while len(calls) < needed:
            if time.perf_counter() > until:
                reached = len(calls) * one / 2**20
                wanted = self.limits.rotate_bytes / 2**20
                raise Unreliable(f"the caches hold {wanted:.0f} MiB, copies of only {reached:.1f} were made in time")
            # An array of its own each time, or the very same image where only weights are to be cold.
            image = x if self.case.cache == "weights" else x.copy()
            calls.append(self._bound(self.given, image, weight)[0])
        return calls


def shrunk(problem: Conv2dProblem, rows: int) -> Conv2dProblem:
    """The same layer with at most this many output rows: everything else about it stays."""
    rows = min(rows, problem.out_size[0])
    top, bottom = problem.padding[0]
    needed = (rows - 1) * problem.stride[0] + problem.dilation[0] * (problem.kernel_size[0] - 1) + 1 - top - bottom
    # Padding that mirrors or repeats the image needs enough of it.
    least = 1 if problem.padding_mode == "zeros" else max(top, bottom) + 1
    height = min(problem.in_size[0], max(least, needed))
    return problem.replace(in_size=(height, problem.in_size[1]))


def _raise(verdict: Verdict, prefix: str = "") -> None:
    if verdict.problem:
        raise WrongResult(prefix + verdict.problem)


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
