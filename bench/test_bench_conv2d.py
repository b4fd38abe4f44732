"""Every backend on every layer, timed by pytest-benchmark, for those who live in pytest; see bench/conftest.py.

The gate stands before the stopwatch: a `Subject` is checked, compiled and packed before the first round, and checked
again after the last. ``--benchmark-json`` of this is what ``python -m bench import`` reads.
Limits: one process for all backends, one after the other, warm caches; ``python -m bench run`` has a process for each,
and they take turns.
"""

from __future__ import annotations

import pytest
from msgspec.structs import asdict
from pytest_benchmark.fixture import BenchmarkFixture
from threadpoolctl import threadpool_limits

from conv_impls import Conv2dProblem, get_backend
from conv_impls.limits import fma_flops_per_s

from . import peers
from .run.subject import Limits, Subject, outcome
from .store.records import Case

# Rounds of a case, and the seconds they take together where that leaves a choice.
ROUNDS, TIMING_S = (6, 60), 0.25
PEAK_S = 0.006


@pytest.mark.benchmark(disable_gc=True)
def test_conv2d(case: Case, benchmark: BenchmarkFixture) -> None:
    made: list[Subject] = []

    def prepare() -> None:
        made.append(Subject(case, Limits(), seed=0))
        made[0].prepare()

    def check_again() -> None:
        made[0].turn(0.0)

    lacking = peers.missing(case.backend)
    if lacking is None:
        peers.load(case.backend)
    with threadpool_limits(case.threads):
        status, reason = outcome(prepare) if lacking is None else ("unsupported", lacking)
        if status in ("unsupported", "over_budget"):
            if benchmark.enabled:
                pytest.skip(f"{status}: {reason}")
            if status == "unsupported" and lacking is None and case.direction == "fwd":
                assert reason == get_backend(case.backend).supports(Conv2dProblem.from_label(case.label))
            return
        assert status == "ok", f"{status}: {reason}"
        (subject,) = made
        first = subject.turn(0.0)
        iterations = first["iterations"]
        rounds = int(TIMING_S / (iterations * first["samples_s"][0]))
        rounds = max(ROUNDS[0], min(ROUNDS[1], rounds))
        benchmark.group = f"{case.label} {case.direction} t{case.threads}"
        benchmark.pedantic(subject.calls[0].call, rounds=rounds, iterations=iterations, warmup_rounds=1)
        if benchmark.enabled:
            subject.facts["fma_peak_gflops"] = fma_flops_per_s(case.threads, "float32", PEAK_S) / 1e9
        benchmark.extra_info |= asdict(case) | subject.facts | {"status": "ok"}
        status, reason = outcome(check_again)
        # What fails here leaves no time behind.
        benchmark.has_error |= status != "ok"
        assert status == "ok", f"{status}: {reason}"
