"""How functions are compiled: kernels, what they call, and what Python calls.

    @kernel             called by its address, through a `conv_impls.kernels.runtime.job.Job`
    @helper             called by kernels and other helpers
    @entry(nogil=True)  called by Python, cached on disk; options of `numba.njit`
    @routine            called by C with one integer, a thread's start routine

Idea
    Numba optimizes each function that a kernel calls and makes machine code of it, with a wrapper for Python, although
    LLVM copies all of it into the kernel, optimizes it there and makes machine code again. A helper stays bitcode, as
    Numba wrote it, which callers link.
Source
    Numba's documentation, "Customizing the Compiler".
Limits
    A helper has no machine code: Python that calls it gets a TypeError. It cannot print, raise with values, or run in
    parallel. To debug one, make it an `entry` for that time.
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

# All of them only compute: a division is not preceded by a check for zero, and arrays, of which none is made or kept,
# are not counted by reference (36 calls less in `convolve` of `implicit`).
PURE = {"error_model": "numpy", "_nrt": False}
NO_CODE = ctypes.cast(ctypes.pythonapi.PyErr_BadArgument, ctypes.c_void_p).value
INSIDE = PURE | {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}


def kernel(function: Callable[..., None]) -> Any:
    """A function (part, parts, operands), compiled when a `Job` asks for its address."""
    return keep(njit(pipeline_class=_ForOthers, **INSIDE)(named(function)))


def entry(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """As ``numba.njit(**options)``."""
    options = {"error_model": "numpy", "no_cfunc_wrapper": True} | options
    return lambda function: keep(njit(pipeline_class=_ForOthers, **options)(named(function)))


def routine(function: Callable[[int], None]) -> Any:
    """A function of one int64, whose address is `c_address`."""
    return keep(njit(pipeline_class=_ForOthers, **PURE, no_cpython_wrapper=True)(named(function)))


def c_address(function: Any) -> int:
    """Where the machine code of a `routine` starts, as C calls it."""
    function.compile((types.int64,))
    (compiled,) = function.overloads.values()
    address: int = compiled.library.get_pointer_to_function(compiled.fndesc.llvm_cfunc_wrapper_name)
    return address


def start_thread(address: int, argument: int) -> bool:
    """Whether a native thread that calls the code at this address with this number was started."""
    thread, libc = ctypes.c_ulong(), ctypes.CDLL(None)
    if libc.pthread_create(ctypes.byref(thread), None, ctypes.c_void_p(address), ctypes.c_void_p(argument)):
        return False
    libc.pthread_detach(thread)
    return True


def helper(function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """As ``numba.njit(**options)``, for functions that only compiled ones call."""
    made = njit(pipeline_class=_ForCallers, **INSIDE, **options)
    return (lambda later: made(named(later))) if function is None else made(named(function))


def named(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, whose name says what it was made with, if it was made inside of a function.

    Files and symbols have this name. LLVM takes the first of several symbols of one name, so two functions that share
    one would run each other's machine code in a process that loads both from disk.
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
    """A compiled function, optimized with all that it calls and not also by itself."""

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
        # What callers know the function by. Where its machine code would be, Python gets a TypeError.
        name = make_function(fndesc.lookup_module(), fndesc.qualname, "", NO_CODE, env, (library,))
        state.targetctx.insert_user_function(name, fndesc, [library])
        state["cr"] = found._replace(cfunc=name)
        return True


class _ForOthers(CompilerBase):
    lower = _LowerForOthers

    def compile_extra(self, func):
        # Collections looked through hundreds of thousands of objects that are all still in use.
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
        # One that a Numba to come calls otherwise would be done without in silence.
        assert plain != passes.passes or self.state.flags.auto_parallel.enabled
        passes.passes = plain
        passes.finalize()
        return [passes]


class _ForCallers(_ForOthers):
    lower = _LowerForCallers
