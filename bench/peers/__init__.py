"""Other libraries as backends, one file per library: every ``*_peer.py`` of this folder is found automatically.

Importing this package imports no library. A library is imported only in the process that measures one of its backends,
and only if it is installed (``make setup-peers``). Each backend precomputes all that constant weights allow, in the
library's best way. It uses the library's own tensors (`conv_impls.registry.Prepared.bind`) and must meet the error
bound of direct summation. ``ours.py`` has our own convolution, called in other ways than a plan of `auto`.
Limits: a peer outside this folder needs no entry here; any backend in the registry can be named.
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

from ..program import SETUP_PEERS
from .declare import DECLARED, Gradient, Peer, copying, peer, symmetric, zeros_float32

__all__ = [
    "GRADIENTS", "OWN", "PEERS", "PINNED", "Gradient", "Peer", "context", "copying", "load", "missing", "packages",
    "peer", "symmetric", "zeros_float32",
]  # fmt: skip


def _found() -> list[Peer]:
    """The backends of all files of this folder, sorted by ``order``."""
    for name in sorted(module.name for module in iter_modules(__path__)):
        if name.endswith("_peer") or name == "ours":
            import_module(f".{name}", __package__)
    return sorted(DECLARED.values(), key=lambda found: found.order)


_ALL = {found.name: found for found in _found()}
# Backends of other libraries, and other ways to call our own.
PEERS = {name: found for name, found in _ALL.items() if not found.own}
OWN = {name: found for name, found in _ALL.items() if found.own}
# Backends of libraries that use all cores of their process.
PINNED = tuple(name for name, found in _ALL.items() if found.pinned)
# (backend, direction) -> the library's own gradient.
GRADIENTS: dict[tuple[str, str], Gradient] = {
    (name, direction): gradient for name, found in _ALL.items() for direction, gradient in found.gradients.items()
}


def missing(name: str) -> str | None:
    """Which packages this backend still needs, as an error text, or None."""
    needed = _ALL[name].needs if name in _ALL else ()
    absent = [package for package in needed if find_spec(package) is None]
    return f"{', '.join(absent)} not installed; run: {SETUP_PEERS}" if absent else None


def packages(names: Iterable[str]) -> list[str]:
    """Additional distributions that these backends need, without duplicates."""
    chosen = [_ALL[name] for name in names if name in _ALL]
    return list(dict.fromkeys(found.distributions.get(package, package) for found in chosen for package in found.needs))


def context(name: str) -> AbstractContextManager[Any]:
    """The context manager for the process that measures this backend, see `Peer`."""
    return _ALL[name].context() if name in _ALL else nullcontext()


def load(name: str) -> None:
    """Register this backend and import its packages, if it is in this folder. Repeated calls are harmless."""
    found = _ALL.get(name)
    if found is None:
        return
    # A pinned library counts cores at import, so `prepare` imports it, after the process is pinned.
    for package in () if found.pinned else found.needs:
        import_module(package)
    if name not in backends() or get_backend(name).function is not found.function:
        register(name, **found.facts)(found.function)
