"""The gradient of the image, assembled from the convolutions of its stride phases (`conv_impls.adjoint`).

With stride 1 there is one phase, and its convolution is the gradient. Otherwise each phase is computed into a buffer,
and `conv_impls.kernels.interleave` writes its pixels to their places.
Limits: padding of zeros. A padding wider than the kernel cuts rows or columns off the output's gradient, by a copy.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from conv_impls.adjoint import Phase
from conv_impls.padding import NO_PADDING
from conv_impls.problem import Conv2dProblem
from conv_impls.registry import Prepared
from conv_impls.validation import Array

if TYPE_CHECKING:
    from conv_impls.kernels.runtime.job import Job

# Buffers of planes kept for the next calls.
MOST_IDLE = 8


def weights_of(problem: Conv2dProblem, weight: Array, phase: Phase) -> Array:
    """Weights of the convolution of a phase: its taps in reverse order, input and output channels exchanged."""
    taps = weight[:, :, phase.taps[0]][:, :, :, phase.taps[1]]
    g, (oc, ic) = problem.groups, taps.shape[:2]
    grouped = taps.reshape(g, oc // g, ic, *taps.shape[2:]).swapaxes(1, 2)
    return np.ascontiguousarray(grouped).reshape(g * ic, oc // g, *taps.shape[2:])


def assembled(problem: Conv2dProblem, parts: Sequence[tuple[Phase, Prepared]], threads: int) -> Prepared:
    """``call(dy, dx)`` of a problem with padding of zeros, from its phases, each prepared with `weights_of` it."""
    compile_s = sum(part.compile_s for _, part in parts)
    packed, workspace = (
        None if any(getattr(part, name) is None for _, part in parts) else sum(getattr(part, name) for _, part in parts)
        for name in ("packed_bytes", "workspace_bytes")
    )
    if len(parts) == 1 and _whole(problem, parts[0][0]):
        return Prepared(parts[0][1].call, packed, workspace, compile_s)
    # Imported here: numba is slow to import, and with stride 1 a backend may need none of it.
    from conv_impls.kernels import interleave
    from conv_impls.kernels.runtime.job import compiled_s

    dtype = np.dtype(problem.dtype)
    writers, sizes = _writers(problem, [phase for phase, _ in parts], threads)
    compile_s += compiled_s([interleave.pairs, interleave.scatter], dtype)
    missing = _missing_rows(problem, [phase for phase, _ in parts])
    idle: deque[list[Array]] = deque(maxlen=MOST_IDLE)

    def call(dy: Array, dx: Array) -> None:
        try:
            planes = idle.pop()
        except IndexError:
            planes = [np.empty(size, dtype) for size in sizes]
        for (phase, part), plane in zip(parts, planes, strict=True):
            source = dy
            if phase.cut != NO_PADDING:
                (top, bottom), (left, right) = phase.cut
                source = dy[:, :, top : dy.shape[2] - bottom, left : dy.shape[3] - right]
            part.call(np.ascontiguousarray(source), plane.reshape(phase.problem.output_shape))
        if missing is None:
            dx[...] = 0
        else:
            for first in missing:
                dx[:, :, first :: problem.stride[0]] = 0
        for job, mine, other in writers:
            job(dy if mine is None else planes[mine], dx, None if other is None else planes[other])
        idle.append(planes)

    if workspace is not None:
        workspace += sum(sizes) * dtype.itemsize + max((job.workspace_bytes for job, *_ in writers), default=0)
    return Prepared(call, packed, workspace, compile_s)


def _whole(problem: Conv2dProblem, phase: Phase) -> bool:
    """Whether the pixels of a phase are those of the image."""
    return phase.problem.out_size == problem.in_size and phase.cut == NO_PADDING


Writer = tuple["Job", int | None, int | None]


def _writers(problem: Conv2dProblem, phases: list[Phase], threads: int) -> tuple[list[Writer], list[int]]:
    """Jobs with the indices of the planes that each writes, and the elements of every plane."""
    from conv_impls.kernels import interleave
    from conv_impls.kernels.runtime.job import Job

    images, dtype = problem.batch * problem.in_channels, np.dtype(problem.dtype)
    (h, w), (sh, sw) = problem.in_size, problem.stride

    def job(kernel: object, phase: Phase, columns: int, second: int) -> Job:
        rows = phase.problem.out_size[0]
        sizes = interleave.Sizes(images, h, w, rows, phase.first[0], sh, columns, second, phase.first[1], sw)
        return Job([kernel], dtype, interleave.Operands(sizes), threads=threads, units=images * rows)

    writers: list[Writer] = []
    places = {phase.first: index for index, phase in enumerate(phases)}
    for index, phase in enumerate(phases):
        columns = phase.problem.out_size[1]
        if sw != 2:
            writers.append((job(interleave.scatter, phase, columns, 0), index, None))
            continue
        other = places.get((phase.first[0], 1 - phase.first[1]))
        # The phase of two that comes first writes both.
        if other is None or other > index:
            second = 0 if other is None else phases[other].problem.out_size[1]
            writers.append((job(interleave.pairs, phase, columns, second), index, other))
    return writers, [prod(phase.problem.output_shape) for phase in phases]


def _missing_rows(problem: Conv2dProblem, phases: list[Phase]) -> list[int] | None:
    """First rows of the row phases that nothing writes; None if some columns are missing, too."""
    (h, w), (sh, sw) = problem.in_size, problem.stride
    if sw != 2 and len({phase.first[1] for phase in phases}) < min(sw, w):
        return None
    return sorted(set(range(min(sh, h))) - {phase.first[0] for phase in phases})
