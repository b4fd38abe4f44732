"""Decorators that compile functions: kernels, their helpers, and entries called by Python.

    @kernel             called by its address, through a `conv_impls.kernels.runtime.job.Job`
    @helper             called by kernels and other helpers
    @entry(nogil=True)  called by Python, cached on disk; options of `numba.njit`
    @routine            called by C with one integer, a thread's start routine

Idea
    Numba optimizes each function that a kernel calls and generates its machine code, with a wrapper for Python. This
    work is wasted: LLVM inlines the function into the kernel, optimizes it there and generates machine code again.
    Here a helper stays bitcode, as Numba wrote it, and callers link it.
Source
    Numba's documentation, "Customizing the Compiler".
Limits
    A helper has no machine code: a call from Python raises a TypeError. It cannot print, raise with values, or run in
    parallel. To debug a helper, make it an `entry` temporarily.
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from typing import Any

from numba import njit, types
from numba._dynfunc import make_function
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_machinery import register_pass
from numba.core.typed_passes import NativeLowering

from conv_impls.kernels.runtime.cache import keep

# Compiled functions only compute: no check for zero before a division, and no reference counts of arrays, because they
# create and keep none (36 fewer calls in `convolve` of `implicit`).
PURE = {"error_model": "numpy", "_nrt": False}
NO_CODE = ctypes.cast(ctypes.pythonapi.PyErr_BadArgument, ctypes.c_void_p).value
INSIDE = PURE | {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}


def kernel(function: Callable[..., None]) -> Any:
    """A function (part, parts, operands), compiled when a `Job` needs its address."""
    return keep(njit(pipeline_class=_ForOthers, **INSIDE)(named(function)))


def entry(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """As ``numba.njit(**options)``."""
    options = {"error_model": "numpy", "no_cfunc_wrapper": True} | options
    return lambda function: keep(njit(pipeline_class=_ForOthers, **options)(named(function)))


def routine(function: Callable[[int], None]) -> Any:
    """A function of one int64; `c_address` returns its address."""
    return keep(njit(pipeline_class=_ForOthers, **PURE, no_cpython_wrapper=True)(named(function)))


def c_address(function: Any) -> int:
    """Address of the machine code of a `routine`, for calls from C."""
    function.compile((types.int64,))
    (compiled,) = function.overloads.values()
    address: int = compiled.library.get_pointer_to_function(compiled.fndesc.llvm_cfunc_wrapper_name)
    return address


def start_thread(address: int, argument: int) -> bool:
    """Start a native thread that calls the code at this address with this number; returns whether it started."""
    thread, libc = ctypes.c_ulong(), ctypes.CDLL(None)
    if libc.pthread_create(ctypes.byref(thread), None, ctypes.c_void_p(address), ctypes.c_void_p(argument)):
        return False
    libc.pthread_detach(thread)
    return True


def helper(function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """As ``numba.njit(**options)``, for functions that only compiled functions call."""
    made = njit(pipeline_class=_ForCallers, **INSIDE, **options)
    return (lambda later: made(named(later))) if function is None else made(named(function))


def named(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function; for a closure, the closure variables are appended to its name.

    Files and symbols have this name. LLVM takes the first of several symbols with the same name. Two functions with
    one name would run each other's machine code in a process that loads both from disk.
    """
    around = "".join(_mark(cell.cell_contents) for cell in function.__closure__ or ())
    function.__dict__["around"] = around
    function.__qualname__ += around
    return function


def _mark(value: Any) -> str:
    if isinstance(value, int | float | str):
        return f"_{value}"
    inner = getattr(value, "py_func", value)
    if callable(inner):
        return str(getattr(inner, "around", ""))
    raise TypeError(f"a compiled function may be made with numbers, texts and other functions, got {value!r}")


class _Whole(JITCodeLibrary):
    """A compiled function, optimized only once: together with all functions that it calls."""

    def _optimize_functions(self, ll_module):
        ll_module.data_layout = self._codegen._data_layout


class _Bitcode(_Whole):
    """A compiled function without machine code: its callers optimize it."""

    def _optimize_final_module(self):
        pass

    def _finalize_final_module(self):
        self._finalize_dynamic_globals()
        self._finalized = True


@register_pass(mutates_CFG=True, analysis_only=False)
class _LowerForOthers(NativeLowering):
    _name = "conv_impls_lower_for_others"

    def run_pass(self, state):
        state.library = _Whole(state.targetctx.codegen(), state.func_id.func_qualname)
        state.library.enable_object_caching()
        return super().run_pass(state)


@register_pass(mutates_CFG=True, analysis_only=False)
class _LowerForCallers(NativeLowering):
    _name = "conv_impls_lower_for_callers"

    def run_pass(self, state):
        state.library = library = _Bitcode(state.targetctx.codegen(), state.func_id.func_qualname)
        state.flags.no_compile = True
        super().run_pass(state)
        fndesc, _, _, env = found = state["cr"]
        # The object that callers use for the function. A call from Python raises a TypeError: there is no machine code.
        name = make_function(fndesc.lookup_module(), fndesc.qualname, "", NO_CODE, env, (library,))
        state.targetctx.insert_user_function(name, fndesc, [library])
        state["cr"] = found._replace(cfunc=name)
        return True


class _ForOthers(CompilerBase):
    lower = _LowerForOthers

    def compile_extra(self, func):
        # Garbage collections scanned hundreds of thousands of objects, all of them still in use.
        collects = gc.isenabled()
        try:
            gc.disable()
            return super().compile_extra(func)
        finally:
            if collects:
                gc.enable()

    def define_pipelines(self):
        passes = DefaultPassBuilder.define_nopython_pipeline(self.state)
        plain = [(self.lower if one is NativeLowering else one, why) for one, why in passes.passes]
        # If a later Numba renames the pass, the replacement must not be skipped silently.
        assert plain != passes.passes or self.state.flags.auto_parallel.enabled
        passes.passes = plain
        passes.finalize()
        return [passes]


class _ForCallers(_ForOthers):
    lower = _LowerForCallers
