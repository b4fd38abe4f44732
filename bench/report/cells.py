"""DataFrame -> a table of the page: texts, sort keys, explained headings, and the reason next to each weak number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd
from pandas.api.types import is_numeric_dtype

from ..analysis.intervals import MIN_PAIRS, Ratio
from ..analysis.numbers import NOTE, cell, marked

# Columns with at most this many different values get a drop-down filter, the others a text filter.
FEW = 30
# Beyond all numbers: where there is none, sorting puts it last.
LAST = 1e300
# What a heading means, where it is not plain; for all tables of the page.
HEADINGS = {
    "ratio": "Their time over ours, from turns of the same rounds, with its 95% interval. Above 1, ours is faster.",
    "second takes": "The time of the second over that of the fastest, with its 95% interval.",
    "ours is": f"Uncertain: the interval contains 1. Too few repetitions: less than {MIN_PAIRS} common turns.",
    "verdict": "About the fastest: uncertain if the interval contains 1.",
    "layers below 0.9": "Layers on which theirs takes less than 0.9 times our time.",
    "worst layer": "The layer with the smallest ratio.", "its ratio": "The ratio of the worst layer.",
    "sum (ms)": "Time of all layers, each as often as the network has it.",
    "sum ms": "Time of all layers, each as often as the network has it.",
    "sum s": "Seconds of all layers that were measured at every number of threads.",
    "layers": "How many of the network's layers were measured.",
    "pairs": "The fewest turns that both have in common, of all layers.",
    "mode": "planned: weights packed before the timed calls. eager: weights with each call.",
    "lead": "The time of the second over that of the winner.",
    "gflops effective": "Operations of the definition over the time.",
    "effective GFLOP/s": "Operations of the definition over the time. Winograd and FFT do fewer.",
    "our GFLOP/s": "Operations of the definition over our time.",
    "of peak (%)": "Executed operations, as a share of the FMA peak measured in the same rounds.",
    "error / bound": "Largest error against the float64 reference, over the published bound. Below 1 is right.",
    "median (ms)": "Median over all turns.", "spread (%)": "Interquartile range, as a share of the median.",
    "stalled (%)": "Samples that took more than twice the best turn.",
    "disturbed turns": "Turns that another load disturbed. They do not count.",
    "workspace (MiB)": "Scratch memory of a call.",
    "compile s": "Seconds of compiling, or of loading compiled code, that the network alone would take.",
    "prepare s": "Seconds of packing and transforming the weights of all layers.",
    "run s": "Seconds of one pass over the network.",
    "packed MiB": "Packed weights of all layers.", "workspace MiB": "Scratch memory of the layer that needs most.",
    "peak MiB": "What preparing and the first call added to the memory of the process, at most.",
    "pays off after": "Passes after which compiling and preparing cost less time than they save.",
    "against": "The fastest backend that needs neither compiling nor preparing.",
    "speedup": "Time with the fewest threads over this time.",
    "efficiency": "Speed-up over the ratio of the threads. 1 is ideal.",
    "why": "Why the time is weak, or why there is none.",
    "command": "Repeats the case.",
}  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """Visible text, the sort key if it differs from the text, and why the number is weak or missing."""

    text: str
    order: float | None = None
    why: str = ""
    best: bool = False


@dataclass(frozen=True)
class Column:
    """A heading and its kind: number, code, text, or few (text with a drop-down filter)."""

    name: str
    kind: str

    @property
    def help(self) -> str:
        """What the heading means; empty if it is plain."""
        return HEADINGS.get(self.name, "")


@dataclass(frozen=True)
class Table:
    """Rows for the template.

    A table of facts has no sorting and no filters. ``about`` explains the table in a sentence or two, ``note`` its
    marks; both may be empty.
    """

    title: str
    columns: list[Column]
    rows: list[list[Cell]]
    about: str = ""
    note: str = ""
    facts: bool = False


def table_of(title: str, content: pd.DataFrame, weak: pd.DataFrame | None = None, about: str = "") -> Table:
    """Make a `Table`.

    Parameters
    ----------
    title, about : str
    content : DataFrame
        If it has a column ``weak``, as in `bench.analysis.numbers.shown`, a column ``why`` is not a column of the page:
        each reason follows the first weak or missing number of its row.
    weak : DataFrame of bool, optional
        Which cells are weak, instead of the column ``weak``; then ``why`` is a column.
    """
    reasons = [""] * len(content)
    if weak is None:
        if "weak" in content and "why" in content:
            reasons, content = list(content.why), content.drop(columns="why")
        content, weak = marked(content)
    places = [_place(content.iloc[i], weak.iloc[i]) if why else "" for i, why in enumerate(reasons)]
    made = []
    for name in content:
        here = [why if place == name else "" for why, place in zip(reasons, places, strict=True)]
        made.append(_column(str(name), content[name], weak[name], here))
    rows = [list(row) for row in zip(*(cells for _, cells in made), strict=True)]
    return Table(title, [column for column, _ in made], rows, about, NOTE if weak.any(axis=None) else "")


def _place(row: pd.Series, weak: pd.Series) -> str:
    """The column whose number a reason belongs to: the first weak one, else the first that is missing."""
    names = [name for name in row.index if weak[name]] or [name for name in row.index if pd.isna(row[name])]
    return str(names[0] if names else row.index[0])


def _column(name: str, values: pd.Series, weak: pd.Series, reasons: list[str]) -> tuple[Column, list[Cell]]:
    ratios = values.map(lambda value: isinstance(value, Ratio)).any()
    number = ratios or is_numeric_dtype(values)
    # Cells need a sort key if a script cannot parse their text as a number.
    ordered = bool(ratios or (number and (values.isna().any() or weak.any() or any(reasons))))
    each = zip(values.astype(object), weak, reasons, strict=True)
    cells = [_cell(value, ordered, mark, why) for value, mark, why in each]
    # A reason in a cell would be a part of the filter's choices.
    few = len({made.text for made in cells}) <= FEW and not any(reasons)
    kind = "number" if number else "code" if name == "command" else "few" if few else "text"
    return Column(name.replace("_", " "), kind), cells


def _cell(value: Any, ordered: bool, weak: bool, why: str) -> Cell:
    text = cell(value, weak)
    if not ordered:
        return Cell(text, why=why)
    number = value.value if isinstance(value, Ratio) else value
    return Cell(text, float(f"{number:.6g}") if text else LAST, why)
