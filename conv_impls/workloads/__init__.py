"""Layers to measure, as data: a text file of benchdnn labels or a CSV table of layers, one layer a line.

Adding a layer is adding a line, adding a workload is adding a file to this folder; a path to a file of your own, or one
label on the command line, does as well. Every error names the file and the line.
"""

from __future__ import annotations

import csv
import difflib
import re
from dataclasses import dataclass
from pathlib import Path

from conv_impls.errors import ConvError
from conv_impls.problem import Conv2dProblem

FOLDER = Path(__file__).parent
COLUMNS = [
    "name",
    "count",
    "n",
    "ic",
    "ih",
    "iw",
    "oc",
    "oh",
    "ow",
    "kh",
    "kw",
    "sh",
    "sw",
    "ph",
    "pw",
    "ph_end",
    "pw_end",
    "dh",
    "dw",
    "groups",
]


class WorkloadError(ValueError):
    """A workload that cannot be found or read."""


@dataclass(frozen=True)
class Layer:
    """One layer of a workload and how often the network has it."""

    workload: str
    name: str
    count: int
    problem: Conv2dProblem


def available() -> dict[str, Path]:
    """Built-in workloads by name."""
    return {path.stem: path for path in sorted(FOLDER.iterdir()) if path.suffix in (".txt", ".csv")}


def load(text: str) -> list[Layer]:
    """Layers of a built-in workload, of a file, or of one label.

    Examples
    --------
    >>> len(load("basic")), load("ic3ih8oc4kh3ph1")[0].problem.output_shape
    (18, (2, 4, 8, 8))
    """
    path = available().get(text, Path(text))
    if path.is_file():
        layers = _read_csv(path) if path.suffix == ".csv" else _read_labels(path)
        names = [layer.name for layer in layers]
        for name in names:
            if names.count(name) > 1:
                raise WorkloadError(f"{path}: layer name {name!r} comes twice; names tell layers apart")
        if not layers:
            raise WorkloadError(f"{path}: no layers in it")
        return layers
    if re.match(r"(g\d+)?(mb\d+)?ic\d", text):
        try:
            problem = Conv2dProblem.from_label(text)
        except ConvError as error:
            raise WorkloadError(str(error)) from None
        return [Layer("label", problem.name or problem.label, 1, problem)]
    close = difflib.get_close_matches(text, available(), n=1, cutoff=0.4)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise WorkloadError(
        f"no workload {text!r}; {hint}known: {', '.join(available())}; or give a file or a benchdnn label"
    )


def _read_labels(path: Path) -> list[Layer]:
    layers = []
    for number, line in enumerate(_lines(path), 1):
        text = line.split("#")[0].strip()
        if not text:
            continue
        match = re.fullmatch(r"(.*?)(?:\s+x(\d+))?", text)
        assert match is not None
        try:
            problem = Conv2dProblem.from_label(match[1])
        except ConvError as error:
            raise WorkloadError(f"{path}:{number}: {error}") from None
        if match[2] and int(match[2]) < 1:
            raise WorkloadError(f"{path}:{number}: a count is at least 1, got x{match[2]}")
        layers.append(Layer(path.stem, problem.name or problem.label, int(match[2] or 1), problem))
    return layers


def _read_csv(path: Path) -> list[Layer]:
    rows = csv.DictReader(_lines(path))
    if rows.fieldnames != COLUMNS:
        raise WorkloadError(
            f"{path}:1: expected the columns {','.join(COLUMNS)}, got {','.join(rows.fieldnames or [])}"
        )
    layers = []
    for row in rows:
        where = f"{path}:{rows.line_num}"
        try:
            v = {column: int(row[column]) for column in COLUMNS[1:]}
            problem = Conv2dProblem(
                v["n"], v["ic"], (v["ih"], v["iw"]), v["oc"], (v["kh"], v["kw"]), (v["sh"], v["sw"]),
                ((v["ph"], v["ph_end"]), (v["pw"], v["pw_end"])), (v["dh"], v["dw"]), v["groups"], name=row["name"],
            )  # fmt: skip
        except (ConvError, ValueError, TypeError) as error:
            raise WorkloadError(f"{where}: {error}") from None
        if problem.out_size != (v["oh"], v["ow"]) or v["count"] < 1:
            raise WorkloadError(
                f"{where}: oh x ow is {v['oh']}x{v['ow']}, the other columns give {problem.out_size}; "
                f"count is {v['count']}"
            )
        layers.append(Layer(path.stem, row["name"].split(":")[-1], v["count"], problem))
    return layers


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise WorkloadError(f"{path}: cannot be read as text: {error}") from None
