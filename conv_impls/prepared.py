"""`Prepared`: a backend's prepared convolution for one problem and one set of weights, with its reported costs.

Limits: valid only in the process that made it. To send one to another process, pickle the `conv_impls.Plan`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, NoReturn

import numpy as np

from conv_impls.validation import Array

Call = Callable[[Array, Array], None]


class Bound(NamedTuple):
    """A call bound to one image in a library's own tensor; returned by ``Prepared.bind``.

    Attributes
    ----------
    call : callable
        ``call()`` returns the library's result. Only this is timed.
    read : callable
        ``read(result of call)`` returns y as an array. It is valid directly after that call; later calls may reuse the
        memory.
    rebind : callable, optional
        ``rebind(x)`` copies another image of the same shape and dtype into the tensor; it is not timed. It must not
        write to the array that was bound before. Without it, a new image needs a new ``bind``.
    """

    call: Callable[[], Any]
    read: Callable[[Any], Array]
    rebind: Callable[[Array], None] | None = None


# A plain tuple of two or three is accepted as well; ``Bound(*bind(x))`` converts any of them.
Binding = (
    Bound
    | tuple[Callable[[], Any], Callable[[Any], Array]]
    | tuple[Callable[[], Any], Callable[[Any], Array], Callable[[Array], None] | None]
)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A prepared convolution; a backend's ``prepare`` may return it instead of a bare callable, to report its costs.

    It is valid only in this process: a copy is the object itself, and pickling raises. Pickle the `conv_impls.Plan`
    instead.

    Attributes
    ----------
    call : callable
        ``call(x, out)`` fills ``out`` (N, C_out, H_out, W_out) from ``x`` (N, C_in, H, W), both C-contiguous. It must
        be thread-safe.
    packed_bytes, workspace_bytes : int or None
        Memory for the packed weights, and for each concurrent call; None if not known.
    compile_s : float
        Seconds spent compiling.
    repack : callable, optional
        ``repack(weight, bias)`` replaces the weights. `conv2d` caches objects that have it and report their bytes: a
        cache hit repacks and skips the rest of ``prepare``. No two calls use one object at once.
    algorithm : str
        For libraries that choose an algorithm themselves: its name there.
    executed_flops : float, optional
        Multiplications and additions really executed; None for those of the definition.
    bind : callable, optional
        For libraries with their own tensors: ``bind(x)`` copies x into a tensor and returns `Bound` (call, read,
        rebind) or the plain tuple (call, read). Two results of ``bind`` are independent: their calls may alternate, and
        each computes from its own image.
    """

    call: Call
    packed_bytes: int | None = None
    workspace_bytes: int | None = None
    compile_s: float = 0.0
    repack: Callable[[Array, Array | None], None] | None = None
    algorithm: str = ""
    executed_flops: float | None = None
    bind: Callable[[Array], Binding] | None = None

    def __copy__(self) -> Prepared:
        return self

    def __deepcopy__(self, memo: object) -> Prepared:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Prepared is valid only in its own process and cannot be pickled; pickle the Plan")


def rectified(prepared: Prepared) -> Prepared:
    """The same convolution followed by max(y, 0); NaN stays NaN."""
    compute = prepared.call

    def call(x: Array, out: Array) -> None:
        compute(x, out)
        np.maximum(out, 0, out=out)

    return replace(prepared, call=call)
