"""``python -m bench``: run, report, compare, export, import, check, machine, list."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from bench.options import RESULTS, RUNS, Options, UsageError, new_run, resumed
from bench.peers import OWN, PEERS, missing
from bench.stats import MARGIN
from bench.store import FAILED, Run, StoreError
from conv_impls import ConvError, backends, get_backend, workloads
from conv_impls.workloads import WorkloadError

USAGE, WRONG, INTERRUPTED = 2, 1, 130
# Rows of a comparison that fit a screen or two.
MOST_ROWS = 60

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False, help=__doc__)
console = Console()
complain = Console(stderr=True)


def _complete(known: list[str]) -> Any:
    """Completion of the last of several names separated by commas."""

    def complete(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        return [before + comma + name for name in known if name.startswith(last)]

    return complete


Workload = Annotated[
    str,
    typer.Option(
        help="Built-in names, files (.txt, .csv, .onnx) or one benchdnn label, separated by commas; see `list`.",
        autocompletion=_complete(list(workloads.available())),
    ),
]
Backends = Annotated[
    str,
    typer.Option(
        help="Names separated by commas; all (the package's), fast (those auto weighs), peers (those installed).",
        autocompletion=_complete([*backends(), *OWN, *PEERS, "all", "fast", "peers"]),
    ),
]
Threads = Annotated[str, typer.Option(help="Thread counts separated by commas; all cores by default.")]
Direction = Annotated[str, typer.Option(help="fwd, bwd_d (gradient of the image), bwd_w (of the weights), by commas.")]
Batch = Annotated[str, typer.Option(help="Batch sizes for every layer, by commas; the workload's own by default.")]
Dtype = Annotated[str, typer.Option(help="float32, float64, or both; the workload's own by default.")]
Layers = Annotated[str, typer.Option(help="Only layers with this in their name.")]
Plugin = Annotated[str, typer.Option(help="Python module to import first; it registers backends of your own.")]
Seed = Annotated[int, typer.Option(help="Seed of the data and of the order.", min=0)]
DEFAULT = Options()


@app.command()
def run(
    context: typer.Context,
    workload: Workload = DEFAULT.workload,
    backends: Backends = DEFAULT.backends,
    threads: Threads = "",
    direction: Direction = DEFAULT.direction,
    cache: Annotated[
        str, typer.Option(help="warm; cold: nothing in the caches; weights: those alone are cold; by commas.")
    ] = DEFAULT.cache,
    batch: Batch = "",
    dtype: Dtype = "",
    layers: Layers = "",
    repetitions: Annotated[int, typer.Option(help="Whole rounds over all layers.")] = DEFAULT.repetitions,
    seconds: Annotated[float, typer.Option(help="Timing of a case in one repetition, in turns.")] = DEFAULT.seconds,
    timeout: Annotated[
        float, typer.Option(help="Seconds one call may take; what is slower is over_budget, what hangs is killed.")
    ] = DEFAULT.timeout,
    budget: Annotated[
        float, typer.Option(help="Seconds for the run; what does not fit is left for --resume.")
    ] = DEFAULT.budget,
    isa: Annotated[str, typer.Option(help="avx2: hold the backends to it; the machine's own by default.")] = "",
    kernels: Annotated[
        str, typer.Option(help="kept: use the kernels compiled before; fresh: compile all anew, and see what it costs.")
    ] = DEFAULT.kernels,
    plugin: Plugin = "",
    out: Annotated[Path | None, typer.Option(help="Run folder; results/runs/<date-time> by default.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Finish the run in this folder, with its own settings.")] = None,
    seed: Seed = 0,
) -> None:
    """Check and time backends on layers, in turns, each in its own process; one record a case, written as it finishes.

    \b
    Examples
    --------
      python -m bench run --workload resnet50 --backends fast,peers --threads 1,2 --repetitions 3 --budget 900
      python -m bench run --workload my_network.onnx --batch 1,8 --backends fast
      python -m bench run --workload my_layers.txt --out results/runs/mine --budget 60
      python -m bench run --workload 'mb1ic64ih56oc64oh56kh3ph1' --backends all --cache warm,cold,weights
      python -m bench run --resume results/runs/mine
    """
    values = {name: value for name, value in context.params.items() if name not in ("out", "resume")}
    if resume is not None:
        sources = {name: context.get_parameter_source(name) for name in context.params}
        given = {name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"}
        if "out" in given:
            raise UsageError("--out: expected none beside --resume, for the run stays in its folder")
        current = resumed(resume, {name: value for name, value in values.items() if name in given})
    else:
        console.print("measuring the machine", highlight=False)
        current = new_run(Options(**values), out)
    start = time.monotonic()
    try:
        _drive(current)
    except KeyboardInterrupt:
        complain.print(
            f"\ninterrupted; finish with: python -m bench run --resume {current.folder}", markup=False, soft_wrap=True
        )
        raise typer.Exit(INTERRUPTED) from None
    records, total = current.records(), len(current.cases)
    bad = [record for record in records if record.status in FAILED]
    console.print(
        f"\n{len(records)} cases in {time.monotonic() - start:.0f} s, {len(bad)} failed; run folder {current.folder}",
        soft_wrap=True,
    )
    if len(records) < total:
        text = f"the budget left out {total - len(records)}; finish with: python -m bench run --resume {current.folder}"
        complain.print(text, markup=False, soft_wrap=True)
    asked = Options(**current.config["options"])
    for record in bad:
        text = f"{record.case.key}: {record.status}: {record.reason}\n  repeat: {asked.repeat(record.case)}"
        complain.print(text, markup=False, soft_wrap=True)
    if bad:
        raise typer.Exit(WRONG)


@app.command()
def report(
    run: Annotated[Path | None, typer.Argument(help="Run folder; the newest of results/runs by default.")] = None,
    out: Annotated[Path, typer.Option(help="Where tables, figures and README.md go.")] = RESULTS,
    readme: Annotated[Path | None, typer.Option(help="Page whose generated block to renew as well.")] = None,
) -> None:
    """Make tables, figures and results/README.md from the stored records of a run.

    \b
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
    pages = f"page:    {out / 'report.html'}\nsummary: {out / 'README.md'}"
    console.print(f"{pages}\ntables:  {out / 'tables'}\nfigures: {out / 'figures'}", soft_wrap=True)


@app.command()
def compare(
    run_a: Annotated[Path, typer.Argument(help="The older run.")],
    run_b: Annotated[Path, typer.Argument(help="The newer run.")],
    margin: Annotated[float, typer.Option(help="Change of the median that counts, as a fraction.")] = MARGIN,
    force: Annotated[bool, typer.Option(help="Compare even where machine or versions differ.")] = False,
    csv: Annotated[Path | None, typer.Option(help="File for every case, unchanged ones included.")] = None,
) -> None:
    """List what became faster or slower beyond noise; exit 1 where something became slower, broke, or is gone.

    \b
    Examples
    --------
      python -m bench compare results/runs/reference results/runs/mine
      python -m bench compare results/runs/monday results/runs/friday --margin 0.05 --csv changes.csv
    """
    from bench import compare as changes

    if not 0 <= margin < float("inf"):
        raise UsageError(f"--margin: expected a fraction >= 0, got {margin:g}")
    older, newer = Run.open(run_a), Run.open(run_b)
    old, new = older.environment, newer.environment
    if old.get("id") != new.get("id"):
        listed = "; ".join(changes.differences(old, new) or [f"id: {old.get('id')} -> {new.get('id')}"])
        text = f"the runs come from different machines or versions: {listed}"
        if not force:
            raise UsageError(f"{text}; --force compares them all the same")
        complain.print(f"warning: {text}", markup=False, highlight=False, soft_wrap=True)
    if asked := changes.settings(older.config, newer.config):
        text = f"warning: the runs were asked for with different settings: {'; '.join(asked)}"
        complain.print(text, markup=False, highlight=False, soft_wrap=True)
    before, after = changes.results(older), changes.results(newer)
    cases, networks = changes.compare_runs(before, after, margin), changes.compare_networks(before, after, margin)
    if csv is not None:
        cases.to_csv(csv, index=False)
    print("Sums of the layers, count-weighted, with 95% intervals\n" + changes.shown(networks))
    changed = cases[cases.verdict.isin(changes.CHANGES)]
    print(f"\n{run_b} against {run_a}\n" + changes.shown(changed.head(MOST_ROWS)))
    if len(changed) > MOST_ROWS:
        console.print(f"and {len(changed) - MOST_ROWS} more; --csv FILE writes them all", highlight=False)
    counts = cases.verdict.value_counts()
    console.print(", ".join(f"{count} {word}" for word, count in counts.items()) or "no case in either")
    if counts.get("too few repetitions", 0):
        console.print("more --repetitions in both runs would tell of those that had too few", highlight=False)
    if any(table.verdict.isin(changes.REGRESSIONS).any() for table in (cases, networks)):
        raise typer.Exit(WRONG)


@app.command(name="export")
def export_(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    out: Annotated[Path, typer.Option(help="File to write.")],
    force: Annotated[bool, typer.Option(help="Write over a file that exists.")] = False,
) -> None:
    """Write the ok cases of a run as pytest-benchmark's JSON, for `pytest-benchmark compare` and what else reads it.

    \b
    Examples
    --------
      python -m bench export results/runs/mine --out mine.json
    """
    from bench.exchange import export_run

    written, left_out = export_run(Run.open(run), out, force)
    console.print(f"{written} cases in {out}; {left_out} that are not ok left out", soft_wrap=True, highlight=False)


@app.command(name="import")
def import_(
    file: Annotated[Path, typer.Argument(help="JSON of pytest-benchmark, or of `export`.")],
    out: Annotated[Path, typer.Option(help="Run folder to make.")],
) -> None:
    """Make a run of pytest-benchmark's JSON, for `report` and `compare`.

    Each benchmark tells its layer by extra_info["label"], a benchdnn descriptor; backend, threads and more may follow.

    \b
    Examples
    --------
      python -m bench import mine.json --out results/runs/mine
    """
    from bench.exchange import import_run

    run, left_out = import_run(file, out)
    console.print(f"{len(run.cases)} cases in {run.folder}", soft_wrap=True, highlight=False)
    if left_out:
        text = f'left out, without extra_info["label"]: {", ".join(left_out)}'
        complain.print(text, markup=False, highlight=False, soft_wrap=True)


@app.command()
def check(
    workload: Workload = "basic",
    backends: Backends = "all",
    threads: Threads = "",
    direction: Direction = "fwd",
    batch: Batch = "",
    dtype: Dtype = "",
    layers: Layers = "",
    timeout: Annotated[float, typer.Option(help="Seconds one call may take; a slower one is over_budget.")] = 20.0,
    plugin: Plugin = "",
    seed: Seed = 0,
) -> None:
    """Check backends against the float64 reference, without timing; exit 1 on any wrong result.

    \b
    Examples
    --------
      python -m bench check --workload basic --backends all
      python -m bench check --workload 'mb1ic64ih56oc64oh56kh3ph1' --backends numba_direct --direction fwd,bwd_d,bwd_w
    """
    from bench.run import check_cases

    options = Options(
        workload, backends, threads, direction, batch=batch, dtype=dtype, layers=layers, timeout=timeout,
        plugin=plugin, seed=seed,
    )  # fmt: skip
    cases = options.cases()
    counts: dict[str, dict[str, int]] = {}
    with _progress() as bar:
        task = bar.add_task("", total=len(cases), left="")
        for case, status, reason in check_cases(cases, options.timeout, options.variables(), seed):
            bar.update(task, description=f"{case.layer}  {case.backend}")
            row = counts.setdefault(case.backend, {"right": 0, "unsupported": 0, "over budget": 0, "wrong": 0})
            word = {"ok": "right", "unsupported": "unsupported", "over_budget": "over budget"}.get(status, "wrong")
            row[word] += 1
            if word == "wrong":
                complain.print(
                    f"{case.key}: {status}: {reason}\n  repeat: {options.repeat(case)}", markup=False, soft_wrap=True
                )
            bar.advance(task)
    table = Table("backend", *next(iter(counts.values())))
    for name, numbers in counts.items():
        table.add_row(name, *map(str, numbers.values()))
    console.print(table)
    wrong = sum(numbers["wrong"] for numbers in counts.values())
    console.print(f"{len(cases)} cases, {wrong} wrong")
    if wrong:
        raise typer.Exit(WRONG)


@app.command()
def machine(
    seconds: Annotated[float, typer.Option(help="For all probes together; more is steadier on a busy machine.")] = 10.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print what a run stores, as JSON.")] = False,
) -> None:
    """Measure what this machine can do: FMA peak by threads, bandwidth of each cache, start of threads, timer.

    \b
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
        text = f"{name:<24}{backend.idea} [{backend.mode}; {backend.accuracy}; {backend.source}]"
        console.print(text, markup=False, highlight=False)
    for name in PEERS:
        console.print(f"{name:<24}peer: {missing(name) or 'installed'}", markup=False, highlight=False)
    console.print()
    for name in workloads.available():
        layers = workloads.load(name)
        macs = sum(layer.count * layer.problem.macs for layer in layers)
        text = (
            f"{name:<24}{len(layers)} layers, {sum(layer.count for layer in layers)} with counts, {macs / 1e9:.3g} GMAC"
        )
        console.print(text, highlight=False)


def _drive(current: Run) -> None:
    from bench.run import drive

    with _progress() as bar:
        task = bar.add_task("starting", total=len(current.cases), left="")
        said = [time.monotonic()]

        def show(done: int, total: int, at: str, left: float | None) -> None:
            clock = "" if left is None else f"{int(left) // 60}:{int(left) % 60:02d} left"
            bar.update(task, completed=done, description=at[:44], left=clock)
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
