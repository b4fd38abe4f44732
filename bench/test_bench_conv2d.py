"""Every backend on every layer, timed by pytest-benchmark; ``python -m bench run`` runs it in a child process.

The gate stands before the stopwatch: `bench.measure` checks the backend, and calls the timer only then; a wrong result
is a record without a time. Compilation, packing and the first call are over before the first round.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from bench.measure import Limits, measure
from bench.store import Case, Run
from conv_impls import Conv2dProblem, get_backend


@pytest.mark.usefixtures("started")
def test_conv2d(
    case_key: str,
    cases: dict[str, Case],
    limits: Limits,
    run: Run | None,
    orphaned: Callable[[], bool],
    request: pytest.FixtureRequest,
) -> None:
    case = cases[case_key]

    def stopwatch(call: Callable[[], object], warmup: int, rounds: int, iterations: int) -> list[float]:
        # The fixture is asked for here, since one that goes unused (an unsupported case, say) draws a warning.
        benchmark = request.getfixturevalue("benchmark")
        benchmark.extra_info |= {"label": case.label, "backend": case.backend, "threads": case.threads}
        if run is not None and benchmark.disabled:
            raise RuntimeError("pytest-benchmark is disabled; run without --benchmark-disable and without xdist")
        start = time.perf_counter()
        benchmark.pedantic(call, rounds=rounds, iterations=iterations, warmup_rounds=warmup)
        # Disabled, as in ordinary test runs, it has called once and kept no time.
        once = time.perf_counter() - start
        return [once] if benchmark.disabled else [float(s) for s in benchmark.stats.stats.data]

    seed = run.config["seed"] if run else 0
    environment_id = run.environment["id"] if run else ""
    record = measure(case, limits, seed, environment_id, stopwatch)
    if run is None:
        refused = get_backend(case.backend).supports(Conv2dProblem.from_label(case.label)) is not None
        expected = ("unsupported",) if refused else ("ok", "over_budget")
        assert record.status in expected, record.reason
    elif not orphaned():
        run.append(record)
