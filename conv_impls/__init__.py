"""2-D convolution for NumPy arrays, with backends from loops to im2col, FFT, Numba, SIMD and Winograd.

    >>> import numpy as np
    >>> from conv_impls import conv2d
    >>> conv2d(np.ones((3, 8, 8), np.float32), np.ones((4, 3, 3, 3), np.float32), padding=1).shape
    (4, 8, 8)

Convolution here is cross-correlation, as in every deep-learning library. Importing this package does not load Numba or
SciPy; a backend is imported when it is first used.
"""

from conv_impls._version import __version__ as __version__
from conv_impls.api import conv2d
from conv_impls.backend import Backend
from conv_impls.eager import clear_cache
from conv_impls.errors import (
    BackendError,
    ConvError,
    DTypeError,
    ProblemError,
    UnknownBackendError,
    UnsupportedError,
)
from conv_impls.filters import KERNELS, apply_kernel
from conv_impls.gradients import conv2d_input, conv2d_weight, conv_transpose2d
from conv_impls.padding import pad2d
from conv_impls.patches import col2im, im2col
from conv_impls.planned import Plan, plan
from conv_impls.planned_gradients import InputPlan, WeightPlan, plan_input, plan_weight
from conv_impls.prepared import Prepared
from conv_impls.problem import Conv2dProblem
from conv_impls.registry import backends, get_backend, register
from conv_impls.trace import trace

__all__ = [
    "KERNELS",
    "Backend",
    "BackendError",
    "Conv2dProblem",
    "ConvError",
    "DTypeError",
    "InputPlan",
    "Plan",
    "Prepared",
    "ProblemError",
    "UnknownBackendError",
    "UnsupportedError",
    "WeightPlan",
    "apply_kernel",
    "backends",
    "clear_cache",
    "col2im",
    "conv2d",
    "conv2d_input",
    "conv2d_weight",
    "conv_transpose2d",
    "get_backend",
    "im2col",
    "pad2d",
    "plan",
    "plan_input",
    "plan_weight",
    "register",
    "trace",
]
