"""The process of one backend: measures cases as it is told, over pipes of its own.

    python -m bench.run.worker BACKEND ORDERS_FD ANSWERS_FD PARENT_PID

The parent (`bench.run.process`) sets the thread variables before it starts. Notes of the stage under way go out between
order and answer. The process is forked by a guard (`bench.run.guard`), which ends it with its parent. It is the first
that Linux ends when memory runs out, and may not take more of it than the machine has.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any

from .guard import guard

# A module or a file imported first, for backends registered by code that is neither a file nor an entry point.
PLUGIN = "CONV_IMPLS_BENCH_PLUGIN"
MACHINE = "machine"
# The folder that another version of conv_impls is imported from; the harness stays this one's.
VERSION = "CONV_IMPLS_BENCH_VERSION"


def main() -> None:
    """Answer orders until the parent closes the pipe."""
    backend, (orders, answers, parent) = sys.argv[1], map(int, sys.argv[2:])
    # Before any library starts a thread, which a fork would not take along.
    guard(parent, answers, (orders, answers))
    _contain()
    for pipe in (orders, answers):
        os.set_inheritable(pipe, False)

    def say(values: dict[str, Any]) -> None:
        line = (json.dumps(values, allow_nan=False) + "\n").encode()
        while line:
            line = line[os.write(answers, line) :]

    say({"stage": "load"})
    if version := os.environ.get(VERSION):
        sys.path.insert(0, version)
    actions = Machine() if backend == MACHINE else Actions(backend, say)
    with actions.context(), os.fdopen(orders) as lines:
        for line in lines:
            order = json.loads(line)
            # The token says which order this answers: a line that anybody else writes has none.
            token = order.pop("token")
            say({**getattr(actions, order.pop("do"))(**order), "token": token})


class Actions:
    """What a backend's process can be told to do; images and outputs go through files, `Exchange`."""

    def __init__(self, backend: str, say: Any) -> None:
        # Here, after the limits on memory: these import numpy and more. Before the backend and its plug-in, which may
        # replace what they find.
        from ..machine import usage
        from . import exchange, public_calls, subject

        self._subject, self._usage, self._exchange = subject, usage, exchange
        usage.keep_freed_memory()
        self._say, self._public = say, public_calls.PublicCalls
        self._case: Any = None
        self._lacking: str | None = None
        self._pinned = False
        # Entered by `main` alone: it is meant for a process of its own.
        self.context: Callable[[], AbstractContextManager[Any]] = nullcontext
        if not os.environ.get(VERSION):
            self._load(backend)

    def _load(self, backend: str) -> None:
        """A backend of this version, of a peer or of a plug-in; other versions have public calls only."""
        from .. import peers
        from . import calls, plugin

        self._own = calls.OwnCalls
        if asked := os.environ.get(PLUGIN):
            plugin.load(asked)
        self._lacking = peers.missing(backend)
        if self._lacking is None:
            peers.load(backend)
        self._pinned = backend in peers.PINNED
        if self._lacking is None:
            self.context = partial(peers.context, backend)

    def start(self, case: dict[str, Any], public: bool = False) -> dict[str, Any]:
        """Whether the backend takes a case at all; the orders below are of this case.

        ``public``: by public calls of the package alone, as other versions are called.
        """
        from ..store.records import Case

        self._case = None
        if self._lacking is not None:
            return {"status": "unsupported", "reason": self._lacking}
        if self._pinned:
            self._usage.pin(case["threads"])

        def make() -> None:
            given = Case(**case)
            calls = self._public(given) if public else self._own(given)
            self._case = self._subject.Subject(given, calls, self._note)

        return self._answer(make, {})

    def probe(self, rows: int, data: str, out: str) -> dict[str, Any]:
        """The layer cut to so many rows."""
        return self._computed(out, lambda: self._case.probe(rows, *self._exchange.load(data)))

    def ready(self, data: str, out: str, rotate_bytes: int) -> dict[str, Any]:
        """The whole layer, ready for turns."""
        found = self._computed(out, lambda: self._case.ready(*self._exchange.load(data), rotate_bytes))
        found["facts"]["threads_seen"] = self._usage.thread_pools()
        return found

    def turn(self, seconds: float, scales: list[float], at: list[int]) -> dict[str, Any]:
        """Samples of the case that is ready."""
        found: dict[str, Any] = {}
        return self._answer(lambda: found.update(self._case.turn(seconds, scales, at)), found)

    def stretch(self, seconds: float) -> dict[str, Any]:
        """Calls of the case that is ready, one after another."""
        found: dict[str, Any] = {}
        return self._answer(lambda: found.update(self._case.stretch(seconds)), found)

    def last(self, scales: list[float], out: str) -> dict[str, Any]:
        """All outputs of one more call."""
        return self._computed(out, lambda: self._case.last(scales))

    def _note(self, stage: str) -> None:
        self._say({"stage": stage})

    def _computed(self, out: str, compute: Any) -> dict[str, Any]:
        import numpy as np

        found: dict[str, Any] = {}

        def action() -> None:
            y, facts = compute()
            self._note("check")
            found.update(facts, shape=list(y.shape), dtype=str(y.dtype))
            np.asarray(y).tofile(out)

        return self._answer(action, found)

    def _answer(self, action: Any, found: dict[str, Any]) -> dict[str, Any]:
        status, reason = self._subject.outcome(action)
        facts = dict(self._case.facts) if self._case else {}
        return {"status": status, "reason": reason, "facts": facts, **found}


class Machine:
    """The machine itself, asked between the backends what it can do at this moment."""

    context = nullcontext

    def __init__(self) -> None:
        self._yardstick: dict[str, Any] = {}

    def yardstick(self, label: str) -> dict[str, Any]:
        """Seconds of a fixed piece of work of a layer's size."""
        from ..machine.yardstick import yardstick_s

        return {"status": "ok", "yardstick_s": yardstick_s(label, self._yardstick)}

    def turn(self, seconds: float, threads: int, dtype: str) -> dict[str, Any]:
        """GFLOP/s of multiply-adds."""
        from conv_impls.choice.probes import fma_flops_per_s

        return {"status": "ok", "gflops": fma_flops_per_s(threads, dtype, seconds) / 1e9}


def _contain() -> None:
    """Be ended first when memory runs out; MemoryError rather than all of the machine's memory."""
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
