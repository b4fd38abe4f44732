"""How much slower than the best own backend `auto` is: ``python -m bench.regret``, three minutes.

Every layer of the workloads is run by every backend that could be fastest, in turns, those that prove to take several
times as long as the best only twice; the regret of a layer is the time of auto's choice over the least time. F(6x6) is
left out: it is for those who ask for it.
Writes a table to ``results/auto_regret.md``. Limits: single layers move by 10% and more on a shared machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import typer

from bench.machine import environment
from bench.measure import SETTLE_S
from conv_impls import Conv2dProblem, get_backend, workloads
from conv_impls.backends.auto import candidates
from conv_impls.cost import estimates

NETWORKS = "resnet50,vgg16,mobilenet_v2,convnext_tiny,kernel_sizes"
# A backend that takes this many times the least is not timed again.
HOPELESS = 3.0
# Beside those the cost model knows. Products by BLAS are left out: its idle threads spin and slow whoever comes next.
OTHERS = ("numba_direct",)
ROUNDS, ROUND_S = 4, 0.004
OUT = Path("results/auto_regret.md")


def least_seconds(problem: Conv2dProblem, names: list[str], threads: int) -> dict[str, float]:
    """Least time of one call of each backend, taken in turns."""
    rng = np.random.default_rng(0)
    x, weight = (rng.standard_normal(s).astype(problem.dtype) for s in (problem.input_shape, problem.weight_shape))
    out = np.empty(problem.output_shape, problem.dtype)
    calls: dict[str, Callable[[], None]] = {}
    for name in names:
        call = get_backend(name).prepare(problem, weight, None, threads).call
        calls[name] = lambda call=call: call(x, out)  # type: ignore[misc]
    least = dict.fromkeys(names, float("inf"))
    for number in range(ROUNDS):
        for name, run in calls.items():
            # One slow round may be the machine's, two are the backend's.
            if number >= 2 and least[name] > HOPELESS * min(least.values()):
                continue
            # BLAS's own threads must have stopped spinning, and the caches must be as this backend leaves them.
            time.sleep(SETTLE_S)
            run()
            spent = 0.0
            while spent < ROUND_S:
                start = time.perf_counter()
                run()
                taken = time.perf_counter() - start
                least[name], spent = min(least[name], taken), spent + taken
    return least


def main(
    workload: Annotated[str, typer.Option(help="names or files, separated by commas")] = NETWORKS,
    threads: Annotated[str, typer.Option(help="thread counts, separated by commas")] = "1,2",
    out: Annotated[Path, typer.Option(help="where the table goes")] = OUT,
) -> None:
    """Measure the regret of auto and write a table of sums and worst layers."""
    rows = []
    for count, name in product(map(int, threads.split(",")), workload.split(",")):
        chosen_s = least_s = 0.0
        worst = (1.0, "none")
        for layer in workloads.load(name):
            expected = estimates(layer.problem, count, False)
            able = candidates(layer.problem, "standard", count, False)
            seconds = least_seconds(layer.problem, [*able, *OTHERS], count)
            regret, best = seconds[able[0]] / min(seconds.values()), min(seconds, key=seconds.__getitem__)
            chosen_s += seconds[able[0]] * layer.count
            least_s += min(seconds.values()) * layer.count
            worst = max(worst, (regret, f"{layer.name}: {able[0]}, best {best}"))
            timed = ", ".join(
                f"{n} {1e3 * s:.3f}" + (f" (expected {1e3 * expected[n]:.3f})" if n in expected else "")
                for n, s in seconds.items()
            )
            typer.echo(f"{name} {count}t {layer.name}: regret {regret:.2f}; ms: {timed}", err=True)
        rows.append((name, count, 1e3 * chosen_s, 1e3 * least_s, chosen_s / least_s, *worst))
    columns = ["workload", "threads", "auto (ms)", "best backend per layer (ms)", "regret", "worst layer", "which"]
    table = pd.DataFrame(rows, columns=columns).to_markdown(index=False, floatfmt=".3f")
    facts = environment()
    text = (
        "# Regret of auto\n\nTime of the backend that `auto` picks over that of the best own backend, count-weighted, "
        f"planned, float32, batch 1. Made by `python -m bench.regret` on {facts['cpu']}.\n\n{table}\n"
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text, encoding="utf-8")
    typer.echo(text)


if __name__ == "__main__":
    typer.run(main)
