"""``python -m bench``: run, report, compare, check, versus, machine, list."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from bench.options import RUNS, UsageError, new_run, read_backends, read_engines, read_layers, read_threads
from bench.peers import ENGINES
from bench.store import Run, StoreError
from conv_impls import ConvError, backends, get_backend, workloads
from conv_impls.validation import DTYPES
from conv_impls.workloads import WorkloadError

ROOT = Path(__file__).parent.parent
MAIN_WORKLOADS = "basic,sizes,resnet50,vgg16,mobilenet_v2,convnext_tiny"
USAGE, WRONG, INTERRUPTED = 2, 1, 130

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False, help=__doc__)
console = Console()
complain = Console(stderr=True)

Workload = Annotated[
    str, typer.Option(help="Built-in names, files or one benchdnn label, separated by commas; see `list`.")
]
Backends = Annotated[str, typer.Option(help="Names separated by commas, or all.")]
Seed = Annotated[int, typer.Option(help="Seed of the data.", min=0)]


@app.command()
def run(
    context: typer.Context,
    workload: Workload = MAIN_WORKLOADS,
    backends: Backends = "all",
    threads: Annotated[str, typer.Option(help="Thread counts separated by commas; all cores by default.")] = "",
    direction: Annotated[str, typer.Option(help="fwd; gradients are not measured yet.")] = "fwd",
    repetitions: Annotated[int, typer.Option(help="Whole rounds over all cases, each in processes of its own.")] = 1,
    timeout: Annotated[
        float, typer.Option(help="Seconds for the two calls a case needs at least; a slower one is over_budget.")
    ] = 1.2,
    budget: Annotated[float, typer.Option(help="Seconds for the run; what does not fit is over_budget.")] = 255.0,
    out: Annotated[Path | None, typer.Option(help="Run folder; results/runs/<date-time> by default.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Finish the run in this folder, with its own settings.")] = None,
    seed: Seed = 0,
) -> None:
    """Check and time backends on layers; one record a case, written as it finishes.

    Examples
    --------
      python -m bench run --workload resnet50 --backends numba_direct,numpy_strided --threads 1,2
      python -m bench run --workload my_layers.txt --out results/runs/mine --budget 60
      python -m bench run --resume results/runs/mine
    """
    if resume is not None:
        sources = {name: context.get_parameter_source(name) for name in context.params}
        if any(s is not None and s.name == "COMMANDLINE" for name, s in sources.items() if name != "resume"):
            raise UsageError("--resume: expected no other option, for the run keeps its settings; start a new run")
        current = Run.open(resume)
    else:
        current = new_run(workload, backends, threads, direction, repetitions, timeout, budget, out, seed)
    start = time.monotonic()
    try:
        _drive(current)
    except KeyboardInterrupt:
        complain.print(
            f"\ninterrupted; finish with: python -m bench run --resume {current.folder}", markup=False, soft_wrap=True
        )
        raise typer.Exit(INTERRUPTED) from None
    records = current.records()
    bad = [record for record in records if record.status in ("wrong_result", "crashed", "timeout", "oom", "error")]
    console.print(
        f"\n{len(records)} cases in {time.monotonic() - start:.0f} s, {len(bad)} failed; run folder {current.folder}"
    )
    for record in bad:
        complain.print(
            f"{record.case.key}: {record.status}: {record.reason}\n  repeat: {record.case.repro}", markup=False
        )
    if bad:
        raise typer.Exit(WRONG)


@app.command()
def report(
    run: Annotated[Path | None, typer.Argument(help="Run folder; the newest of results/runs by default.")] = None,
    out: Annotated[Path, typer.Option(help="Where tables, figures and README.md go.")] = ROOT / "results",
    readme: Annotated[Path | None, typer.Option(help="Page whose generated block to renew as well.")] = None,
) -> None:
    """Make tables, figures and results/README.md from the stored records of a run.

    Examples
    --------
      python -m bench report results/runs/reference
      python -m bench report results/runs/mine --out results/runs/mine/report
    """
    from bench.frame import frame
    from bench.report import summary, write_report

    current = Run.open(run or _newest())
    for text in write_report(current, out, readme):
        console.print(f"left out: {text}", markup=False)
    _print_table(summary(frame(current.records(), current.cases)), "Sum of the layers, count-weighted")
    console.print(
        f"tables:  {out / 'tables'}\nfigures: {out / 'figures'}\npage:    {out / 'README.md'}", soft_wrap=True
    )


@app.command()
def compare(
    run_a: Annotated[Path, typer.Argument(help="The older run.")],
    run_b: Annotated[Path, typer.Argument(help="The newer run.")],
    margin: Annotated[float, typer.Option(help="Change of the median that counts, as a fraction.")] = 0.25,
    force: Annotated[bool, typer.Option(help="Compare even where machine or versions differ.")] = False,
) -> None:
    """List what became faster or slower beyond noise; exit 1 where something became slower, wrong, or is gone.

    Examples
    --------
      python -m bench compare results/runs/reference results/runs/mine
    """
    from bench.compare import compare_runs

    older, newer = Run.open(run_a), Run.open(run_b)
    if older.environment.get("id") != newer.environment.get("id") and not force:
        raise UsageError("the runs come from different machines or versions; --force compares them all the same")
    if not 0 <= margin < float("inf"):
        raise UsageError(f"--margin: expected a fraction >= 0, got {margin:g}")
    changes = compare_runs(older.records(), newer.records(), margin)
    seen = changes.verdict.isin(["slower", "broke", "faster", "mended", "gone"])
    _print_table(changes[seen].drop(columns=["label", "direction"]), f"{run_b} against {run_a}")
    console.print(
        ", ".join(f"{count} {word}" for word, count in changes.verdict.value_counts().items()) or "no case in both"
    )
    if changes.verdict.isin(["slower", "broke", "gone"]).any():
        raise typer.Exit(WRONG)


@app.command()
def check(workload: Workload = "basic", backends: Backends = "all", seed: Seed = 0) -> None:
    """Check backends against the float64 reference, without timing; exit 1 on any wrong result.

    Examples
    --------
      python -m bench check --workload basic --backends all
      python -m bench check --workload 'mb1ic64ih56oc64oh56kh3ph1' --backends numba_direct
    """
    from bench.measure import check_only
    from bench.run import make_cases

    names = read_backends(backends)
    cases = make_cases(read_layers(workload), names, read_threads(""), 1)
    counts = {name: {"right": 0, "unsupported": 0, "over budget": 0, "wrong": 0} for name in names}
    with _progress() as bar:
        task = bar.add_task("", total=len(cases), left="")
        for case in cases:
            bar.update(task, description=f"{case.layer}  {case.backend}")
            record = check_only(case, seed)
            word = {"ok": "right", "unsupported": "unsupported", "over_budget": "over budget"}.get(
                record.status, "wrong"
            )
            counts[case.backend][word] += 1
            if word == "wrong":
                complain.print(f"{case.key}: {record.status}: {record.reason}\n  repeat: {case.repro}", markup=False)
            bar.advance(task)
    table = Table("backend", *next(iter(counts.values())))
    for name, row in counts.items():
        table.add_row(name, *map(str, row.values()))
    console.print(table)
    wrong = sum(row["wrong"] for row in counts.values())
    console.print(f"{len(cases)} cases, {wrong} wrong")
    if wrong:
        raise typer.Exit(WRONG)


@app.command()
def versus(
    workload: Workload = "resnet50",
    engines: Annotated[
        str,
        typer.Option(help="Names separated by commas: those of `bench.peers.ENGINES`, plan:BACKEND, a dotted path."),
    ] = ",".join(ENGINES),
    threads: Annotated[str, typer.Option(help="Thread counts separated by commas; all cores by default.")] = "",
    rounds: Annotated[int, typer.Option(help="Turns of every engine at every layer.", min=1)] = 3,
    seconds: Annotated[float, typer.Option(help="Timing of one turn; at least three calls.", min=0)] = 0.05,
    batch: Annotated[int, typer.Option(help="Batch of every layer; the workload's own by default.", min=0)] = 0,
    dtype: Annotated[str, typer.Option(help="float32 or float64.")] = "float32",
    layers: Annotated[str, typer.Option(help="Only layers with this in their name.")] = "",
    isa: Annotated[str, typer.Option(help="avx2: hold the engines to it; the machine's own by default.")] = "",
    out: Annotated[Path | None, typer.Option(help="Folder; results/peers/<date-time> by default.")] = None,
    seed: Seed = 0,
) -> None:
    """Time other libraries and ours in turns, layer by layer; records and tables in a folder.

    Examples
    --------
      python -m bench versus --workload resnet50 --threads 1,2
      python -m bench versus --engines torch_nchw,planned,plan:numba_direct --layers res4b --rounds 5
    """
    from bench.versus import ISAS, failures, figures, measure, ratios, sums, write_tables

    if isa and isa not in ISAS:
        raise UsageError(f"--isa: expected {', '.join(ISAS)}, got {isa!r}")
    if dtype not in DTYPES:
        raise UsageError(f"--dtype: expected {' or '.join(DTYPES)}, got {dtype!r}")
    changes = {"dtype": dtype} | ({"batch": batch} if batch else {})
    asked = [replace(layer, problem=layer.problem.replace(**changes)) for layer in read_layers(workload)]
    chosen = [layer for layer in asked if layers in layer.name]
    if not chosen:
        raise UsageError(f"--layers: expected part of a layer's name, got {layers!r}")
    current = measure(
        out or ROOT / "results" / "peers" / datetime.now().strftime("%Y%m%d-%H%M%S"), chosen,
        read_engines(engines), read_threads(threads), rounds=rounds, seconds=seconds, isa=isa, seed=seed,
        progress=lambda text: complain.print(text, markup=False, highlight=False),
    )  # fmt: skip
    for name, told in current.environment["engines"].items():
        if isinstance(told, str):
            complain.print(f"left out: {name}: {told}", markup=False, soft_wrap=True)
    if not (records := current.records()):
        raise UsageError("--engines: expected one at least that is installed")
    page, table = write_tables(current), figures(records)
    _print_table(sums(table), "Network sums, count-weighted")
    _print_table(ratios(table), "Ratios of network sums; above 1 ours is faster")
    console.print(f"tables: {page}", soft_wrap=True)
    if bad := failures(records):
        complain.print("\n".join(bad), markup=False, soft_wrap=True)
        raise typer.Exit(WRONG)


@app.command()
def machine(
    seconds: Annotated[float, typer.Option(help="For all probes together; more is steadier on a busy machine.")] = 10.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print what a run stores, as JSON.")] = False,
) -> None:
    """Measure what this machine can do: FMA peak by threads, bandwidth of each cache, start of threads, timer.

    Examples
    --------
      python -m bench machine
      python -m bench machine --seconds 3 --json
    """
    from bench.machine import environment, measure_machine, tables

    if not 0 < seconds < float("inf"):
        raise UsageError(f"--seconds: expected a number above 0, got {seconds:g}")
    facts, measured = environment(), measure_machine(seconds)
    if as_json:
        print(json.dumps(facts | {"machine": measured}, indent=1))
        return
    for key, value in facts.items():
        console.print(f"{key:>22}  {value}", soft_wrap=True, highlight=False, markup=False)
    for title, table in tables(measured).items():
        _print_table(table, title)
    console.print(f"measured in {measured['took_s']:.1f} s")


@app.command(name="list")
def list_() -> None:
    """Backends and workloads, one line each."""
    for name in backends():
        backend = get_backend(name)
        console.print(f"{name:<20}{backend.idea} [{backend.accuracy}; {backend.source}]", markup=False, highlight=False)
    console.print()
    for name in workloads.available():
        layers = workloads.load(name)
        macs = sum(layer.count * layer.problem.macs for layer in layers)
        text = (
            f"{name:<20}{len(layers)} layers, {sum(layer.count for layer in layers)} with counts, {macs / 1e9:.3g} GMAC"
        )
        console.print(text, highlight=False)


def _drive(current: Run) -> None:
    from bench.run import drive

    with _progress() as bar:
        task = bar.add_task("starting", total=len(current.cases), left="")
        said = [time.monotonic()]

        def show(done: int, total: int, at: str, left: float | None) -> None:
            clock = "" if left is None else f"{int(left) // 60}:{int(left) % 60:02d} left"
            # Key: workload/layer/backend/...; what varies, cut to leave room for the numbers.
            name = "  ".join(at.split("/")[1:3])[:40] if at else "starting a process"
            bar.update(task, completed=done, description=name, left=clock)
            # Where nobody watches (CI, a log file) a line now and then does what the bar does.
            if not console.is_terminal and time.monotonic() - said[0] > 15:
                said[0] = time.monotonic()
                print(f"{done}/{total} {clock} {at}", flush=True)

        drive(current, show)


def _progress() -> Progress:
    columns = MofNCompleteColumn(), TextColumn("{task.fields[left]}"), BarColumn(20), TextColumn("{task.description}")
    return Progress(*columns, console=console, disable=not console.is_terminal)


def _newest() -> Path:
    folders = sorted((path.parent for path in RUNS.glob("*/config.json")), key=lambda path: path.stat().st_mtime)
    if not folders:
        raise UsageError(f"no run in {RUNS}; make one with: python -m bench run")
    return folders[-1]


def _print_table(content: Any, title: str) -> None:
    table = Table(title=title)
    for i, column in enumerate(content.columns):
        table.add_column(str(column), no_wrap=i == 0, justify="left" if i == 0 else "right")
    for row in content.itertuples(index=False):
        table.add_row(*(f"{value:.3g}" if isinstance(value, float) else str(value) for value in row))
    console.print(table)


def main() -> None:
    """Run the command line; what users get wrong is one line and exit code 2."""
    try:
        app()
    except (UsageError, WorkloadError, StoreError, ConvError, OSError) as error:
        complain.print(f"error: {error}", markup=False, highlight=False, soft_wrap=True)
        sys.exit(USAGE)


if __name__ == "__main__":
    main()
