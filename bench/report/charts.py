"""Frame -> the interactive charts of the page: data, and specifications for Vega-Lite. Pure.

    networks   time of each network, ours and the libraries, relative to the best library or in ms
    layers     time of each layer of one network, relative to the best library of the layer or in ms
    parts      where the time of one network goes: a bar per backend, a part per layer

`bench.report.page` embeds them as JSON, and a script of the page draws them with https://vega.github.io: it filters the
rows by network, threads and hidden backends, and sets the kind of the scale and the colours of the theme.
Limits: without a library, the best of all backends is 1. The relative time of a layer is a ratio of medians; intervals
and verdicts are in the tables.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd

from ..analysis.networks import relative
from ..analysis.numbers import SIGN
from ..analysis.reasons import why
from ..analysis.tables import order
from ..peers import PEERS
from .colours import DARK, HUES, pairs
from .shapes import PATHS

# Heights of a row in pixels: all backends of a network on one line, or a line for each backend.
ROW, LINE = 26, 12
# With more networks than this, the backends of a network share a line.
FEW = 6
RULE = {"mark": {"type": "rule", "strokeDash": [4, 3]}, "encoding": {"x": {"datum": 1, "type": "quantitative"}}}


def charts(table: pd.DataFrame) -> dict[str, Any]:
    """All charts that have data.

    Parameters
    ----------
    table : DataFrame
        Plain cases, from `bench.analysis.tables.plain`.

    Returns
    -------
    dict
        ``backends``: name, colours and marker of each; ``data``: fields and rows (values in the order of the fields) by
        name; ``charts``: name, name of its data, title, note, choices (values of the fields by which the reader
        selects) and views (a specification by the name of its unit).
    """
    table = table[table.version == ""]
    data = {"networks": network_rows(table), "layers": layer_rows(table)}
    names = order([row["backend"] for rows in data.values() for row in rows])
    best = "the best library" if table.backend.isin(PEERS).any() else "the fastest backend"
    relative_to, unit = f"relative to {best}", f"time; {best} = 1"
    made: list[dict[str, Any]] = [
        {
            "name": "networks",
            "data": "networks",
            "title": "Time of each network",
            "choices": ["threads"],
            "note": f"The time of {best} is 1: left of 1 is faster. Lines are 95% intervals.",
            "views": {
                relative_to: _network_view("relative", unit, data["networks"]),
                "milliseconds": _network_view("ms", "time (ms)", data["networks"]),
            },
        },
        {
            "name": "layers",
            "data": "layers",
            "title": "Time of each layer",
            "choices": ["network", "threads"],
            "note": f"On each layer, the time of {best} there is 1: left of 1 is faster.",
            "views": {
                relative_to: _layer_view("relative", unit),
                "milliseconds": _layer_view("ms", "time of one call (ms)"),
            },
        },
        {
            "name": "parts",
            "data": "layers",
            "title": "Where the time goes",
            "choices": ["network", "threads"],
            "note": "A part of a bar is a layer, as often as the network has it. Its colour is the size of the kernel.",
            "views": {"milliseconds": _part_view()},
        },
    ]
    return {
        "backends": looks(names),
        "data": {
            name: {"fields": list(rows[0]), "rows": [list(row.values()) for row in rows]}
            for name, rows in data.items()
            if rows
        },
        "charts": [
            chart | {"choices": _choices(rows, chart["choices"])} for chart in made if (rows := data[chart["data"]])
        ],
    }


def _choices(rows: list[dict[str, Any]], fields: Iterable[str]) -> dict[str, list[Any]]:
    """The values of each field; most threads first, since a run on all cores is the usual question."""
    known = {field: list(dict.fromkeys(row[field] for row in rows)) for field in fields}
    return known | {"threads": sorted(known["threads"], reverse=True)}


def looks(names: list[str]) -> list[dict[str, str]]:
    """Colours and marker of each backend, those of the figures."""
    known = {name: (HUES[hue], PATHS[marker]) for name, (hue, marker) in pairs(names).items()}
    return [
        {"name": name, "light": known[name][0], "dark": DARK[known[name][0]], "path": known[name][1]} for name in names
    ]


def network_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """One row per network, number of threads and backend that measured all of its layers."""
    rows = []
    for threads in sorted(table.threads.unique()):
        part = table[table.threads == threads]
        for row in relative(part).itertuples():
            if row.measured < row.layers:
                continue
            cases = part[(part.network == row.network) & (part.backend == row.backend)]
            found = {
                "network": row.network, "threads": int(threads), "backend": row.backend, "ms": 1e3 * row.sum_s,
                "relative": row.relative, "low": row.low, "high": row.high, "weak": SIGN if row.weak else "",
                "why": why(cases),
            }  # fmt: skip
            rows.append(_plain(found))
    return rows


def layer_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """One row per layer, number of threads and backend with a time."""
    ok = table[table.status == "ok"]
    libraries = ok[ok.backend.isin(PEERS)] if ok.backend.isin(PEERS).any() else ok
    keys = ["network", "threads", "layer"]
    best = libraries.groupby(keys).median_s.min().rename("best_s").reset_index()
    joined = ok.merge(best, on=keys, how="left")
    return [
        _plain({
            "network": row.network, "threads": int(row.threads), "layer": row.layer, "kernel": row.kernel,
            "backend": row.backend, "ms": 1e3 * row.median_s, "relative": row.median_s / row.best_s,
            "total": 1e3 * row.median_s * row.count_, "weak": SIGN if row.weak else "", "why": row.weak,
        })
        for row in joined.rename(columns={"count": "count_"}).itertuples()
    ]  # fmt: skip


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """Four digits are more than the charts show; JSON has no NaN."""
    numbers = {name: float(f"{value:.4g}") for name, value in row.items() if isinstance(value, float)}
    return {name: None if value != value else numbers.get(name, value) for name, value in row.items()}


def _network_view(field: str, title: str, rows: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """One line per network, or per network and backend if there are few."""
    few = len({row["network"] for row in rows}) <= FEW
    y: dict[str, Any] = {"y": _rows("network")}
    if few:
        y["yOffset"] = {"field": "backend", "type": "nominal"}
    interval = {
        "mark": {"type": "rule", "strokeWidth": 1.5},
        "encoding": {"x": {"field": "low", "type": "quantitative", "title": title}, "x2": {"field": "high"}},
    }
    points = _points(field, title, ["network"])
    relative = field == "relative"
    return _view([RULE, interval, points] if relative else [points], y, LINE if few else ROW)


def _layer_view(field: str, title: str) -> dict[str, Any]:
    points = _points(field, title, ["layer", "kernel"])
    y = {"y": _rows("layer")}
    return _view([RULE, points] if field == "relative" else [points], y, ROW)


def _rows(field: str) -> dict[str, Any]:
    """One row per value, in the order of the data."""
    return {
        "field": field, "type": "nominal", "sort": None, "title": None, "axis": {"grid": True, "tickBand": "extent"},
        "scale": {"paddingInner": 0.15, "paddingOuter": 0.1},
    }  # fmt: skip


def _points(field: str, title: str, keys: list[str]) -> dict[str, Any]:
    return {
        "mark": {"type": "point", "filled": True, "size": 55, "opacity": 0.85},
        "encoding": {
            "x": {"field": field, "type": "quantitative", "title": title},
            "shape": {"field": "backend", "type": "nominal", "legend": None},
            "tooltip": [{"field": name, "type": "nominal"} for name in ["backend", *keys]] + _numbers(),
        },
    }


def _numbers() -> list[dict[str, str]]:
    ratios = [("relative", "time; best = 1"), ("low", "from"), ("high", "to")]
    return [
        {"field": "ms", "title": "ms", "type": "quantitative", "format": ".3~r"},
        *({"field": name, "title": title, "type": "quantitative", "format": ".3~r"} for name, title in ratios),
        {"field": "weak", "title": "weak", "type": "nominal"}, {"field": "why", "title": "why", "type": "nominal"},
    ]  # fmt: skip


def _part_view() -> dict[str, Any]:
    tooltip = [{"field": name, "type": "nominal"} for name in ("backend", "layer", "kernel")]
    number = {"field": "total", "title": "ms, all together", "type": "quantitative", "format": ".3~r"}
    bars = {
        "mark": {"type": "bar", "stroke": None, "strokeWidth": 0.6},
        "encoding": {
            "x": {"field": "total", "type": "quantitative", "stack": "zero", "title": "time of the network (ms)"},
            "color": {
                "field": "kernel", "type": "nominal", "title": "kernel", "sort": None,
                "legend": {"orient": "bottom", "columns": 5},
            },
            "order": {"field": "place", "type": "quantitative"},
            "tooltip": [*tooltip, number],
        },
    }  # fmt: skip
    y = {"y": _rows("backend")}
    return _view([bars], y, ROW)


def _view(layers: list[dict[str, Any]], y: dict[str, Any], step: int) -> dict[str, Any]:
    """A specification without data, colours and scales, as wide as its place; the script sets its height."""
    # The line at 1 has no place on the other axis: it crosses all rows.
    drawn = [each if each is RULE else {**each, "encoding": y | each["encoding"]} for each in layers]
    return {
        "width": "container", "autosize": {"type": "fit-x", "contains": "padding"}, "layer": drawn,
        "usermeta": {"rows": y["y"]["field"], "lines": "backend" if "yOffset" in y else "", "step": step},
    }  # fmt: skip
