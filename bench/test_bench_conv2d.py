"""Every backend on every layer as a pytest-benchmark; `bench.run.session` measures and provides the times.

    python -m pytest bench --benchmark-only --bench-workload resnet50 --bench-backends fast
    python -m pytest bench --benchmark-only --bench-workload smoke --benchmark-group-by=param:layer -k winograd

Without ``--benchmark-only``, each case is an ordinary test against the float64 reference.
"""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from .run.harness import CLOCK, Result, replay


# The parameters have the names of a case's fields, so that --benchmark-group-by=param:backend works.
@pytest.mark.benchmark(timer=CLOCK)
def test_conv2d(
    workload: str, layer: str, label: str, count: int, backend: str, threads: int, direction: str, repetition: int,
    cache: str, result: Result, benchmark: BenchmarkFixture,
) -> None:  # fmt: skip
    replay(result, benchmark)
