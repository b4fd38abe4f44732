"""Frame -> all figures of a run. The figures themselves are in the other modules of this folder.

A drawing function takes the frame and the environment and returns a matplotlib Figure; a figure of each workload takes
the workload as well, the headline a number of threads. It raises `NothingToDraw` if the run lacks its cases: then the
figure is left out, with the reason. Titles state what the run found; each is made by a function of its own. A "~" marks
weak numbers and weak points.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from matplotlib.figure import Figure

from ..analysis import tables
from . import accuracy, filters, headline, heatmap, ladder, layers, roofline, sizes, start, sweeps
from .colours import DARK_ENDING, backends_of
from .style import NothingToDraw, save

KINDS = ".png", ".svg"


class Kind(NamedTuple):
    """One kind of figure.

    ``by`` is "run" (one figure), "workload" (one each) or "threads" (one per number of threads). ``alt`` describes the
    figure for those who cannot see it, with ``{}`` where the workload or the threads stand. A ``sweep`` gets all cases
    of the run, other kinds only plain ones (`bench.analysis.tables.plain`).
    """

    draw: Callable[..., Figure]
    alt: str
    by: str = "run"
    sweep: bool = False


class Drawn(NamedTuple):
    """A figure of the run: name of its files, its kind, the workload (or empty), its description."""

    name: str
    kind: str
    workload: str
    alt: str
    figure: Figure

    @property
    def title(self) -> str:
        """The finding, on one line."""
        return " ".join(self.figure.get_suptitle().split())


FIGURES: dict[str, Kind] = {
    "headline": Kind(
        headline.headline, "Time of each network with {}, ours and other libraries, relative to the best library",
        "threads",
    ),
    "layers": Kind(layers.layers, "Speed on each layer of {} relative to the best library", "workload"),
    "shares": Kind(layers.shares, "Time of each backend on {}, stacked by layer", "workload"),
    "heatmap": Kind(heatmap.heatmap, "Speed of each backend on each layer of {}, percent of the fastest", "workload"),
    "roofline": Kind(roofline.roofline, "GFLOP/s of each layer against its operations per byte, under the roof"),
    "ladder": Kind(ladder.ladder, "Speed of each rung of the tutorial on two layers, with {}", "workload"),
    "errors": Kind(accuracy.errors, "Error of each backend relative to its bound, one dot per layer"),
    "start": Kind(start.start, "Time of compiling, preparing and n passes over {} against n", "workload"),
    "time_vs_size": Kind(sizes.time_vs_size, "Time of one call against image size, log-log, with quartiles"),
    "threads": Kind(sweeps.threads, "Speed-up of each backend on {} against the number of threads", "workload", True),
    "batch": Kind(sweeps.batch, "Time per image of {} against the batch, log-log", "workload", True),
    "kernel_sizes": Kind(sweeps.kernel_sizes, "Time of one call against kernel size, and who leads", sweep=True),
    "filters": Kind(filters.filters, "The filter bank applied to a photograph"),
}  # fmt: skip


def draw_all(
    kinds: Mapping[str, Kind], table: pd.DataFrame, environment: dict[str, Any]
) -> tuple[list[Drawn], list[str]]:
    """Draw every figure that the run has data for.

    Parameters
    ----------
    kinds : mapping of str to Kind
        `FIGURES`, or some of them.
    table : DataFrame
        From `bench.analysis.frame.frame`, with all its texts printable.
    environment : dict

    Returns
    -------
    drawn : list of Drawn
    missing : list of str
        The figures that are left out, with the reasons. A run without a sweep is normal, so its figures are not listed.
    """
    found: list[Drawn] = []
    missing: list[str] = []
    names = slugs(table.workload.unique())
    for kind, (draw, alt, by, sweep) in kinds.items():
        cases = table if sweep else tables.plain(table)
        reasons = {}
        before = len(found)
        for ending, about, more in _variants(cases, by, names):
            try:
                with backends_of(table.backend):
                    figure = draw(cases, environment, *more)
            except NothingToDraw as reason:
                reasons[about] = str(reason)
            else:
                workload = about if by == "workload" else ""
                found.append(Drawn(kind + ending, kind, workload, alt.format(about), figure))
        if sweep:
            continue
        if len(found) > before:
            missing += [f"figure {kind} of {about}: {reason}" for about, reason in reasons.items()]
        else:
            missing.append(f"figure {kind}: {'; '.join(dict.fromkeys(reasons.values()))}")
    return found, missing


def save_all(drawn: Iterable[Drawn], folder: Path) -> None:
    """Write every figure as PNG, SVG and dark SVG; delete figures of an earlier report.

    An old figure would look like a result of this run. Files with other names may be the user's and stay.
    """
    written = set()
    for one in drawn:
        save(one.figure, folder / one.name)
        written |= {one.name, one.name + DARK_ENDING}
    ours = re.compile(rf"({'|'.join(FIGURES)})(_[A-Za-z0-9._]+)?({DARK_ENDING})?")
    for path in folder.iterdir():
        if path.suffix in KINDS and ours.fullmatch(path.stem) and path.stem not in written and path.is_file():
            path.unlink()


def slugs(workloads: Iterable[str]) -> dict[str, str]:
    """A part of a file name for each workload, unique also where capitals do not count.

    Examples
    --------
    >>> slugs(["resnet50", "my net/v1", "My net v1"])
    {'resnet50': 'resnet50', 'my net/v1': 'my_net_v1', 'My net v1': 'My_net_v1_2'}
    """
    made: dict[str, str] = {}
    for workload in workloads:
        plain = re.sub(r"[^A-Za-z0-9.]+", "_", workload).strip("._")[:40] or "workload"
        taken = {slug.casefold() for slug in made.values()}
        tries = [plain, *(f"{plain}_{i}" for i in range(2, len(taken) + 2))]
        made[workload] = next(each for each in tries if each.casefold() not in taken)
    return made


def _variants(table: pd.DataFrame, by: str, names: Mapping[str, str]) -> Iterator[tuple[str, str, list[Any]]]:
    """Ending of the name, what the figure is about, and further arguments of each figure of a kind."""
    if by == "run":
        yield "", "", []
    elif by == "workload":
        for workload in table.workload.unique():
            yield f"_{names[workload]}", workload, [workload]
    else:
        counts = sorted(table.threads.unique(), reverse=True)
        for count in counts:
            words = f"{count} thread{'s' * bool(count > 1)}"
            yield "" if count == counts[0] else f"_{words.replace(' ', '_')}", words, [count]
