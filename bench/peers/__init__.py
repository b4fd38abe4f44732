"""Other libraries as backends, one file a library: every ``*_peer.py`` of this folder, found by being there.

Importing this package imports no library. A library is imported only in the process that measures one of its backends,
and only where it is installed (``make setup-peers``). Each backend does beforehand whatever constant weights allow, in
the library's best way, keeps tensors of the library's own (`conv_impls.registry.Prepared.bind`), and is held to the
error bound of direct summation. ``ours.py`` has our own convolution, called in other ways than a plan of `auto`.
Limits: a peer outside this folder needs no entry here; any backend that the registry finds can be named.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from importlib.util import find_spec
from pkgutil import iter_modules
from typing import Any

from conv_impls import backends, get_backend
from conv_impls.registry import register

from .declare import DECLARED, Gradient, Peer, copying, peer, symmetric, zeros_float32

__all__ = [
    "GRADIENTS", "OWN", "PEERS", "PINNED", "Gradient", "Peer", "context", "copying", "load", "missing", "packages",
    "peer", "symmetric", "zeros_float32",
]  # fmt: skip


def _found() -> list[Peer]:
    """The backends of all files of this folder, in the order of lists."""
    for name in sorted(module.name for module in iter_modules(__path__)):
        if name.endswith("_peer") or name == "ours":
            import_module(f".{name}", __package__)
    return sorted(DECLARED.values(), key=lambda found: found.order)


_ALL = {found.name: found for found in _found()}
# Other libraries, and our own calls.
PEERS = {name: found for name, found in _ALL.items() if not found.own}
OWN = {name: found for name, found in _ALL.items() if found.own}
# Those that count the cores of their process themselves.
PINNED = tuple(name for name, found in _ALL.items() if found.pinned)
# (backend, direction) -> the library's own gradient.
GRADIENTS: dict[tuple[str, str], Gradient] = {
    (name, direction): gradient for name, found in _ALL.items() for direction, gradient in found.gradients.items()
}


def missing(name: str) -> str | None:
    """What must be installed before this backend can run, or None."""
    needed = _ALL[name].needs if name in _ALL else ()
    absent = [package for package in needed if find_spec(package) is None]
    return f"{', '.join(absent)} not installed; run: make setup-peers" if absent else None


def packages(names: Iterable[str]) -> list[str]:
    """Distributions that these backends need beyond our own, each once."""
    chosen = [_ALL[name] for name in names if name in _ALL]
    return list(dict.fromkeys(found.distributions.get(package, package) for found in chosen for package in found.needs))


def context(name: str) -> AbstractContextManager[Any]:
    """What the process that measures this backend stays in, see `Peer`."""
    return _ALL[name].context() if name in _ALL else nullcontext()


def load(name: str) -> None:
    """Register this backend and import what it needs, if it is one of this folder; once is enough, more do no harm."""
    found = _ALL.get(name)
    if found is None:
        return
    # A pinned library counts cores as it starts, so its import waits for `prepare`, when the process is pinned.
    for package in () if found.pinned else found.needs:
        import_module(package)
    if name not in backends() or get_backend(name).function is not found.function:
        register(name, **found.facts)(found.function)
