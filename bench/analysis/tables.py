"""Frame -> tables. Pure: DataFrame in, DataFrames out; `bench.report.write` writes them.

Only ``ok`` cases have a time, are ranked or are part of a sum; for other cases the status is shown.
A column ``weak`` names the columns of a row that depend on weak measurements (`bench.analysis.sums`).
"""

from __future__ import annotations

from math import ceil

import pandas as pd

from .compiling import compile_seconds
from .numbers import number
from .stats import geometric_mean
from .sums import KEYS, along, by_backend, depends, marks

# Order of the ladder for learners: slowest idea first.
LADDER = (
    "python_loops", "numpy_im2col", "numpy_strided", "scipy_fft", "numba_direct", "numba_simd", "numba_winograd_f2",
    "numba_winograd_f2_5x5", "numba_winograd_f4", "numba_winograd_f6", "numba_winograd", "numba_depthwise", "auto",
    "auto_strict", "auto_eager",
)  # fmt: skip
# Minimum share of the measured layers that a backend needs to appear in the ladder.
LADDER_SHARE = 0.5
SPEEDUP = "speedup_over_python_loops"
# Backends that delegate to another backend.
CHOICES = ("auto", "auto_strict", "auto_eager", "numba_winograd")


def order(names: pd.Series | list[str]) -> list[str]:
    """Backends in ladder order, unknown ones at the end by name."""
    rank = {name: i for i, name in enumerate(LADDER)}
    return sorted(set(names), key=lambda name: (rank.get(name, len(rank)), name))


def per_case(table: pd.DataFrame) -> pd.DataFrame:
    """Every case: status, time, spread, rates, speed-up, error, costs. Seconds, GFLOP/s, relative error, bytes."""
    columns = [
        "workload", "layer", "count", "backend", "algorithm", "mode", "threads", "direction", "cache", "status",
        "median_s", "iqr_s", "samples", "stalled_share", "disturbed", "gflops_effective", "executed_gflops",
        "utilisation", "fma_peak_gflops", "speedup", "error", "error_over_bound", "compile_s", "prepare_s",
        "first_call_s", "packed_bytes", "workspace_bytes", "peak_bytes", "estimate_s", "threads_seen", "weak",
        "speedup_weak", "reason", "label",
    ]  # fmt: skip
    return table[columns].rename(columns={"speedup": SPEEDUP})


def network_sums(table: pd.DataFrame) -> pd.DataFrame:
    """Count-weighted sum of each network in ms: one row per backend and thread count, one column per network.

    A backend that did not measure every layer gets "n of m" instead of a sum: a partial sum would look fast.
    """
    sums, rows = by_backend(table), []
    for threads in sorted(table.threads.unique()):
        for backend in order(table.backend):
            row: dict[str, object] = {"backend": backend, "threads": threads}
            weak = {}
            for network, known in sums[sums.threads == threads].groupby("network", sort=False):
                mine, column = known[known.backend == backend], f"{network} (ms)"
                whole = bool(mine.whole.any())
                row[column] = 1e3 * mine.sum_s.iloc[0] if whole else f"{mine.measured.sum()} of {known.layers.iloc[0]}"
                weak[column] = whole and mine.weak.any()
            rows.append(row | {"weak": marks(weak)})
    made = pd.DataFrame(rows).fillna("")
    return made[[name for name in made if name != "weak"] + ["weak"]]


def winners(table: pd.DataFrame) -> pd.DataFrame:
    """The fastest backend of each layer and its lead over the next; `CHOICES` are excluded: they delegate to others."""
    rows = []
    own = table[(table.status == "ok") & (table.version == "") & ~table.backend.isin(CHOICES)]
    for (network, layer, threads), part in own.groupby(["network", "layer", "threads"], sort=False):
        ranked = part.sort_values("median_s")
        first = ranked.iloc[0]
        row = {
            "network": network, "layer": layer, "threads": threads, "count": first["count"], "kernel": first.kernel,
            "winner": first.backend, "median_ms": 1e3 * first.median_s, "gflops_effective": first.gflops_effective,
            "second": "", "lead": None,
        }  # fmt: skip
        weak = dict.fromkeys(["median_ms", "gflops_effective"], first.weak)
        if len(ranked) > 1:
            second = ranked.iloc[1]
            row |= {"second": second.backend, "lead": second.median_s / first.median_s}
            weak["lead"] = first.weak or second.weak
        rows.append(row | {"weak": marks(weak)})
    made = pd.DataFrame(rows)
    return made.astype({"lead": float}) if rows else made


def costs(table: pd.DataFrame) -> pd.DataFrame:
    """Costs of a network beyond its run time, one row per backend: compiling, preparing, memory; when they pay off.

    Seconds of compiling (or of loading compiled code from disk) are those of the network alone
    (`bench.analysis.compiling`). Seconds of preparing are summed over the layers. Workspace and peak bytes are those of
    the layer that needs most. "pays off after" is in passes over the network, compared with the
    fastest backend of the run that needs no compiling and no preparing.
    """
    rows, sums, compiling = [], by_backend(table), compile_seconds(table)
    for (network, threads), known in sums[sums.whole].groupby(KEYS, sort=False):
        compile_s = compiling[network, threads]
        whole = table[(table.network == network) & (table.threads == threads) & table.backend.isin(known.backend)]
        sum_s, weak = (known.set_index("backend")[name] for name in ("sum_s", "weak"))
        eager = whole.backend[whole["mode"] == "eager"].unique()
        base = sum_s[[name for name in eager if compile_s[name] == 0]].nsmallest(1)
        for backend in order(list(sum_s.index)):
            mine = whole[whole.backend == backend]
            once_s = compile_s[backend] + mine.prepare_s.sum()
            row = {
                "network": network, "threads": threads, "backend": backend, "compile_s": compile_s[backend],
                "prepare_s": mine.prepare_s.sum(), "run_s": sum_s[backend],
                "packed_MiB": mine.packed_bytes.sum(min_count=1) / 2**20,
                "workspace_MiB": mine.workspace_bytes.max() / 2**20, "peak_MiB": mine.peak_bytes.max() / 2**20,
                "pays off after": None, "against": "",
            }  # fmt: skip
            marked = {"run_s": weak[backend]}
            if len(base) and sum_s[backend] < base.iloc[0]:
                row["pays off after"] = ceil(once_s / (base.iloc[0] - sum_s[backend]))
                row["against"] = base.index[0]
                marked["pays off after"] = weak[backend] or weak[base.index[0]]
            rows.append(row | {"weak": marks(marked)})
    made = pd.DataFrame(rows)
    return made.astype({"pays off after": float}) if rows else made


def utilisation(table: pd.DataFrame) -> pd.DataFrame:
    """Every measured case: rate of the nominal operations, rate of the executed ones, and the latter in % of FMA peak.

    Parameters
    ----------
    table : DataFrame
        From `bench.analysis.frame.frame`.

    Returns
    -------
    DataFrame
        Rates in GFLOP/s; NaN if the executed operations or the peak are unknown.
    """
    part = table[table.status == "ok"]
    executed = part.executed_flops / part.median_s / 1e9
    keys = ["workload", "layer", "backend", "algorithm", "threads", "direction", "gflops_effective"]
    rates = {"gflops_executed": executed, "executed_percent_of_peak": 100 * executed / part.fma_peak_gflops}
    weak = part.weak.map(lambda reason: marks(dict.fromkeys(["gflops_effective", *rates], reason)))
    return part[keys].assign(**rates, weak=weak).reset_index(drop=True)


def thread_efficiency(table: pd.DataFrame) -> pd.DataFrame:
    """How each backend scales with threads: one row per workload, setting, backend and number of threads.

    Parameters
    ----------
    table : DataFrame
        From `bench.analysis.frame.frame`.

    Returns
    -------
    DataFrame
        Columns workload, direction, cache, dtype, batch, backend, layers (those measured at every number of threads),
        threads, sum_s (count-weighted seconds of these layers), speedup (over the least number of threads), efficiency
        (speedup over the ratio of threads; 1 is ideal) and weak. No row if only one number of threads was measured.

    Examples
    --------
    >>> case = {"workload": "w", "direction": "fwd", "cache": "warm", "dtype": "float32", "batch": 1, "backend": "b",
    ...         "label": "l", "count": 3, "status": "ok", "noise": 0.0, "bias": 0.0}
    >>> table = pd.DataFrame([case | {"threads": 1, "median_s": 1.0}, case | {"threads": 4, "median_s": 0.5}])
    >>> thread_efficiency(table)[["threads", "sum_s", "speedup", "efficiency"]].to_numpy().tolist()
    [[1.0, 3.0, 1.0, 1.0], [4.0, 1.5, 2.0, 0.5]]
    """
    rows = []
    keys = ["workload", "direction", "cache", "dtype", "batch", "backend"]
    for key, part in table[table.status == "ok"].groupby(keys, sort=False):
        sums = along(part, "threads")
        if len(sums) < 2:
            continue
        (least, base), *_ = sums.items()
        for threads, found in sums.items():
            speedup = base.seconds / found.seconds
            row = {"layers": found.layers, "threads": threads, "sum_s": found.seconds, "speedup": speedup}
            gain = threads != least and (base.weak or found.weak)
            weak = marks({"sum_s": found.weak, "speedup": gain, "efficiency": gain})
            rows.append(
                dict(zip(keys, key, strict=True)) | row | {"efficiency": speedup * least / threads, "weak": weak}
            )
    return pd.DataFrame(rows, columns=[*keys, "layers", "threads", "sum_s", "speedup", "efficiency", "weak"])


def ladder(table: pd.DataFrame, workload: str) -> pd.DataFrame:
    """Geometric-mean speed-up over python_loops and its range, over the layers that all its backends measured."""
    part = plain(table)
    part = part[(part.workload == workload) & (part.threads == part.threads.max()) & (part.version == "")]
    part = part[~part.backend.isin(CHOICES)]
    speeds = part.pivot(index="layer", columns="backend", values="speedup")
    # Drops methods for one kind of layer: with them no layer may remain that all backends measured.
    timed = speeds.dropna(how="all")
    speed = timed.loc[:, timed.notna().mean() > LADDER_SHARE].dropna()
    if speed.empty:
        return pd.DataFrame()
    doubt = part.pivot(index="layer", columns="backend", values="speedup_weak").loc[speed.index, speed.columns]
    rows = []
    for backend in order(list(speed.columns)):
        mine, weak = speed[backend], doubt[backend].astype(bool)
        marked = {
            # Each layer has the same weight in a geometric mean.
            "speedup": depends(mine.notna(), weak),
            "slowest_layer": weak[mine.idxmin()],
            "fastest_layer": weak[mine.idxmax()],
        }
        rows.append({
            "backend": backend, "speedup": geometric_mean(list(mine)), "slowest_layer": mine.min(),
            "fastest_layer": mine.max(), "layers": len(speed), "weak": marks(marked),
        })  # fmt: skip
    return pd.DataFrame(rows)


def plain(table: pd.DataFrame) -> pd.DataFrame:
    """The rows that most tables and figures use: forward, warm caches, first dtype, each layer's smallest batch."""
    part = table[(table.direction == "fwd") & (table.cache == "warm") & table.dtype.isin(table.dtype.head(1))]
    return part[part.batch == part.groupby(["workload", "layer"]).batch.transform("min")]


def ratio(table: pd.DataFrame, fast: str, slow: str) -> pd.DataFrame:
    """How many times faster one backend is than another, one row per layer that both measured."""
    ok = table[table.status == "ok"]
    keys = ["network", "layer", "threads", "kernel"]
    pair = ok[ok.backend == fast].merge(ok[ok.backend == slow], on=keys, suffixes=("_fast", "_slow"))
    name = f"{fast} over {slow}"
    pair[name] = pair.median_s_slow / pair.median_s_fast
    sides = zip(pair.weak_fast, pair.weak_slow, strict=True)
    pair["weak"] = [marks({"median_s_fast": a, "median_s_slow": b, name: a or b}) for a, b in sides]
    return pair[[*keys, "median_s_fast", "median_s_slow", name, "weak"]]


def correctness(table: pd.DataFrame) -> pd.DataFrame:
    """Backend x case: the error in units of the bound, or the status; one row per layer."""
    words = table.apply(_correctness_word, axis=1)
    # The worst of several thread counts is shown: cases that are not ok first, then the largest error over bound.
    ranked = table.assign(word=words, fine=table.status == "ok").sort_values(
        ["fine", "error_over_bound"], ascending=[True, False], kind="stable"
    )
    cells = ranked.drop_duplicates(["network", "layer", "backend"]).sort_index()
    matrix = cells.pivot(index=["network", "layer"], columns="backend", values="word")
    keys = cells[["network", "layer"]].drop_duplicates().apply(tuple, axis=1)
    return matrix.loc[list(keys), order(cells.backend)].fillna("not measured").reset_index()


def _correctness_word(row: pd.Series) -> str:
    if row.status == "ok":
        return f"right, {number(row.error_over_bound)} of bound"
    # Over budget: the cut layer was checked and passed, the whole layer did not run.
    return "right when cut, over budget" if row.status == "over_budget" else str(row.status)


def not_ok(table: pd.DataFrame) -> pd.DataFrame:
    """Every case without a time, and the reason."""
    return table[table.status != "ok"][
        ["network", "layer", "backend", "threads", "status", "estimate_s", "reason", "repeat"]
    ]


def left_out(table: pd.DataFrame) -> pd.DataFrame:
    """Each model with convolutions left out: how many are layers, and why the others are not."""
    partial = table[table.coverage != ""].drop_duplicates("workload")
    return partial[["workload", "coverage"]].reset_index(drop=True)


def statuses(table: pd.DataFrame) -> pd.DataFrame:
    """Number of cases of each backend by status."""
    counts = table.groupby(["backend", "status"]).size().unstack(fill_value=0)
    return counts.loc[order(table.backend)].reset_index()
