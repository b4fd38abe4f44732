"""Compile the kernels that layers need before they are called, with one process per core.

It uses processes because each process compiles only one kernel at a time. Compiled kernels are cached on disk
(`conv_impls.kernels.runtime.cache`).
Limits: layers of one kind that need several kernels compile them one after another.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from multiprocessing import get_context

import numpy as np

from conv_impls.api import select, thread_count
from conv_impls.planned import plan
from conv_impls.problem import Conv2dProblem
from conv_impls.workloads import Layer

# Layers that may share their kernels: backend, problem, threads.
Kind = list[tuple[str, Conv2dProblem, int]]


def kinds(layers: Iterable[Layer], threads: Iterable[int | None], precision: str) -> dict[str, Kind]:
    """Group layers, as "auto" computes them, by the properties that select kernels; these form the kind's name."""
    found = dict[str, Kind]()
    for count, layer, eager in product(threads, layers, (True, False)):
        cores, p = thread_count("warmup", count), layer.problem
        backend = select("warmup", "auto", p, precision, cores, eager).name
        (kh, kw), (sh, sw) = p.kernel_size, p.stride
        name = f"{backend} {p.dtype} {cores} threads, {kh}x{kw} kernels, stride {sh}x{sw}"
        found.setdefault(name, []).append((backend, p, cores))
    return found


def pool(kinds: int) -> ProcessPoolExecutor:
    """A pool with one process per kind, at most one per core. If one is killed, the others end with an error."""
    processes = max(1, min(kinds, thread_count("warmup", None)))
    return ProcessPoolExecutor(processes, get_context("spawn"), signal.signal, (signal.SIGINT, signal.SIG_IGN))


def make_ready(kind: Kind) -> None:
    """Plan these layers, and call the first one: some kernels are compiled by their first call."""
    # No warnings about compilation: compiling is the purpose here.
    logging.getLogger("conv_impls").setLevel(logging.ERROR)
    for number, (backend, problem, threads) in enumerate(kind):
        ready = plan(problem, np.ones(problem.weight_shape, problem.dtype), backend=backend, threads=threads)
        if number == 0:
            ready(np.zeros(problem.input_shape, problem.dtype))
