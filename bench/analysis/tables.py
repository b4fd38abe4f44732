"""Frame -> tables. Pure: a DataFrame comes in, DataFrames go out; `bench.report.write` writes them.

Only ``ok`` cases carry a time, are ranked or enter a sum; every other one shows its status by name.
"""

from __future__ import annotations

from math import ceil

import pandas as pd

from .stats import geometric_mean

# Slowest idea first: the ladder a learner climbs.
LADDER = (
    "python_loops", "numpy_im2col", "numpy_strided", "scipy_fft", "numba_direct", "numba_simd", "numba_winograd_f2",
    "numba_winograd_f4", "numba_winograd_f6", "numba_winograd", "numba_depthwise", "auto", "auto_strict", "auto_eager",
)  # fmt: skip
# A backend takes part in the ladder that measured more than this part of the layers any other did.
LADDER_SHARE = 0.5
# Backends that hand the work to another one.
CHOICES = ("auto", "auto_strict", "auto_eager", "numba_winograd")


def order(names: pd.Series | list[str]) -> list[str]:
    """Backends in ladder order, unknown ones at the end by name."""
    rank = {name: i for i, name in enumerate(LADDER)}
    return sorted(set(names), key=lambda name: (rank.get(name, len(rank)), name))


def per_case(table: pd.DataFrame) -> pd.DataFrame:
    """Every case: status, time, spread, rates, speed-up, error, costs. Seconds, GFLOP/s, relative error, bytes."""
    columns = [
        "workload", "layer", "count", "backend", "algorithm", "mode", "threads", "direction", "cache", "status",
        "median_s", "iqr_s", "samples", "gflops_effective", "executed_gflops", "utilisation", "fma_peak_gflops",
        "speedup", "error", "error_over_bound", "compile_s", "prepare_s", "first_call_s", "packed_bytes",
        "workspace_bytes", "peak_bytes", "estimate_s", "threads_seen", "weak", "reason", "label",
    ]  # fmt: skip
    return table[columns].rename(columns={"speedup": "speedup_over_python_loops"})


def network_sums(table: pd.DataFrame) -> pd.DataFrame:
    """Count-weighted sum of each network in ms: a row a backend and thread count, a column a network.

    A backend that did not measure every layer gets no sum but "n of m": a partial sum would look fast.
    """
    rows = []
    for threads in sorted(table.threads.unique()):
        for backend in order(table.backend):
            row: dict[str, object] = {"backend": backend, "threads": threads}
            for network, part in table[table.threads == threads].groupby("network", sort=False):
                mine = part[(part.backend == backend) & (part.status == "ok")]
                total = 1e3 * float((mine["count"] * mine.median_s).sum())
                layers = part.layer.nunique()
                row[f"{network} (ms)"] = f"{total:,.4g}" if len(mine) == layers else f"{len(mine)} of {layers}"
            rows.append(row)
    return pd.DataFrame(rows).fillna("")


def winners(table: pd.DataFrame) -> pd.DataFrame:
    """The fastest backend of each layer and its lead over the next; what `auto` does is a choice, not a contender."""
    rows = []
    own = table[(table.status == "ok") & ~table.backend.isin(CHOICES)]
    for (network, layer, threads), part in own.groupby(["network", "layer", "threads"], sort=False):
        ranked = part.sort_values("median_s")
        first = ranked.iloc[0]
        row = {
            "network": network, "layer": layer, "threads": threads, "count": first["count"], "kernel": first.kernel,
            "winner": first.backend, "median_ms": 1e3 * first.median_s, "gflops_effective": first.gflops_effective,
        }  # fmt: skip
        if len(ranked) > 1:
            second = ranked.iloc[1]
            row |= {"second": second.backend, "lead": second.median_s / first.median_s}
        rows.append(row)
    return pd.DataFrame(rows)


def costs(table: pd.DataFrame) -> pd.DataFrame:
    """What a network costs beside its run, a row a backend: compiling, preparing, memory; and when that pays off.

    Seconds of compiling (or of loading what is on disk) and preparing are summed over the layers, bytes are those of
    the layer that needs most. "pays off after" is in passes over the network, against the fastest backend of the run
    that neither compiles nor prepares.
    """
    rows = []
    for (network, threads), part in table.groupby(["network", "threads"], sort=False):
        ok, layers = part[part.status == "ok"], part.layer.nunique()
        whole = ok.groupby("backend").filter(lambda mine: len(mine) == layers)  # noqa: B023
        run_s = (whole["count"] * whole.median_s).groupby(whole.backend).sum()
        plain = whole[whole["mode"] == "eager"].groupby("backend").compile_s.sum()
        base = run_s[plain.index[plain == 0]].nsmallest(1)
        for backend in order(list(run_s.index)):
            mine = whole[whole.backend == backend]
            once_s = mine.compile_s.sum() + mine.prepare_s.sum()
            row = {
                "network": network, "threads": threads, "backend": backend, "compile_s": mine.compile_s.sum(),
                "prepare_s": mine.prepare_s.sum(), "run_s": run_s[backend],
                "packed_MiB": mine.packed_bytes.sum(min_count=1) / 2**20,
                "workspace_MiB": mine.workspace_bytes.max() / 2**20, "peak_MiB": mine.peak_bytes.max() / 2**20,
            }  # fmt: skip
            if len(base) and run_s[backend] < base.iloc[0]:
                row["pays off after"] = ceil(once_s / (base.iloc[0] - run_s[backend]))
                row["against"] = base.index[0]
            rows.append(row)
    return pd.DataFrame(rows)


def ladder(table: pd.DataFrame, workload: str) -> pd.DataFrame:
    """Geometric-mean speed-up over python_loops and its range, over the layers that all of `LADDER_SHARE` measured."""
    part = plain(table)
    part = part[(part.workload == workload) & (part.threads == part.threads.max()) & ~part.backend.isin(CHOICES)]
    speeds = part.pivot(index="layer", columns="backend", values="speedup")
    # A method for one kind of layer would leave no layer that all have measured.
    timed = speeds.dropna(how="all")
    speed = timed.loc[:, timed.notna().mean() > LADDER_SHARE].dropna()
    if speed.empty:
        return pd.DataFrame()
    rows = [
        {
            "backend": backend,
            "speedup": geometric_mean(list(speed[backend])),
            "slowest_layer": speed[backend].min(),
            "fastest_layer": speed[backend].max(),
            "layers": len(speed),
        }
        for backend in order(list(speed.columns))
    ]
    return pd.DataFrame(rows)


def plain(table: pd.DataFrame) -> pd.DataFrame:
    """What most tables and figures are of: forward, warm caches, the first dtype, each layer's smallest batch."""
    part = table[(table.direction == "fwd") & (table.cache == "warm") & table.dtype.isin(table.dtype.head(1))]
    return part[part.batch == part.groupby(["workload", "layer"]).batch.transform("min")]


def ratio(table: pd.DataFrame, fast: str, slow: str) -> pd.DataFrame:
    """How many times faster one backend is than another, a row a layer both measured."""
    ok = table[table.status == "ok"]
    keys = ["network", "layer", "threads", "kernel"]
    pair = ok[ok.backend == fast].merge(ok[ok.backend == slow], on=keys, suffixes=("_fast", "_slow"))
    pair[f"{fast} over {slow}"] = pair.median_s_slow / pair.median_s_fast
    return pair[[*keys, "median_s_fast", "median_s_slow", f"{fast} over {slow}"]]


def correctness(table: pd.DataFrame) -> pd.DataFrame:
    """Backend x case: the error in units of the bound, or the status; a row a layer."""
    words = table.apply(_correctness_word, axis=1)
    # Of several thread counts the worst is shown: what is not ok comes first, then what is nearest its bound.
    ranked = table.assign(word=words, fine=table.status == "ok").sort_values(
        ["fine", "error_over_bound"], ascending=[True, False], kind="stable"
    )
    cells = ranked.drop_duplicates(["network", "layer", "backend"]).sort_index()
    matrix = cells.pivot(index=["network", "layer"], columns="backend", values="word")
    keys = cells[["network", "layer"]].drop_duplicates().apply(tuple, axis=1)
    return matrix.loc[list(keys), order(cells.backend)].fillna("not measured").reset_index()


def _correctness_word(row: pd.Series) -> str:
    if row.status == "ok":
        return f"right, {row.error_over_bound:.2g} of bound"
    # Over budget means the cut layer was checked and passed, the whole one never ran.
    return "right when cut, over budget" if row.status == "over_budget" else str(row.status)


def not_ok(table: pd.DataFrame) -> pd.DataFrame:
    """Every case without a time, and why."""
    return table[table.status != "ok"][
        ["network", "layer", "backend", "threads", "status", "estimate_s", "reason", "repeat"]
    ]


def statuses(table: pd.DataFrame) -> pd.DataFrame:
    """How many cases of each backend ended how."""
    counts = table.groupby(["backend", "status"]).size().unstack(fill_value=0)
    return counts.loc[order(table.backend)].reset_index()
