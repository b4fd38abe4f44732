"""The pytest plug-in: each case of a run is one pytest item, and pytest-benchmark gets the recorded times.

    python -m pytest bench --benchmark-only --bench-workload resnet50 --bench-backends numba_simd,auto

At the first item of a layer, the `Driver` measures the layer with all its backends in turns, each in its own process.
Every item then passes the turns of its own case to pytest-benchmark (`harness.replay`). Layers with weak results wait
until the end of the session and are measured again while the budget lasts. `python -m bench run` starts the same
session with `Front`.
Without timing (``--benchmark-disable``, as in ordinary test runs) every case is only checked, and no run is created.
Limits: options of pytest-benchmark that control its own measurement are refused, and so is xdist.
"""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Generator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from conv_impls.text import visible

from ..store.benchmark_json import document
from ..store.records import Case, ids
from .equal import group_of
from .harness import Harness, Result
from .options import HELP, Options, UsageError
from .progress import Bar
from .request import WRONG_INPUT, Request

# Defaults without timing: a few quick cases.
CHECKED = {"workload": "smoke", "backends": "all", "threads": "1"}
# Options of pytest-benchmark that control its own measurement, and their replacements here.
REFUSED = {
    "min-time": "", "max-time": "--bench-seconds", "min-rounds": "--bench-seconds", "precision": "--bench-seconds",
    "confidence": "", "timer": "", "calibration-precision": "", "warmup": "", "warmup-iterations": "", "cprofile": "",
    "cprofile-loops": "", "cprofile-top": "", "cprofile-dump": "",
}  # fmt: skip
FIELDS = tuple(Case.__struct_fields__)


class Front:
    """A plug-in object with which `bench.run.start` passes its harness to the session."""

    def __init__(self, harness: Harness) -> None:
        self.harness = harness


HARNESS = pytest.StashKey[Harness | None]()
WAITING = pytest.StashKey[list[pytest.Item] | None]()
COPY = pytest.StashKey[Path]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Every option of ``python -m bench run``, with ``bench-`` before its name."""
    ours = parser.getgroup("bench", "benchmarks of conv2d")
    for known in fields(Options):
        kind = type(known.default)
        ours.addoption(f"--bench-{known.name}", default=None, type=kind, metavar="X", help=HELP[known.name])
    ours.addoption("--bench-out", default=None, type=Path, metavar="DIR", help=HELP["out"])
    ours.addoption("--bench-resume", default=None, type=Path, metavar="DIR", help=HELP["resume"])


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Let --benchmark-only override the --benchmark-disable of ordinary test runs; refuse meaningless options."""
    config.stash[HARNESS], config.stash[WAITING] = None, []
    # Unsupported or wrong cases are not timed.
    config.addinivalue_line("filterwarnings", "ignore:Benchmark fixture was not used at all")
    # A different machine is worth a warning, but no error.
    config.addinivalue_line("filterwarnings", "default:Benchmark machine_info is different")
    if config.getoption("benchmark_only", False) and "--benchmark-disable" not in config.invocation_params.args:
        config.option.benchmark_enable = True
    timed = _timed(config)
    if not timed and config.getoption("benchmark_json", None):
        raise pytest.UsageError(
            "--benchmark-json: nothing is timed, because benchmarks are disabled; add --benchmark-only"
        )
    front = next((known for known in config.pluginmanager.get_plugins() if isinstance(known, Front)), None)
    given = _given(config)
    asked = given or config.getoption("bench_out") or config.getoption("bench_resume")
    if not (front or asked or config.getoption("benchmark_only", False)):
        return
    if timed:
        _refuse_what_means_nothing(config)
        # Doctests of the same folder are not benchmarks.
        config.option.doctestmodules = False
    harness = front.harness if front else _harness(config)
    config.stash[HARNESS] = harness
    if timed:
        if wanted := config.getoption("benchmark_json", None):
            config.stash[COPY] = wanted
        config.option.benchmark_json = harness.request.folder / "benchmark.json"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One item per case."""
    if "result" not in metafunc.fixturenames or "cache" not in metafunc.fixturenames:
        return
    stash = metafunc.config.stash
    harness = stash[HARNESS] = stash[HARNESS] or _harness(metafunc.config)
    cases = harness.request.cases
    values = [tuple(getattr(case, name) for name in FIELDS) for case in cases]
    metafunc.parametrize(FIELDS, values, ids=ids(cases))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Generator[None, object, object]:
    """Restore the order of cases after shuffling plug-ins: layers are measured one by one, with the same processes."""
    result = yield
    if harness := config.stash[HARNESS]:
        order = {case.key: place for place, case in enumerate(harness.request.cases)}
        items.sort(key=lambda item: order.get(case.key, -1) if (case := _case(item)) else -1)
    return result


def pytest_collection_finish(session: pytest.Session) -> None:
    """Measure only the cases that remain after -k, --lf and others."""
    config = session.config
    if harness := config.stash[HARNESS]:
        harness.selected = [case for item in session.items if (case := _case(item))]
        if harness.timed and not harness.selected:
            # No run is created, so the JSON of other benchmarks goes to the path of the option.
            wanted = config.stash.get(COPY, None)
            config.option.benchmark_json = config._benchmarksession.json = wanted  # type: ignore[attr-defined]


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop(session: pytest.Session) -> Generator[None, object, object]:
    """Open the run for the items; at the end, run the waiting items of layers with weak results."""
    config = session.config
    harness = config.stash[HARNESS]
    if not (harness and harness.selected and harness.timed) or config.option.collectonly:
        return (yield)
    try:
        harness.open()
    except WRONG_INPUT as error:
        raise pytest.UsageError(visible(str(error))) from None
    result = yield
    waiting, config.stash[WAITING] = config.stash[WAITING] or [], None
    seen = set()
    for number, item in enumerate(waiting, 1):
        case = _case(item)
        assert case is not None
        assert harness.driver is not None
        if group_of(case) not in seen:
            seen.add(group_of(case))
            while harness.driver.weak(case):
                harness.driver.again(case)
        following = waiting[number] if number < len(waiting) else None
        config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if session.shouldfail or session.shouldstop:
            break
    return result


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> bool | None:
    """Delay the items of a layer with weak results."""
    harness, waiting, case = item.config.stash[HARNESS], item.config.stash[WAITING], _case(item)
    if harness is None or harness.driver is None or waiting is None or case is None:
        return None
    # Measured here and not in a fixture, so that the time of the layer is not the setup time of one item.
    harness.driver.record(case)
    if not harness.driver.weak(case):
        return None
    waiting.append(item)
    return True


@pytest.fixture
def result(request: pytest.FixtureRequest) -> Result:
    """The result of the item's case."""
    harness, case = request.config.stash[HARNESS], _case(request.node)
    assert harness is not None
    assert case is not None
    return harness.result(case)


def pytest_report_teststatus(report: Any, config: pytest.Config) -> tuple[str, str, str] | None:
    """No dots for items: the bar shows more."""
    harness = config.stash[HARNESS]
    if harness is None or not harness.timed or report.when == "teardown":
        return None
    if report.when == "setup" and report.outcome == "passed":
        return None
    words = {"passed": "", "skipped": "", "failed": "FAILED"}
    return report.outcome, "", words[report.outcome]


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    """Only the environment's id, no clock rates: pytest-benchmark compares all values and warns if they differ."""
    if harness := config.stash[HARNESS]:
        machine_info["conv_impls"] = {"id": harness.environment_id()}
        cpu = machine_info.get("cpu") or {}
        machine_info["cpu"] = {name: value for name, value in cpu.items() if not name.startswith("hz_")}


def pytest_benchmark_update_json(config: pytest.Config, output_json: dict[str, Any]) -> None:
    """Add data that the format has no field for: the machine, the options, and the cases without a time."""
    if (harness := config.stash[HARNESS]) and harness.run:
        output_json["conv_impls"] = document(harness.run)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None, object, object]:
    """Silence the warning that nothing was timed; copy the JSON to the path of --benchmark-json."""
    if harness := session.config.stash[HARNESS]:
        harness.progress.__exit__()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Not saving anything")
        result = yield
    made = session.config.option.benchmark_json
    copy = session.config.stash.get(COPY, None)
    if copy and made and made != copy and made.exists():
        shutil.copyfile(made, copy)
    return result


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print the run folder and the number of cases that the budget left out."""
    harness = config.stash[HARNESS]
    if harness is None or harness.run is None:
        return
    left = len(harness.request.cases) - len(harness.run.done())
    folder = visible(str(harness.request.folder), lines=False)
    terminalreporter.write_line(f"run folder {folder}")
    if left:
        terminalreporter.write_line(f"{left} cases have no result yet; finish with --bench-resume {folder}")


def pytest_unconfigure(config: pytest.Config) -> None:
    """End all processes and unlock the run, also after Ctrl-C."""
    if harness := config.stash.get(HARNESS, None):
        harness.close()


def _timed(config: pytest.Config) -> bool:
    enabled = config.getoption("benchmark_enable", False) or not config.getoption("benchmark_disable", False)
    return bool(enabled) and not config.getoption("benchmark_skip", False)


def _given(config: pytest.Config) -> dict[str, Any]:
    found = {known.name: config.getoption(f"bench_{known.name}", None) for known in fields(Options)}
    return {name: value for name, value in found.items() if value is not None}


def _harness(config: pytest.Config) -> Harness:
    timed, given, resume = _timed(config), _given(config), config.getoption("bench_resume")
    try:
        if resume is not None:
            if config.getoption("bench_out") is not None:
                raise UsageError("--bench-out: expected none with --bench-resume, since the run stays in its folder")
            request = Request.resumed(resume, given)
        else:
            defaults = {} if timed else CHECKED
            request = Request.new(Options(**{**defaults, **given}), config.getoption("bench_out"))
    except WRONG_INPUT as error:
        raise pytest.UsageError(visible(str(error))) from None
    # pytest captures stderr while items run; a file descriptor duplicated before that is not captured.
    terminal = os.fdopen(os.dup(2), "w")
    config.add_cleanup(terminal.close)
    return Harness(request, timed, Bar(terminal))


def _refuse_what_means_nothing(config: pytest.Config) -> None:
    if config.getoption("dist", "no") != "no" or hasattr(config, "workerinput"):
        raise pytest.UsageError("xdist: expected none, since backends are timed one at a time; add -p no:xdist or -n 0")
    words = [*config.invocation_params.args, *os.environ.get("PYTEST_ADDOPTS", "").split(), *config.getini("addopts")]
    for word in words:
        name = str(word).partition("=")[0]
        if name.startswith("--benchmark-") and (option := name.removeprefix("--benchmark-")) in REFUSED:
            instead = f"; use {REFUSED[option]}" if REFUSED[option] else ""
            text = f"{name}: expected none, since the times are recorded by the backends' own processes{instead}"
            raise pytest.UsageError(text)


def _case(item: Any) -> Case | None:
    params = getattr(getattr(item, "callspec", None), "params", {})
    return Case(**{name: params[name] for name in FIELDS}) if FIELDS[-1] in params and "label" in params else None
