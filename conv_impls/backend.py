"""`Backend`: one implementation of convolution, how it is called, and its documented properties.

Limits: lookup by name and selection among backends are in `conv_impls.registry`.
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
    """One implementation of convolution and its properties.

    Attributes
    ----------
    name, idea, source : str
        The name to pass to `get_backend`; the idea in one line; the publication it follows, with the section.
    accuracy : {"direct", "tile2", "tile2_5x5", "tile4", "tile6", "image"}
        Which quantity bounds the rounding error: the sum of absolute products of each output ("direct"), the sums of
        its tile (Winograd: "tile", m and, where it matters, the kernel), or the norms of the whole image ("image",
        FFT). `conv_impls.reference.error_bound` has the formulas.
    nan_spread : str
        Which outputs a NaN in the input affects.
    deterministic : {"output", "call", "no"}
        When results are bitwise equal. "output": an output depends only on its input window, its weights, and the
        channels, groups, kernel size, stride, dilation and dtype. Position, image size, threads and caches have no
        effect, so an image may be computed in pieces. "call": for the same call, on any number of threads. "no": never
        guaranteed.
    threads : str
        What sets the number of threads: "argument", "BLAS", or "none".
    supports : callable
        ``supports(problem)`` returns None, or the reason why the problem is not supported.
    fuses_relu : bool
        Whether ``prepare`` takes ``relu`` and applies max(y, 0) itself, without a second pass over the output.
    mode : {"planned", "eager"}
        Whether weights are prepared once ("planned") or passed at each call ("eager").
    workspace : callable, optional
        ``workspace(problem, threads)`` returns the bytes that a call needs in addition to its arrays. It allocates
        nothing. "auto" skips a backend that needs too much; it calls this only for problems with a product. None: not
        known.
    compiled : bool
        Whether it runs code that Numba compiles. ``supports`` then also checks that Numba compilation is enabled.
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
        """Prepare for one problem and one set of weights; the arrays must not change afterwards."""
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
            # Inf and NaN are visible in y, so NumPy's warnings are off; compiled backends do not warn either.
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
