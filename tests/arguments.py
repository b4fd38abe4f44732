"""What the tests of arguments share: small valid ones, and arrays in unusual memory."""

from __future__ import annotations

import numpy as np

import conv_impls as ci
from conv_impls import Conv2dProblem
from conv_impls.validation import Array

BACKENDS = ci.backends()
F = np.float32
X, W, B, OUT = np.ones((2, 4, 5, 6), F), np.ones((6, 2, 3, 3), F), np.ones(6, F), np.ones((2, 6, 3, 4), F)
P = Conv2dProblem.from_arrays(X, W, groups=2)


def locked(array: Array) -> Array:
    array = array.copy()
    array.flags.writeable = False
    return array


def misaligned(array: Array) -> Array:
    view = np.empty(array.nbytes + 1, np.uint8)[1:].view(array.dtype).reshape(array.shape)
    view[...] = array
    return view
