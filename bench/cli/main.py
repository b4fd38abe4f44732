"""The commands run, check, machine and list, the program itself, and how a run ends."""

from __future__ import annotations

import json
import sys
import time
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from conv_impls import backends, get_backend, workloads

from ..peers import OWN, PEERS, load, missing
from ..program import COMMAND, PACKAGE
from ..run.options import HELP, Options, UsageError
from ..run.progress import Bar
from ..run.request import WRONG_INPUT, Request
from ..store.folder import Run
from ..store.records import FAILED
from . import stored
from .commands import app as app
from .commands import command
from .terminal import INTERRUPTED, USAGE, WRONG, complain, print_table, say, warn


def _complete(known: list[str]) -> Any:
    """Completion of the last of several names separated by commas."""

    def complete(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        return [before + comma + name for name in known if name.startswith(last)]

    return complete


Workload = Annotated[
    str,
    typer.Option(
        help=HELP["workload"],
        autocompletion=_complete(list(workloads.available())),
    ),
]
Backends = Annotated[
    str,
    typer.Option(
        help=HELP["backends"],
        autocompletion=_complete([*backends(), *OWN, *PEERS, "all", "fast", "peers"]),
    ),
]
Threads = Annotated[str, typer.Option(help=HELP["threads"])]
Direction = Annotated[str, typer.Option(help=HELP["direction"])]
Batch = Annotated[str, typer.Option(help=HELP["batch"])]
Size = Annotated[str, typer.Option(help=HELP["size"])]
Dtype = Annotated[str, typer.Option(help=HELP["dtype"])]
Layers = Annotated[str, typer.Option(help=HELP["layers"])]
Plugin = Annotated[str, typer.Option(help=HELP["plugin"])]
Seed = Annotated[int, typer.Option(help=HELP["seed"], min=0)]
DEFAULT = Options()
# Exit code of a pytest session after Ctrl-C.
PYTEST_INTERRUPTED = 2


@command
def run(
    context: typer.Context,
    workload: Workload = DEFAULT.workload,
    backends: Backends = DEFAULT.backends,
    threads: Threads = "",
    direction: Direction = DEFAULT.direction,
    cache: Annotated[str, typer.Option(help=HELP["cache"])] = DEFAULT.cache,
    batch: Batch = "",
    size: Size = "",
    dtype: Dtype = "",
    layers: Layers = "",
    repetitions: Annotated[int, typer.Option(help=HELP["repetitions"])] = DEFAULT.repetitions,
    seconds: Annotated[float, typer.Option(help=HELP["seconds"])] = DEFAULT.seconds,
    timeout: Annotated[float, typer.Option(help=HELP["timeout"])] = DEFAULT.timeout,
    budget: Annotated[float, typer.Option(help=HELP["budget"])] = DEFAULT.budget,
    isa: Annotated[str, typer.Option(help=HELP["isa"])] = "",
    kernels: Annotated[str, typer.Option(help=HELP["kernels"])] = DEFAULT.kernels,
    plugin: Plugin = "",
    out: Annotated[Path | None, typer.Option(help=HELP["out"])] = None,
    resume: Annotated[Path | None, typer.Option(help=HELP["resume"])] = None,
    seed: Seed = 0,
) -> None:
    """Check and time backends on layers, each in its own process; they take turns. Each case becomes one record.

    Exit code 1: a result is wrong, a process crashed or hung, or the first of several versions of a backend is slower
    than another on the sum of a workload, or by more than 25% on a layer.

    \b
    Examples
    --------
      python -m bench run --workload smoke --backends fast
      python -m bench run --workload resnet50 --backends fast,peers --threads 1,2 --repetitions 3 --budget 900
      python -m bench run --workload my_network.onnx --batch 1,8 --backends fast
      python -m bench run --workload my_network.onnx --size 1,3,224,224 --backends fast
      python -m bench run --workload my_layers.txt --out results/runs/mine --budget 60
      python -m bench run --workload random:50:1 --backends fast --budget 600
      python -m bench run --workload 'mb1ic64ih56oc64oh56kh3ph1' --backends all --cache warm,cold,weights
      python -m bench run --workload resnet50 --backends auto,auto@v0.3.0,auto@../other --repetitions 3
      python -m bench run --resume results/runs/mine
    """
    from ..run.start import start

    values = {name: value for name, value in context.params.items() if name not in ("out", "resume")}
    if resume is not None:
        sources = {name: context.get_parameter_source(name) for name in context.params}
        given = {name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"}
        if "out" in given:
            raise UsageError("--out: expected none with --resume, since the run stays in its folder")
        request = Request.resumed(resume, {name: value for name, value in values.items() if name in given})
        before = Run.open(resume).done()
    else:
        request, before = Request.new(Options(**values), out), set()
        say("measuring the machine")
    began = time.monotonic()
    code, faults = start(request)
    _report_end(request, before, time.monotonic() - began, interrupted=code == PYTEST_INTERRUPTED)
    for text in faults:
        complain(text)
    if faults:
        raise typer.Exit(WRONG)


def _report_end(request: Request, before: set[str], seconds: float, interrupted: bool) -> None:
    """Print the result of a session; the exit code comes from the run, not from pytest."""
    from ..analysis import versions
    from ..analysis.frame import frame_of
    from ..analysis.sentences import sentences

    run, total = Run.open(request.folder), len(request.cases)
    records = run.records()
    if interrupted:
        complain(f"\ninterrupted; finish with: {COMMAND} run --resume {run.folder}")
        raise typer.Exit(INTERRUPTED)
    if len(before) < total and run.done() == before:
        raise UsageError(
            f"--budget: expected more than {run.config['budget_s']:g} seconds, since no case was finished within them; "
            f"run folder {run.folder}"
        )
    bad = [record for record in records if record.status in FAILED]
    table = frame_of(run)
    say("\n" + "\n".join(sentences(table)))
    say(f"{len(records)} cases in {seconds:.0f} s, {len(bad)} failed; run folder {run.folder}")
    if len(records) < total:
        complain(f"the budget left out {total - len(records)}; finish with: {COMMAND} run --resume {run.folder}")
    for record in bad:
        complain(f"{record.case.key}: {record.status}: {record.reason}\n  repeat: {run.repeat(record.case)}")
    if versions.regressed(table) or bad:
        raise typer.Exit(WRONG)


command(stored.report)
command(stored.compare)
command(stored.export_, name="export")
command(stored.import_, name="import")


@command
def check(
    workload: Workload = "basic",
    backends: Backends = "all",
    threads: Threads = "",
    direction: Direction = "fwd",
    batch: Batch = "",
    size: Size = "",
    dtype: Dtype = "",
    layers: Layers = "",
    timeout: Annotated[float, typer.Option(help="Maximum seconds of a call. Slower cases are over_budget.")] = 20.0,
    plugin: Plugin = "",
    seed: Seed = 0,
) -> None:
    """Check backends against the float64 reference, without timing; exit 1 on any wrong result.

    \b
    Examples
    --------
      python -m bench check --workload smoke --backends fast
      python -m bench check --workload basic --backends all
      python -m bench check --workload random:50:1 --backends fast
      python -m bench check --workload 'mb1ic64ih56oc64oh56kh3ph1' --backends numba_direct --direction fwd,bwd_d,bwd_w
    """
    import pandas as pd

    from ..run.driver import check_cases
    from ..run.versions import resolved

    options = Options(
        workload, backends, threads, direction, batch=batch, size=size, dtype=dtype, layers=layers, timeout=timeout,
        plugin=plugin, seed=seed,
    )  # fmt: skip
    cases = options.cases()
    versions = resolved(case.backend for case in cases)
    counts: dict[str, dict[str, int]] = {}
    with Bar() as bar:
        checked = check_cases(cases, options.timeout, options.variables(), seed, versions)
        for done, (case, status, reason) in enumerate(checked, 1):
            bar.show(done, len(cases), f"{case.layer}  {case.backend}", None)
            row = counts.setdefault(case.backend, {"right": 0, "unsupported": 0, "over budget": 0, "wrong": 0})
            word = {"ok": "right", "unsupported": "unsupported", "over_budget": "over budget"}.get(status, "wrong")
            row[word] += 1
            if word == "wrong":
                complain(f"{case.key}: {status}: {reason}\n  repeat: {case.repro} {options.further()}".rstrip())
    print_table(pd.DataFrame.from_dict(counts, orient="index").reset_index(names="backend"))
    wrong = sum(numbers["wrong"] for numbers in counts.values())
    say(f"{len(cases)} cases, {wrong} wrong")
    if wrong:
        raise typer.Exit(WRONG)


@command
def machine(
    seconds: Annotated[
        float, typer.Option(help="Seconds for all probes together. More time gives more stable results.")
    ] = 10.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the JSON that a run stores.")] = False,
) -> None:
    """Measure this machine: FMA peak by threads, bandwidth of each cache, start of threads, timer.

    \b
    Examples
    --------
      python -m bench machine
      python -m bench machine --seconds 3 --json
    """
    from ..machine.environment import environment
    from ..machine.probes import measure_machine, tables

    if not 0 < seconds < float("inf"):
        raise UsageError(f"--seconds: expected a number above 0, got {seconds:g}")
    facts, measured = environment(), measure_machine(seconds)
    if as_json:
        print(json.dumps(facts | {"machine": measured}, indent=1))
        return
    for key, value in facts.items():
        say(f"{key:>22}  {value}")
    for title, table in tables(measured).items():
        print_table(table, title)
    say(f"measured in {measured['took_s']:.1f} s")


def list_() -> None:
    """List backends and workloads, one line each.

    \b
    Examples
    --------
      python -m bench list
    """
    for name in OWN:
        load(name)
    for name in dict.fromkeys([*backends(), *OWN]):
        backend = get_backend(name)
        facts = backend.mode, backend.accuracy, f"equal bits: {backend.deterministic}", backend.source
        say(f"{name:<24}{backend.idea} [{'; '.join(facts)}]")
    for name in PEERS:
        say(f"{name:<24}peer: {missing(name) or 'installed'}")
    say("")
    for name in workloads.available():
        layers = workloads.load(name)
        macs = sum(layer.count * layer.problem.macs for layer in layers)
        count = sum(layer.count for layer in layers)
        say(f"{name:<24}{len(layers)} layers, {count} with counts, {macs / 1e9:.3g} GMAC")
    say(f"{'random:N:SEED':<24}N random layers, drawn from the seed; the same on every machine")


command(list_, name="list")


def main() -> None:
    """Run the command line; errors of users become one line and exit code 2."""
    with warnings.catch_warnings():
        # One line each, whatever PYTHONWARNINGS is.
        warnings.showwarning = warn
        warnings.filterwarnings("default", category=UserWarning, module=rf"({PACKAGE}|conv_impls)\b")
        try:
            app(prog_name=COMMAND)
        except WRONG_INPUT as error:
            complain(f"error: {error}")
            sys.exit(USAGE)
