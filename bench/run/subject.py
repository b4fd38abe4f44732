"""One case in the process of its backend: computes and times what the parent orders. It checks no results.

    probe    the layer cut to a few output rows: its outputs, and the time of a call
    ready    the whole layer: planned and called once; its outputs
    turn     samples of the call, each on a new image, and a few outputs of each
    last     one more call and all its outputs; and times of calls on new and on repeated images

Each sample scales the image in place, outside the timed section, by a power of two or its negative that was not used
before: a backend that caches answers returns a wrong one. If a call is shorter than `SAMPLE_S`, a sample has several
calls, which alternate between two images. Each failure is an exception that has a status.
Cold caches are made by rotation: enough copies of image, weights and output that each is evicted before its next call;
"weights" rotates only the weights, like a network that runs layer after layer. Source: oneDNN's benchdnn,
doc/knob_cold_cache.md. Limits: copies for a cold cache keep their image; a call slower than `QUICK_S` may have fewer
samples in a turn than `FEWEST_SAMPLES`; a backend that looks up answers by content, and needs more than a third of a
call for that, is not distinguished from one with warm caches. It gains nothing, because samples use new images.
"""

from __future__ import annotations

import gc
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from math import ceil

# Imported before any backend is loaded: replacing time.perf_counter later has no effect here.
from time import perf_counter as clock
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from conv_impls import Conv2dProblem, UnsupportedError

from ..machine.usage import PeakMemory, involuntary_switches
from ..store.records import Case

if TYPE_CHECKING:
    from conv_impls.validation import Array

# A sample is at least this long, so that the timer's resolution does not matter.
SAMPLE_S = 50e-6
# Samples per turn. Quick calls get at least FEWEST_SAMPLES: one or two disturbed ones then do not move the median.
FEWEST_SAMPLES, MOST_SAMPLES = 5, 20
# Calls up to QUICK_S are quick. A turn of slower calls takes about TURN_S, at least one call.
QUICK_S, TURN_S = 4e-3, 20e-3
# Warm-up calls of a turn; their minimum time sets the number of calls in the turn.
WARM_UPS = 3
# Calls longer than this get no warm-up: refilling the caches costs only a few milliseconds.
SLOW_S = 0.1
# A first call longer than this many times the probe's estimate does not predict the next call.
SURPRISE = 2.0
# Maximum time of a call on a new image: this factor times that on a repeated image, plus these seconds.
REMEMBERED_TIMES, REMEMBERED_S = 3.0, 5e-6
# Minimum number of images for that comparison, if a call is at most SLOW_S.
FEWEST_SEEN = 3
# Time limit for making the copies for a cold cache.
ROTATION_S = 3.0
# Called with the next stage (plan, call or check). The parent has a timeout for each.
Note = Callable[[str], None]


class Unreliable(Exception):
    """The requested measurement is not possible here."""


class ChangedInput(Exception):
    """A backend wrote to its image or its weights."""


def outcome(action: Callable[[], None]) -> tuple[str, str]:
    """Run a step of a case; returns its status and reason. Catches every exception of a backend."""
    try:
        action()
    except UnsupportedError as error:
        return "unsupported", str(error)
    except ChangedInput:
        return "wrong_result", "it changed its input"
    except Unreliable as error:
        return "unreliable", str(error)
    except MemoryError as error:
        return "oom", str(error) or "out of memory"
    # A backend may raise any exception, also SystemExit. One broken backend must not end the run.
    except (Exception, SystemExit) as error:
        return "error", f"{type(error).__name__}: {error}"
    return "ok", ""


@dataclass
class Bound:
    """A prepared call on one image, with functions to read its result and to pass a changed image."""

    x: Array
    call: Callable[[], Any]
    read: Callable[[Any], Array]
    renew: Callable[[], None]
    # Returns the same plan, with the same output, for another image.
    other: Callable[[Array], Bound]
    scale: float = 1.0


def planned(ready: Callable[..., Any], shape: tuple[int, ...], x: Array) -> Bound:
    """A call of a plan that writes to an output of this shape."""
    # Outputs that the backend does not write stay NaN.
    out = np.full(shape, np.nan, x.dtype)

    def bound(x: Array) -> Bound:
        return Bound(x, partial(ready, x, out=out), lambda _: out, lambda: None, bound)

    return bound(x)


class Calls(Protocol):
    """How a backend is called: `bench.run.calls`, or `bench.run.public_calls` with public names only."""

    # How the backend gets its weights: planned or eager.
    mode: str

    def bound(self, given: Conv2dProblem, x: Array, weight: Array) -> tuple[Bound, dict[str, Any]]:
        """A call on these arrays (those of `bench.run.directions.as_forward`), and facts for its record."""


class Subject:
    """One running case; ``facts`` are the fields of its record that are known so far."""

    def __init__(self, case: Case, calls: Calls, note: Note = lambda stage: None) -> None:
        self.case, self.note, self._calls = case, note, calls
        self.given = case.problem
        self.facts: dict[str, Any] = {"mode": calls.mode}
        self._promised_s = 0.0

    def probe(self, rows: int, x: Array, weight: Array) -> tuple[Array, dict[str, Any]]:
        """The layer cut to this many output rows: its outputs, and the seconds of a call."""
        cut = shrunk(self.given, rows)
        bound = self._bound(cut, x, weight)
        self.note("call")
        returned, seconds = _timed(bound.call)
        y = bound.read(returned)
        # The first call may include page faults and thread start. If calls are cheap, three more are timed.
        if seconds < 0.05:
            # Copied, because the outputs must be those of the first call.
            y = y.copy()
            seconds = min(seconds, *(_timed(bound.call)[1] for _ in range(3)))
        self._promised_s = seconds * self.given.macs / max(cut.macs, 1)
        return y, {"call_s": seconds}

    def ready(self, x: Array, weight: Array, rotate_bytes: int) -> tuple[Array, dict[str, Any]]:
        """The whole layer: its outputs, and the seconds of a call that is not the first."""
        # The original image; calls read scaled copies of it.
        self._base, self._weight = x, weight
        self._digest = zlib.crc32(np.ascontiguousarray(weight).data)
        with PeakMemory() as memory:
            bound = self._bound(self.given, x.copy(), weight)
            self.note("call")
            returned, self.facts["first_call_s"] = _timed(bound.call)
        self.facts["peak_bytes"] = memory.added_bytes
        y = bound.read(returned).copy()
        self._shape, self._bytes = y.shape, x.nbytes + weight.nbytes + y.nbytes
        once_s = self.facts["first_call_s"]
        # The first call may be many times as long as the next, so it does not predict how many turns fit. A slow call
        # is repeated only if it took far longer than the probe's estimate.
        if once_s < SLOW_S or once_s > SURPRISE * self._promised_s:
            once_s = min(once_s, _timed(bound.call)[1])
        self._unchanged(bound)
        self._bounds = [bound] if self.case.cache == "warm" else self._rotation(bound, rotate_bytes)
        self._next = cycle(self._bounds)
        self._once_s = once_s
        return y, {"once_s": once_s}

    def turn(self, seconds: float, scales: list[float], at: list[int]) -> dict[str, Any]:
        """Samples of about ``seconds`` in total, in seconds per call.

        ``scales`` are for the images, one or two per sample; ``at`` are flat indices of the outputs that are read after
        each sample.
        """
        self.note("call")
        drawn = iter(scales)
        places = np.unravel_index(np.array(at), self._shape)
        warm = self.case.cache == "warm"
        began = clock()
        # Warm-up calls refill the caches; they are not samples.
        warming = (WARM_UPS if self._once_s < QUICK_S else self._once_s < SLOW_S) if warm else 0
        alone = [self._sample(1, drawn, places)["seconds"] for _ in range(warming)]
        once_s = max(min(alone, default=self._once_s), 1e-9)
        # The minimum so far: a delayed warm-up call must not reduce the samples of this turn or the next.
        self._once_s = min(self._once_s, once_s)
        iterations = ceil(SAMPLE_S / once_s) if warm and once_s < SAMPLE_S else 1
        if iterations > 1 and len(self._bounds) == 1:
            self._bounds.append(self._bounds[0].other(self._base.copy()))
            self._next = cycle(self._bounds)
        fewest = FEWEST_SAMPLES if self._once_s < QUICK_S else ceil(TURN_S / self._once_s)
        count = max(fewest, min(MOST_SAMPLES, int(seconds / (once_s * iterations))))
        gc.disable()
        try:
            samples = [self._sample(iterations, drawn, places) for _ in range(count)]
        finally:
            gc.enable()
        return {
            "began": began, "ended": clock(), "iterations": iterations,
            "samples_s": [s["seconds"] for s in samples], "switches": [s["switches"] for s in samples],
            "read_s": [s["read_s"] for s in samples], "scales": [s["scale"] for s in samples],
            "values": [s["values"] for s in samples], "scales_left": sum(1 for _ in drawn),
        }  # fmt: skip

    def stretch(self, seconds: float) -> dict[str, Any]:
        """Calls without a pause; returns their number and their total time."""
        self.note("call")
        call, calls, began = self._bounds[0].call, 0, clock()
        while (spent_s := clock() - began) < seconds or not calls:
            call()
            calls += 1
        return {"calls": calls, "seconds": spent_s}

    def last(self, scales: list[float]) -> tuple[Array, dict[str, Any]]:
        """All outputs of one more call, on an image times one of ``scales``.

        Each of these images is called twice, at least ``FEWEST_SEEN`` images, until the fastest call on a new image
        takes about as long as the fastest on a repeated one: a stall can slow down single calls of both kinds. Before
        each comes a call on another image, because threads that slept during the scaling slow down the next call.
        """
        self.note("call")
        bound, fresh_s, seen_s = self._bounds[0], list[float](), list[float]()
        quick = self._once_s < SLOW_S
        before = bound.other(self._base.copy()).call if quick else None
        for scale in scales:
            self._rescale(bound, scale)
            for times_s in (fresh_s, seen_s):
                if before is not None:
                    before()
                returned, seconds = _timed(bound.call)
                times_s.append(seconds)
            if len(seen_s) >= (FEWEST_SEEN if quick else 1) and not remembers(fresh_s, seen_s):
                break
        y = bound.read(returned)
        self._unchanged(bound)
        return y, {"scale": bound.scale, "fresh_s": fresh_s, "seen_s": seen_s}

    def _sample(self, iterations: int, scales: Iterator[float], places: tuple[Any, ...]) -> dict[str, Any]:
        """One sample, in seconds per call; the scale of its image, and a few outputs of its last call."""
        order = list(islice(self._next, iterations))
        if self.case.cache != "cold":
            for bound in order[:2]:
                self._rescale(bound, next(scales))
        calls, returned = [bound.call for bound in order], None
        before = involuntary_switches()
        start = clock()
        for call in calls:
            # Free the last output first, so that a library that allocates its output can reuse the memory.
            returned = None
            returned = call()
        end = clock()
        after = involuntary_switches()
        y = order[-1].read(returned)
        values = y[places].astype(np.float64)
        read_s = clock() - end
        return {
            "seconds": (end - start) / iterations, "switches": after - before, "read_s": read_s,
            "scale": order[-1].scale, "values": [v if np.isfinite(v) else None for v in values.tolist()],
        }  # fmt: skip

    def _rescale(self, bound: Bound, scale: float) -> None:
        np.multiply(self._base, self._base.dtype.type(scale), out=bound.x)
        bound.scale = scale
        bound.renew()

    def _unchanged(self, bound: Bound) -> None:
        same = np.array_equal(bound.x, self._base * self._base.dtype.type(bound.scale))
        if not same or zlib.crc32(np.ascontiguousarray(self._weight).data) != self._digest:
            raise ChangedInput

    def _bound(self, given: Conv2dProblem, x: Array, weight: Array) -> Bound:
        """Bind the backend to one problem and its arrays; adds its choices to the facts."""
        self.note("plan")
        bound, facts = self._calls.bound(given, x, weight)
        # The probe compiles, the whole layer packs: the larger time of both is the cost for a user.
        facts["compile_s"] = max(self.facts.get("compile_s", 0.0), facts["compile_s"])
        self.facts |= facts
        return bound

    def _rotation(self, first: Bound, rotate_bytes: int) -> list[Bound]:
        """Calls on copies that together are much larger than the caches."""
        cold = self.case.cache == "cold"
        one = self._bytes if cold else self._weight.nbytes
        needed = max(2, -(-rotate_bytes // one))
        made, until = [first], clock() + ROTATION_S
        while len(made) < needed:
            if clock() > until:
                reached, wanted = len(made) * one / 2**20, rotate_bytes / 2**20
                raise Unreliable(
                    f"the caches hold {wanted:.0f} MiB, but only {reached:.1f} MiB of copies were made in time"
                )
            # Each copy has its own image; if only the weights are cold, all share the same image.
            scale = 2.0 ** (len(made) % 8) if cold else 1.0
            image = self._base * self._base.dtype.type(scale) if cold else first.x
            made.append(self._bound(self.given, image, self._weight))
            made[-1].scale = scale
        return made


def remembers(fresh_s: list[float], seen_s: list[float]) -> bool:
    """Whether the backend caches answers: all calls on new images took much longer than one on a repeated image."""
    return min(fresh_s) > REMEMBERED_TIMES * min(seen_s) + REMEMBERED_S


def shrunk(problem: Conv2dProblem, rows: int) -> Conv2dProblem:
    """The same layer with at most this many output rows; everything else is unchanged."""
    rows = min(rows, problem.out_size[0])
    top, bottom = problem.padding[0]
    needed = (rows - 1) * problem.stride[0] + problem.dilation[0] * (problem.kernel_size[0] - 1) + 1 - top - bottom
    # Padding that mirrors or repeats the image needs enough rows of it.
    least = 1 if problem.padding_mode == "zeros" else max(top, bottom) + 1
    height = min(problem.in_size[0], max(least, needed))
    return problem.replace(in_size=(height, problem.in_size[1]))


def _timed(call: Callable[[], Any]) -> tuple[Any, float]:
    start = clock()
    returned = call()
    return returned, clock() - start
