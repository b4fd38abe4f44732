"""Frame -> cost of a start: compiling, preparing and n passes over a network, against n.

Compiling and preparing are those of `bench.analysis.tables.costs`. Each backend is a straight line in n, so the leader
changes only to one with a faster pass, and the changes are computed, not read from the plot.
"""

from __future__ import annotations

from math import ceil
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..analysis import tables
from ..analysis.networks import contenders, threads_of
from ..analysis.numbers import duration, number, sign
from .colours import style
from .layers import of_workload
from .style import NothingToDraw, corner, label_ends, log_ticks, short, styled, titled_figure

# The axis goes this many times beyond the last change of the leader.
BEYOND = 10
LEAST_PASSES = 100


@styled
def start(table: pd.DataFrame, environment: dict[str, Any], workload: str) -> Figure:
    """Total time after n passes over the network; `auto` and the libraries, or all backends if there are none."""
    part = of_workload(table, workload)
    costs = tables.costs(table[(table.workload == workload) & (table.threads == part.threads.iloc[0])])
    if costs.empty:
        raise NothingToDraw(f"no backend measured all layers of {workload}")
    rows = totals(costs)
    leads = leaders(rows)
    last = max(LEAST_PASSES, BEYOND * leads[-1][1])
    passes = np.geomspace(1, last, 60)
    figure, axes = titled_figure(5.0, title(leads, workload, bool(rows.weak[[name for name, _ in leads]].any())))
    ends = []
    for name, row in rows.iterrows():
        colour, marker = style(str(name))
        total = row.once_s + passes * row.run_s
        axes.plot(passes, total, color=colour, marker=marker, markevery=12, lw=1.8)
        ends.append((passes[-1], total[-1], sign(row.weak) + short(str(name), 24), colour))
    axes.set(xscale="log", yscale="log", xlabel="passes over the network (n)", xlim=(1, last))
    axes.set_ylabel("compile + prepare + n passes")
    log_ticks(axes.xaxis, number)
    log_ticks(axes.yaxis, duration)
    note = f"{threads_of(part)}; compiling includes loading compiled code from disk; no imports"
    corner(figure, environment, note, rows.weak.any())
    label_ends(axes, ends)
    return figure


def totals(costs: pd.DataFrame) -> pd.DataFrame:
    """By backend: once_s (compiling and preparing), run_s (a pass) and weak."""
    rows = costs[costs.backend.isin(contenders(costs.backend))].set_index("backend")
    weak = rows.weak.str.contains("run_s")
    return pd.DataFrame({"once_s": rows.compile_s + rows.prepare_s, "run_s": rows.run_s, "weak": weak})


def leaders(rows: pd.DataFrame) -> list[tuple[str, int]]:
    """The backends with the least total time, and the number of passes from which on each leads; the first from 1 on.

    Parameters
    ----------
    rows : DataFrame
        From `totals`.
    """
    n, found = 1, []
    while True:
        total = rows.once_s + n * rows.run_s
        # Of equal totals, the one with the faster pass leads.
        name = str(min(rows.index, key=lambda one: (total[one], rows.run_s[one], one)))
        found.append((name, n))
        faster = rows[rows.run_s < rows.run_s[name]]
        if faster.empty:
            return found
        crossings = (faster.once_s - rows.once_s[name]) / (rows.run_s[name] - faster.run_s)
        # Without rounding errors, which would move an exact crossing to the next pass.
        n = max(n + 1, ceil(crossings.min() - 1e-9))


def title(leads: list[tuple[str, int]], workload: str, weak: bool) -> str:
    """The finding: which backend costs least for one pass, and which from how many passes on.

    Parameters
    ----------
    leads : list of (str, int)
        From `leaders`.
    """
    name = short(workload, 30)
    (first, _), *later = leads
    if not later:
        return f"{name}: {first} costs least for any number of passes"
    last, passes = later[-1]
    text = f"{name}: {first} costs least for one pass, {last} from {sign(weak)}{passes:,} passes on"
    between = [each for each, _ in later[:-1]]
    return f"{text} ({', '.join(between)} in between)" if between else text
