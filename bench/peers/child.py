"""The child process of one engine: prepares and times layers as it is told, and sleeps in between.

    python -m bench.peers.child ENGINE THREADS

Orders and answers are JSON, one a line, on standard input and output; while no order comes the process is blocked in a
read. The parent sets the thread variables before it starts. Every answer has a status of `bench.store.STATUSES`.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from typing import Any

import numpy as np

from bench.check import normal_inputs
from bench.peers import Prepare, Ready, load
from conv_impls import Conv2dProblem, UnsupportedError
from conv_impls.reference import reference_at, sample_outputs

# Of the largest |reference|. Float32 rounding, Winograd included, stays below 1e-5; bfloat16 would be about 1e-2.
TOLERANCE = {"float32": 1e-4, "float64": 1e-9}
CHECKED = 256
# A round is made of at most so many samples, each of as many calls as fit, and of at least so many calls.
MAX_SAMPLES, MIN_SAMPLES = 50, 3


class Worker:
    """One engine and the layer it is at."""

    def __init__(self, prepare: Prepare, threads: int) -> None:
        self.make, self.threads = prepare, threads

    def prepare(self, label: str, seed: int) -> dict[str, Any]:
        """Make the layer ready and check its result."""
        problem = Conv2dProblem.from_label(label)
        x, weight = normal_inputs(problem, seed)
        self.at = sample_outputs(problem, CHECKED, seed)
        self.expected = reference_at(x, weight, None, problem, self.at)
        self.shape, self.tolerance = problem.output_shape, TOLERANCE[problem.dtype]
        start = time.perf_counter()
        self.ready: Ready = self.make(problem, x, weight, self.threads)
        prepare_s = time.perf_counter() - start
        return self._checked(self.ready.call()) | {"prepare_s": prepare_s, "algorithm": self.ready.algorithm}

    def time(self, seconds: float) -> dict[str, Any]:
        """Samples in seconds a call over about this long, after one call to warm up; checked afterwards."""
        call, clock = self.ready.call, time.perf_counter
        call()
        start = clock()
        call()
        once = max(clock() - start, 1e-9)
        samples = max(MIN_SAMPLES, min(MAX_SAMPLES, int(seconds / once)))
        calls = range(max(1, int(seconds / samples / once)))
        samples_s = []
        gc.disable()
        for _ in range(samples):
            start = clock()
            for _ in calls:
                y = call()
            samples_s.append((clock() - start) / len(calls))
        gc.enable()
        return self._checked(y) | {"samples_s": samples_s, "iterations": len(calls)}

    def _checked(self, result: Any) -> dict[str, Any]:
        y = self.ready.read(result)
        if y.shape != self.shape:
            return {"status": "wrong_result", "reason": f"shape {y.shape}, expected {self.shape}"}
        scale = float(np.abs(self.expected).max()) or 1.0
        error = float(np.abs(y[tuple(self.at.T)] - self.expected).max()) / scale
        if not error <= self.tolerance:
            text = f"error {error:.2g} of the largest value, expected at most {self.tolerance:g}"
            return {"status": "wrong_result", "reason": text}
        return {"status": "ok", "error": error}


def main() -> None:
    """Answer orders until the parent closes the pipe."""
    # What a library prints goes to standard error, not between the answers.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def answer(values: dict[str, Any]) -> None:
        answers.write(json.dumps(values) + "\n")

    name, threads = sys.argv[1:]
    try:
        prepare, facts = load(name)
    except (ImportError, AttributeError) as error:
        answer({"status": "unsupported", "reason": str(error)})
        return
    answer({"status": "ok", "facts": facts})
    worker = Worker(prepare, int(threads))
    for line in sys.stdin:
        order = json.loads(line)
        try:
            answer(getattr(worker, order.pop("do"))(**order))
        except UnsupportedError as error:
            answer({"status": "unsupported", "reason": str(error)})
        except Exception as error:
            answer({"status": "error", "reason": f"{type(error).__name__}: {error}"})


if __name__ == "__main__":
    main()
