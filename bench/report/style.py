"""Shared by all figures: settings, titles, notes, labels, axes, files.

A dark figure is the light SVG with other colours. A figure is 7.2 inches wide, and its smallest text is 8 pixels high
where the figure is 390 pixels wide.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial, wraps
from io import BytesIO, StringIO
from pathlib import Path
from statistics import fmean
from typing import Any, ParamSpec

import matplotlib as mpl
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextToPath
from PIL import Image

from ..analysis.numbers import NOTE, SIGN
from ..store.files import write_whole
from .colours import DARK_ENDING, INK, MUTED, PAPER, backends_of, darkened

P = ParamSpec("P")
WIDTH = 7.2
# Sizes in points: smallest text, text of labels, titles.
SMALL, LABEL, TITLE = 10.8, 11.0, 13.5
# Colours of a PNG.
PALETTE = 128
# Coordinates of an SVG from 1 on that have more than two decimals: a hundredth of a point cannot be seen.
DIGITS = re.compile(r"\b[1-9]\d*\.\d{3,}")
# Width of a line of the title and of the note, as a share of the figure's.
LINE = 0.96
# Ticks of a log axis, as multiples of the powers of ten, by the ratio of its limits.
STEPS = {2.5: (1, 1.2, 1.5, 2, 3, 5, 7), 8: (1, 1.5, 2, 3, 5, 7), 2e3: (1, 2, 5), math.inf: (1,)}
RC: Any = {
    "font.size": 12, "axes.titlesize": 12, "axes.titleweight": "bold", "axes.spines.top": False,
    "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.35, "svg.hashsalt": "conv-impls", "figure.dpi": 100,
    "xtick.labelsize": SMALL, "ytick.labelsize": SMALL, "legend.fontsize": SMALL, "legend.frameon": False,
    "text.color": INK, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK, "axes.edgecolor": INK,
    "grid.color": MUTED, "figure.facecolor": PAPER, "axes.facecolor": PAPER,
    # A name may contain a $. Without math text, log axes need `log_ticks`.
    "text.parse_math": False,
}  # fmt: skip
# Start from matplotlib's defaults, so that the user's matplotlibrc (LaTeX, fonts, sizes) has no effect.
DEFAULTS = {name: value for name, value in mpl.rcParamsDefault.items() if name != "backend"}
_settings = partial(mpl.rc_context, DEFAULTS | RC)


class NothingToDraw(Exception):
    """The run lacks the cases that a figure needs."""


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Run a drawing function, whose first argument is the frame, under the settings of this module."""

    @wraps(draw)
    def drawn(*args: P.args, **more: P.kwargs) -> Figure:
        table: Any = args[0]
        with _settings(), backends_of(table.backend):
            return draw(*args, **more)

    return drawn


def save(figure: Figure, stem: Path) -> None:
    """Write a PNG and an SVG, and a dark SVG, without dates: equal data gives equal files."""
    with _settings():
        png, svg = BytesIO(), StringIO()
        figure.savefig(png, format="png", dpi=140)
        # The PNG's layout is right for the SVG, too.
        figure.set_layout_engine("none")
        figure.savefig(svg, format="svg", metadata={"Date": None})
    write_whole(stem.with_name(f"{stem.name}.png"), _with_palette(png))
    text = DIGITS.sub(lambda found: f"{float(found[0]):.2f}", svg.getvalue())
    write_whole(stem.with_name(f"{stem.name}.svg"), text.encode())
    write_whole(stem.with_name(f"{stem.name}{DARK_ENDING}.svg"), darkened(text).encode())


def _with_palette(png: BytesIO) -> bytes:
    """The image with a palette: less than half of the size, and no visible difference."""
    with Image.open(png) as image, BytesIO() as small:
        image.convert("RGB").quantize(PALETTE, dither=Image.Dither.NONE).save(small, "PNG")
        return small.getvalue()


def titled_figure(height: float, title: str, rows: int = 1, columns: int = 1, **shared: Any) -> tuple[Figure, Any]:
    """A figure with its finding as title, and its axes: one, or an array of ``rows`` times ``columns``."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots(rows, columns, **shared)
    figure.suptitle(wrap(title, TITLE, "bold"), fontweight="bold", fontsize=TITLE, x=0.01, ha="left")
    return figure, axes


def legend_below_title(figure: Figure, columns: int = 4) -> None:
    """One legend for all axes, in lines that are added to the title: it has the full width of the figure."""
    handles = {
        text: handle
        for axes in figure.axes
        for handle, text in zip(*axes.get_legend_handles_labels(), strict=True)
    }  # fmt: skip
    title = figure.get_suptitle()
    top = 0.1 + 1.22 * TITLE / 72 * len(title.splitlines())
    blank = "\n " * math.ceil(len(handles) / columns)
    figure.suptitle(title + blank, fontweight="bold", fontsize=TITLE, x=0.01, ha="left")
    made = figure.legend(
        handles.values(), handles.keys(), loc="upper left", ncols=columns, handletextpad=0.4, columnspacing=1.2,
        bbox_to_anchor=(0, 1 - top / figure.get_figheight()), borderaxespad=0, handlelength=1.2, labelspacing=0.3,
    )  # fmt: skip
    made.set_in_layout(False)
    for handle in made.legend_handles:
        # The dots of a legend have one size, whatever those in the axes show.
        if isinstance(handle, PathCollection):
            handle.set_sizes([42.0])


def wrap(text: str, size: float, weight: str = "normal") -> str:
    """The text in lines that fit the figure; a word that is longer than a line is cut.

    Examples
    --------
    >>> wrap("a " * 3 + "m" * 100, 20).splitlines()[0]
    'a a a'
    """
    font = FontProperties(size=size, weight=weight)

    def fits(line: str) -> bool:
        return TextToPath().get_text_width_height_descent(line, font, ismath=False)[0] <= LINE * 72 * WIDTH

    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}".lstrip(" ")
        if fits(longer):
            lines[-1] = longer
            continue
        lines.append("")
        for letter in word:
            if not fits(lines[-1] + letter):
                lines.append("")
            lines[-1] += letter
    return "\n".join(line for line in lines if line)


def short(name: str, width: int) -> str:
    """At most ``width`` characters of a name: its start and more of its end, which differs more often.

    Examples
    --------
    >>> short("conv1", 12), short("/model/backbone/stage3/block2/conv1/Conv", 20)
    ('conv1', '/mod…ock2/conv1/Conv')
    """
    start = (width - 1) // 4
    return name if len(name) <= width else f"{name[:start]}…{name[len(name) - (width - 1 - start) :]}"


def corner(figure: Figure, environment: dict[str, Any], note: str, weak: bool = False) -> None:
    """Small text below the axes: note, meaning of the mark if a number is ``weak``, machine and date."""
    where = known(environment, cpu="{}", cores="{} cores", date="{}")
    lines = [note, *([NOTE] if weak else []), where]
    text = "\n".join(wrap(line, SMALL) for line in lines if line)
    figure.supxlabel(text, fontsize=SMALL, color=MUTED, x=0.99, ha="right")


def mark_points(axes: Any, x: Iterable[float], y: Iterable[float], weak: Iterable[object]) -> bool:
    """Draw the mark above each weak point; return whether there is one."""
    found = [(a, b) for a, b, is_weak in zip(x, y, weak, strict=True) if is_weak]
    for point in found:
        axes.annotate(SIGN, point, xytext=(0, 4), textcoords="offset points", ha="center", fontsize=LABEL)
    return bool(found)


def known(environment: dict[str, Any], **texts: str) -> str:
    """Join the texts whose facts are in the environment, filled in. An imported run may lack any fact."""
    line = ", ".join(text.format(environment[name]) for name, text in texts.items() if environment.get(name))
    return "".join(letter if letter.isprintable() else "?" for letter in line)


def log_ticks(axis: Any, words: Callable[[float], str] = "{:g}".format, panels: int = 1) -> None:
    """Set ticks of a log axis at round multiples of the powers of ten: fewer on long axes, and with several panels."""
    low, high = sorted(axis.get_view_interval())
    steps = next(steps for limit, steps in STEPS.items() if (high / low) ** panels < limit)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [tick for power in powers for step in steps if low <= (tick := float(f"{step}e{power}")) <= high]
    axis.set_ticks(ticks, [words(tick) for tick in ticks])
    axis.set_ticks([], minor=True)


def spread(places: Sequence[float], step: float, high: float = 1.0) -> list[float]:
    """Move places apart to at least ``step``, each as little as possible, between 0 and ``high`` if they fit.

    Examples
    --------
    >>> [round(place, 2) for place in spread([0.5, 0.0, 0.52], 0.1)]
    [0.46, 0.0, 0.56]
    >>> [round(place, 2) for place in spread([1.0, 0.98], 0.1)]
    [1.0, 0.9]
    """

    def start(block: list[int]) -> float:
        middle = fmean(places[member] - step * k for k, member in enumerate(block))
        return max(0.0, min(middle, high - step * (len(block) - 1)))

    blocks: list[list[int]] = []
    for i in sorted(range(len(places)), key=lambda i: (places[i], i)):
        block = [i]
        while blocks and start(blocks[-1]) + step * len(blocks[-1]) > start(block):
            block = blocks.pop() + block
        blocks.append(block)
    found = {member: start(block) + step * k for block in blocks for k, member in enumerate(block)}
    return [found[i] for i in range(len(places))]


def label_ends(axes: Any, ends: list[tuple[float, float, str, str]]) -> None:
    """Draw labels (x, y, text, colour) right of the axes at the ends of lines, moved apart if they would overlap.

    Call it last: limits and scales of the axes, title and note decide where the labels are.
    """
    axes.figure.draw_without_rendering()
    step = 1.25 * LABEL / 72 * axes.figure.dpi / axes.get_window_extent().height
    to_axes = axes.transData - axes.transAxes
    at = [to_axes.transform((x, y)) for x, y, *_ in ends]
    for (x, y, text, colour), (across, end), place in zip(ends, at, spread([y for _, y in at], step), strict=True):
        arrow = {"arrowstyle": "-", "color": colour, "lw": 0.7, "relpos": (0, 0.5), "shrinkA": 0, "shrinkB": 3}
        axes.annotate(
            text, (x, y), xytext=(1.03, place), textcoords="axes fraction", color=colour, va="center", fontsize=LABEL,
            arrowprops=arrow if abs(place - end) > step / 2 or across < 0.9 else None, annotation_clip=False,
        )  # fmt: skip


def label_rows(axes: Any, names: Sequence[str]) -> None:
    """One row of the axes per name, with the name as its label."""
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(-0.6, len(names) - 0.4)
