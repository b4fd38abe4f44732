"""The pytest-benchmark harness: which cases become tests, and what its JSON says of the machine.

``pytest bench/test_bench_conv2d.py --benchmark-only --bench-workload resnet50 --bench-backends numba_simd,auto``
times; without --benchmark-only each case runs once, as a test. Tests are parametrised by the keys of cases, which are
strings: pytest-benchmark keeps parameters to the session's end.
"""

from __future__ import annotations

import warnings
from collections.abc import Generator

import pytest

from conv_impls import ConvError
from conv_impls.workloads import WorkloadError

from .machine.environment import environment
from .run.driver import make_cases
from .run.options import UsageError, choices, read_backends, read_layers, read_threads
from .store.records import DIRECTIONS, Case, StoreError

# A plug-in registers its backend when it is imported, which collecting doctests does.
collect_ignore = ["run/overhead.py"]
OPTIONS = {"workload": "smoke", "backends": "all", "threads": "1", "direction": "fwd"}
CASES = pytest.StashKey[dict[str, Case]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """What is measured, in the words of ``python -m bench run``."""
    group = parser.getgroup("bench", "benchmarks of conv2d")
    for name, default in OPTIONS.items():
        group.addoption(
            f"--bench-{name}", default=default, help=f"as --{name} of python -m bench run ({default})"
        )  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    """Make the cases, and let --benchmark-only win over the --benchmark-disable of ordinary test runs."""
    given = {name: config.getoption(f"--bench-{name}", default) for name, default in OPTIONS.items()}
    try:
        cases = make_cases(
            read_layers(given["workload"]), read_backends(given["backends"]), read_threads(given["threads"]), 1,
            choices(given["direction"], "--direction", DIRECTIONS), ["warm"],
        )  # fmt: skip
    except (UsageError, WorkloadError, StoreError, ConvError, OSError) as error:
        raise pytest.UsageError(str(error)) from None
    config.stash[CASES] = {case.key: case for case in cases}
    # What a backend refuses or gets wrong is not timed.
    config.addinivalue_line("filterwarnings", "ignore:Benchmark fixture was not used at all")
    asked_to_disable = "--benchmark-disable" in config.invocation_params.args
    if config.getoption("benchmark_only", False) and not asked_to_disable:
        config.option.benchmark_enable = True
    # pytest-benchmark would run everything once, write no file, and say nothing.
    timing = config.getoption("benchmark_enable", False) and config.getoption("dist", "no") == "no"
    if config.getoption("benchmark_json", None) and not timing:
        raise pytest.UsageError(
            "--benchmark-json: nothing is timed where benchmarks are disabled; add --benchmark-only, leave xdist out"
        )


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish() -> Generator[None, object, object]:
    """Nor is it wrong to have timed nothing; around pytest-benchmark's own hook, where no filter of pytest's holds."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Not saving anything")
        return (yield)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test a case."""
    if "case_key" in metafunc.fixturenames:
        cases = metafunc.config.stash[CASES]
        metafunc.parametrize("case_key", [*cases], ids=[key.replace(" ", "_") for key in cases])


@pytest.fixture
def case(case_key: str, request: pytest.FixtureRequest) -> Case:
    """The case of this key."""
    return request.config.stash[CASES][case_key]


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_machine_info(machine_info: dict[str, object]) -> None:
    """Tell the machine as a run's environment.json does: `python -m bench import` then knows it again."""
    machine_info["conv_impls"] = environment()
