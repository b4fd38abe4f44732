"""Frame -> tables. Pure: a DataFrame comes in, DataFrames go out; `bench.report` writes them.

Only ``ok`` cases carry a time, are ranked or enter a sum; every other one shows its status by name.
"""

from __future__ import annotations

import pandas as pd

from bench.stats import geometric_mean

# Slowest idea first: the ladder a learner climbs.
LADDER = (
    "python_loops", "numpy_im2col", "numpy_strided", "scipy_fft", "numba_direct", "numba_simd", "numba_winograd_f2",
    "numba_winograd_f4", "numba_winograd_f6", "numba_winograd", "numba_depthwise", "auto",
)  # fmt: skip


def order(names: pd.Series | list[str]) -> list[str]:
    """Backends in ladder order, unknown ones at the end by name."""
    rank = {name: i for i, name in enumerate(LADDER)}
    return sorted(set(names), key=lambda name: (rank.get(name, len(rank)), name))


def per_case(table: pd.DataFrame) -> pd.DataFrame:
    """Every case: status, time, spread, rate, speed-up, error. Seconds, GFLOP/s, relative error."""
    columns = [
        "workload", "layer", "count", "backend", "algorithm", "threads", "status", "median_s", "iqr_s", "samples",
        "gflops_effective", "speedup", "error", "error_over_bound", "compile_s", "prepare_s", "first_call_s",
        "packed_bytes", "workspace_bytes", "estimate_s", "weak", "reason", "label",
    ]  # fmt: skip
    return table[columns].rename(columns={"speedup": "speedup_over_python_loops"})


def network_sums(table: pd.DataFrame) -> pd.DataFrame:
    """Count-weighted sum of each workload in ms: a row a backend and thread count, a column a workload.

    A backend that did not measure every layer gets no sum but "n of m": a partial sum would look fast.
    """
    rows = []
    for threads in sorted(table.threads.unique()):
        for backend in order(table.backend):
            row: dict[str, object] = {"backend": backend, "threads": threads}
            for workload, part in table[table.threads == threads].groupby("workload", sort=False):
                mine = part[(part.backend == backend) & (part.status == "ok")]
                total = 1e3 * float((mine["count"] * mine.median_s).sum())
                layers = part.layer.nunique()
                row[f"{workload} (ms)"] = f"{total:,.4g}" if len(mine) == layers else f"{len(mine)} of {layers}"
            rows.append(row)
    return pd.DataFrame(rows).fillna("")


def winners(table: pd.DataFrame) -> pd.DataFrame:
    """The fastest backend of each layer and its lead over the next; "auto" is a choice, not a contender."""
    rows = []
    own = table[(table.status == "ok") & (table.backend != "auto")]
    for (workload, layer, threads), part in own.groupby(["workload", "layer", "threads"], sort=False):
        ranked = part.sort_values("median_s")
        first = ranked.iloc[0]
        row = {
            "workload": workload, "layer": layer, "threads": threads, "count": first["count"], "kernel": first.kernel,
            "winner": first.backend, "median_ms": 1e3 * first.median_s, "gflops_effective": first.gflops_effective,
        }  # fmt: skip
        if len(ranked) > 1:
            second = ranked.iloc[1]
            row |= {"second": second.backend, "lead": second.median_s / first.median_s}
        rows.append(row)
    return pd.DataFrame(rows)


def ladder(table: pd.DataFrame, workload: str) -> pd.DataFrame:
    """Geometric-mean speed-up over python_loops and its range, over the layers every backend measured."""
    part = table[(table.workload == workload) & (table.threads == table.threads.max()) & (table.backend != "auto")]
    speed = part.pivot(index="layer", columns="backend", values="speedup").dropna()
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


def ratio(table: pd.DataFrame, fast: str, slow: str) -> pd.DataFrame:
    """How many times faster one backend is than another, a row a layer both measured."""
    ok = table[table.status == "ok"]
    keys = ["workload", "layer", "threads", "kernel"]
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
    cells = ranked.drop_duplicates(["workload", "layer", "backend"]).sort_index()
    matrix = cells.pivot(index=["workload", "layer"], columns="backend", values="word")
    keys = cells[["workload", "layer"]].drop_duplicates().apply(tuple, axis=1)
    return matrix.loc[list(keys), order(cells.backend)].fillna("not measured").reset_index()


def _correctness_word(row: pd.Series) -> str:
    if row.status == "ok":
        return f"right, {row.error_over_bound:.2g} of bound"
    # Over budget means the cut layer was checked and passed, the whole one never ran.
    return "right when cut, over budget" if row.status == "over_budget" else str(row.status)


def not_ok(table: pd.DataFrame) -> pd.DataFrame:
    """Every case without a time, and why."""
    return table[table.status != "ok"][["workload", "layer", "backend", "threads", "status", "estimate_s", "reason"]]


def statuses(table: pd.DataFrame) -> pd.DataFrame:
    """How many cases of each backend ended how."""
    counts = table.groupby(["backend", "status"]).size().unstack(fill_value=0)
    return counts.loc[order(table.backend)].reset_index()


def compile_costs(table: pd.DataFrame) -> pd.DataFrame:
    """Seconds each algorithm spent compiling or loading from the cache in this run, the largest single case."""
    worst = table[table.algorithm != ""].groupby("algorithm")["compile_s"].max()
    return worst[order(list(worst.index))].reset_index()
