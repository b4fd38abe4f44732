"""Prepared convolutions between two calls of `conv2d`: the next call of the same problem replaces the weights only.

Tables, workspace and its page faults cost 0.3 ms and more a call; packing weights into a convolution that is ready
costs what the weights cost. An entry is taken out of the store while a call uses it, so no two calls share one; a call
that raises does not put it back. The least recently used go first when there are too many, or too many bytes.
Limits: backends whose `Prepared` has ``repack`` and tells its bytes; those of tables are not counted.
"""

from __future__ import annotations

import os
import threading

from conv_impls.backend import Backend
from conv_impls.prepared import Prepared
from conv_impls.problem import Conv2dProblem
from conv_impls.validation import Array

Key = tuple[Backend, Conv2dProblem, int, bool]

MAX_BYTES = 256 * 2**20
MAX_ENTRIES = 256
# As many calls of one problem at once find an entry each.
MAX_ALIKE = 8


class Store:
    """Entries at rest, the least recently used key first."""

    def __init__(self) -> None:
        # A signal handler may convolve, too.
        self._lock = threading.RLock()
        self._waiting: dict[Key, list[Prepared]] = {}
        self.entries = self.bytes = 0

    def take(self, key: Key) -> Prepared | None:
        """Remove and return an entry, if there is one."""
        with self._lock:
            return self._pop(key) if key in self._waiting else None

    def put(self, key: Key, prepared: Prepared) -> None:
        """Keep an entry, as the most recent one, if it can serve again."""
        size = _bytes(prepared)
        if prepared.repack is None or size is None or size > MAX_BYTES:
            return
        with self._lock:
            alike = self._waiting.pop(key, [])
            self._waiting[key] = alike
            alike.append(prepared)
            self.entries, self.bytes = self.entries + 1, self.bytes + size
            if len(alike) > MAX_ALIKE:
                self._pop(key)
            while self.bytes > MAX_BYTES or self.entries > MAX_ENTRIES:
                self._pop(next(iter(self._waiting)))

    def _pop(self, key: Key) -> Prepared:
        alike = self._waiting[key]
        prepared = alike.pop()
        if not alike:
            del self._waiting[key]
        self.entries, self.bytes = self.entries - 1, self.bytes - (_bytes(prepared) or 0)
        return prepared


def _bytes(prepared: Prepared) -> int | None:
    if prepared.packed_bytes is None or prepared.workspace_bytes is None:
        return None
    return prepared.packed_bytes + prepared.workspace_bytes


def take(key: Key, weight: Array, bias: Array | None) -> Prepared | None:
    """A convolution prepared for this key, now with these weights; None where there is none at rest."""
    prepared = _store.take(key)
    if prepared is not None and prepared.repack is not None:
        prepared.repack(weight, bias)
    return prepared


def put(key: Key, prepared: Prepared) -> None:
    """Put back what `take` gave, or what was prepared in its place."""
    _store.put(key, prepared)


def clear_cache() -> None:
    """Free the memory that `conv_impls.conv2d` keeps for its next calls, 256 MiB at most.

    Returns
    -------
    None

    Examples
    --------
    >>> clear_cache()
    """
    global _store
    _store = Store()


_store = Store()
# A fork may come while another thread, which the child lacks, holds the lock.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=clear_cache)
