"""Measure call times while other processes are busy: a separate pytest-benchmark, not part of `make bench`.

    make contention                                              measure, and write results/contention (half an hour)
    python -m pytest bench/contention.py --benchmark-only --benchmark-json=FILE
    python -m bench.contention FILE [--out README.md]            the tables of such a file

    CONTENTION_ENGINES   names of backends, separated by commas, as for `python -m bench run --backends`
    CONTENTION_S         seconds of calls of each engine, layer, trial and number of busy processes; 10
    CONTENTION_TRIALS    trials; 5

`bench.run.contention` measures, `bench.analysis.contention` makes the tables. Each engine has its own process with two
threads. All processes share two cores. Outputs are checked before and after the trials. A round of a benchmark is the
mean call time of a trial: not the median, because the few calls that wait for a core are the subject. An engine that
is not installed is skipped.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from conv_impls import ConvError
from conv_impls.text import visible

from .machine.environment import environment
from .peers import packages
from .program import PACKAGE
from .run import contention
from .run.contender import Contender, Layer
from .run.fleet import Fleet, Versions, commit_of
from .run.harness import CLOCK, SKIPPED
from .run.options import UsageError, read_backends
from .run.versions import resolved
from .run.worker import PLUGIN
from .store.files import write_whole
from .store.records import Case, StoreError

ENGINES = "auto,onnxruntime,openvino,torch_nchw"
LAYERS = {
    "3x3 128@28": "ic128ih28oc128oh28kh3ph1",
    "1x1 256-64@56": "ic256ih56oc64oh56kh1ph0",
    "1x1 96-24@28": "ic96ih28oc24oh28kh1ph0",
}
BUSY = (0, 1, 2)
THREADS = 2
# A longer call is over_budget, as in a run. The warm-up turn of an engine lasts a sixth of TURNS_S.
CALL_S, TURNS_S = 10.0, 1.0


@dataclass(frozen=True)
class Settings:
    """The settings from the environment variables."""

    engines: tuple[str, ...]
    seconds: float
    trials: int
    versions: Versions

    @classmethod
    def read(cls, variables: Mapping[str, str]) -> Settings:
        """Read the settings from these variables; an empty variable counts as not set.

        Raises
        ------
        UsageError, ConvError
            A value is wrong; the message names its variable.
        """
        text = variables.get("CONTENTION_ENGINES") or ENGINES
        try:
            engines = read_backends(text, variables.get(PLUGIN, ""))
            versions = resolved(engines)
        except (UsageError, ConvError) as error:
            raise UsageError(f"CONTENTION_ENGINES: {str(error).removeprefix('--backends: ')}") from None
        text = variables.get("CONTENTION_S") or "10"
        try:
            seconds = float(text)
        except ValueError:
            seconds = math.nan
        if not 0 < seconds < math.inf:
            raise UsageError(f"CONTENTION_S: expected a number of seconds above 0, got {text!r}")
        text = variables.get("CONTENTION_TRIALS") or "5"
        if not (text.isdecimal() and int(text) >= 1):
            raise UsageError(f"CONTENTION_TRIALS: expected an integer >= 1, got {text!r}")
        return cls(tuple(engines), seconds, int(text), versions)


class Session:
    """Results so far; a pytest plug-in. The first benchmark of a layer measures all engines on it."""

    def __init__(self, settings: Settings, config: pytest.Config, fleet: Fleet, folder: Path) -> None:
        self._settings, self._fleet, self._folder = settings, fleet, folder
        self._plugins = config.pluginmanager
        self._order, self._done = random.Random(0), 0
        self._found, self._status = dict[str, contention.Means](), dict[str, dict[str, tuple[str, str]]]()
        self._environment = environment(packages(settings.engines))
        fleet.use(THREADS)

    def means_s(self, engine: str, layer: str, processes: int) -> list[float]:
        """Mean call time of each trial; skip or fail the test if the engine has no times."""
        if layer not in self._found:
            self._measure(layer)
        status, reason = self._status[layer][engine]
        said = visible(f"{status}: {reason}")
        if status in SKIPPED:
            pytest.skip(said)
        if status != "ok":
            pytest.fail(said, pytrace=False)
        return self._found[layer][engine, processes]

    def pytest_benchmark_update_json(self, output_json: dict[str, Any]) -> None:
        """Add the facts that the benchmarks of the file do not contain."""
        output_json["contention"] = {
            "environment": self._environment, "seconds": self._settings.seconds, "threads": THREADS,
            "left_out": [
                {"layer": layer, "engine": engine, "reason": f"{status}: {reason}"}
                for layer, ended in self._status.items()
                for engine, (status, reason) in ended.items() if status != "ok"
            ],
        }  # fmt: skip

    def _measure(self, layer: str) -> None:
        for text in () if self._found else self._environment["warnings"]:
            self._say(f"warning: {text}")
        self._say(f"{layer}: preparing {', '.join(self._settings.engines)}")
        shared = Layer(self._case(layer, "").problem, "fwd", 0, self._folder)
        contenders = [
            Contender(
                self._case(layer, engine), self._fleet.worker(engine), shared, self._folder, CALL_S, TURNS_S, 0, 0,
                commit_of(self._settings.versions, engine), engine in self._settings.versions,
            )
            for engine in self._settings.engines
        ]  # fmt: skip
        for contender in contenders:
            contender.prepare()

        def show(trial: int, processes: int, means_s: dict[str, float]) -> None:
            self._done += 1
            left = len(LAYERS) * len(BUSY) * self._settings.trials - self._done
            left_s = math.ceil(left * len(means_s) * self._settings.seconds)
            times = ", ".join(
                f"{name} {1e6 * means_s[name]:,.0f} us" for name in self._settings.engines if name in means_s
            )
            trials = f"trial {trial + 1} of {self._settings.trials}, {processes} busy"
            time_left = f"about {left_s // 60}:{left_s % 60:02d} left"
            self._say(f"{layer}, {trials}: {times or 'no engine is left'}; {time_left}")

        how = self._settings.trials, self._settings.seconds, self._order, show
        try:
            self._found[layer] = contention.measured(contenders, BUSY, *how)
        except RuntimeError as error:
            # No engine caused the error. Do not retry for each benchmark.
            self._found[layer] = {}
            self._status[layer] = dict.fromkeys(self._settings.engines, ("error", str(error)))
        else:
            self._status[layer] = {c.case.backend: (c.status, c.reason) for c in contenders}

    def _case(self, layer: str, engine: str) -> Case:
        return Case("contention", layer, LAYERS[layer], 1, engine, THREADS)

    def _say(self, text: str) -> None:
        """Print a line to the terminal while pytest captures the output of tests."""
        capture, terminal = map(self._plugins.getplugin, ("capturemanager", "terminalreporter"))
        with capture.global_and_fixture_disabled():
            terminal.ensure_newline()
            terminal.write_line(visible(text, lines=False), flush=True)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Layer is the outermost parameter: the first benchmark of a layer measures it."""
    if metafunc.function is test_contention:
        metafunc.parametrize("layer", LAYERS)
        metafunc.parametrize("busy", BUSY)
        metafunc.parametrize("engine", _settings().engines)


@cache
def _settings() -> Settings:
    try:
        return Settings.read(os.environ)
    except UsageError as error:
        raise pytest.Collector.CollectError(visible(str(error))) from None


@pytest.fixture(scope="session")
def session(pytestconfig: pytest.Config) -> Iterator[Session]:
    settings = _settings()
    try:
        cores = contention.on_cores(THREADS)
        processes = Fleet(CALL_S, {}, settings.versions, sessions=False)
        with cores, tempfile.TemporaryDirectory() as folder, processes as fleet:
            made = Session(settings, pytestconfig, fleet, Path(folder))
            pytestconfig.pluginmanager.register(made)
            yield made
    except UsageError as error:
        pytest.skip(visible(str(error)))


@pytest.mark.benchmark(timer=CLOCK)
def test_contention(
    layer: str, busy: int, engine: str, request: pytest.FixtureRequest, benchmark: BenchmarkFixture
) -> None:
    if benchmark.disabled:
        pytest.skip("it only measures, and needs --benchmark-only")
    # Nothing is saved of what has no times, and the fixture is not missed.
    benchmark.has_error = True
    means_s = request.getfixturevalue("session").means_s(engine, layer, busy)
    benchmark.has_error = False
    benchmark.group = f"{layer}, {busy} busy"
    benchmark.extra_info |= {"engine": engine, "layer": layer, "busy": busy}
    CLOCK.load(means_s)
    benchmark.pedantic(lambda: None, rounds=len(means_s), iterations=1)


def main() -> None:
    """Print the tables of a file, or write them."""
    from .analysis.contention import read
    from .report.contention import page

    parser = argparse.ArgumentParser(
        prog=f"python -m {PACKAGE}.contention", description="Print the tables of a measurement."
    )
    parser.add_argument("file", type=Path, help="JSON file of pytest-benchmark")
    parser.add_argument("--out", type=Path, help="also write the tables to this Markdown file")
    given = parser.parse_args()
    try:
        text = page(read(given.file.read_bytes()))
    except (OSError, StoreError) as error:
        parser.exit(2, visible(f"{given.file}: {error}", lines=False) + "\n")
    if given.out:
        try:
            write_whole(given.out, text)
        except OSError as error:
            parser.exit(2, visible(f"{given.out}: {error}", lines=False) + "\n")
    print(text, end="")


if __name__ == "__main__":
    main()
