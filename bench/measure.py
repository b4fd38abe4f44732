"""One case from problem to record: probe, check, time, check again.

    probe    the layer cut to a few output rows, integers, whole output compared; its time, scaled, is the estimate
    budget   a case estimated beyond its share is recorded as over_budget, with the estimate, and not run
    check    integers on the whole layer where that is quick, then normal data within the published bound
    time     the samples of the timer handed in, plan and output made before; compile and prepare kept apart
    check    the last timed output, against the same reference

Nothing raised by a backend gets past here: it becomes a status with a reason.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np

from bench import stats
from bench.check import Verdict, check_integers, integer_inputs, normal_inputs, sampled_check
from bench.store import Case, Record
from conv_impls import Conv2dProblem, Plan, UnsupportedError, get_backend, plan
from conv_impls.validation import Array

# (function to call, warm-up rounds, rounds, calls a round) -> seconds a call, one for each round.
Timer = Callable[[Callable[[], object], int, int, int], list[float]]

PROBE_ROWS = 16
# Estimates beyond this many times the limit are believed: a second probe of such a case would itself take long.
HOPELESS = 6
# Integers on the whole layer cost one more call and one more reference: worth it below this estimate.
WHOLE_CHECK_S = 0.15
# A round shorter than this is made of several calls, so that the timer's resolution does not show.
ROUND_S = 50e-6
MIN_ROUNDS, MAX_ROUNDS = 3, 30
# OpenBLAS's idle threads spin for a while after the reference, and would take a core from the backend: on two cores
# numba_direct took 7 ms where it takes 1. `machine.thread_variables` makes them stop after 6 ms; this outlasts it.
SETTLE_S = 0.012


@dataclass(frozen=True)
class Limits:
    """How long things may take, in seconds.

    All rounds of a quick case, all rounds of a slow one (which may be a single round), one call and its check, and the
    end of the run on the monotonic clock.
    """

    rounds_s: float = 0.12
    slow_s: float = 0.7
    case_s: float = 1.2
    deadline: float = float("inf")


class WrongResult(Exception):
    """A check failed; the text says how."""


class OverBudget(Exception):
    """The estimate breaks a limit; the text says which."""


def measure(case: Case, limits: Limits, seed: int, environment_id: str, timer: Timer) -> Record:
    """Measure one case; never raises for what a backend does wrong."""
    facts: dict[str, Any] = {}
    try:
        _measure(case, limits, seed, timer, facts)
        status, reason = "ok", ""
    except UnsupportedError as error:
        status, reason = "unsupported", str(error)
    except WrongResult as error:
        status, reason = "wrong_result", str(error)
    except OverBudget as error:
        status, reason = "over_budget", str(error)
    except MemoryError as error:
        status, reason = "oom", str(error) or "out of memory"
    # A backend may raise anything, SystemExit included, and one broken backend must not end the run.
    except (Exception, SystemExit) as error:
        status, reason = "error", f"{type(error).__name__}: {error}"
    if status != "ok":
        for name in ("samples_s", "median_s", "iqr_s", "gflops_effective"):
            facts.pop(name, None)
    return Record(case, status, reason, environment_id, **facts)


def check_only(case: Case, seed: int) -> Record:
    """The checks of `measure` without the timing: probe, integers, normal data."""
    return measure(
        case, Limits(case_s=float("inf")), seed, "", lambda call, warmup, rounds, iterations: [_seconds(call)]
    )


def shrunk(problem: Conv2dProblem, rows: int) -> Conv2dProblem:
    """The same layer with at most this many output rows: everything else about it stays."""
    rows = min(rows, problem.out_size[0])
    top, bottom = problem.padding[0]
    needed = (rows - 1) * problem.stride[0] + problem.dilation[0] * (problem.kernel_size[0] - 1) + 1 - top - bottom
    # Padding that mirrors or repeats the image needs enough of it.
    least = 1 if problem.padding_mode == "zeros" else max(top, bottom) + 1
    height = min(problem.in_size[0], max(least, needed))
    return problem.replace(in_size=(height, problem.in_size[1]))


def _measure(case: Case, limits: Limits, seed: int, timer: Timer, facts: dict[str, Any]) -> None:
    problem = Conv2dProblem.from_label(case.label)
    reason = get_backend(case.backend).supports(problem)
    if reason:
        raise UnsupportedError(reason)
    estimate = _estimate(case, problem, limits, seed, facts)
    facts["estimate_s"] = estimate
    # Twice: the call that is checked and the one that is timed.
    if 2 * estimate > limits.case_s:
        raise OverBudget(f"about {estimate:.3g} s a call, twice that is over the {limits.case_s:g} s of a case")
    if time.monotonic() + 2 * estimate > limits.deadline:
        raise OverBudget(f"about {estimate:.3g} s a call, and the time budget of the run is used up")

    x, weight = normal_inputs(problem, seed)
    ready = _plan(case, problem, weight, facts)
    if estimate < WHOLE_CHECK_S and _exact(ready):
        whole_x, whole_w = integer_inputs(problem, seed)
        _raise(check_integers(_plan(case, problem, whole_w, {})(whole_x), problem, seed))
    compare = sampled_check(problem, get_backend(ready.backend).accuracy, seed)
    out = np.empty(problem.output_shape, problem.dtype)
    start = time.perf_counter()
    ready(x, out=out)
    facts["first_call_s"] = time.perf_counter() - start
    if facts["first_call_s"] > limits.case_s:
        raise OverBudget(f"the first call took {facts['first_call_s']:.3g} s, over the {limits.case_s:g} s of a case")
    verdict = compare(out)
    facts |= {"error": verdict.error, "error_over_bound": verdict.error_over_bound}
    _raise(verdict)

    quick = estimate < limits.rounds_s
    once = _seconds(lambda: ready(x, out=out)) if quick else facts["first_call_s"]
    rounds = max(MIN_ROUNDS, min(MAX_ROUNDS, int(limits.rounds_s / max(once, 1e-9))))
    rounds = max(1, min(rounds, int(limits.slow_s / max(once, 1e-9))))
    iterations = max(1, ceil(ROUND_S / max(once, 1e-9)))
    out.fill(np.nan)
    time.sleep(SETTLE_S)
    samples = timer(lambda: ready(x, out=out), int(quick), rounds, iterations)
    _raise(compare(out), "after timing: ")
    middle = stats.median(samples)
    facts |= {
        "samples_s": samples, "iterations": iterations, "median_s": middle, "iqr_s": stats.iqr(samples),
        "gflops_effective": problem.flops / middle / 1e9,
    }  # fmt: skip


def _estimate(case: Case, problem: Conv2dProblem, limits: Limits, seed: int, facts: dict[str, Any]) -> float:
    """Seconds one call of the whole layer should take, from one or two cut ones, which are checked on the way."""
    rows = ceil(problem.out_size[0] / PROBE_ROWS)
    small, seconds = _probe(case, problem, rows, seed, facts)
    estimate = seconds * problem.macs / max(small.macs, 1)
    if not limits.case_s < 2 * estimate < HOPELESS * limits.case_s or 2 * rows >= problem.out_size[0]:
        return estimate
    # Scaling multiplies what a call costs whatever its height (the transform of the kernels, say). Before a case is
    # given up for it, a second height tells the two parts apart.
    taller, more = _probe(case, problem, 2 * rows, seed, facts)
    slope = max(0.0, more - seconds) / max(taller.macs - small.macs, 1)
    return min(estimate, more + slope * (problem.macs - taller.macs))


def _probe(
    case: Case, problem: Conv2dProblem, rows: int, seed: int, facts: dict[str, Any]
) -> tuple[Conv2dProblem, float]:
    """The layer cut to this many output rows, checked with integers, and its time."""
    small = shrunk(problem, rows)
    x, weight = integer_inputs(small, seed)
    ready = _plan(case, small, weight, facts)
    out = np.empty(small.output_shape, small.dtype)
    cold = _seconds(lambda: ready(x, out=out))
    if _exact(ready):
        _raise(check_integers(out, small, seed))
    # The first call may still pay for page faults and thread start; a second tells, where it is cheap.
    return small, min(cold, _seconds(lambda: ready(x, out=out))) if cold < 0.05 else cold


def _plan(case: Case, problem: Conv2dProblem, weight: Array, facts: dict[str, Any]) -> Plan:
    ready = plan(problem, weight, backend=case.backend, threads=case.threads)
    facts["algorithm"] = ready.backend
    # The probe compiles, the layer packs: the larger of both is what a user pays.
    facts["compile_s"] = max(facts.get("compile_s", 0.0), ready.compile_s)
    facts |= {
        "prepare_s": ready.prepare_s,
        "packed_bytes": ready.packed_bytes,
        "workspace_bytes": ready.workspace_bytes,
    }
    return ready


def _exact(ready: Plan) -> bool:
    return get_backend(ready.backend).accuracy == "direct"


def _raise(verdict: Verdict, prefix: str = "") -> None:
    if verdict.problem:
        raise WrongResult(prefix + verdict.problem)


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
