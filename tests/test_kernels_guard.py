"""No kernel touches memory that is not its own: every buffer lies up against a page that kills who touches it.

Image, weight, bias and result, and, for kernels run by `conv_impls.kernels.runtime.job`, also workspace, packed
weights and tables. At the end of a buffer and at its start; vectors read by intrinsics escape every other check.
"""

from __future__ import annotations

import signal

import pytest
from harness import NUMBA, run_python

CHILD = """
import sys
import numpy as np
from conv_impls import Conv2dProblem, get_backend
from conv_impls.backends import _by_tap, numba_simd
from conv_impls.backends._layout import effective
from conv_impls.kernels.runtime.job import Job
from conv_impls.kernels.runtime.operands import PLAN
from harness import guarded

backend = get_backend({backend!r})
prepare = {prepare}
shapes = [(1, 3, (7, 7), 5, (1, 1), 0), (1, 3, (4, 4), 3, (1, 1), 0), (1, 3, (7, 7), 70, (1, 1), 0),
          (2, 17, (16, 9), 33, (1, 1), 0), (1, 3, (8, 8), 6, (3, 3), 0), (1, 17, (9, 9), 66, (3, 3), 1),
          (1, 3, (20, 20), 4, (3, 3), 1), (2, 5, (13, 33), 15, (3, 3), 1), (1, 1, (3, 3), 1, (3, 3), 0),
          (1, 40, (5, 6), 31, (3, 3), 2), (1, 3, (1, 33), 2, (1, 7), 2)]
problems = [Conv2dProblem(n, c, size, o, kernel, (1, stride), ((pad, pad), (3 * (pad > 0), pad)), dtype=dtype)
            for n, c, size, o, kernel, pad in shapes for stride in (1, 2, 3, 4) for dtype in ("float32", "float64")]
problems += [p.replace(padding_mode="replicate") for p in problems if p.kernel_size == (3, 3) and p.stride == (1, 1)]
problems += [Conv2dProblem(1, c, (9, 19), o, (3, 3), (1, stride), ((1, 1), (1, 1)), groups=g)
             for c, o, g in ((6, 8, 2), (17, 17, 17), (5, 10, 5)) for stride in (1, 2)]
problems += [Conv2dProblem(1, 3, (5, 70), o, (3, 3), (stride, stride), ((1, 1), (1, 1)), groups=3, dtype=dtype)
             for o in (3, 6) for stride in (1, 2) for dtype in ("float32", "float64")]
problems += [Conv2dProblem(1, c, (9, 33), 18, (k, k), (s, s), ((k // 2,) * 2,) * 2, padding_mode=mode)
             for c in (4, 17) for k, s in ((3, 2), (5, 1), (7, 2)) for mode in ("zeros", "reflect")]
problems += [Conv2dProblem(1, 9, (size, 33), 18, (3, 3), (1, 1), ((1, 1), (0, 0))) for size in (1, 32)]
problems += [Conv2dProblem(1, 9, (5, w), o, (k, k)) for w in (9, 19, 35, 67, 131) for o in (1, 2, 5) for k in (1, 3)]
problems += [Conv2dProblem(1, 3, (k * rows, k * columns + extra), 18, (k, k), (k, k), dtype=dtype)
             for k, rows, columns in ((3, 3, 40), (5, 2, 17), (16, 2, 3), (20, 1, 18)) for extra in (0, 1)
             for dtype in ("float32", "float64")]
problems += [Conv2dProblem(n, g * c, (k, k), g * o, (k, k), groups=g, dtype=dtype) for n in (1, 2, 9)
             for g, c, o, k in ((1, 5, 8, 1), (2, 33, 50, 1), (1, 3, 70, 3)) for dtype in ("float32", "float64")]

call = Job.__call__
def call_guarded(job, x, out):
    copies = [guarded(array, side) for array in job._kept]
    job._idle[-1].table[1:, PLAN : PLAN + len(copies)] = [copy.ctypes.data for copy in copies]
    call(job, x, out)

Job.__call__ = call_guarded
for module in list(sys.modules.values()):
    if hasattr(module, "aligned_zeros"):
        module.aligned_zeros = lambda shape, dtype: guarded(np.zeros(shape, dtype), side)

done = 0
for p in problems:
    if backend.supports(p) is None:
        for side in ("start", "end"):
            given = [np.ones(s, p.dtype) for s in (p.input_shape, p.weight_shape, (p.out_channels,), p.output_shape)]
            x, weight, bias, out = (guarded(array, side) for array in given)
            out[...] = np.nan
            prepare(p, weight, bias, 1 + done % 2).call(x, out)
            assert out.min() > 0, p.label
            done += 1
assert done
print('survived')
"""


# The ways of numba_simd, whichever it would choose.
WAYS = {
    "by position": "lambda p, *given: numba_simd._prepare(effective(p), *given, False, by_channel=False)",
    "by channel": "lambda p, *given: numba_simd._prepare(effective(p), *given, False, by_channel=True)",
    "packed": "lambda p, *given: numba_simd._prepare(effective(p), *given, False, by_channel=True, in_place=False)",
    "by tap": "lambda p, *given: _by_tap.prepare(effective(p), *given, False)",
    "by tap and channel": "lambda p, *given: _by_tap.prepare(effective(p), *given, False, by_channel=True)",
}
CASES = [pytest.param(backend, "backend.prepare", id=backend) for backend in NUMBA]
CASES += [pytest.param("numba_simd", way, id=f"numba_simd {name}") for name, way in WAYS.items()]


@pytest.mark.parametrize(("backend", "prepare"), CASES)
def test_nothing_outside_the_buffers_is_touched(backend: str, prepare: str) -> None:
    done = run_python(CHILD.format(backend=backend, prepare=prepare))
    assert done.stdout.strip() == "survived", done.stderr


@pytest.mark.parametrize(("side", "offset"), [("end", 12), ("start", -4)])
def test_one_element_too_far_kills_the_child(side: str, offset: int) -> None:
    overrun = (
        "import ctypes, numpy as np; from harness import guarded\n"
        f"array = guarded(np.ones(3, 'f4'), {side!r})\n"
        "ctypes.c_float.from_address(array.ctypes.data).value = 1\n"
        f"ctypes.c_float.from_address(array.ctypes.data + {offset}).value = 1"
    )
    assert run_python(overrun).returncode == -signal.SIGSEGV
