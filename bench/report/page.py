"""A run -> report.html: one self-contained page, for a desktop or phone browser, or for print.

Jinja2 fills `page.html.jinja` and escapes every text: names and reasons come from files of the user. The tables are
plain HTML. Where scripts run, DataTables (https://datatables.net, as packed by itables) makes them sortable and
filterable, and Vega-Lite (https://vega.github.io, as packed by vl-convert-python) draws the charts of
`bench.report.charts`. Figures come from the page's folder and are embedded as data URIs.
Both libraries are embedded as gzip data, 0.7 MB together. On dark pages the figures are inverted by CSS.
Limits: a printed table has only the rows visible on the screen.
"""

from __future__ import annotations

import gzip
import math
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import itables.options
import pandas as pd
import vl_convert
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from ..analysis import tables
from ..analysis.intervals import MIN_PAIRS, Ratio
from ..analysis.overview import Overview, overview
from ..analysis.ratios import fastest_by_network
from ..analysis.reasons import explained
from ..analysis.sentences import headline, sentences
from ..machine import probes
from ..store.coverage import all_words
from ..store.files import write_whole
from ..store.folder import StoredRun
from ..store.records import FAILED
from .cells import Cell, Column, Table, table_of
from .charts import charts
from .figures import Drawn
from .style import known

HERE = Path(__file__).parent
# Tables of the report that the page shows, by section: title and what the table is about.
SECTIONS: dict[str, dict[str, tuple[str, str]]] = {
    "libraries": {
        "headlines": (
            "Ours against others",
            "The best peer is the fastest other library of each layer: no single library is that fast.",
        ),
        "against": (
            "Each backend against ours of its mode",
            "Planned backends are compared with auto, eager ones with auto_eager.",
        ),
        "best_peer_by_layer": ("Each layer against its fastest peer", "One row per layer that both measured."),
    },
    "versions": {
        "versions": ("Ours against other versions of it", "Above 1, the version named first is faster."),
        "versions_by_layer": ("Each layer against other versions", "Above 1, the version named first is faster."),
    },
    "backends": {
        "winners": ("Fastest backend of each layer", "Without auto and others that delegate to another backend."),
        "regret": ("What auto loses", "The backends that auto chose, against the fastest of ours on each layer."),
        "thread_efficiency": ("What more threads gain", "Layers that the backend measured at every number of threads."),
    },
    "costs": {
        "costs": (
            "Compiling, preparing, memory",
            "What a network costs once, if it is the only one. Seconds of one thread count.",
        ),
    },
}
# The first columns of a table on the page: what a reader looks for must be in sight on a phone.
FIRST = {
    "headlines": ["network", "theirs", "ratio", "ours is", "threads", "ours"],
    "against": ["backend", "ratio", "ours is", "sum (ms)", "network", "threads"],
    "best_peer_by_layer": ["layer", "ratio", "ours is", "theirs", "their ms", "our ms", "network", "threads"],
    "versions": ["network", "ratio", "ours is", "ours", "theirs", "threads"],
    "versions_by_layer": ["layer", "ratio", "ours is", "theirs", "their ms", "our ms", "network", "threads"],
    "winners": ["layer", "winner", "median_ms", "lead", "second", "network", "threads"],
    "costs": ["backend", "run_s", "compile_s", "prepare_s", "pays off after", "against", "network", "threads"],
    "thread_efficiency": ["backend", "threads", "speedup", "efficiency", "sum_s", "workload"],
}
CASES = {
    "layer": "layer", "backend": "backend", "median_ms": "median (ms)", "why": "why", "status": "status",
    "network": "network", "kernel": "kernel", "threads": "threads", "algorithm": "algorithm", "spread": "spread (%)",
    "samples": "samples", "stalled": "stalled (%)", "disturbed": "disturbed turns",
    "gflops_effective": "effective GFLOP/s", "of_peak": "of peak (%)",
    "error_over_bound": "error / bound", "workspace_mib": "workspace (MiB)",
}  # fmt: skip
# Columns that are weak if the time is weak.
OF_TIME = ("median (ms)", "effective GFLOP/s", "of peak (%)")


def write_page(
    run: StoredRun,
    table: pd.DataFrame,
    made: dict[str, pd.DataFrame],
    path: Path,
    left_out: list[str],
    drawn: Sequence[Drawn],
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
    drawn : sequence of Drawn
        The figures to embed.
    """
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    bundle = Path(itables.options.dt_bundle)
    found = overview(table)
    fastest = explained(fastest_by_network(table), table, "fastest", "second")
    text = environment.get_template("page.html.jinja").render(
        run=run, left_out=left_out, models=all_words(run.config), headline=headline(table), sentences=sentences(table),
        counts=table.status.value_counts().to_dict(), charts=charts(tables.plain(table)),
        overview=_overview(found) if found else None,
        fastest_by_network=table_of("Fastest backend of each network", fastest, about="By the sum of all its layers."),
        same=_same(table), sections=_sections(made), statuses=table_of("Cases by status", made["statuses"]),
        cases=_cases(table), failures=_failures(table),
        where=known(run.environment, cores="{} cores", date="{}", commit="commit {}"),
        environment=_environment(run), figures=_figures(path.parent / "figures", drawn),
        datatables=_zipped(bundle.read_bytes()), vega=_vega(),
        styles=[path.read_text(encoding="utf-8") for path in (bundle.with_suffix(".css"), HERE / "page.css")],
        fewest=MIN_PAIRS, script=(HERE / "page.js").read_text(encoding="utf-8"),
    )  # fmt: skip
    write_whole(path, text.encode(errors="replace"))


@cache
def _vega() -> str:
    """Vega-Embed with Vega and Vega-Lite as one script; packing them takes a second or two."""
    made: str = vl_convert.javascript_bundle("globalThis.vegaEmbed = vegaEmbed;")
    return _zipped(made.encode())


def _zipped(script: bytes) -> str:
    return b64encode(gzip.compress(script, mtime=0)).decode()


def _sections(made: dict[str, pd.DataFrame]) -> dict[str, list[Table]]:
    return {
        section: [
            table_of(title, _ordered(name, _with_intervals(made[name])), about=about)
            for name, (title, about) in titles.items()
            if name in made
        ]
        for section, titles in SECTIONS.items()
    }


def _ordered(name: str, content: pd.DataFrame) -> pd.DataFrame:
    first = [column for column in FIRST.get(name, []) if column in content]
    return content[first + [column for column in content if column not in first]]


def _with_intervals(content: pd.DataFrame) -> pd.DataFrame:
    """Merge the columns ratio, low and high into one."""
    if "ratio" not in content:
        return content
    found = [
        None if math.isnan(row.ratio) else Ratio(row.ratio, row.low, row.high, 0, "") for row in content.itertuples()
    ]
    return content.assign(ratio=pd.Series(found, content.index, object)).drop(columns=["low", "high"])


def _overview(found: Overview) -> Table:
    """The overview as a table: the least number of a column is marked, the reasons are in the cells."""
    texts = found.texts()
    columns = [Column("backend", "text"), *(Column(str(network), "number") for network in texts)]
    rows = []
    for backend in texts.index:
        cells = [Cell(found.name(backend))]
        for network in texts:
            value, reason = found.ratios[network][backend], found.why.get((backend, network), "")
            order = None if pd.isna(value) else float(value)
            cells.append(Cell(texts[network][backend] or "no sum", order, reason, bool(found.best[network][backend])))
        rows.append(cells)
    threads = f"{found.threads} thread{'s' * (found.threads > 1)}"
    about = (
        f"Time of all layers over that of {found.reference}, {threads}; above 1, {found.reference} is faster. "
        "The least of a column is bold."
    )
    return Table("Times at a glance", columns, rows, about, found.note)


def _same(table: pd.DataFrame) -> str:
    """Settings that all cases share, as text."""
    columns = {"direction": "direction {}", "cache": "{} caches", "dtype": "{}", "batch": "batch {}"}
    return ", ".join(text.format(table[name].iloc[0]) for name, text in columns.items() if table[name].nunique() == 1)


def _cases(table: pd.DataFrame) -> Table:
    shown = table.assign(
        median_ms=1e3 * table.median_s, spread=100 * table.iqr_s / table.median_s,
        stalled=100 * table.stalled_share, of_peak=100 * table.utilisation, workspace_mib=table.workspace_bytes / 2**20,
        why=table.weak.where(table.status == "ok", table.reason),
    )  # fmt: skip
    shown = shown[list(CASES)].rename(columns=CASES)
    weak = shown.isin([])
    for name in OF_TIME:
        weak[name] = (table.weak != "") & shown[name].notna()
    return table_of("Every case", shown, weak)


def _failures(table: pd.DataFrame) -> Table:
    """Cases without a time: failed ones first, then those that were not tried."""
    part = table[table.status != "ok"]
    part = part.iloc[(~part.status.isin(FAILED)).argsort(kind="stable")]
    columns = ["layer", "backend", "status", "reason", "network", "threads", "repeat"]
    return table_of("Cases without a time", part[columns].rename(columns={"repeat": "command"}))


def _environment(run: StoredRun) -> list[Table]:
    facts = {key: value for key, value in run.environment.items() if key != "machine"}
    asked = {key: value for key, value in run.config.items() if key not in ("cases", "models")}
    measured = run.environment.get("machine")
    found = probes.tables(measured) if measured else {}
    named = {"Machine and versions": _flat(facts), "Settings": _flat(asked)} | found
    return [replace(table_of(title, content), facts=True) for title, content in named.items()]


def _flat(facts: dict[str, Any]) -> pd.DataFrame:
    """Name and value, one row per fact; the name of a group is a prefix of its facts' names."""
    flat: dict[str, Any] = {}
    for name, value in facts.items():
        flat |= {f"{name} {key}": inner for key, inner in value.items()} if isinstance(value, dict) else {name: value}
    rows = [(name, "unknown" if value is None else str(value)) for name, value in flat.items()]
    return pd.DataFrame(rows, columns=["fact", "value"])


def _figures(folder: Path, drawn: Sequence[Drawn]) -> list[dict[str, Any]]:
    """Name, description and data of each figure. A photograph is not inverted on dark pages."""
    return [
        {
            "name": one.name, "alt": f"{one.alt}. {one.title}", "data": _webp(folder / f"{one.name}.png"),
            "photo": one.kind == "filters",
        }
        for one in drawn
    ]  # fmt: skip


def _webp(path: Path) -> str:
    # Lossless, and half the size of the PNG.
    with BytesIO() as file, Image.open(path) as image:
        image.save(file, "WEBP", lossless=True)
        return f"data:image/webp;base64,{b64encode(file.getvalue()).decode()}"
