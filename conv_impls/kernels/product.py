"""A matrix product by register tiles: rows are split evenly, each tile is multiplied by all panels of B. Pure kernels.

Idea
    Operands are packed so that a tile reads both sequentially. `multiply` keeps the rows of A of a tile in L1 and loops
    over panels of B. `multiply_by_panel` keeps a panel and loops over tiles. Both prefetch the next operands.
Source
    Van Zee & van de Geijn 2015, BLIS, doi:10.1145/2764454, sec. 2: the two loops around `conv_impls.kernels.tile`.
Limits
    Only `multiply` supports columns after the last whole vector. Panels are VECTORS vectors wide.
"""

from __future__ import annotations

from conv_impls.kernels.runtime.compile import helper
from conv_impls.kernels.simd import lanes_of
from conv_impls.kernels.tile import START_BY_COLUMN, VECTORS, tile

# Special value of the step of A: A is packed tile by tile, and the step is the number of rows of the tile.
PACKED_BY_TILE = 0


@helper
def multiply(share, depth, a, b, c, columns, bias, start, clamp, next_block):
    """Multiply tiles ``first`` to ``last`` - 1 by all panels of B; ``rows`` are split into ``tiles`` tiles.

    ``share`` is (rows, first, last, tiles). An even split of rows, 64 as 13+13+13+13+12 instead of 14+14+14+14+8, keeps
    every tile full enough to hide the latency of its products.

    Sums start from C, or from ``bias`` = (array, at) of rows or of columns; all add in the same order.

    A is (array, at, row, step, skip): row m starts at at + m*row; with the step `PACKED_BY_TILE` the first ``skip``
    steps of each tile are skipped. B is (array, at, panel, step), C (array, at, step). ``next_block`` = (array, at,
    step, lines) is prefetched: each tile prefetches one of the first ``lines`` lines of every row of it.
    """
    rows, first, last, tiles = share
    a_array, a_at, a_row, a_step, a_skip = a
    b_array, b_at, b_panel, b_step = b
    c_array, c_at, c_step = c
    bias_array, bias_at = bias
    next_array, next_at, next_step, next_lines = next_block
    line, lanes = 0, lanes_of(b_array)
    width = VECTORS * lanes
    for t in range(first, last):
        m = t * rows // tiles
        here = (t + 1) * rows // tiles - m
        step = here if a_step == PACKED_BY_TILE else a_step
        left = a_array, a_at + m * a_row + a_skip * step, step
        for j in range(0, columns, width):
            right = b_array, b_at + j // width * b_panel, b_step
            result = c_array, c_at + m * c_step + j, c_step
            next_line = next_array, next_at + min(line, next_lines) * lanes, next_step if line < next_lines else 0
            offset = bias_array, bias_at + (j if start == START_BY_COLUMN else m)
            tile(here, depth, left, right, result, min(width, columns - j), offset, start, clamp, next_line)
            line += 1


@helper
def multiply_by_panel(share, depth, a, b, c, bias, start, clamp):
    """As `multiply`, but each panel of B is multiplied by all tiles before the next panel; these prefetch the next one.

    ``share`` is (rows, tiles, panels), ``bias`` is per column; no step of A is skipped.
    """
    rows, tiles, panels = share
    a_array, a_at, a_row, a_step, _ = a
    b_array, b_at, b_panel, b_step = b
    c_array, c_at, c_step = c
    bias_array, bias_at = bias
    lanes = lanes_of(b_array)
    width = VECTORS * lanes
    for j in range(panels):
        panel = b_at + j * b_panel
        for t in range(tiles):
            m = t * rows // tiles
            here = (t + 1) * rows // tiles - m
            line = min(t, VECTORS)
            left = a_array, a_at + m * a_row, here if a_step == PACKED_BY_TILE else a_step
            result = c_array, c_at + m * c_step + j * width, c_step
            next_panel = b_array, panel + b_panel + line * lanes, b_step if line < VECTORS else 0
            tile(here, depth, left, (b_array, panel, b_step), result, width, (bias_array, bias_at + j * width), start,
                 clamp, next_panel)  # fmt: skip
