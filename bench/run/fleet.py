"""The processes of a run: one per backend, each started at its first order."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from .process import Worker
from .versions import Version

# Other versions of the package, by the names of their backends.
Versions = Mapping[str, Version]
NONE: Versions = MappingProxyType({})


class Fleet:
    """Context manager: the processes of a run, one per backend, all for one thread count and one repetition.

    ``sessions``: each process runs in its own session, see `Worker`.
    """

    def __init__(
        self, call_s: float, variables: dict[str, str], versions: Versions = NONE, sessions: bool = True
    ) -> None:
        self._call_s, self._variables, self._versions, self._sessions = call_s, variables, versions, sessions
        self._workers: dict[str, Worker] = {}
        self._kind = (0, 0)

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def use(self, threads: int, repetition: int = 1) -> None:
        """Start new processes for another thread count or repetition: repetitions include process variation."""
        if self._kind != (threads, repetition):
            self.close()
            self._kind = threads, repetition

    def worker(self, backend: str) -> Worker:
        """The process of a backend; it starts at its first order."""
        if backend not in self._workers:
            version = self._versions.get(backend)
            variables = (version.variables() if version else {}) | self._variables
            self._workers[backend] = Worker(backend, self._kind[0], self._call_s, variables, self._sessions)
        return self._workers[backend]

    def close(self) -> None:
        """End all processes."""
        for worker in self._workers.values():
            worker.close()
        self._workers.clear()


def commit_of(versions: Versions, backend: str) -> str:
    """The commit for the record of a backend; empty for this version."""
    return versions[backend].commit if backend in versions else ""
