"""Layers to measure, as data: a text file of benchdnn labels, a CSV table of layers, or an ONNX model.

To add a layer, add a line; to add a workload, add a file to this folder. The command line also accepts a path to any
other file, or one label. Equal layers of a file become one layer with a count. Every error names the file, and the line
if there are lines. `random:N:SEED` needs no file: `drawn` makes its layers.
"""

from __future__ import annotations

import csv
import difflib
import os.path
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from conv_impls import labels
from conv_impls.errors import ConvError
from conv_impls.problem import Conv2dProblem
from conv_impls.workloads import drawn, onnx_model
from conv_impls.workloads.layer import Layer, Workload, WorkloadError, coverage

__all__ = [
    "COLUMNS", "FOLDER", "Layer", "Workload", "WorkloadError", "available", "coverage", "is_model", "load", "read",
]  # fmt: skip

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
# Maximum count of a layer: no network has more, so a larger count is a mistake.
MOST_OF_A_LAYER = 10**6
# A line of labels is split at spaces, as in benchdnn, but not within quotes.
WORD = re.compile(r'(?:"[^"]*"|\S)+')


def available() -> dict[str, Path]:
    """Built-in workloads by name."""
    return {path.stem: path for path in sorted(FOLDER.iterdir()) if path.suffix in (".txt", ".csv")}


def is_model(text: str) -> bool:
    """Whether a text names an ONNX model. Only these have inputs whose sizes may be given."""
    return text.lower().endswith(".onnx") and text not in available() and not text.startswith(drawn.PREFIX)


def load(text: str, batch: int | None = None, dtype: str | None = None, size: str = "") -> list[Layer]:
    """Return only the layers of `read`.

    Examples
    --------
    >>> len(load("basic")), load("ic3ih8oc4kh3ph1")[0].problem.output_shape
    (18, (2, 4, 8, 8))
    """
    return read(text, batch, dtype, size).layers


def read(text: str, batch: int | None = None, dtype: str | None = None, size: str = "") -> Workload:
    """Read the layers of a built-in workload, a file or one label, and count the skipped convolutions of a model.

    Parameters
    ----------
    text : str
        A name, a file (``.csv``, ``.onnx``, otherwise labels, one per line), a benchdnn label, or ``random:N:SEED`` for
        N layers drawn from a seed. A file whose own name begins with ``random:`` must be given with its folder.
    batch : int >= 1, optional
        The batch of every layer; for a model, the batch of its inputs.
    dtype : {"float32", "float64"}, optional
        The dtype of every layer.
    size : str, optional
        Sizes of a model's inputs, if the file leaves them open: ``1,3,48,192``, or ``name=1,3,48,192`` for each of
        several inputs.

    Returns
    -------
    Workload
        At least one layer; the names of its layers are unique.

    Raises
    ------
    WorkloadError
        If there is no such workload, or a file, label, batch, dtype or size is wrong.

    Examples
    --------
    >>> read("ic3ih8oc4kh3ph1", batch=8, dtype="float64").layers[0].name
    'mb8ic3ih8oc4oh8kh3ph1dt"float64"'
    """
    if batch is not None and not 1 <= batch < 2**31:
        raise WorkloadError(f"batch: expected an integer >= 1 and below 2**31, got {batch}")
    path = available().get(text, Path(text))
    changes: dict[str, Any] = {"batch": batch, "dtype": dtype}
    if size and not is_model(text):
        raise WorkloadError(f"size: expected an ONNX model, whose inputs may have open sizes, got {text!r}")
    if text.startswith(drawn.PREFIX):
        workload = Workload(*drawn.read(text))
    elif not os.path.isfile(path):
        workload = Workload("label", [_read_label(text)])
    elif is_model(text):
        # Inside a model, a batch may be a multiple of the batch of the inputs.
        workload = onnx_model.read(path, changes.pop("batch"), size)
    else:
        layers = _read_csv(path) if path.suffix.lower() == ".csv" else _read_labels(path)
        workload = Workload(path.stem, layers)
    layers = workload.layers
    try:
        layers = _counted(_changed(layer, {k: v for k, v in changes.items() if v is not None}) for layer in layers)
    except (ConvError, ValueError) as error:
        raise WorkloadError(f"{text}: {error}") from None
    if not layers:
        raise WorkloadError(f"{path}: it contains no layers")
    name, times = Counter(layer.name for layer in layers).most_common(1)[0]
    if times > 1:
        raise WorkloadError(f"{path}: layer name {name!r} is used twice, with different labels; use unique names")
    return replace(workload, layers=layers)


def _changed(layer: Layer, changes: dict[str, Any]) -> Layer:
    """The layer with another batch or dtype; one named by its label gets the new label."""
    problem = layer.problem.replace(**changes)
    return replace(layer, problem=problem, name=layer.name if problem.name else problem.label)


def _counted(layers: Iterable[Layer]) -> list[Layer]:
    """Merge layers of equal name and label; add their counts."""
    known: dict[tuple[str, str], Layer] = {}
    for layer in layers:
        key = layer.name, layer.problem.label
        count = _count(layer.count + known[key].count) if key in known else layer.count
        known[key] = replace(layer, count=count)
    return list(known.values())


def _read_label(text: str) -> Layer:
    if labels.is_label(text):
        try:
            problem = Conv2dProblem.from_label(text)
        except ConvError as error:
            raise WorkloadError(str(error)) from None
        return Layer("label", problem.name or problem.label, 1, problem)
    if os.path.isdir(text):
        raise WorkloadError(f"{text}: expected a file of layers, got a folder")
    if re.search(r"[./\\]", text):
        raise WorkloadError(f"no file {text!r}")
    close = difflib.get_close_matches(text, [*available(), drawn.FORM], n=1, cutoff=0.4)
    hint = f"did you mean {close[0]!r}? " if close else ""
    known = ", ".join([*available(), drawn.FORM])
    raise WorkloadError(f"no workload {text!r}; {hint}known: {known}; or give a file or a benchdnn label")


def _read_labels(path: Path) -> list[Layer]:
    """Read labels, each with an optional xCOUNT after it; a word that begins with # begins a comment."""
    layers: list[Layer] = []
    for number, line in enumerate(_lines(path), 1):
        first = len(layers)
        try:
            for word in WORD.findall(line):
                if word.startswith("#"):
                    break
                if word.startswith("--"):
                    raise ValueError(f"expected only labels, got an option of benchdnn: {word[:40]!r}")
                # An invalid count is parsed as a label, which then fails.
                if (match := re.fullmatch(r"x([0-9]{1,9})", word)) and len(layers) > first:
                    layers[-1] = replace(layers[-1], count=_count(int(match[1])))
                else:
                    problem = Conv2dProblem.from_label(word)
                    layers.append(Layer(path.stem, problem.name or problem.label, 1, problem))
        except (ConvError, ValueError) as error:
            raise WorkloadError(f"{path}:{number}: {error}") from None
    return layers


def _read_csv(path: Path) -> list[Layer]:
    rows = csv.DictReader(_lines(path))
    try:
        if rows.fieldnames != COLUMNS:
            got = ",".join(rows.fieldnames or [])[:200]
            raise ValueError(f"expected the columns {','.join(COLUMNS)}, got {got}")
        return [_read_row(path.stem, row) for row in rows]
    except (ConvError, ValueError, csv.Error) as error:
        # line_num does not yet count a line that is not valid CSV.
        line = max(1, rows.line_num + isinstance(error, csv.Error))
        raise WorkloadError(f"{path}:{line}: {error}") from None


def _read_row(workload: str, row: dict[str, str]) -> Layer:
    if list(row) != COLUMNS or None in row.values():
        raise ValueError(f"expected {len(COLUMNS)} values, got another number")
    v = {column: int(row[column]) for column in COLUMNS[1:]}
    problem = Conv2dProblem(
        v["n"], v["ic"], (v["ih"], v["iw"]), v["oc"], (v["kh"], v["kw"]), (v["sh"], v["sw"]),
        ((v["ph"], v["ph_end"]), (v["pw"], v["pw_end"])), (v["dh"], v["dw"]), v["groups"], name=row["name"],
    )  # fmt: skip
    if problem.out_size != (v["oh"], v["ow"]):
        raise ValueError(f"oh x ow is {v['oh']}x{v['ow']}, the other columns give {problem.out_size}")
    return Layer(workload, row["name"].split(":")[-1], _count(v["count"]), problem)


def _count(number: int) -> int:
    if not 1 <= number <= MOST_OF_A_LAYER:
        raise ValueError(f"expected a count from 1 to {MOST_OF_A_LAYER}, got {number}")
    return number


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise WorkloadError(f"{path}: cannot be read as text: {error}") from None
