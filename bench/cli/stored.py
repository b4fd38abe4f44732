"""Commands on stored runs: report, compare, export, import. They read, and measure nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..analysis.changes import MARGIN, WIDE_MARGIN
from ..program import COMMAND
from ..run.options import RESULTS, RUNS, UsageError
from ..store.coverage import all_words
from ..store.files import write_whole
from ..store.folder import Run
from .terminal import WRONG, complain, print_table, say

# Rows of a comparison that fit a screen or two.
MOST_ROWS = 60


def report(
    run: Annotated[
        Path | None,
        typer.Argument(help="Run folder, or JSON file of pytest-benchmark. Default: the newest run in results/runs."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder to write tables, figures and README.md to.")] = RESULTS,
    readme: Annotated[Path | None, typer.Option(help="Page whose generated block is also updated.")] = None,
) -> None:
    """Make tables, figures and results/README.md from the stored records of a run.

    \b
    Examples
    --------
      python -m bench report
      python -m bench report results/runs/reference
      python -m bench report results/runs/mine --out results/runs/mine/report
    """
    from ..analysis.frame import frame_of
    from ..report.write import summary, write_report
    from ..store.benchmark_json import open_stored

    current = open_stored(run or _newest())
    for text in write_report(current, out, readme):
        say(f"left out: {text}")
    table = frame_of(current)
    print_table(summary(table), "Sum of the layers, count-weighted, in milliseconds")
    pages = f"page:    {out / 'report.html'}\nsummary: {out / 'README.md'}"
    say(f"{pages}\ntables:  {out / 'tables'}\nfigures: {out / 'figures'}")


def compare(
    run_a: Annotated[Path, typer.Argument(help="The older run: folder, or JSON file of pytest-benchmark.")],
    run_b: Annotated[Path, typer.Argument(help="The newer run.")],
    margin: Annotated[
        float | None,
        typer.Option(
            help="Minimum relative change of the median that counts.",
            show_default=f"{MARGIN}; {WIDE_MARGIN} with a run before 0.4.0, which has no yardstick",
        ),
    ] = None,
    force: Annotated[bool, typer.Option(help="Compare even if machines or versions differ.")] = False,
    csv: Annotated[Path | None, typer.Option(help="CSV file to write all cases to, also unchanged ones.")] = None,
) -> None:
    """List the cases that became faster or slower beyond noise; exit 1 if one became slower, broke, or is missing.

    \b
    Examples
    --------
      python -m bench compare results/runs/reference results/runs/mine
      python -m bench compare results/runs/monday results/runs/friday --margin 0.05 --csv changes.csv
    """
    from ..analysis import compare as comparison
    from ..analysis.writing import csv as as_csv
    from ..store.benchmark_json import open_stored

    if margin is not None and not 0 <= margin < float("inf"):
        raise UsageError(f"--margin: expected a fraction >= 0, got {margin:g}")
    older, newer = open_stored(run_a), open_stored(run_b)
    old, new = older.environment, newer.environment
    if old.get("id") != new.get("id"):
        listed = "; ".join(comparison.differences(old, new) or [f"id: {old.get('id')} -> {new.get('id')}"])
        text = f"the runs come from different machines or versions: {listed}"
        if not force:
            raise UsageError(f"{text}; --force compares them anyway")
        complain(f"warning: {text}")
    if changed := comparison.settings(older.config, newer.config):
        complain(f"warning: the runs have different settings: {'; '.join(changed)}")
    if state := comparison.remembered(old, new):
        complain(f"warning: the data that `auto` selects by differ: {'; '.join(state)}")
    before, after = comparison.results(older), comparison.results(newer)
    cases, networks = comparison.compare_runs(before, after, margin), comparison.compare_networks(before, after, margin)
    if csv is not None:
        write_whole(csv, as_csv(cases))
    say("Count-weighted sums of the layers, with intervals that hold together with 95%\n" + comparison.shown(networks))
    for name, text in all_words(newer.config).items():
        say(f"{name}: {text}")
    changed = cases[cases.verdict.isin(comparison.CHANGES)]
    say(f"\n{run_b} against {run_a}\n" + comparison.shown(changed.head(MOST_ROWS)))
    if len(changed) > MOST_ROWS:
        say(f"and {len(changed) - MOST_ROWS} more; --csv FILE writes all of them")
    counts = cases.verdict.value_counts()
    say(", ".join(f"{count} {word}" for word, count in counts.items()) or "no cases in either run")
    if counts.get("too few repetitions", 0):
        say("run both with more --repetitions to get verdicts for cases that had too few")
    if comparison.regressed(cases, networks):
        raise typer.Exit(WRONG)


def export_(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    out: Annotated[Path, typer.Option(help="File to write.")],
    force: Annotated[bool, typer.Option(help="Overwrite an existing file.")] = False,
) -> None:
    """Write a run as JSON of pytest-benchmark, for `pytest-benchmark compare` and other tools.

    \b
    Examples
    --------
      python -m bench export results/runs/mine --out mine.json
    """
    from ..store.benchmark_json import export_run

    written, others = export_run(Run.open(run), out, force)
    say(f"{written} cases in {out}; {others} that are not ok are under its key conv_impls")


def import_(
    file: Annotated[Path, typer.Argument(help="JSON file of pytest-benchmark or of `export`.")],
    out: Annotated[Path, typer.Option(help="Run folder to create.")],
) -> None:
    """Make a run folder from JSON of pytest-benchmark, for `report` and `compare`.

    extra_info["label"] of each benchmark is its layer, a benchdnn descriptor. Other fields, such as
    backend and threads, are optional.

    \b
    Examples
    --------
      python -m bench import mine.json --out results/runs/mine
    """
    from ..store.benchmark_json import import_run

    run, left_out = import_run(file, out)
    say(f"{len(run.cases)} cases in {run.folder}")
    if left_out:
        text = f'left out, because they have no extra_info["label"]: {", ".join(left_out)}'
        complain(text)


def _newest() -> Path:
    folders = sorted((path.parent for path in RUNS.glob("*/config.json")), key=lambda path: path.stat().st_mtime)
    if not folders:
        raise UsageError(f"no run in {RUNS}; make one with: {COMMAND} run")
    return folders[-1]
