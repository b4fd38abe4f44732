"""Passes images, weights and outputs between the parent and the backend processes, as files in a temporary folder.

The parent writes the data of a layer once for all backends; each backend writes the outputs that the parent checks.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from conv_impls.validation import Array


def save(folder: Path, name: str, x: Array, weight: Array) -> str:
    """Write the data of a layer; returns the path stem that `load` needs."""
    stem = folder / name
    np.save(f"{stem}.x.npy", x)
    np.save(f"{stem}.weight.npy", weight)
    return str(stem)


def load(stem: str) -> tuple[Array, Array]:
    """Image and weights, read-only, so that no backend can change the data that its results are compared with."""
    x, weight = np.load(f"{stem}.x.npy"), np.load(f"{stem}.weight.npy")
    x.flags.writeable = weight.flags.writeable = False
    return x, weight


def outputs(path: Path, shape: list[int], dtype: str) -> Array:
    """The outputs that a backend wrote.

    Raises
    ------
    ValueError
        If it is not an array of this shape and dtype.
    """
    array: Array = np.fromfile(path, np.dtype(dtype)).reshape(shape)
    return array
