"""What the kernel tests share: small integers checked exactly, buffers between guard pages, child processes."""

from __future__ import annotations

import ctypes
import mmap
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from conv_impls import Conv2dProblem, backends, get_backend, registry
from conv_impls.reference import error_bound, reference, sample_outputs
from conv_impls.registry import Prepared
from conv_impls.validation import Array

TESTS = Path(__file__).parent
# The compiled backends, without those that only choose among them.
NUMBA = [
    name
    for name in backends()
    if name.startswith("numba_") and name in registry.sources() and get_backend(name).kind == "prepare"
]
# Accuracy classes whose every step is exact on small integers; the others are right after rounding.
EXACT = "direct", "tile2"


def integers(problem: Conv2dProblem, seed: int = 0) -> tuple[Array, Array, Array]:
    """Image, weight and bias of integers from -4 to 4."""
    rng = np.random.default_rng(seed)
    shapes = problem.input_shape, problem.weight_shape, (problem.out_channels,)
    x, weight, bias = (rng.integers(-4, 5, shape).astype(problem.dtype) for shape in shapes)
    return x, weight, bias


def assert_right(
    y: Array,
    x: Array,
    weight: Array,
    bias: Array | None,
    problem: Conv2dProblem,
    accuracy: str,
    relu: bool = False,
    expected: Array | None = None,
) -> None:
    """Integers come out exactly, or after rounding where the class's bound leaves no other integer.

    ``expected`` are the outputs before relu, where the caller has them.
    """
    expected = reference(x, weight, bias, problem) if expected is None else expected
    if accuracy not in EXACT:
        at = sample_outputs(problem, 4)
        assert error_bound(x, weight, bias, problem, accuracy, at).max() < 0.25
        y = np.rint(y)
    np.testing.assert_array_equal(y, np.maximum(expected, 0) if relu else expected)


def check(
    problem: Conv2dProblem,
    backend: str,
    threads: int = 2,
    relu: bool = False,
    prepare: Callable[..., Prepared] | None = None,
) -> None:
    """One call of a backend on integers, into an output full of NaN; ``prepare`` may stand in for the backend's own."""
    x, weight, bias = integers(problem)
    entry = get_backend(backend)
    out = np.full(problem.output_shape, np.nan, problem.dtype)
    (prepare or entry.prepare)(problem, weight, bias, threads, relu).call(x, out)
    assert_right(out, x, weight, bias, problem, entry.accuracy, relu)


def guarded(values: Array, side: str = "end") -> Array:
    """A copy of ``values`` between two pages that must not be touched, up against one of them."""
    libc = ctypes.CDLL(None, use_errno=True)
    body = -(-values.nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
    memory = mmap.mmap(-1, body + 2 * mmap.PAGESIZE)
    base = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for page in (base, base + mmap.PAGESIZE + body):
        assert libc.mprotect(ctypes.c_void_p(page), mmap.PAGESIZE, 0) == 0
    first = mmap.PAGESIZE + (body - values.nbytes if side == "end" else 0)
    array: Array = np.frombuffer(memory, values.dtype, values.size, first).reshape(values.shape)
    array[...] = values
    return array


def run_python(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run ``code``, which may import this module, in a process of its own with these environment variables."""
    environment = os.environ | {"PYTHONPATH": str(TESTS)} | variables
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=TESTS.parent, env=environment, capture_output=True, text=True)


def apart(function: Callable[..., Any], asked: Iterable[tuple[Any, ...]]) -> list[Any]:
    """What the function answers to each, all in one process of its own, which it may change as a library does."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return list(pool.map(function, *zip(*asked, strict=True)))
