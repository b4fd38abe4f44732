"""A load that comes and goes on one core, to see whether a run notices: busy for some seconds, idle for as many.

    python -m bench.run.load --seconds 1.5 -- python -m bench run --workload mobilenet_v2 --out results/runs/loaded

The command after ``--`` is run beside it, and its exit code is passed on. Limits: where the load runs is up to the
scheduler, as it is for any other program of a user.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from multiprocessing import Process


def spin(seconds: float) -> None:
    """Be busy and idle in turn, for so many seconds each, until ended."""
    while True:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            pass
        time.sleep(seconds)


def main() -> int:
    """Run the command beside the load."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1.5, help="of being busy, and of being idle (1.5)")
    parser.add_argument("command", nargs="+", help="what to run beside it, after --")
    asked = parser.parse_args()
    load = Process(target=spin, args=(asked.seconds,), daemon=True)
    load.start()
    try:
        return subprocess.run(asked.command).returncode
    finally:
        load.terminate()


if __name__ == "__main__":
    sys.exit(main())
