"""LRU cache of prepared convolutions for `conv2d`: the next call of the same problem only replaces the weights.

Tables, workspace and its page faults cost 0.3 ms or more per call. Repacking weights into a prepared convolution costs
only the packing. An entry leaves the cache while a call uses it, so no two calls share one. A call that raises does not
put it back. The least recently used entries are evicted when there are too many entries or too many bytes.
Limits: only backends whose `Prepared` has ``repack`` and reports its bytes; the bytes of tables are not counted.
"""

from __future__ import annotations

import os
import threading

from conv_impls.backend import Backend
from conv_impls.prepared import Prepared
from conv_impls.problem import Conv2dProblem
from conv_impls.validation import Array

# Backend (or what else is prepared), problem, threads, ReLU.
Key = tuple[Backend | str, Conv2dProblem, int, bool]

MAX_BYTES = 256 * 2**20
MAX_ENTRIES = 256
# Maximum entries for one problem: this many concurrent calls of it each find one.
MAX_PER_KEY = 8


class Store:
    """Unused entries, the least recently used key first."""

    def __init__(self) -> None:
        # Reentrant, because a signal handler may also call conv2d.
        self._lock = threading.RLock()
        self._waiting: dict[Key, list[Prepared]] = {}
        self.entries = self.bytes = 0

    def take(self, key: Key) -> Prepared | None:
        """Remove and return an entry, if there is one."""
        with self._lock:
            return self._pop(key) if key in self._waiting else None

    def put(self, key: Key, prepared: Prepared) -> None:
        """Store an entry as the most recently used one, if it can be reused."""
        size = _bytes(prepared)
        if prepared.repack is None or size is None or size > MAX_BYTES:
            return
        with self._lock:
            unused = self._waiting.pop(key, [])
            self._waiting[key] = unused
            unused.append(prepared)
            self.entries, self.bytes = self.entries + 1, self.bytes + size
            if len(unused) > MAX_PER_KEY:
                self._pop(key)
            while self.bytes > MAX_BYTES or self.entries > MAX_ENTRIES:
                self._pop(next(iter(self._waiting)))

    def _pop(self, key: Key) -> Prepared:
        unused = self._waiting[key]
        prepared = unused.pop()
        if not unused:
            del self._waiting[key]
        self.entries, self.bytes = self.entries - 1, self.bytes - (_bytes(prepared) or 0)
        return prepared


def _bytes(prepared: Prepared) -> int | None:
    if prepared.packed_bytes is None or prepared.workspace_bytes is None:
        return None
    return prepared.packed_bytes + prepared.workspace_bytes


def take(key: Key, weight: Array, bias: Array | None) -> Prepared | None:
    """Take the convolution cached for this key and repack it with these weights; None if there is none."""
    prepared = _store.take(key)
    if prepared is not None and prepared.repack is not None:
        prepared.repack(weight, bias)
    return prepared


def take_unchanged(key: Key) -> Prepared | None:
    """Take what is cached for this key and has no weights; None if there is none."""
    return _store.take(key)


def put(key: Key, prepared: Prepared) -> None:
    """Put back an entry from `take`, or a newly prepared one."""
    _store.put(key, prepared)


def clear_cache() -> None:
    """Free the cache of prepared convolutions that `conv_impls.conv2d` reuses (at most 256 MiB).

    Returns
    -------
    None
        The next call of each problem prepares its convolution again.

    Examples
    --------
    >>> clear_cache()
    """
    global _store
    _store = Store()


_store = Store()
# Another thread may hold the lock during a fork; that thread does not exist in the child.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=clear_cache)
