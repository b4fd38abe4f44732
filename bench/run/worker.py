"""The process of one backend: measures cases as it is told, over pipes of its own.

    python -m bench.run.worker BACKEND ORDERS_FD ANSWERS_FD PARENT_PID

The parent (`bench.run.process`) sets the thread variables before it starts. Notes of the stage under way go out between
order and answer. The process dies with its parent, is the first that Linux ends when memory runs out, and may not take
more of it than the machine has.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import resource
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

# A module imported first, for backends registered by code that is neither a file nor an entry point.
PLUGIN = "CONV_IMPLS_BENCH_PLUGIN"
PEAK = "machine"
PR_SET_PDEATHSIG = 1


def main() -> None:
    """Answer orders until the parent closes the pipe."""
    backend, (orders, answers, parent) = sys.argv[1], map(int, sys.argv[2:])
    _contain()
    # It may have died before it was asked for that signal.
    if os.getppid() != parent:
        sys.exit()
    for pipe in (orders, answers):
        os.set_inheritable(pipe, False)

    def say(values: dict[str, Any]) -> None:
        line = (json.dumps(values, allow_nan=False) + "\n").encode()
        while line:
            line = line[os.write(answers, line) :]

    say({"stage": "load"})
    actions = Peak() if backend == PEAK else Actions(backend, say)
    with os.fdopen(orders) as lines:
        for line in lines:
            order = json.loads(line)
            say(getattr(actions, order.pop("do"))(**order))


class Actions:
    """What a backend's process can be told to do."""

    def __init__(self, backend: str, say: Any) -> None:
        # Here, after the limits on memory: these import numpy and more.
        from .. import peers
        from ..machine import usage
        from . import subject as measure

        if plugin := os.environ.get(PLUGIN):
            importlib.import_module(plugin)
        self.measure, self.usage = measure, usage
        self.note = lambda stage: say({"stage": stage})
        self.lacking = peers.missing(backend)
        if self.lacking is None:
            peers.load(backend)
        self.pinned = backend in peers.PINNED

    def prepare(self, case: dict[str, Any], seed: int, limits: dict[str, Any]) -> dict[str, Any]:
        """Check one case and make it ready for `turn`."""
        from ..store.records import Case

        if self.lacking is not None:
            return {"status": "unsupported", "reason": self.lacking}
        self.subject: Any = None
        facts: dict[str, Any] = {}
        if self.pinned:
            self.usage.pin(case["threads"])

        def action() -> None:
            subject = self.measure.Subject(Case(**case), self.measure.Limits(**limits), seed, self.note)
            # Shared, so that what is known of a case that fails half-way is kept.
            subject.facts = facts
            subject.prepare()
            self.subject = subject

        status, reason = self.measure.outcome(action)
        once_s = self.subject.once_s if self.subject else None
        facts["threads_seen"] = self.usage.thread_pools()
        return {"status": status, "reason": reason, "facts": facts, "once_s": once_s}

    def turn(self, seconds: float) -> dict[str, Any]:
        """Samples of the case that is ready."""
        found: dict[str, Any] = {}
        status, reason = self.measure.outcome(lambda: found.update(self.subject.turn(seconds)))
        return {"status": status, "reason": reason, **found}


class Peak:
    """The machine itself, asked between the backends what it can do at this moment."""

    def turn(self, seconds: float, threads: int, dtype: str) -> dict[str, Any]:
        """GFLOP/s of multiply-adds."""
        from conv_impls.limits import fma_flops_per_s

        return {"status": "ok", "gflops": fma_flops_per_s(threads, dtype, seconds) / 1e9}


def _contain() -> None:
    """Die with the parent; be ended first when memory runs out; MemoryError rather than all of the machine's memory."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    with suppress(OSError, ValueError):
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        with suppress(OSError, ValueError):
            total = min(total, int(Path("/sys/fs/cgroup/memory.max").read_text()))
        resource.setrlimit(resource.RLIMIT_DATA, (total, total))
    # No core dumps of what is meant to crash.
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    main()
