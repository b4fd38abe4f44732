"""Shared by all figures: colours, titles, notes, labels, axes, files.

Colours are from Okabe & Ito 2008 ("Color Universal Design"), distinct for every common kind of colour vision. Lines
also have markers and direct labels, so no line depends on colour.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Iterable
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from ..analysis.numbers import NOTE, SIGN
from ..store.files import write_whole

STYLE = {
    "python_loops": ("#000000", "o"), "numpy_im2col": ("#E69F00", "s"), "numpy_strided": ("#56B4E9", "^"),
    "scipy_fft": ("#CC79A7", "D"), "numba_direct": ("#009E73", "v"), "auto": ("#0072B2", "x"),
    "numba_simd": ("#D55E00", "o"), "numba_winograd": ("#0072B2", "D"), "numba_winograd_f2": ("#56B4E9", "s"),
    "numba_winograd_f2_5x5": ("#009E73", "s"), "numba_winograd_f4": ("#0072B2", "^"),
    "numba_winograd_f6": ("#CC79A7", "v"), "numba_depthwise": ("#E69F00", "D"),
}  # fmt: skip
SPARE = [(colour, marker) for marker in "P*<>hp" for colour in ("#D55E00", "#F0E442")]
# Width in inches at which 11-point text is still readable on a phone, where a figure is about 3.5 inches wide.
WIDTH = 7.2
# From this ratio of the limits of a log axis on, only powers of ten have ticks.
MANY = 2e3
RC: Any = {
    "font.size": 12, "axes.titlesize": 13.5, "axes.titleweight": "bold", "axes.spines.top": False,
    "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25, "svg.hashsalt": "conv-impls", "figure.dpi": 100,
    # A name may contain a $. Without math text, log axes need `log_ticks`.
    "text.parse_math": False,
}  # fmt: skip
# Start from matplotlib's defaults, so that the user's matplotlibrc (LaTeX, fonts, sizes) has no effect.
DEFAULTS = {name: value for name, value in mpl.rcParamsDefault.items() if name != "backend"}
# Every drawing function runs under these settings, and so does `save`.
STYLED = mpl.rc_context(DEFAULTS | RC)
# Height of a label as a fraction of the axes' height, for axes of 3 inches.
LABEL = 0.062


class NothingToDraw(Exception):
    """The run lacks the cases that a figure needs."""


@STYLED
def save(figure: Figure, stem: Path) -> None:
    """Write PNG for pages and SVG for print, without dates: equal data gives equal files."""
    for kind, settings in (("png", {"dpi": 140}), ("svg", {"metadata": {"Date": None}})):
        drawn = BytesIO()
        figure.savefig(drawn, format=kind, **settings)
        write_whole(stem.with_suffix(f".{kind}"), drawn.getvalue())


def titled_figure(height: float, title: str, rows: int = 1) -> tuple[Figure, Any]:
    """A figure with its finding as title, and ``rows`` axes in one column."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots(rows)
    figure.suptitle(wrap(title), fontweight="bold", fontsize=13.5, x=0.02, ha="left")
    return figure, axes


def wrap(title: str, width: int = 62) -> str:
    return "\n".join(textwrap.wrap(title, width))


def corner(figure: Figure, environment: dict[str, Any], note: str, weak: bool = False) -> None:
    """Small text below the axes: note, meaning of the mark if a number is ``weak``, machine and date."""
    where = known(environment, cpu="{}", cores="{} cores", date="{}")
    lines = [wrap(note, 95), *([NOTE] if weak else []), where]
    figure.supxlabel("\n".join(lines), fontsize=8.5, color="#444444", x=0.99, ha="right")


def mark_points(axes: Any, x: Iterable[float], y: Iterable[float], weak: Iterable[object]) -> bool:
    """Draw the mark above each weak point; return whether there is one."""
    found = [(a, b) for a, b, is_weak in zip(x, y, weak, strict=True) if is_weak]
    for point in found:
        axes.annotate(SIGN, point, xytext=(0, 4), textcoords="offset points", ha="center", fontsize=10.5)
    return bool(found)


def known(environment: dict[str, Any], **texts: str) -> str:
    """Join the texts whose facts are in the environment, filled in. An imported run may lack any fact."""
    line = ", ".join(text.format(environment[name]) for name, text in texts.items() if environment.get(name))
    return "".join(letter if letter.isprintable() else "?" for letter in line)


def log_ticks(axis: Any, words: Callable[[float], str] = "{:g}".format) -> None:
    """Set ticks of a log axis at 1, 2 and 5 times the powers of ten, or only at the powers if there are many."""
    low, high = sorted(axis.get_view_interval())
    steps = (1, 2, 5) if high / low < MANY else (1,)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [tick for power in powers for step in steps if low <= (tick := float(f"{step}e{power}")) <= high]
    axis.set_ticks(ticks, [words(tick) for tick in ticks])
    axis.set_ticks([], minor=True)


def style(backend: str) -> tuple[str, str]:
    """Colour and marker."""
    # A backend of the user gets one of the spare colours, always the same one.
    return STYLE.get(backend) or SPARE[sum(map(ord, backend)) % len(SPARE)]


def label_end(axes: Any, x: float, y: float, text: str, colour: str) -> None:
    """Draw text just right of the end of a line."""
    axes.annotate(text, (x, y), xytext=(7, 0), textcoords="offset points", color=colour, va="center", fontsize=11)


def label_ends(axes: Any, ends: list[tuple[float, float, str, str]]) -> None:
    """Draw labels (x, y, text, colour) right of the ends of lines, moved apart if they would overlap."""
    to_axes = axes.transData - axes.transAxes
    lowest: dict[float, float] = {}
    for x, y, text, colour in sorted(ends, key=lambda end: end[1]):
        at_x, at_y = to_axes.transform((x, y))
        lowest[x] = max(at_y, lowest.get(x, -1.0) + LABEL)
        label_end(axes, x, float(to_axes.inverted().transform((at_x, lowest[x]))[1]), text, colour)
