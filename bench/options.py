"""Texts of the command line -> layers, backends, thread counts, a new run; what is wrong with them in one line."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from bench.peers import ENGINES, PLAN
from bench.store import Run
from conv_impls import backends, get_backend, workloads
from conv_impls.workloads import Layer

RUNS = Path(__file__).parent.parent / "results" / "runs"


class UsageError(Exception):
    """A wrong option; shown as one line, exit code 2."""


def read_layers(text: str) -> list[Layer]:
    """Layers of every workload named; two of one name in one workload are refused."""
    layers = [layer for name in split(text, "--workload") for layer in workloads.load(name)]
    names = [(layer.workload, layer.name) for layer in layers]
    for workload, name in names:
        if names.count((workload, name)) > 1:
            raise UsageError(f"--workload: layer {name!r} of {workload!r} comes twice; give the layers different names")
    return layers


def read_backends(text: str) -> list[str]:
    """Names of backends that exist, or of all."""
    names = list(backends()) if text == "all" else split(text, "--backends")
    for name in names:
        get_backend(name)
    return names


def read_engines(text: str) -> list[str]:
    """Names of engines; whether a library or a dotted path is there shows when it starts."""
    names = split(text, "--engines")
    for name in names:
        if name.startswith(PLAN):
            get_backend(name.removeprefix(PLAN))
        elif name not in ENGINES and "." not in name:
            known = f"{', '.join(ENGINES)}, {PLAN}BACKEND or a dotted path to a function"
            raise UsageError(f"--engines: expected {known}, got {name!r}")
    return names


def read_threads(text: str) -> list[int]:
    """Thread counts this machine has; all cores for an empty text."""
    from bench.machine import cores

    if not text:
        return [cores()]
    values = split(text, "--threads")
    if not all(value.isdecimal() and 1 <= int(value) <= cores() for value in values):
        raise UsageError(f"--threads: expected counts from 1 to {cores()} separated by commas, got {text!r}")
    return [int(value) for value in values]


def split(text: str, option: str) -> list[str]:
    """The parts between commas, each once, at least one."""
    values = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not values:
        raise UsageError(f"{option}: expected one or more names, got {text!r}")
    return values


def new_run(
    workload: str,
    names: str,
    threads: str,
    direction: str,
    repetitions: int,
    timeout: float,
    budget: float,
    out: Path | None,
    seed: int,
) -> Run:
    """A new run folder with every case of these options; the defaults and texts are those of `python -m bench run`."""
    from bench.machine import cores, environment, fma_peak
    from bench.run import make_cases

    if direction != "fwd":
        raise UsageError(f"--direction: expected fwd, got {direction!r}; gradients are not measured yet")
    for option, value in (("--repetitions", repetitions), ("--timeout", timeout), ("--budget", budget)):
        if not 0 < value < float("inf"):
            raise UsageError(f"{option}: expected a number above 0, got {value:g}")
    cases = make_cases(read_layers(workload), read_backends(names), read_threads(threads), repetitions)
    facts = environment()
    facts["fma_peak_gflops"] = round(fma_peak(cores()), 1)
    folder = out or RUNS / datetime.now().strftime("%Y%m%d-%H%M%S")
    config: dict[str, Any] = {
        "command": f"python -m bench run --workload {workload} --backends {names} --threads {_joined(cases)} "
        f"--repetitions {repetitions} --timeout {timeout:g} --budget {budget:g} --seed {seed}",
        "timeout_s": timeout, "budget_s": budget, "seed": seed, "cases": [vars(case) for case in cases],
    }  # fmt: skip
    return Run.create(folder, config, facts)


def _joined(cases: list[Any]) -> str:
    return ",".join(dict.fromkeys(str(case.threads) for case in cases))
