"""Does `compare` see a slowdown of 10%, and nothing where nothing changed? An experiment.

    python tests/slowdown.py --out results/runs/slowdown            # 24 runs of resnet50, 37 s each
    python tests/slowdown.py --out results/runs/slowdown --judge    # judge runs that are there

Six runs of `auto` as it is and six of `auto` that takes 10% longer at every call (tests/paced.py), each on a machine
left alone and on one with a core that is busy for 1.5 s and idle for 1.5 s: in turn, so that all meet the same hours.
Every slowed run is compared with every unchanged one of its state (36 pairs), and unchanged ones with each other (15).
The exit code is 1 unless of the first, quiet, 90% exit with 1 and, loaded, as many exit with 1 or say `machine`, and of
the second 95% exit with 0 in either state. Limits: the quiet runs are as quiet as the machine is.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from itertools import combinations, product
from multiprocessing import Process
from pathlib import Path

from load import spin

from bench.analysis import compare
from bench.store.folder import Run

RUNS, SLOWED, FOUND, SILENT = 6, 0.1, 0.9, 0.95
STATES = "quiet", "loaded"
COMMAND = (
    "-m", "bench", "run", "--workload", "resnet50", "--plugin", "paced", "--backends", "paced", "--repetitions", "2",
    "--budget", "30",
)  # fmt: skip


def measure(out: Path, threads: str) -> None:
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    for number in range(1, RUNS + 1):
        for state, share in product(STATES, (0.0, SLOWED)):
            load = Process(target=spin, daemon=True)
            if state == "loaded":
                load.start()
            folder = out / f"{state}-{'slowed' if share else 'same'}{number}"
            if not folder.exists():
                command = [sys.executable, *COMMAND, "--threads", threads, "--out", str(folder)]
                subprocess.run(command, env=os.environ | {"PYTHONPATH": path, "PACED_SHARE": str(share)}, check=True)
            if state == "loaded":
                load.terminate()
                load.join()


def judged(older: Run, newer: Run) -> tuple[bool, bool, float]:
    """Whether `compare` exits with 1, whether it says `machine`, and the ratio of the first network."""
    before, after = compare.results(older), compare.results(newer)
    cases, networks = compare.compare_runs(before, after), compare.compare_networks(before, after)
    machine = bool((networks.verdict == "machine").any())
    return compare.regressed(cases, networks), machine, float(networks.ratio.iloc[0])


def judge(out: Path) -> bool:
    facts: dict[str, bool] = {}
    for state in STATES:
        same, slowed = ([Run.open(f) for f in sorted(out.glob(f"{state}-{kind}*"))] for kind in ("same", "slowed"))
        changed = [judged(a, b) for a, b in product(same, slowed)]
        equal = [judged(a, b) for a, b in combinations(same, 2)]
        found = sum(exits or (machine and state == "loaded") for exits, machine, _ in changed)
        silent = sum(not exits for exits, _, _ in equal)
        for name, pairs in (("slowed", changed), ("same", equal)):
            ratios = sorted(ratio for *_, ratio in pairs)
            middle = f"{ratios[len(ratios) // 2]:.3f}"
            print(f"{state:<7} {name:<7} new/old from {ratios[0]:.3f} over {middle} to {ratios[-1]:.3f}")
        facts[f"{state}: {found} of {len(changed)} slowed pairs are found"] = found >= FOUND * len(changed)
        facts[f"{state}: {silent} of {len(equal)} pairs of the same code exit with 0"] = silent >= SILENT * len(equal)
    for text, holds in facts.items():
        print(f"{'holds' if holds else 'FAILS'}: {text}")
    return all(facts.values())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs; those that are there stay")
    parser.add_argument("--threads", default="1", help="number of threads")
    parser.add_argument("--judge", action="store_true", help="only judge the runs in the folder")
    asked = parser.parse_args()
    if not asked.judge:
        measure(asked.out, asked.threads)
    return 0 if judge(asked.out) else 1


if __name__ == "__main__":
    sys.exit(main())
