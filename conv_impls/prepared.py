"""`Prepared`: what a backend made for one problem and one set of weights, and what it tells of it.

Limits: it is of the process that made it. What goes to another process is the `conv_impls.Plan`, which prepares there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, NoReturn

import numpy as np

from conv_impls.validation import Array

Call = Callable[[Array, Array], None]


class Bound(NamedTuple):
    """A call on one image in a library's own tensor: what ``Prepared.bind`` returns.

    Attributes
    ----------
    call : callable
        () -> whatever the library returns. This is what is timed.
    read : callable
        What ``call`` returned -> y as an array. It is right directly after that call; later calls may reuse the memory.
    rebind : callable, optional
        x -> None: copies another image of the same shape and dtype into the tensor, outside the clock. It must not
        write to the array that was bound before. Without it a new image needs a new ``bind``.
    """

    call: Callable[[], Any]
    read: Callable[[Any], Array]
    rebind: Callable[[Array], None] | None = None


# A plain tuple of two or three does as well; ``Bound(*bind(x))`` is the full form of each.
Binding = (
    Bound
    | tuple[Callable[[], Any], Callable[[Any], Array]]
    | tuple[Callable[[], Any], Callable[[Any], Array], Callable[[Array], None] | None]
)


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a backend's ``prepare`` may return instead of a bare callable, to report its costs.

    ``call(x, out)`` fills ``out`` (N, C_out, H_out, W_out) from ``x`` (N, C_in, H, W), both C-contiguous; it must be
    right from several threads at once. Bytes that are not told are None. ``repack(weight, bias)``, where there is one,
    replaces the weights, which spares `conv2d` all else that ``prepare`` does when it meets a problem again. `conv2d`
    keeps what can repack and tells its bytes, and never hands one to two calls at once.

    Three more for those who measure: the ``algorithm`` in the words of a library that picks one by itself;
    ``executed_flops``, multiplications and additions really done, None for those of the definition; and, where a
    library has tensors of its own, ``bind(x)``, which puts x into one and returns `Bound` (call, read, rebind) or the
    plain tuple (call, read). What two calls of ``bind`` return is independent: their calls may alternate, and each
    computes from its own image.

    It is of this process, which its functions and addresses belong to: a copy is the object itself, and a pickle is
    refused. What travels is the `conv_impls.Plan`.
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
        raise TypeError("what a backend prepared belongs to this process and cannot be pickled; pickle the Plan")


def rectified(prepared: Prepared) -> Prepared:
    """The same followed by max(y, 0), which leaves NaN as it is."""
    compute = prepared.call

    def call(x: Array, out: Array) -> None:
        compute(x, out)
        np.maximum(out, 0, out=out)

    return replace(prepared, call=call)
