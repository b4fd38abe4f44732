"""`Backend`: one way to compute a convolution, how it is called, and what a reader should know of it.

Limits: it knows nothing of names and of other backends; those are the business of `conv_impls.registry`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from conv_impls.errors import BackendError
from conv_impls.prepared import Prepared, rectified
from conv_impls.problem import Conv2dProblem
from conv_impls.validation import Array

Accuracy = Literal["direct", "tile2", "tile2_5x5", "tile4", "tile6", "image"]
Supports = Callable[[Conv2dProblem], str | None]
Workspace = Callable[[Conv2dProblem, int], int]
Mode = Literal["planned", "eager"]
Deterministic = Literal["output", "call", "no"]


@dataclass(frozen=True, slots=True, eq=False)
class Backend:
    """One way to compute a convolution, and what a reader should know of it.

    Attributes
    ----------
    name, idea, source : str
        The idea in one line; where it comes from, with the section.
    accuracy : {"direct", "tile2", "tile2_5x5", "tile4", "tile6", "image"}
        What the rounding error is bounded by: the sum of |products| of each output ("direct"), of its tile (Winograd:
        "tile", m and, where it matters, the kernel), or the norms of the whole image (FFT).
        `conv_impls.reference.error_bound` has the formulas.
    nan_spread : str
        Which outputs a NaN in the input reaches.
    deterministic : {"output", "call", "no"}
        What gives equal bits. "output": the window that an output sees, its weights, and the channels, groups, kernel
        size, stride, dilation and dtype; position, image size, threads and caches change nothing, so that an image may
        be computed in pieces. "call": the same call, on any number of threads. "no": not even that.
    threads : str
        Who decides on the threads: "argument", "BLAS", "none".
    supports : callable
        problem -> None, or the reason why not, in words.
    fuses_relu : bool
        Whether ``prepare`` takes ``relu`` and applies max(y, 0) itself, rather than leave it to a second pass.
    mode : {"planned", "eager"}
        Whether weights are made ready once, or handed over at each call.
    workspace : callable, optional
        problem, threads -> bytes that a call needs in addition to its arrays, computed before any is allocated. "auto"
        skips a backend that needs too many, and asks only for problems that have a product. None: not known.
    compiled : bool
        Whether it runs code that Numba compiles; ``supports`` then also knows whether Numba does.
    """

    name: str
    idea: str
    source: str
    accuracy: Accuracy
    nan_spread: str
    deterministic: Deterministic
    threads: str
    supports: Supports
    function: Callable[..., Any]
    kind: Literal["run", "prepare", "choose"]
    fuses_relu: bool
    mode: Mode
    compiled: bool
    workspace: Workspace | None = None

    def prepare(
        self, problem: Conv2dProblem, weight: Array, bias: Array | None, threads: int, relu: bool = False
    ) -> Prepared:
        """Get ready for one problem and one set of weights; the arrays must not change afterwards."""
        if relu and not self.fuses_relu:
            return rectified(self.prepare(problem, weight, bias, threads))
        if self.kind == "prepare":
            fused = (relu,) if self.fuses_relu else ()
            prepared = self.function(problem, weight, bias, threads, *fused)
            if isinstance(prepared, Prepared):
                return prepared
            if not callable(prepared):
                expected = "a Prepared or a function (x, out)"
                raise BackendError(f"backend {self.name!r} prepared {prepared!r} where {expected} was expected")
            return Prepared(prepared)

        def call(x: Array, out: Array) -> None:
            # Whoever called reads Inf and NaN from y; compiled backends raise nothing either.
            with np.errstate(all="ignore"):
                y = self.function(x, weight, bias, problem)
            if getattr(y, "shape", None) != problem.output_shape or y.dtype != out.dtype:
                got = f"{getattr(y, 'shape', type(y).__name__)} {getattr(y, 'dtype', '')}".strip()
                expected = f"{problem.output_shape} {out.dtype}"
                raise BackendError(
                    f"backend {self.name!r} returned {got} where {expected} was expected ({problem.label})"
                )
            out[...] = y

        return Prepared(call)
