"""A run -> report.html: one self-contained page, for a desktop or phone browser, or for print.

Jinja2 fills `page.html.jinja` and escapes every text: names and reasons come from files of the user. The tables are
plain HTML. Where scripts run, DataTables (https://datatables.net, as packed by itables) makes them sortable and
filterable. Figures come from the page's folder and are embedded as data URIs.
Limits: about 1 MB of the page is DataTables; a printed table has only the rows visible on the screen.
"""

from __future__ import annotations

import math
from base64 import b64encode
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import itables.options
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from pandas.api.types import is_numeric_dtype
from PIL import Image

from ..analysis.intervals import Ratio
from ..analysis.numbers import NOTE, cell, marked
from ..analysis.ratios import fastest_by_network
from ..analysis.sentences import sentences
from ..machine import probes
from ..store.coverage import all_words
from ..store.files import write_whole
from ..store.folder import StoredRun
from ..store.records import FAILED
from . import figures, roofline, sweeps
from .style import known

# Tables of the report that the page shows, by section.
SECTIONS: dict[str, dict[str, str]] = {
    "ratios": {
        "headlines": "Ours against others",
        "versions": "Ours against other versions of it",
        "against": "Each backend against ours of its mode",
    },
    "layers": {
        "versions_by_layer": "Each layer against other versions",
        "best_peer_by_layer": "Each layer against its fastest peer",
        "winners": "Fastest backend of each layer",
    },
    "costs": {"costs": "Compiling, preparing, memory", "thread_efficiency": "What more threads gain"},
}
ALT = figures.ALT | roofline.ALT | sweeps.ALT
# Columns with at most this many different values get a drop-down filter, the others a text filter.
FEW = 30
# Beyond all numbers: where there is none, sorting puts it last.
LAST = 1e300
CASES = {
    "network": "network", "layer": "layer", "kernel": "kernel", "threads": "threads", "backend": "backend",
    "algorithm": "algorithm", "status": "status", "median_ms": "median (ms)", "spread": "spread (%)",
    "samples": "samples", "stalled": "stalled (%)", "disturbed": "disturbed turns",
    "gflops_effective": "effective GFLOP/s", "of_peak": "of peak (%)",
    "error_over_bound": "error / bound", "workspace_mib": "workspace (MiB)", "weak": "weak because",
}  # fmt: skip
# Columns that are weak if the time is weak.
OF_TIME = ("median (ms)", "effective GFLOP/s", "of peak (%)")


@dataclass(frozen=True)
class Cell:
    """Visible text, and the sort key if it differs from the text."""

    text: str
    order: float | None = None


@dataclass(frozen=True)
class Table:
    """Rows for the template; a column's kind is number, code, text, or few (text with a drop-down filter).

    A table of facts has no sorting and no filters. ``note`` explains the marks; it is empty if there are none.
    """

    title: str
    columns: list[str]
    kinds: list[str]
    rows: list[list[Cell]]
    note: str = ""
    facts: bool = False


def write_page(
    run: StoredRun, table: pd.DataFrame, made: dict[str, pd.DataFrame], path: Path, left_out: list[str]
) -> None:
    """Write the page atomically.

    Parameters
    ----------
    run : Run
    table : DataFrame
        The frame of the run, from `bench.analysis.frame.frame`.
    made : dict of str to DataFrame
        The report's tables, from `bench.report.write.all_tables`.
    path : Path
        Path of the page; the run's figures are in ``figures`` in the same folder.
    left_out : list of str
        Items that the report could not make, with the reasons.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    bundle = Path(itables.options.dt_bundle)
    text = environment.get_template("page.html.jinja").render(
        run=run, left_out=left_out, models=all_words(run.config), sentences=sentences(table),
        counts=table.status.value_counts().to_dict(),
        fastest_by_network=_table("Fastest backend of each network", fastest_by_network(table)), same=_same(table),
        sections=_sections(made), statuses=_table("Cases by status", made["statuses"]), cases=_cases(table),
        failures=_failures(table), where=known(run.environment, cores="{} cores", date="{}", commit="commit {}"),
        environment=_environment(run), figures=_figures(path.parent / "figures"),
        script=b64encode(bundle.read_bytes()).decode(), style=bundle.with_suffix(".css").read_text(encoding="utf-8"),
    )  # fmt: skip
    write_whole(path, text.encode(errors="replace"))


def _sections(made: dict[str, pd.DataFrame]) -> dict[str, list[Table]]:
    return {
        section: [_table(title, _with_intervals(made[name])) for name, title in titles.items() if name in made]
        for section, titles in SECTIONS.items()
    }


def _with_intervals(content: pd.DataFrame) -> pd.DataFrame:
    """Merge the columns ratio, low and high into one."""
    if "ratio" not in content:
        return content
    found = [
        None if math.isnan(row.ratio) else Ratio(row.ratio, row.low, row.high, 0, "") for row in content.itertuples()
    ]
    return content.assign(ratio=pd.Series(found, content.index, object)).drop(columns=["low", "high"])


def _same(table: pd.DataFrame) -> str:
    """Settings that all cases share, as text."""
    columns = {"direction": "direction {}", "cache": "{} caches", "dtype": "{}", "batch": "batch {}"}
    return ", ".join(text.format(table[name].iloc[0]) for name, text in columns.items() if table[name].nunique() == 1)


def _cases(table: pd.DataFrame) -> Table:
    shown = table.assign(
        median_ms=1e3 * table.median_s, spread=100 * table.iqr_s / table.median_s,
        stalled=100 * table.stalled_share, of_peak=100 * table.utilisation, workspace_mib=table.workspace_bytes / 2**20,
    )  # fmt: skip
    shown = shown[list(CASES)].rename(columns=CASES)
    weak = shown.isin([])
    for name in OF_TIME:
        weak[name] = (table.weak != "") & shown[name].notna()
    return _table("Every case", shown, weak)


def _failures(table: pd.DataFrame) -> Table:
    """Cases without a time: failed ones first, then those that were not tried."""
    part = table[table.status != "ok"]
    part = part.iloc[(~part.status.isin(FAILED)).argsort(kind="stable")]
    columns = ["network", "layer", "backend", "threads", "status", "reason", "repeat"]
    return _table("Cases without a time", part[columns].rename(columns={"repeat": "command"}))


def _environment(run: StoredRun) -> list[Table]:
    facts = {key: value for key, value in run.environment.items() if key != "machine"}
    asked = {key: value for key, value in run.config.items() if key not in ("cases", "models")}
    measured = run.environment.get("machine")
    found = probes.tables(measured) if measured else {}
    named = {"Machine and versions": _flat(facts), "Settings": _flat(asked)} | found
    return [replace(_table(title, content), facts=True) for title, content in named.items()]


def _flat(facts: dict[str, Any]) -> pd.DataFrame:
    """Name and value, one row per fact; the name of a group is a prefix of its facts' names."""
    flat: dict[str, Any] = {}
    for name, value in facts.items():
        flat |= {f"{name} {key}": inner for key, inner in value.items()} if isinstance(value, dict) else {name: value}
    rows = [(name, "unknown" if value is None else str(value)) for name, value in flat.items()]
    return pd.DataFrame(rows, columns=["fact", "value"])


def _figures(folder: Path) -> list[dict[str, str]]:
    paths = {name: folder / f"{name}.png" for name in ALT}
    return [
        {"name": name, "alt": ALT[name], "data": f"data:image/webp;base64,{_webp(path)}"}
        for name, path in paths.items()
        if path.is_file()
    ]


def _webp(path: Path) -> str:
    # Lossless, and half the size of the PNG.
    with BytesIO() as file, Image.open(path) as image:
        image.save(file, "WEBP", lossless=True)
        return b64encode(file.getvalue()).decode()


def _table(title: str, content: pd.DataFrame, weak: pd.DataFrame | None = None) -> Table:
    """Make a `Table`. By default the column ``weak`` gives the weak cells, as in `bench.analysis.numbers.shown`."""
    if weak is None:
        content, weak = marked(content)
    made = [_column(str(name), content[name], weak[name]) for name in content]
    rows = [list(row) for row in zip(*(cells for *_, cells in made), strict=True)]
    note = NOTE if weak.any(axis=None) else ""
    return Table(title, [name for name, *_ in made], [kind for _, kind, _ in made], rows, note)


def _column(name: str, values: pd.Series, weak: pd.Series) -> tuple[str, str, list[Cell]]:
    """Heading, kind and cells."""
    ratios = values.map(lambda value: isinstance(value, Ratio)).any()
    number = ratios or is_numeric_dtype(values)
    # Cells need a sort key if a script cannot parse their text as a number.
    ordered = bool(ratios or (number and (values.isna().any() or weak.any())))
    cells = [_cell(value, ordered, mark) for value, mark in zip(values.astype(object), weak, strict=True)]
    few = len({made.text for made in cells}) <= FEW
    return (
        name.replace("_", " "),
        "number" if number else "code" if name == "command" else "few" if few else "text",
        cells,
    )


def _cell(value: Any, ordered: bool, weak: bool) -> Cell:
    text = cell(value, weak)
    if not ordered:
        return Cell(text)
    number = value.value if isinstance(value, Ratio) else value
    return Cell(text, float(f"{number:.6g}") if text else LAST)
