"""The kernel of numba_direct: every tail, both orientations, equal bits, threads, the disk cache, vector code."""

from __future__ import annotations

import json
import platform
import sys
import threading
import time
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import harness
import numba
import numpy as np
import pytest
from harness import run_python

from conv_impls import Conv2dProblem, conv2d
from conv_impls.backends import numba_direct
from conv_impls.kernels import direct
from conv_impls.kernels.runtime import launch, protocol, team
from conv_impls.validation import Array

BOTH = pytest.mark.parametrize("by_channel", [False, True])


def check(problem: Conv2dProblem, threads: int = 2, by_channel: bool | None = None, relu: bool = False) -> None:
    prepare = partial(numba_direct._prepare, by_channel=by_channel)
    harness.check(problem, "numba_direct", threads, relu, prepare)


@BOTH
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("width", range(1, 2 * direct.LANES + 2))
def test_every_width_modulo_the_lanes(width: int, dtype: str, by_channel: bool) -> None:
    padded = Conv2dProblem(1, 3, (5, width), 5, (3, 3), padding=((1, 1), (1, 1)), dtype=dtype)
    check(padded, by_channel=by_channel, relu=width % 2 == 0)
    check(Conv2dProblem(1, 3, (5, width), 5, (2, 1), dtype=dtype), by_channel=by_channel)


@BOTH
@pytest.mark.parametrize("out_channels", range(60, 60 + 2 * direct.LANES + 2))
def test_every_channel_count_modulo_the_lanes(out_channels: int, by_channel: bool) -> None:
    problem = Conv2dProblem(2, 3, (6, 7), out_channels, (3, 3), padding=((1, 1), (1, 1)))
    check(problem, by_channel=by_channel, relu=out_channels % 2 == 0)


@pytest.mark.parametrize("in_channels", range(1, 14))
def test_every_number_of_taps_modulo_six(in_channels: int) -> None:
    check(Conv2dProblem(1, in_channels, (9, 9), 6, (1, 1)))
    check(Conv2dProblem(1, in_channels, (4, 4), 70, (1, 1)))


@pytest.mark.parametrize("out_channels", [1, 2, 3, 4, 5, direct.ROWS // 2 - 1, direct.ROWS // 2 + 1, direct.ROWS + 3])
def test_every_number_of_rows_modulo_four_and_beyond_one_task(out_channels: int) -> None:
    check(Conv2dProblem(1, 2, (17, 18), out_channels, (3, 2)))


@pytest.mark.parametrize("width", [direct.BLOCK - 1, direct.BLOCK, direct.BLOCK + 1, 3 * direct.BLOCK + 7])
def test_rows_longer_than_a_block(width: int) -> None:
    check(Conv2dProblem(1, 2, (2, width), 3, (1, 3), padding=((0, 0), (1, 1))))
    check(Conv2dProblem(1, 2, (3, width), 3, (2, 5), stride=(1, 3)))


@pytest.mark.parametrize("taps", [direct.TAPS - 1, direct.TAPS, direct.TAPS + 1, 2 * direct.TAPS + 4])
def test_more_taps_than_one_pass(taps: int) -> None:
    check(Conv2dProblem(1, taps, (5, 5), 5, (1, 1)))
    check(Conv2dProblem(1, taps, (5, 5), 65, (1, 1)))


def test_padding_so_wide_that_some_phases_show_only_zeros() -> None:
    check(Conv2dProblem(1, 2, (1, 2), 3, (3, 3), stride=(4, 5), padding=((7, 6), (9, 8)), dilation=(2, 3)))
    check(Conv2dProblem(1, 2, (1, 1), 3, (1, 1), stride=(3, 3), padding=((4, 4), (5, 5))))


@pytest.mark.parametrize("mode", ["zeros", "replicate"])
@pytest.mark.parametrize("stride", [2, 3, 5])
def test_phases_that_see_little_or_nothing_of_the_image(stride: int, mode: str) -> None:
    for size, kernel, before, after in product((1, 2, 7), (1, 3), (0, 2, 3), (0, 3)):
        if size + before + after >= kernel:
            sides = ((before, after), (after, before)), ((0, 0), (before, after))
            for padding in sides:
                if size + sum(padding[0]) >= kernel and size + sum(padding[1]) >= kernel:
                    shape = (1, 1, (size, size), 2, (kernel, kernel), (1, stride), padding)
                    check(Conv2dProblem(*shape, padding_mode=mode))


@pytest.mark.parametrize("out_channels", [5, 64, 70])
@pytest.mark.parametrize("stride", [(1, 5), (5, 1), (4, 9), (2**62, 3)])
def test_strides_that_leave_one_output_and_unseen_image(stride: tuple[int, int], out_channels: int) -> None:
    check(Conv2dProblem(1, 2, (7, 7), out_channels, (3, 3), stride))
    check(Conv2dProblem(2, 1, (9, 4), out_channels, (1, 1), stride, ((0, 1), (2, 0))))


def bits(x: Array, w: Array, like: Conv2dProblem, threads: int = 1, by_channel: bool = False) -> Array:
    """The result of a problem ``like`` this one on these arrays, as integers."""
    problem = like.replace(batch=len(x), in_size=x.shape[2:], out_channels=len(w))
    y = np.full(problem.output_shape, np.nan, x.dtype)
    numba_direct._prepare(problem, w, None, threads, False, by_channel=by_channel).call(x, y)
    return y.view(f"i{y.itemsize}")


SUMS = [
    Conv2dProblem(2, 7, (19, 23), 70, (3, 3)),
    Conv2dProblem(1, 2 * direct.TAPS + 5, (18, 17), 37, (1, 1)),
    Conv2dProblem(1, 13, (20, 25), 19, (3, 3), (2, 2), dilation=(1, 2)),
    Conv2dProblem(1, 15, (12, 21), 21, (2, 5), (1, 3), groups=3),
    Conv2dProblem(1, 6, (17, 18), 6, (3, 3), groups=6),
]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("problem", SUMS, ids=lambda p: p.label)
def test_equal_windows_give_equal_bits_wherever_they_lie(problem: Conv2dProblem, dtype: str) -> None:
    """In pieces of the image, on other threads, in both orientations, from a staged image, of fewer channels."""
    problem = problem.replace(dtype=dtype)
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal(shape).astype(dtype) for shape in (problem.input_shape, problem.weight_shape))
    whole = bits(x, w, problem)
    backwards = bits(x[:, ::-1].copy(), w[:, ::-1].copy(), problem.replace(groups=1)) if problem.groups == 1 else None
    assert backwards is None or not np.array_equal(backwards, whole), "these sums do not show their order"
    (oh, ow), (sh, sw) = problem.out_size, problem.stride
    extent = [(k - 1) * d + 1 for k, d in zip(problem.kernel_size, problem.dilation, strict=True)]
    for threads, by_channel in ((1, True), (2, False), (2, True), (3, False)):
        convolve = partial(bits, threads=threads, by_channel=by_channel)
        assert np.array_equal(convolve(x, w, problem), whole)
        for i, j, rows, columns in [(0, 0, oh, 1), (1, 2, 1, 1), (2, 1, 3, ow - 1), (oh - 2, ow - 3, 2, 3)]:
            high, wide = (rows - 1) * sh + extent[0], (columns - 1) * sw + extent[1]
            piece = x[:, :, i * sh : i * sh + high, j * sw : j * sw + wide].copy()
            assert np.array_equal(convolve(piece, w, problem), whole[:, :, i : i + rows, j : j + columns])
        # Zeros around it move an image to other places, and always to staged planes.
        around = np.pad(x, ((0, 0), (0, 0), (sh, 2 * sh), (3 * sw, sw)))
        assert np.array_equal(convolve(around, w, problem)[:, :, 1 : 1 + oh, 3 : 3 + ow], whole)
        padded = problem.replace(padding=((sh, sh), (2 * sw, sw)))
        assert np.array_equal(convolve(x, w, padded)[:, :, 1 : 1 + oh, 2 : 2 + ow], whole)
        if problem.groups == 1:
            assert np.array_equal(convolve(x[-1:], w[:5], problem), whole[-1:, :5])


def progress(calls: int, threads: int) -> int:
    """What another Python thread counts while this one makes so many calls, or fewer if it counts at all.

    The interpreter never takes the lock away within this, so a thread runs only while another one gives it back.
    """
    problem = Conv2dProblem(1, 32, (64, 64), 32, (3, 3), padding=((1, 1), (1, 1)))
    x, w = np.ones(problem.input_shape, "f4"), np.ones(problem.weight_shape, "f4")
    # Without `plan`, for NumPy gives the lock back while it looks whether two arrays overlap.
    convolve, y = numba_direct._prepare(problem, w, None, threads, False).call, np.empty(problem.output_shape, "f4")
    convolve(x, y)
    counted, started, done = 0, threading.Event(), threading.Event()

    def count() -> None:
        nonlocal counted
        while not done.is_set():
            counted += 1
            started.set()
            time.sleep(0)  # gives the lock back

    interval, counter = sys.getswitchinterval(), threading.Thread(target=count)
    # First of all: who waits already would ask after the old interval.
    sys.setswitchinterval(1000)
    try:
        counter.start()
        started.wait()
        before = counted
        for _ in range(calls):
            convolve(x, y)
            if counted > before:
                break
        return counted - before
    finally:
        sys.setswitchinterval(interval)
        done.set()
        counter.join()


@pytest.mark.parametrize("threads", [1, 2])
def test_other_python_threads_run_during_a_call(threads: int) -> None:
    assert progress(5000, threads) > 0


def test_a_kernel_that_holds_the_lock_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in ((team, "together"), (launch, "_alone")):
        holding = numba.njit(error_model="numpy", _nrt=False)(getattr(module, name).py_func)
        monkeypatch.setattr(module, name, holding)
    assert progress(20, threads=1) == 0


@pytest.mark.parametrize("layer", ["workqueue", "omp"])
def test_concurrent_calls_survive_on_every_threading_layer(layer: str) -> None:
    code = (
        "import numpy as np, numba; from concurrent.futures import ThreadPoolExecutor; from conv_impls import conv2d\n"
        "x, w = np.ones((1, 8, 32, 32), 'f4'), np.ones((8, 8, 3, 3), 'f4')\n"
        "call = lambda _: float(conv2d(x, w, backend='numba_direct', threads=2)[0, 0, 0, 0])\n"
        "assert set(ThreadPoolExecutor(4).map(call, range(200))) == {72.0}; print(numba.threading_layer())"
    )
    done = run_python(code, CONV_IMPLS_THREADING_LAYER="numba", NUMBA_THREADING_LAYER=layer, NUMBA_NUM_THREADS="2")
    assert done.stdout.strip() == layer, done.stderr


def test_a_forked_child_computes_serially_instead_of_dying() -> None:
    code = (
        "import os, numpy as np; from conv_impls import conv2d\n"
        "x, w = np.ones((1, 8, 32, 32), 'f4'), np.ones((8, 8, 3, 3), 'f4')\n"
        "conv2d(x, w, backend='numba_direct', threads=2); pid = os.fork()\n"
        "if pid == 0: os._exit(int(conv2d(x, w, backend='numba_direct', threads=2)[0, 0, 0, 0]))\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))"
    )
    done = run_python(code, PYTHONWARNINGS="ignore")
    assert done.stdout.strip() == "72", done.stderr


def test_a_second_process_compiles_nothing() -> None:
    code = (
        "import json, numpy as np; from conv_impls import conv2d; from conv_impls.kernels import direct\n"
        "from conv_impls.kernels.runtime import protocol\n"
        "conv2d(np.ones((1, 4, 9, 9), 'f4'), np.ones((4, 4, 3, 3), 'f4'), backend='numba_direct', threads=2)\n"
        "s = [k.stats for k in (direct.convolve, protocol.together)]\n"
        "print(json.dumps([sum(c.values()) for c in [x.cache_hits for x in s] + [x.cache_misses for x in s]]))"
    )
    first, second = (json.loads(run_python(code).stdout) for _ in range(2))
    # The cache is that of all tests, and the first may find it filled.
    assert first in ([0, 0, 1, 1], [1, 1, 0, 0])
    assert second == [1, 1, 0, 0]


def test_read_only_and_writeable_arrays_share_one_compilation() -> None:
    x, w = np.ones((1, 4, 9, 9), "f4"), np.ones((4, 4, 3, 3), "f4")
    conv2d(x, w, backend="numba_direct", threads=1)
    runs = protocol.together if launch.layer() == "team" else launch._alone
    before = len(runs.signatures)
    assert before
    x.flags.writeable = w.flags.writeable = False
    conv2d(x, w, backend="numba_direct", threads=1)
    assert len(runs.signatures) == before


def compiled_for(features: str | None, cache: Path) -> tuple[bool, str]:
    """Compile for these CPU features in a child, check results there; (is the 4x6 tile used, the assembly)."""
    code = (
        "from test_kernels_direct import check, direct, Conv2dProblem\n"
        "for size, out_channels in ((20, 7), (7, 70)):\n"
        "    check(Conv2dProblem(1, 5, (size, size), out_channels, (3, 3), padding=((1, 1), (1, 1))), threads=1)\n"
        "print(direct.WIDE, *direct.convolve.inspect_asm().values(), sep='\\n')"
    )
    variables = {"NUMBA_CACHE_DIR": str(cache)} | (
        {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": features} if features else {}
    )
    done = run_python(code, **variables)
    assert done.returncode == 0, done.stderr
    wide, assembly = done.stdout.split("\n", 1)
    return wide == "True", assembly


def packed_fma(assembly: str) -> int:
    fused = [line for line in assembly.splitlines() if "fmadd" in line or "fmla" in line]
    return sum("ps\t" in line or "ps " in line or ".4s" in line for line in fused)


def test_the_inner_loops_are_vector_code(tmp_path: Path) -> None:
    wide, assembly = compiled_for(None, tmp_path)
    assert packed_fma(assembly) >= (24 if wide else 12), "the update has lost its vector multiply-adds"
    assert packed_fma("vfmadd231ss %xmm1, %xmm2, %xmm3") == 0


@pytest.mark.long
@pytest.mark.skipif(platform.machine() != "x86_64", reason="AVX2 is an x86 instruction set")
def test_a_machine_with_avx2_alone_gets_the_small_tile_and_right_answers(tmp_path: Path) -> None:
    wide, assembly = compiled_for("+avx,+avx2,+fma,+sse4.2", tmp_path)
    assert not wide
    assert "%zmm" not in assembly
    assert packed_fma(assembly) >= 12


def test_only_the_sums_may_fuse_and_nothing_else_of_ieee_is_given_up() -> None:
    allowed: Any = {"contract"}
    assert allowed == direct.FASTMATH
    source = Path(direct.__file__).read_text(encoding="utf-8")
    assert source.count("fastmath") == source.count("@helper(fastmath=FASTMATH)\ndef _accumulate") == 1
    # What is inlined takes the flags of the function it goes to.
    assert source.count('inline="always")\ndef _update_') == source.count("inline=") == source.count("def _update_")
