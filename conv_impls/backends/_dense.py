"""Plans of layers with one output for each image and channel: which problems they cover, and the kernel's sizes.

See `conv_impls.kernels.dense` for the idea and its source. `conv_impls.backends.numba_simd` checks this way first. All
its ways add in the same order, so the choice changes no bit.
"""

from __future__ import annotations

import numpy as np

from conv_impls.backends._layout import round_up
from conv_impls.kernels import dense, implicit
from conv_impls.kernels.runtime.job import Job, compiled_s
from conv_impls.kernels.runtime.memory import aligned_zeros
from conv_impls.kernels.simd import lanes as vector_lanes
from conv_impls.kernels.tile import VECTORS
from conv_impls.kernels.tile_few import PANELS
from conv_impls.padding import NO_PADDING
from conv_impls.problem import Conv2dProblem
from conv_impls.registry import Prepared
from conv_impls.validation import Array

# Maximum number of images packed together.
IMAGES = 96
# Output channels may be 4 times fewer than the lanes of a vector: a panel of two vectors is then one eighth full. With
# fewer channels the packed weights would take too much memory.
FEWEST = 4


def covers(problem: Conv2dProblem) -> bool:
    """Whether the kernel is as large as the image, and there are enough output channels for vectors."""
    oc = problem.out_channels // problem.groups
    whole = problem.kernel_size == problem.in_size and problem.padding == NO_PADDING
    return whole and problem.out_size == (1, 1) and oc * FEWEST >= vector_lanes(problem.itemsize)


def prepare(
    problem: Conv2dProblem, weight: Array, bias: Array | None, threads: int, relu: bool, k_block: int
) -> Prepared:
    """Plan of one problem that `covers` accepts; several images are packed ``k_block`` elements at a time."""
    dtype, g, reduction, batch = np.dtype(problem.dtype), problem.groups, problem.reduction, problem.batch
    lanes, oc = vector_lanes(dtype.itemsize), problem.out_channels // g
    width = VECTORS * lanes
    panels = -(-oc // width)
    k_block = reduction if batch == 1 else min(k_block, reduction)
    blocks, images = min(panels, round_up(-(-panels // PANELS), threads)), -(-batch // IMAGES)
    sizes = dense.Sizes(batch, g, oc, reduction, k_block, blocks, images)
    # Of three panels four are read, but the last is never used.
    packed = aligned_zeros(((g * panels + 1) * reduction * width,), dtype)
    bias_values = np.zeros((g * panels + 1) * width, dtype)
    clamp = np.array([-np.inf, 0.0 if relu else -np.inf], dtype)
    compile_s = compiled_s([implicit.pack_panels, dense.convolve], dtype)
    own = 0 if batch == 1 else round_up(-(-batch // images), lanes) * round_up(k_block, lanes)
    job = Job(
        [dense.convolve], dtype, dense.Operands(packed, bias_values, clamp, sizes),
        threads=threads, units=g * blocks * images, own=own,
    )  # fmt: skip
    packing = Job(
        [implicit.pack_panels], dtype, implicit.PackOperands(implicit.Packing(g, oc, reduction)), threads=threads
    )

    def repack(weight: Array, bias: Array | None) -> None:
        packing(weight.reshape(-1), packed)
        bias_values[: g * panels * width].reshape(g, -1)[:, :oc] = 0 if bias is None else bias.reshape(g, oc)

    repack(weight, bias)
    return Prepared(job, packed.nbytes, job.workspace_bytes, compile_s, repack)
