"""A disk cache of compiled kernels whose stamp covers all their sources. A cache error never fails a call.

Idea
    Numba's cache (`cache=True`) checks only the file that defines a function. If a function in another file that it
    calls changes, the old machine code still runs. Here the stamp of an entry covers all files of this folder.
    Kernels import nothing else, so nothing else can change their machine code.
    If a file cannot be read, the kernel is compiled again and the file replaced. If a file cannot be written, the
    cache is skipped. Both give one RuntimeWarning a process. Numba itself raises EOFError and disk-full errors.
Source
    Numba's documentation, "Notes on Caching"; the hooks are those of `numba.core.caching`.
Limits
    Options read from the environment (NUMBA_OPT and similar) are not part of the stamp, as in Numba.
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
# Compile time of one kind of layer (docs/performance.md, "The first call").
KIND_S = 3


@cache
def sources_hash() -> str:
    """Hash of all sources of this folder and of llvmlite's version; Numba adds its own version to every entry."""
    digest = hashlib.sha256(llvmlite.__version__.encode())
    for path in sorted(FOLDER.rglob("*.py")):
        # The length makes the file boundaries part of the hash.
        source = path.read_bytes()
        digest.update(f"{path.relative_to(FOLDER)} {len(source)}\n".encode() + source)
    return digest.hexdigest()


def keep(dispatcher: Any) -> Any:
    """The same dispatcher, with its machine code cached on disk."""
    if not hasattr(dispatcher, "py_func"):  # NUMBA_DISABLE_JIT: nothing is compiled
        return dispatcher
    try:
        dispatcher._cache = _KernelCache(dispatcher.py_func)
    except Exception as error:  # Numba found no writable folder
        dispatcher._cache = NullCache()
        _warn(error)
    return dispatcher


class _StampedImpl(CompileResultCacheImpl):
    """The files of a compiled kernel, with a stamp of its sources and CPU."""

    def __init__(self, py_func):
        super().__init__(py_func)
        own = self.locator.get_source_stamp()
        self.locator.get_source_stamp = lambda: (own, sources_hash())

    def reduce(self, cres):
        return self._origin(cres.library.codegen), super().reduce(cres)

    def rebuild(self, target_context, payload):
        # Numba writes the index before the data. If a process ends in between, the new index points to old data.
        origin, reduced = payload
        if origin != self._origin(target_context.codegen()):
            raise ValueError("machine code of other sources or of another CPU")
        return super().rebuild(target_context, reduced)

    def _origin(self, codegen):
        return self.locator.get_source_stamp(), codegen.magic_tuple()


class _KernelCache(FunctionCache):
    _impl_class = _StampedImpl

    def _index_key(self, sig, codegen):
        # Numba adds the pickled closure variables of a function, and pickled helpers differ in each process. The stamp
        # covers the code of helpers, and `named` of compile.py puts the other closure variables into the name.
        return sig, codegen.magic_tuple()

    def load_overload(self, sig, target_context):
        found = None
        try:
            # Numba's own load first sets up everything for a compilation: a third of the time of a first plan. Loaded
            # machine code needs only the runtime's symbols, and a compilation does the rest itself.
            rtsys.initialize(target_context)
            with self._guard_against_spurious_io_errors():
                found = self._load_overload(sig, target_context)
        except Exception as error:
            _warn(error)
            self._forget()
            _announce()
            return None
        # Two processes that save different signatures at the same moment may use the same file name.
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
        """Empty the index, because the index may be the broken file, and saving reads it first."""
        with suppress(OSError):
            self.flush()


_announced = False


def _announce() -> None:
    """Log once a process, before the first compilation, why the call is slow."""
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
