"""Does a load that comes and goes falsify a run? An experiment of ten minutes, which pytest does not collect.

    python tests/load.py --out results/runs/load            # five quiet runs and five loaded ones, in turn
    python tests/load.py --out results/runs/load --judge    # judge runs that are there

One core is busy for 1.5 s, idle for 1.5 s, and so on. Printed is a row a network, backend and number of threads: the
median of the quiet sums, and each sum over it, with its mark. The exit code is 1 unless every loaded sum is within 10%
of the quiet median or marked, at least half of the loaded sums on one thread are unmarked, and at most one quiet sum in
20 is marked. Limits: the quiet runs are as quiet as the machine is.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from multiprocessing import Process
from pathlib import Path

import pandas as pd

from bench.analysis.frame import frame_of
from bench.analysis.stats import TOLERANCE
from bench.analysis.sums import by_backend
from bench.store.folder import Run

PERIOD_S, RUNS, MARKED = 1.5, 5, 0.05
KEYS = ["network", "backend", "threads"]
COMMAND = (
    "-m", "bench", "run", "--workload", "mobilenet_v2", "--backends", "auto,numpy_strided", "--threads", "1,2",
    "--budget", "45",
)  # fmt: skip


def spin() -> None:
    """Be busy and idle in turn until ended."""
    while True:
        until = time.monotonic() + PERIOD_S
        while time.monotonic() < until:
            pass
        time.sleep(PERIOD_S)


def measure(out: Path) -> None:
    for number in range(1, RUNS + 1):
        for state in ("quiet", "loaded"):
            load = Process(target=spin, daemon=True)
            if state == "loaded":
                load.start()
            subprocess.run([sys.executable, *COMMAND, "--out", str(out / f"{state}{number}")], check=True)
            if state == "loaded":
                load.terminate()
                load.join()


def sums(out: Path, state: str) -> pd.DataFrame:
    """The whole sums of all runs of a state."""
    found = []
    for folder in sorted(out.glob(f"{state}*")):
        run = Run.open(folder)
        table = by_backend(frame_of(run))
        found.append(table[table.whole])
    return pd.concat(found, ignore_index=True)


def judge(out: Path) -> bool:
    quiet, loaded = sums(out, "quiet"), sums(out, "loaded")
    middle = quiet.groupby(KEYS).sum_s.median()
    # A sum that no quiet run finished in its time has nothing to be held against.
    loaded = loaded[[key in middle.index for key in loaded[KEYS].itertuples(index=False, name=None)]]
    print(f"{'network':<14}{'backend':<15}{'threads':>7}  quiet (ms)  quiet, loaded runs / median (~: marked)")
    for key, quiet_s in middle.items():
        words = [
            " ".join(
                f"{'~' * row.weak}{row.sum_s / quiet_s:.2f}"
                for row in part[(part[KEYS] == list(key)).all(axis=1)].itertuples()
            )
            for part in (quiet, loaded)
        ]
        network, backend, threads = key
        print(f"{network:<14}{backend:<15}{threads:>7}  {1e3 * quiet_s:>10.2f}  {words[0]:<30}  {words[1]}")
    ratios = loaded.sum_s.to_numpy() / middle.loc[list(loaded[KEYS].itertuples(index=False, name=None))].to_numpy()
    far = (abs(ratios - 1) > TOLERANCE) & ~loaded.weak
    one = loaded[loaded.threads == 1]
    facts = {
        f"{far.sum()} of {len(loaded)} loaded sums are unmarked and more than {TOLERANCE:.0%} off": not far.any(),
        f"{(~one.weak).sum()} of {len(one)} loaded sums on one thread are unmarked": (~one.weak).mean() >= 0.5,
        f"{quiet.weak.sum()} of {len(quiet)} quiet sums are marked": quiet.weak.mean() <= MARKED,
    }
    for text, holds in facts.items():
        print(f"{'holds' if holds else 'FAILS'}: {text}")
    return all(facts.values())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--judge", action="store_true", help="only judge the runs in the folder")
    asked = parser.parse_args()
    if not asked.judge:
        measure(asked.out)
    return 0 if judge(asked.out) else 1


if __name__ == "__main__":
    sys.exit(main())
