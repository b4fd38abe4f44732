"""Runs -> results/: report.html, README.md, tables, figures, and the generated block of the project's README.

No other module writes these files. The only input is the stored records, so a report can be made again at any time
without measuring. If a run lacks the cases of a figure or a table, the next run provides it; if none has them, the
figure is left out and listed as missing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from conv_impls.text import visible

from ..analysis import ratios, tables, versions
from ..analysis.frame import frame_of
from ..analysis.reasons import explained
from ..analysis.writing import csv
from ..store.files import write_whole
from ..store.folder import Run, StoredRun
from ..store.records import StoreError
from .figures import FIGURES, draw_all, save_all
from .page import write_page
from .readme import BLOCK, SIGN, index, summary_block

# Each table, and the columns of it that name backends, or a backend of all rows: their cases say why a number is weak.
TABLES: dict[str, tuple[Callable[[pd.DataFrame], pd.DataFrame], tuple[str, ...]]] = {
    "network_sums": (tables.network_sums, ("backend",)), "headlines": (ratios.headlines, ("ours", "theirs")),
    "against": (ratios.against, ("backend", "ours")), "versions": (versions.by_network, ("ours", "theirs")),
    "versions_by_layer": (versions.by_layers, ("ours", "theirs")),
    "best_peer_by_layer": (ratios.best_peer_by_layer, ("auto", "theirs")), "regret": (ratios.regret, ("auto",)),
    "winners": (tables.winners, ("winner", "second")), "costs": (tables.costs, ("backend", "against")),
    "utilisation": (tables.utilisation, ("backend",)), "thread_efficiency": (tables.thread_efficiency, ("backend",)),
    "ladder": (lambda table: tables.ladder(table, "resnet50"), ()),
    "correctness": (tables.correctness, ()),
    "numba_direct_over_numpy_im2col": (lambda table: tables.ratio(table, "numba_direct", "numpy_im2col"), ()),
    "numpy_strided_over_numpy_im2col": (lambda table: tables.ratio(table, "numpy_strided", "numpy_im2col"), ()),
    "left_out": (tables.left_out, ()), "statuses": (tables.statuses, ()), "not_ok": (tables.not_ok, ()),
    "cases": (tables.per_case, ()),
}  # fmt: skip
# Text that identifies a page written by a report.
SIGNS = {"README.md": SIGN, "report.html": "<title>Convolution on "}
# Files of earlier versions that nothing makes any more.
FORMER = {
    "tables": [f"{name}.md" for name in [*TABLES, "compile_costs"]] + ["compile_costs.csv"],
    "figures": [f"{name}.{kind}" for name in ("error_vs_speed", "resnet50_heatmap") for kind in ("png", "svg")],
}


def write_report(run: StoredRun, out: Path, readme: Path | None, more: Sequence[StoredRun] = ()) -> list[str]:
    """Write everything; return what was left out, with the reasons.

    Parameters
    ----------
    run : StoredRun
        The run that the page and the README are about.
    out : Path
        Folder of the report.
    readme : Path, optional
        A page whose generated block is updated.
    more : sequence of StoredRun
        Runs that provide the figures and tables for which ``run`` has no cases.
    """
    table = _checked(run)
    _refuse_others(out)
    own, drawn, missing = all_tables(table), *draw_all(FIGURES, drawable(table), run.environment)
    made = dict(own)
    for other in more:
        frame = _checked(other)
        made |= {name: content for name, content in all_tables(frame).items() if name not in made}
        lacking = {kind: FIGURES[kind] for kind in FIGURES if kind not in {one.kind for one in drawn}}
        found, _ = draw_all(lacking, drawable(frame), other.environment)
        drawn += [one._replace(alt=f"{one.alt} (run {other.folder.name})") for one in found]
        missing = [text for text in missing if not any(text.startswith(f"figure {one.kind}:") for one in found)]

    for folder in FORMER:
        (out / folder).mkdir(parents=True, exist_ok=True)
    for name, content in made.items():
        write_whole(out / "tables" / f"{name}.csv", csv(content))
    save_all(drawn, out / "figures")
    _drop_stale(out, {f"{name}.csv" for name in TABLES.keys() - made.keys()})
    write_page(run, table, own, out / "report.html", missing, drawn)
    write_whole(out / "README.md", index(run, table, out, drawn, missing).encode(errors="replace"))
    if readme is not None and readme.exists():
        text = readme.read_text(encoding="utf-8", errors="surrogateescape")
        if BLOCK.search(text):
            block = summary_block(run, table, out, readme.parent)
            write_whole(readme, BLOCK.sub(lambda m: m[1] + block + m[2], text).encode(errors="surrogateescape"))
    return missing


def write_page_of(run: Run, table: pd.DataFrame) -> Path:
    """Write the page of a run into its folder, without figures; returns its path. A report adds figures and tables."""
    path = run.folder / "report.html"
    if not table.empty:
        write_page(run, table, all_tables(table), path, [], [])
    return path


def all_tables(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """All non-empty tables of a report, and ``not_ok``, by name."""
    found = {name: (make(table), backends) for name, (make, backends) in TABLES.items()}
    return {
        name: explained(content, table, *backends) if backends and len(content) else content
        for name, (content, backends) in found.items()
        if not content.empty or name == "not_ok"
    }


def _checked(run: StoredRun) -> pd.DataFrame:
    """The frame of a run; StoreError if it has nothing to report."""
    table = frame_of(run)
    if table.empty:
        raise StoreError(f"{run.folder}: no finished cases to report")
    twice = table[table.duplicated(["network", "layer", "backend", "threads"])]
    if len(twice):
        raise StoreError(f"{run.folder}: layer {twice.layer.iloc[0]!r} of {twice.network.iloc[0]!r} has several labels")
    return table


def _refuse_others(out: Path) -> None:
    """Refuse to overwrite a page that no report wrote: it may be the user's."""
    for name, sign in SIGNS.items():
        path = out / name
        if path.exists() and sign not in path.read_text(encoding="utf-8", errors="replace"):
            raise StoreError(f"{path}: expected a page of an earlier report, got another; name another folder by --out")


def _drop_stale(out: Path, names: set[str]) -> None:
    """Delete these tables and what earlier versions wrote: old files would look like results of this run.

    Files with other names may be the user's and stay.
    """
    stale = [out / "tables" / name for name in names]
    for path in stale + [out / folder / name for folder, former in FORMER.items() for name in former]:
        if path.is_file():
            path.unlink()


def drawable(table: pd.DataFrame) -> pd.DataFrame:
    """The table with control characters made visible, because a figure cannot show them."""
    return table.map(lambda value: visible(value, lines=False) if isinstance(value, str) else value)
