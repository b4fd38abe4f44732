"""Other libraries and ours, layer by layer: the engines take turns, each in a process of its own.

    for each thread count: start every engine (`bench.peers.child`), then for each layer
        prepare it everywhere, the result checked; then for each round, in shuffled order: settle, time one engine

While one engine is timed the others are blocked on a pipe, so that drift of the machine hits all alike. The figure of a
layer is the smallest over the rounds of the round's median: what the machine allows when it is left alone.
Every round is a `Record` of an ordinary run folder; tables are made from the records alone.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from bench import stats
from bench.machine import environment, thread_variables
from bench.peers import ENGINES, is_peer
from bench.store import Case, Record, Run
from conv_impls import Conv2dProblem
from conv_impls.workloads import Layer

# Idle pools (OpenMP, OpenBLAS, ONNX Runtime) spin for milliseconds after their last work; this outlasts them.
SETTLE_S = 0.03
# An order unanswered for so long means a hung engine. Compiling a backend for the first time takes tens of seconds.
HANG_S = 300
ISAS = {
    "avx2": {
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "ATEN_CPU_CAPABILITY": "avx2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "OPENBLAS_CORETYPE": "Haswell",
        "NUMBA_CPU_NAME": "haswell",
    }
}
# Libraries with no setting that holds them to an instruction set.
UNHELD = ("onnxruntime", "openvino", "openvino_channels_last")
FAILURES = ("wrong_result", "crashed", "error")
Progress = Callable[[str], None]


class Engine:
    """One engine's process; a dead one is started again for the next layer."""

    def __init__(self, name: str, threads: int, isa: str) -> None:
        self.name, self.threads, self.isa = name, threads, isa
        self._start()

    def _start(self) -> None:
        self.child = subprocess.Popen(
            [sys.executable, "-m", "bench.peers.child", self.name, str(self.threads)],
            cwd=Path(__file__).parent.parent, env=os.environ | thread_variables(self.threads) | isa_variables(self.isa),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        self.hello = self._answer()

    def ask(self, do: str, **order: Any) -> dict[str, Any]:
        """The answer to one order; a process that dies or hangs makes it "crashed"."""
        if self.child.poll() is not None:
            self.close()
            self._start()
        assert self.child.stdin is not None
        try:
            self.child.stdin.write(json.dumps({"do": do, **order}) + "\n")
            self.child.stdin.flush()
        except BrokenPipeError:
            pass  # _answer finds the pipe closed and says so.
        return self._answer()

    def close(self) -> None:
        """End the process."""
        self.child.kill()
        self.child.communicate()

    def _answer(self) -> dict[str, Any]:
        assert self.child.stdout is not None
        alarm = threading.Timer(HANG_S, self.child.kill)
        alarm.start()
        line = self.child.stdout.readline()
        alarm.cancel()
        if line:
            answer: dict[str, Any] = json.loads(line)
            return answer
        code = self.child.wait()
        return {"status": "crashed", "reason": f"the engine's process ended with exit code {code}, or hung"}


def isa_variables(isa: str) -> dict[str, str]:
    """Environment variables that hold the engines to an instruction set; none for the machine's own."""
    if not isa:
        return {}
    import llvmlite.binding as llvm

    beyond = ("avx512", "amx", "avxvnni", "avx10")
    flags = llvm.get_host_cpu_features().items()
    features = ",".join(("+" if on and not name.startswith(beyond) else "-") + name for name, on in flags)
    return ISAS[isa] | {"NUMBA_CPU_FEATURES": features}


def measure(
    folder: Path,
    layers: list[Layer],
    names: list[str],
    threads: list[int],
    *,
    rounds: int = 3,
    seconds: float = 0.05,
    isa: str = "",
    seed: int = 0,
    progress: Progress = lambda text: None,
) -> Run:
    """Time every layer on every engine; one record a (layer, engine, threads, round) in a new run folder.

    Engines that are not there are named in the environment with the reason, and get no records.
    """
    config = {
        "layers": len(layers), "engines": names, "threads": threads, "rounds": rounds, "seconds": seconds, "isa": isa,
        "seed": seed, "cases": [],
    }  # fmt: skip
    shuffle = random.Random(seed)
    run: Run | None = None
    for count in threads:
        held = {name: "no setting holds it to this instruction set" for name in names if isa and name in UNHELD}
        engines = [Engine(name, count, isa) for name in names if name not in held]
        try:
            if run is None:
                told = {e.name: e.hello.get("facts") or e.hello["reason"] for e in engines}
                run = Run.create(folder, config, environment() | {"engines": told | held})
            present = [engine for engine in engines if engine.hello["status"] == "ok"]
            for number, layer in enumerate(layers, 1):
                progress(f"{count} thread{'s' * (count > 1)}  {number}/{len(layers)}  {layer.workload} {layer.name}")
                for record in _layer(layer, present, rounds, seconds, seed, shuffle, run.environment["id"]):
                    run.append(record)
        finally:
            for engine in engines:
                engine.close()
    assert run is not None
    return run


def _layer(
    layer: Layer, engines: list[Engine], rounds: int, seconds: float, seed: int, shuffle: random.Random, where: str
) -> list[Record]:
    label, records = layer.problem.label, []

    def record(engine: Engine, repetition: int, status: str, reason: str = "", **facts: Any) -> None:
        case = Case(layer.workload, layer.name, label, layer.count, engine.name, engine.threads, "fwd", repetition)
        records.append(Record(case, status, reason, where, **facts))

    ready = {}
    for engine in engines:
        answer = engine.ask("prepare", label=label, seed=seed)
        if answer["status"] == "ok":
            ready[engine] = {name: answer[name] for name in ("algorithm", "prepare_s")}
        else:
            record(engine, 1, answer["status"], answer["reason"])
    for repetition in range(1, rounds + 1):
        for engine in shuffle.sample(list(ready), len(ready)):
            time.sleep(SETTLE_S)
            answer = engine.ask("time", seconds=seconds)
            facts = ready[engine]
            if answer["status"] == "ok":
                middle = stats.median(answer["samples_s"])
                facts = facts | answer | {"median_s": middle, "gflops_effective": layer.problem.flops / middle / 1e9}
            else:
                facts = facts | answer
                del ready[engine]
            record(engine, repetition, **facts)
    return records


def figures(records: list[Record]) -> pd.DataFrame:
    """One row a (workload, layer, threads, engine): its status, and best_s, the smallest of its rounds' medians."""
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for record in records:
        case = record.case
        row = rows.setdefault(
            (case.workload, case.layer, case.threads, case.backend),
            {
                "workload": case.workload, "layer": case.layer, "threads": case.threads, "engine": case.backend,
                "count": case.count, "flops": Conv2dProblem.from_label(case.label).flops,
                "algorithm": record.algorithm, "status": "ok", "best_s": float("inf"),
            },
        )  # fmt: skip
        if record.status != "ok":
            row["status"] = record.status
        row["best_s"] = min(row["best_s"], record.median_s or float("inf"))
    table = pd.DataFrame(rows.values())
    # One wrong round spoils all: only what was right every time has a time.
    table["best_s"] = table.best_s.where(table.status == "ok")
    rank = {name: i for i, name in enumerate(ENGINES)}
    return table.sort_values("engine", key=lambda names: names.map(rank).fillna(len(rank)), kind="stable")


def per_layer(table: pd.DataFrame) -> pd.DataFrame:
    """A row a layer: ms of every engine, the best peer, and beside it what `planned` picked, its rate and ratio."""
    rows = []
    for (workload, threads, layer), part in table.groupby(["workload", "threads", "layer"], sort=False):
        best_s = part.set_index("engine").best_s
        row = {"workload": workload, "threads": threads, "layer": layer, "count": part["count"].iloc[0]}
        row |= {f"{name} (ms)": 1e3 * seconds for name, seconds in best_s.items()}
        flops = part.flops.iloc[0]
        peers = best_s[[is_peer(name) for name in best_s.index]].dropna()
        if not peers.empty:
            row |= {"best peer": peers.idxmin(), "best peer (ms)": 1e3 * peers.min()}
            row["best peer (GFLOP/s)"] = flops / peers.min() / 1e9
        if "planned" in best_s:
            row["planned picked"] = part.set_index("engine").algorithm["planned"]
            row["planned (GFLOP/s)"] = flops / best_s["planned"] / 1e9
            if not peers.empty:
                row["best peer / planned"] = peers.min() / best_s["planned"]
        rows.append(row)
    return pd.DataFrame(rows)


def sums(table: pd.DataFrame) -> pd.DataFrame:
    """Count-weighted ms of each workload, a row an engine; "n of m" where it did not measure every layer.

    "best peer" is the sum of each layer's fastest peer: no one library is that fast.
    """
    peers = table[table.engine.map(is_peer)].dropna(subset="best_s")
    fastest = peers.loc[peers.groupby(["workload", "layer", "threads"]).best_s.idxmin()].assign(engine="best peer")
    cells: dict[str, dict[str, float | str]] = {}
    for (workload, threads), part in table.groupby(["workload", "threads"], sort=False):
        best = fastest[(fastest.workload == workload) & (fastest.threads == threads)]
        for name, mine in pd.concat([part, best]).groupby("engine", sort=False):
            measured, layers = mine.dropna(subset="best_s"), part.layer.nunique()
            whole = len(measured) == layers
            total = 1e3 * float((measured["count"] * measured.best_s).sum())
            column = f"{workload}, {threads}t (ms)"
            cells.setdefault(str(name), {})[column] = total if whole else f"{len(measured)} of {layers}"
    return pd.DataFrame.from_dict(cells, orient="index").rename_axis("engine").reset_index()


def ratios(table: pd.DataFrame) -> pd.DataFrame:
    """How many times faster ours is, network sum over network sum, and the layer where it compares worst."""
    totals, layers = sums(table).set_index("engine"), per_layer(table)
    rows = []
    for (workload, threads), part in layers.groupby(["workload", "threads"], sort=False):
        row = {"workload": workload, "threads": threads}
        column = totals[f"{workload}, {threads}t (ms)"]
        for peer, our in (("best peer", "planned"), ("torch_nchw", "eager"), ("torch_nchw", "strict")):
            pair = [column.get(peer), column.get(our)]
            row[f"{peer} / {our}"] = pair[0] / pair[1] if all(isinstance(v, float) for v in pair) else None
        if "best peer / planned" in part and part["best peer / planned"].notna().any():
            worst = part.loc[part["best peer / planned"].idxmin()]
            row |= {"worst layer": worst.layer, "its ratio": worst["best peer / planned"]}
        rows.append(row)
    return pd.DataFrame(rows).dropna(axis="columns", how="all")


def failures(records: list[Record]) -> list[str]:
    """A line for each engine and layer that gave a wrong result, or none."""
    return [f"{r.case.key}: {r.status}: {r.reason}" for r in records if r.status in FAILURES]


def write_tables(run: Run) -> Path:
    """README.md of the run folder, made from its records."""
    facts, table = run.environment, figures(run.records())
    config = run.config
    lines = [
        "# Other libraries and ours", "",
        f"{facts['cpu']}, {facts['cores']} cores, {facts['system']}, {facts['date']}"
        + (f", held to {config['isa']}" if config["isa"] else "") + ".",
        f"Each figure is the smallest of {config['rounds']} rounds' medians; the engines took turns. "
        "Ratios above 1: ours is faster.", "",
        *(f"- {name}: {told if isinstance(told, str) else ', '.join(f'{k} {v}' for k, v in told.items())}"
          for name, told in facts["engines"].items()),
    ]  # fmt: skip
    parts = {"Ratios of network sums": ratios(table), "Network sums, count-weighted": sums(table)}
    for key, part in per_layer(table).groupby(["workload", "threads"], sort=False):
        title = f"{key[0]}, {key[1]} thread{'s' * (key[1] > 1)}"
        parts[title] = part.drop(columns=["workload", "threads"]).dropna(axis="columns", how="all")
    for title, part in parts.items():
        lines += ["", f"## {title}", "", part.to_markdown(index=False, floatfmt=".3g")]
    wrong = [f"- {line}" for line in failures(run.records())]
    lines += ["", "## Failed", "", *wrong] if wrong else []
    page = run.folder / "README.md"
    page.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return page
