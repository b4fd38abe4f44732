"""Arrays for kernels: aligned to a cache line, and of one Numba type."""

from __future__ import annotations

import ctypes
from math import prod
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

# A 64-byte vector that does not start on a line costs two line accesses (57 -> 65, 58 -> 73 GFLOP/s on 3x3 layers).
LINE_BYTES = 64


def aligned_zeros(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """C-contiguous zeros whose first element starts a cache line."""
    dtype = np.dtype(dtype)
    count = prod(shape)
    raw = np.zeros(count + LINE_BYTES // dtype.itemsize, dtype)
    first = -raw.ctypes.data % LINE_BYTES // dtype.itemsize
    return raw[first : first + count].reshape(shape)


def read_only(array: NDArray[Any]) -> NDArray[Any]:
    """A read-only view: one array type, so one compilation, for any flags of the caller's array."""
    view = array.view()
    view.flags.writeable = False
    return view


def immortal(lines: int, line_bytes: int) -> NDArray[np.int64]:
    """Words that are never freed: threads read them during interpreter exit, and a late thread after its job ended."""
    words = aligned_zeros((lines, line_bytes // 8), np.int64)
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(words))
    return words
