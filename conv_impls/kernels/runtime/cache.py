"""A disk cache of compiled kernels that knows every source of them, and never fails a call.

Idea
    Numba's cache (`cache=True`) looks at the one file a function stands in: after an edit of a function that it calls
    in another file, the old machine code still runs. Here the stamp of an entry also covers all files of this folder,
    and since kernels import nothing else, nothing else can change what they compile to.
    A file that cannot be read is compiled anew and replaced, one that cannot be written is done without; either is
    told by one RuntimeWarning a process. Numba itself lets EOFError and a full disk out of the call.
Source
    Numba's documentation, "Notes on Caching"; the hooks are those of `numba.core.caching`.
Limits
    Options read from the environment (NUMBA_OPT and the like) are no part of the stamp, as in Numba.
"""

from __future__ import annotations

import hashlib
import logging
import warnings
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite
from numba.core.caching import CompileResultCacheImpl, FunctionCache, NullCache
from numba.core.runtime import rtsys

FOLDER = Path(__file__).parents[1]
# What a kind of layer takes to compile (docs/performance.md, "The first call").
KIND_S = 3


@cache
def sources_hash() -> str:
    """Hash of all sources of this folder and of llvmlite's version; Numba adds its own version to every entry."""
    digest = hashlib.sha256(llvmlite.__version__.encode())
    for path in sorted(FOLDER.rglob("*.py")):
        # The length keeps two files apart from the same bytes cut elsewhere.
        source = path.read_bytes()
        digest.update(f"{path.relative_to(FOLDER)} {len(source)}\n".encode() + source)
    return digest.hexdigest()


def keep(dispatcher: Any) -> Any:
    """The same dispatcher, whose machine code is kept on disk."""
    if not hasattr(dispatcher, "py_func"):  # NUMBA_DISABLE_JIT, under which nothing is compiled
        return dispatcher
    try:
        dispatcher._cache = _KernelCache(dispatcher.py_func)
    except Exception as error:  # Numba found no folder that it may write to
        dispatcher._cache = NullCache()
        _warn(error)
    return dispatcher


class _StampedImpl(CompileResultCacheImpl):
    """Where a compiled kernel lives on disk, and what it was made from."""

    def __init__(self, py_func):
        super().__init__(py_func)
        own = self.locator.get_source_stamp()
        self.locator.get_source_stamp = lambda: (own, sources_hash())

    def reduce(self, cres):
        return self._origin(cres.library.codegen), super().reduce(cres)

    def rebuild(self, target_context, payload):
        # Numba writes the index before the data: a process that ends in between leaves an older version's under it.
        origin, reduced = payload
        if origin != self._origin(target_context.codegen()):
            raise ValueError("machine code of other sources or of another CPU")
        return super().rebuild(target_context, reduced)

    def _origin(self, codegen):
        return self.locator.get_source_stamp(), codegen.magic_tuple()


class _KernelCache(FunctionCache):
    _impl_class = _StampedImpl

    def _index_key(self, sig, codegen):
        # Numba adds all that a function has from around it, pickled, and pickled helpers differ in each process. The
        # stamp knows their code, and `named` of compile.py puts the rest into the name.
        return sig, codegen.magic_tuple()

    def load_overload(self, sig, target_context):
        found = None
        try:
            # Numba first sets up all that a compilation needs, a third of the time of a first plan; machine code needs
            # the runtime's symbols alone, and a compilation does the rest itself.
            rtsys.initialize(target_context)
            with self._guard_against_spurious_io_errors():
                found = self._load_overload(sig, target_context)
        except Exception as error:
            _warn(error)
            self._forget()
            _announce()
            return None
        # Two processes that save two signatures at the same moment may give both the same file name.
        if found is None or found.signature.args != tuple(sig):
            _announce()
            return None
        return found

    def save_overload(self, sig, data):
        try:
            super().save_overload(sig, data)
        except Exception as error:
            _warn(error)

    def _forget(self):
        """Empty the index, which may be what was broken: saving reads it first."""
        with suppress(OSError):
            self.flush()


_announced = False


def _announce() -> None:
    """Say once a process, before the first compilation, why the call takes its time."""
    global _announced
    if not _announced:
        _announced = True
        logging.getLogger("conv_impls").warning(
            "compiling kernels for this CPU, about %d s for each new kind of layer, once; to do it beforehand: "
            "python -m conv_impls warmup --workload NAME, MODEL.onnx or a label",
            KIND_S,
        )


_warned = False


def _warn(error: Exception) -> None:
    global _warned
    if not _warned:
        _warned = True
        warnings.warn(
            f"compiled kernels: the disk cache failed ({type(error).__name__}: {error}), so they are compiled anew; "
            "if this comes again, set NUMBA_CACHE_DIR to a folder with room that you may write to",
            RuntimeWarning,
            stacklevel=2,
        )
