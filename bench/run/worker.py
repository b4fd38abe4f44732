"""The process of one backend: executes orders, which it gets over its own pipes.

    python -m bench.run.worker BACKEND ORDERS_FD ANSWERS_FD PARENT_PID

The parent (`bench.run.process`) sets the thread variables before it starts. Between order and answer the process sends
notes of the current stage. It is forked by a guard (`bench.run.guard`), which ends it together with its parent. It is
the first process that Linux kills if memory runs out, and it cannot allocate more memory than the machine has.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any

from .guard import guard

# A module or a file that is imported first: it registers the user's backends.
PLUGIN = "CONV_IMPLS_BENCH_PLUGIN"
MACHINE = "machine"
# The folder from which another version of conv_impls is imported; the harness is always that of this version.
VERSION = "CONV_IMPLS_BENCH_VERSION"


def main() -> None:
    """Execute orders until the parent closes the pipe."""
    backend, (orders, answers, parent) = sys.argv[1], map(int, sys.argv[2:])
    # Before any library starts a thread: a fork does not copy threads.
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
            # The token identifies the order; lines from other writers have no token.
            token = order.pop("token")
            say({**getattr(actions, order.pop("do"))(**order), "token": token})


class Actions:
    """The orders of a backend's process; images and outputs go through files (`bench.run.exchange`)."""

    def __init__(self, backend: str, say: Any) -> None:
        # Imported after the memory limits are set, because these import numpy and more; but before the backend and its
        # plug-in, which may replace objects of these modules.
        from ..machine import usage
        from . import exchange, public_calls, subject

        self._subject, self._usage, self._exchange = subject, usage, exchange
        usage.keep_freed_memory()
        self._say, self._public = say, public_calls.PublicCalls
        self._case: Any = None
        self._lacking: str | None = None
        self._with_gradients: frozenset[str] = frozenset()
        self._pinned = False
        # Entered only by `main`: it is meant for a separate process.
        self.context: Callable[[], AbstractContextManager[Any]] = nullcontext
        if not os.environ.get(VERSION):
            self._load(backend)

    def _load(self, backend: str) -> None:
        """Load a backend of this version, of a peer or of a plug-in; other versions have only public calls."""
        from .. import peers
        from . import calls, plugin, public_calls

        self._own = calls.OwnCalls
        self._with_gradients = public_calls.with_gradients()
        if asked := os.environ.get(PLUGIN):
            plugin.load(asked)
        self._lacking = peers.missing(backend)
        if self._lacking is None:
            peers.load(backend)
        self._pinned = backend in peers.PINNED
        if self._lacking is None:
            self.context = partial(peers.context, backend)

    def start(self, case: dict[str, Any], public: bool = False) -> dict[str, Any]:
        """Set the case of the following orders; the status reports whether the backend supports it.

        ``public``: use only public calls of the package, as for other versions.
        """
        from ..store.records import Case

        self._case = None
        if self._lacking is not None:
            return {"status": "unsupported", "reason": self._lacking}
        if self._pinned:
            self._usage.pin(case["threads"])

        def make() -> None:
            given = Case(**case)
            # Our gradients are planned, by public calls; libraries and plug-ins have their own, or convolutions.
            gradient = given.direction != "fwd" and given.backend in self._with_gradients
            calls = self._public(given) if public or gradient else self._own(given)
            self._case = self._subject.Subject(given, calls, self._note)

        return self._answer(make, {})

    def probe(self, rows: int, data: str, out: str) -> dict[str, Any]:
        """The layer cut to ``rows`` output rows."""
        return self._computed(out, lambda: self._case.probe(rows, *self._exchange.load(data)))

    def ready(self, data: str, out: str, rotate_bytes: int) -> dict[str, Any]:
        """Plan and call the whole layer; turns can follow."""
        found = self._computed(out, lambda: self._case.ready(*self._exchange.load(data), rotate_bytes))
        found["facts"]["threads_seen"] = self._usage.thread_pools()
        return found

    def turn(self, seconds: float, scales: list[float], at: list[int]) -> dict[str, Any]:
        """Samples of the prepared case."""
        found: dict[str, Any] = {}
        return self._answer(lambda: found.update(self._case.turn(seconds, scales, at)), found)

    def stretch(self, seconds: float) -> dict[str, Any]:
        """Calls of the prepared case, without a pause."""
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
    """The machine itself: its current peak and yardstick, measured between the turns of the backends."""

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
    """Be killed first if memory runs out; raise MemoryError before all memory of the machine is used."""
    import resource

    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    with suppress(OSError, ValueError):
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        with suppress(OSError, ValueError):
            total = min(total, int(Path("/sys/fs/cgroup/memory.max").read_text()))
        resource.setrlimit(resource.RLIMIT_DATA, (total, total))
    # No core dumps of backends that crash.
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    main()
