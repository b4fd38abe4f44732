"""A backend's process, seen from the parent: it is started, gets orders, is stopped between them, killed if it hangs.

Orders and answers use two pipes, one JSON object per line. A third pipe gets the output of the backend; its last lines
become part of the reason of a crash. While no order is running, the whole process group is stopped (SIGSTOP), so that
no idle thread of it, spinning or not, takes a core from the backend that is timed. The parent starts a guard
(`bench.run.guard`), which forks that group and ends it, with every process that the group has started.
"""

from __future__ import annotations

import json
import os
import secrets
import select
import signal
import subprocess
import threading
import time
from collections import deque
from contextlib import suppress
from typing import Any

from ..machine.environment import thread_variables
from ..program import PYTHON, ROOT

# Default timeouts of the stages of an order, in seconds: loading a library, planning and compiling (tens of seconds
# for a first kernel), checking against the reference.
LOAD_S, PLAN_S, CHECK_S = 120.0, 180.0, 120.0
KEPT_BYTES = 4096
# Interval of checking whether a silent process is still alive, in seconds.
POLL_S = 0.5
# Time for the guard to end all processes, in seconds.
END_S = 10.0
Answer = dict[str, Any]


class Worker:
    """One backend with one thread count. Every answer has a status of `bench.store.folder.STATUSES`.

    ``session``: the process gets its own session, otherwise that of the parent. Linux may share the cores between
    sessions first, then between their threads (sched(7), autogroup).
    """

    def __init__(
        self, backend: str, threads: int, call_s: float, variables: dict[str, str], session: bool = True
    ) -> None:
        self.backend, self.threads, self._session = backend, threads, session
        # A call may take twice its allowed time, and a cold start some seconds.
        self.stage_s = {"load": LOAD_S, "plan": PLAN_S, "check": CHECK_S, "call": 5 * call_s + 5}
        self._variables = os.environ | thread_variables(threads) | variables
        self._child: subprocess.Popen[bytes] | None = None

    def ask(self, do: str, **order: Any) -> Answer:
        """Send one order and return its answer; starts the process first if there is none."""
        if self._child is None:
            self._start()
        self._signal(signal.SIGCONT)
        # An answer must contain the token: late answers, and lines that the backend itself writes, do not.
        token = secrets.token_hex(8)
        asked = time.perf_counter()
        line = (json.dumps({"do": do, "token": token, **order}) + "\n").encode()
        with suppress(BrokenPipeError):
            while line:
                line = line[os.write(self._orders, line) :]
        # A turn may take its own time in addition to that of a call.
        answer = self._answer(token, order.get("seconds", 0.0))
        if self._child is not None:
            self._signal(signal.SIGSTOP)
        return answer | {"asked": asked, "answered": time.perf_counter()}

    def close(self) -> str:
        """End the process and all processes it started; returns its last output, in brackets."""
        if self._child is None:
            return ""
        self._child.terminate()
        try:
            self._child.wait(timeout=END_S)
        except subprocess.TimeoutExpired:
            # A process cannot be killed, or the guard was stopped.
            self._signal(signal.SIGKILL)
            self._child.kill()
            self._child.wait()
        self._drain.join(timeout=1)
        for pipe in (self._orders, self._answers):
            os.close(pipe)
        self._child = None
        printed = b"".join(self._printed).decode(errors="replace").strip().splitlines()
        return f" (it printed: {' | '.join(printed[-3:])[-300:]})" if printed else ""

    def _start(self) -> None:
        theirs_in, self._orders = os.pipe()
        self._answers, theirs_out = os.pipe()
        command = [*PYTHON, "-m", f"{__package__}.worker", self.backend, str(theirs_in), str(theirs_out)]
        command.append(str(os.getpid()))
        child = subprocess.Popen(
            command, cwd=ROOT, env=self._variables, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, pass_fds=(theirs_in, theirs_out),
            # In both cases Ctrl-C in a terminal reaches only the parent.
            start_new_session=self._session, process_group=None if self._session else 0,
        )  # fmt: skip
        # The guard sends the process group in its first line.
        self._child, self._group, self._unread = child, 0, b""
        os.close(theirs_in)
        os.close(theirs_out)
        self._printed: deque[bytes] = deque(maxlen=16)
        self._drain = threading.Thread(target=self._read_printed, args=(child,), daemon=True)
        self._drain.start()

    def _read_printed(self, child: subprocess.Popen[bytes]) -> None:
        assert child.stdout is not None
        with child.stdout as stream:
            while part := stream.read1(2**16):  # type: ignore[attr-defined]
                self._printed.append(part[-KEPT_BYTES:])

    def _answer(self, token: str, extra_s: float) -> Answer:
        """The next answer; each stage note before it sets a new timeout."""
        assert self._child is not None
        stage, until = "load", time.monotonic() + self.stage_s["load"]
        while True:
            while b"\n" in self._unread:
                line, _, self._unread = self._unread.partition(b"\n")
                try:
                    said: Answer = json.loads(line)
                    # The first line comes from the guard.
                    if not self._group:
                        self._group = int(said["pid"])
                        continue
                    if "status" in said:
                        if said.pop("token", None) != token:
                            raise ValueError
                        return said
                    stage = said["stage"]
                    until = time.monotonic() + self.stage_s[stage] + extra_s
                except (ValueError, LookupError, TypeError):
                    return self._given_up("crashed", f"something else wrote to its pipe: {line[:40]!r}")
            left = until - time.monotonic()
            if left <= 0:
                return self._given_up("timeout", f"{stage} did not end within {self.stage_s[stage] + extra_s:g} s")
            # A forked child may keep the pipe open after the process itself has ended.
            ready = select.select([self._answers], [], [], min(left, POLL_S))[0]
            if not ready and self._child.poll() is None:
                continue
            part = os.read(self._answers, 2**16) if ready else b""
            if not part:
                return self._died()
            self._unread += part

    def _died(self) -> Answer:
        assert self._child is not None
        try:
            code = self._child.wait(timeout=1)
        except subprocess.TimeoutExpired:
            return self._given_up("crashed", "the process closed its pipe")
        if code == -signal.SIGKILL:
            return self._given_up("oom", "the process was killed (SIGKILL), as Linux does when memory runs out")
        name = f"exit code {code} and no result"
        if code < 0:
            name = {int(s): s.name for s in signal.Signals}.get(-code, f"signal {-code}")
        return self._given_up("crashed", f"the process ended with {name}")

    def _given_up(self, status: str, reason: str) -> Answer:
        return {"status": status, "reason": reason + self.close()}

    def _signal(self, number: int) -> None:
        if self._group:
            with suppress(ProcessLookupError):
                os.killpg(self._group, number)
