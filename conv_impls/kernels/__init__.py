"""Pure compiled kernels: arrays and integers in, outputs filled; no validation, no registry.

`launch` and `memory` beside them are how a backend starts one and what it hands over.
Importing this folder imports Numba, quickly: Numba asks on the way whether SciPy has its BLAS, by an import of
scipy.linalg that takes 0.2 s of the 0.7 s before a first plan. SciPy is there, for the package needs it, so the
question is answered by a placeholder, which is gone before anything can call it.
"""

import sys
from types import ModuleType

_ASKED_FOR = "scipy.linalg.cython_blas"

if _ASKED_FOR not in sys.modules:
    sys.modules[_ASKED_FOR] = ModuleType(_ASKED_FOR)
    try:
        import numba.np.arraymath  # noqa: F401
    finally:
        del sys.modules[_ASKED_FOR]
