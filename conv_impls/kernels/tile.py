"""The register tile: rows x vectors of a matrix product kept in registers over the whole reduction.

Idea
    C[m, j] = floor_at(start[m, j] + sum over k of A[k, m] * B[k, j]): one broadcast element of A times one vector of B.
    All accumulators are LLVM values carried by phi nodes, so they stay in registers from the first product to the last.
    One generator emits every size up to `ROWS` x `VECTORS`; a switch selects one. The loop over k is not unrolled: 28
    products per 16 loads leave enough room for its three instructions.
Source
    Goto & van de Geijn 2008, doi:10.1145/1356052.1356053, sec. 5; Van Zee & van de Geijn 2015, BLIS,
    doi:10.1145/2764454, sec. 2.
Limits
    ROWS * VECTORS accumulators, VECTORS loads and a broadcast must fit the registers; tiles by tap may be wider.
"""

from __future__ import annotations

from typing import NamedTuple

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from conv_impls.kernels import simd
from conv_impls.kernels.runtime import llvm

VECTORS = 2
# Registers hold the accumulators, two vectors of B and a broadcast: 14 x 2 with the 32 of AVX-512, 6 x 2 with 16. On
# other targets, as 64-bit Arm, several elements of A take registers too: 14 x 2 spilled four vectors in each step.
ROWS = 6 if simd.REGISTERS == 16 else 14 if simd.VECTOR_BYTES == 64 else 12

# Prefetch distance of B in steps. Panels stream from L2; rows read in place are too far apart for the hardware
# prefetcher. Gains 3 to 8% on most layers; prefetching A too gained nothing more.
AHEAD = 8
# From this number of steps on, the lines of C are prefetched before the first step: 28 stores that miss take longer
# than a short reduction (1x1 96 -> 384 at 56x56 +21%, 768 -> 3072 at 7x7 +26%).
LONG = 20

I64 = ir.IntType(64)
# Start value of the accumulators: zero, the bias of each row or column of C, or C.
START_ZERO, START_BY_ROW, START_BY_COLUMN, START_C = 0, 1, 2, 3


class Start(NamedTuple):
    """Start and lower bound of the sums, as LLVM values. Without a `Start` sums start at zero and are not clamped."""

    kind: ir.Value
    bias: ir.Value
    clamp: ir.Value


class Product(NamedTuple):
    """The operands of a tile as LLVM values: pairs of an address and a step in elements, and numbers.

    Without ``columns``, C is whole vectors wide. If ``next_block`` is given, each step of the reduction prefetches one
    line of it. ``taps`` is the address of a table of offsets: B[k] is at B[0] + offset[k], or A[k] at
    A[0] + offset[k] if ``taps_of_a``. With several panels, each starts ``panel`` elements after the previous one.
    """

    k: ir.Value
    a: tuple[ir.Value, ir.Value]
    b: tuple[ir.Value, ir.Value]
    c: tuple[ir.Value, ir.Value]
    columns: ir.Value | None = None
    start: Start | None = None
    next_block: tuple[ir.Value, ...] = ()
    taps: ir.Value | None = None
    panel: ir.Value | None = None
    taps_of_a: bool = False


def emit(builder, vector, rows, vectors, a_row, product):
    """Emit one tile of ``rows`` x ``vectors`` at the builder; A[k, m + 1] is ``a_row`` elements after A[k, m].

    ``a_row`` is a number known at compile time, or an LLVM value.
    """
    k, (a, a_step), (b, b_step), (c, c_step), columns, start, next_block, table, panel, taps_of_a = product
    taps = None if taps_of_a else table
    scalar, lanes = vector.element, vector.count
    function = builder.function
    tiles = [(m, v) for m in range(rows) for v in range(vectors)]

    def at(base, *terms):
        return llvm.at(builder, base, scalar, *terms)

    def block(name):
        return function.append_basic_block(f"tile{rows}x{vectors}_{name}")

    def c_address(m, v):
        return at(c, builder.mul(c_step, ir.Constant(I64, m)), v * lanes)

    def a_address(here, m):
        return at(here, m * a_row if isinstance(a_row, int) else builder.mul(a_row, I64(m)))

    def b_address(here, v):
        if panel is None:
            return at(here, v * lanes)
        return at(here, builder.mul(panel, I64(v // VECTORS)), v % VECTORS * lanes)

    def masks():
        """Masks are emitted only where they are used: most tiles are whole and need none."""
        bounds = [builder.sub(columns, I64(v * lanes)) for v in range(vectors)]
        return [simd.mask_ir(builder, vector, I64(0), bound) for bound in bounds]

    def started():
        """Emit the start values of the sums."""
        entry = builder.block
        by_row, by_column, from_c, ready = (block(name) for name in ("row", "column", "c", "ready"))
        switch = builder.switch(start.kind, ready)
        switch.add_case(ir.Constant(I64, START_BY_ROW), by_row)
        switch.add_case(ir.Constant(I64, START_BY_COLUMN), by_column)
        switch.add_case(ir.Constant(I64, START_C), from_c)
        builder.position_at_end(by_row)
        of_row = [simd.splat_ir(builder, builder.load(at(start.bias, m), typ=scalar), vector) for m in range(rows)]
        builder.branch(ready)
        builder.position_at_end(by_column)
        of_column = [llvm.load(builder, vector, at(start.bias, v * lanes)) for v in range(vectors)]
        builder.branch(ready)
        builder.position_at_end(from_c)
        if columns is None:
            loaded = [llvm.load(builder, vector, c_address(m, v)) for m, v in tiles]
        else:
            valid = masks()
            loaded = [llvm.load_masked(builder, vector, c_address(m, v), valid[v]) for m, v in tiles]
        builder.branch(ready)
        builder.position_at_end(ready)
        values = []
        for index, (m, v) in enumerate(tiles):
            first = builder.phi(vector)
            first.add_incoming(zero, entry)
            first.add_incoming(of_row[m], by_row)
            first.add_incoming(of_column[v], by_column)
            first.add_incoming(loaded[index], from_c)
            values.append(first)
        return values

    def prefetch_c():
        """Prefetch the lines of C if the reduction is long."""
        prefetching, sums = block("prefetching"), block("sums")
        builder.cbranch(builder.icmp_signed(">=", k, ir.Constant(I64, LONG)), prefetching, sums)
        builder.position_at_end(prefetching)
        for m, v in tiles:
            llvm.prefetch(builder, c_address(m, v), write=True)
        builder.branch(sums)
        builder.position_at_end(sums)

    def step(values, a_here, b_here, *next_here):
        """Add one step of the reduction to ``values``."""
        if taps_of_a:
            a_here = at(a, llvm.load(builder, I64, a_here))
        if taps is not None:
            # Prefetch: 64 -> 16 channels at 56 x 56 gain 15%; wide tiles, with more loads per product, lose 20%.
            if vectors <= VECTORS:
                ahead = llvm.load(builder, I64, at(b_here, AHEAD * 8 // llvm.itemsize(scalar)))
                llvm.prefetch(builder, at(b, ahead))
            b_here = at(b, llvm.load(builder, I64, b_here))
        for v in range(vectors if taps is None else 0):
            llvm.prefetch(builder, at(b_address(b_here, v), builder.mul(b_step, ir.Constant(I64, AHEAD))))
        for address in next_here:
            llvm.prefetch(builder, address, level=2)
        if rows < vectors:
            # The operands of the shorter side of the tile stay in registers.
            left = [simd.splat_ir(builder, builder.load(a_address(a_here, m), typ=scalar), vector) for m in range(rows)]
            result = list(values)
            for v in range(vectors):
                right = llvm.load(builder, vector, b_address(b_here, v))
                for m in range(rows):
                    result[m * vectors + v] = simd.fma_ir(builder, left[m], right, values[m * vectors + v])
            return result
        right = [llvm.load(builder, vector, b_address(b_here, v)) for v in range(vectors)]
        result = []
        for m in range(rows):
            left = simd.splat_ir(builder, builder.load(a_address(a_here, m), typ=scalar), vector)
            result += [simd.fma_ir(builder, left, right[v], values[m * vectors + v]) for v in range(vectors)]
        return result

    def raised(values):
        """Raise values to at least the clamp. A branch skips it if the clamp is -inf: most layers have no activation,
        and 28 comparisons are 4% of a short reduction."""
        before, clamping, clamped = builder.block, block("clamping"), block("clamped")
        builder.cbranch(builder.fcmp_ordered("==", start.clamp, ir.Constant(scalar, float("-inf"))), clamped, clamping)
        builder.position_at_end(clamping)
        least = simd.splat_ir(builder, start.clamp, vector)
        higher = [builder.select(builder.fcmp_ordered("<", x, least), least, x) for x in values]
        builder.branch(clamped)
        builder.position_at_end(clamped)
        either = [builder.phi(vector) for _ in values]
        for phi, plain, value in zip(either, values, higher, strict=True):
            phi.add_incoming(plain, before)
            phi.add_incoming(value, clamping)
        return either

    def store_whole(values):
        for (m, v), value in zip(tiles, values, strict=True):
            llvm.store(builder, value, c_address(m, v))

    def store_part(values):
        valid = masks()
        for (m, v), value in zip(tiles, values, strict=True):
            llvm.store_masked(builder, value, c_address(m, v), valid[v])

    zero = ir.Constant(vector, [0.0] * lanes)
    accumulators = started() if start else [zero] * len(tiles)
    if next_block:
        prefetch_c()
    if a_row == 1 or taps_of_a:
        offsets = table, I64(8 // llvm.itemsize(scalar))
        walks = [offsets if taps_of_a else (a, a_step), (b, b_step) if taps is None else offsets]
        walks += [next_block] if next_block else []
        accumulators = loop(builder, block, "k", k, walks, accumulators, at, step)
    else:
        # A is stored in groups of `lanes` steps: in a group the next step is the next element.
        def group(values, a_here, b_here):
            one = ir.Constant(I64, 1)
            return loop(
                builder, block, "lane", ir.Constant(I64, lanes), [(a_here, one), (b_here, b_step)], values, at, step
            )

        groups = builder.sdiv(k, ir.Constant(I64, lanes))
        b_group = builder.mul(b_step, ir.Constant(I64, lanes))
        accumulators = loop(builder, block, "group", groups, [(a, a_step), (b, b_group)], accumulators, at, group)
    if start:
        accumulators = raised(accumulators)
    if columns is None:
        store_whole(accumulators)
        return
    whole, part, done = (block(name) for name in ("whole", "part", "done"))
    builder.cbranch(builder.icmp_signed(">=", columns, ir.Constant(I64, vectors * lanes)), whole, part)
    for store, place in ((store_whole, whole), (store_part, part)):
        builder.position_at_end(place)
        store(accumulators)
        builder.branch(done)
    builder.position_at_end(done)


def loop(builder, block, name, trips, walks, values, at, body):
    """Run ``body`` ``trips`` >= 1 times; addresses advance, values stay in registers. Returns the last values."""
    entry, inside, after = builder.block, block(f"{name}_loop"), block(f"{name}_done")
    builder.branch(inside)
    builder.position_at_end(inside)
    count = builder.phi(I64)
    count.add_incoming(ir.Constant(I64, 0), entry)
    addresses = [builder.phi(address.type) for address, _ in walks]
    carried = [builder.phi(value.type) for value in values]
    for phi, value in zip(carried, values, strict=True):
        phi.add_incoming(value, entry)
    for phi, (address, _) in zip(addresses, walks, strict=True):
        phi.add_incoming(address, entry)
    results = body(carried, *addresses)
    following = builder.add(count, ir.Constant(I64, 1))
    moved = [at(phi, step) for phi, (_, step) in zip(addresses, walks, strict=True)]
    last = builder.block
    count.add_incoming(following, last)
    for phi, value in zip(carried + addresses, results + moved, strict=True):
        phi.add_incoming(value, last)
    again = builder.cbranch(builder.icmp_signed("<", following, trips), inside, after)
    # Unrolled by four, tiles spilled vectors and first computed multiples of their steps: 2 to 10% of a layer. A loop
    # over the lanes is faster fully unrolled, because its addresses are constants: 5 to 8% of a Winograd layer.
    if not isinstance(trips, ir.Constant):
        llvm.keep_rolled(builder, again)
    builder.position_at_end(after)
    return results


def all_sizes(builder, vector, rows, a_row, product, most=ROWS):
    """A switch over tiles of up to ``most`` rows, ``VECTORS`` wide, or one vector wide if ``columns`` fit it."""
    widths, vectors = (VECTORS,), I64(VECTORS)
    if product.columns is not None:
        wide = builder.icmp_signed(">", product.columns, I64(vector.count))
        widths, vectors = (VECTORS, 1), builder.select(wide, vectors, I64(1))
    sizes = [(count, width) for width in widths for count in range(1, most + 1)]
    switch(builder, vector, sizes, (rows, vectors), a_row, product)


def switch(builder, vector, sizes, size, a_row, product):
    """A switch that selects the tile of ``size`` = (rows, vectors) from ``sizes``."""
    done = builder.function.append_basic_block("tiles_done")
    rows, vectors = size
    cases = builder.switch(builder.add(builder.mul(vectors, I64(ROWS + 1)), rows), done)
    for count, width in sizes:
        case = builder.function.append_basic_block(f"tile{count}x{width}")
        cases.add_case(I64(width * (ROWS + 1) + count), case)
        builder.position_at_end(case)
        emit(builder, vector, count, width, a_row, product)
        builder.branch(done)
    builder.position_at_end(done)


def located(context, builder, signature, arguments):
    """Operands (array, at, ...) become an address and the other values; numbers are unchanged."""
    return [
        simd.located(context, builder, kind, value) if isinstance(kind, types.BaseTuple) else value
        for kind, value in zip(signature.args, arguments, strict=True)
    ]


@intrinsic
def tile(typing_context, rows, k, a, b, c, columns, bias, start, clamp, next_block):
    """C[m, j] = max(clamp, start + sum over k of A[k, m] * B[k, j]) for m < rows, j < columns.

    Matrices are (array, at, step): B[k, j] is array[at + k*step + j] and is read in whole vectors; A[k, m] is
    array[at + k*step + m], C[m, j] array[at + m*step + j]. ``start`` selects the start of the sums: zero, array[at + m]
    or array[at + j] of ``bias`` = (array, at), the latter read in whole vectors, or C itself. The reduction also
    prefetches the cache lines of C, and those of array[at + k*step] of ``next_block``.
    """
    i, matrices, scalar = types.int64, map(simd.operand, (a, b, c)), c[0].dtype
    signature = types.void(i, i, *matrices, i, simd.operand(bias), i, scalar, simd.operand(next_block))

    def codegen(context, builder, signature, arguments):
        rows, k, a, b, c, columns, (bias,), start, clamp, next_block = located(context, builder, signature, arguments)
        product = Product(k, a, b, c, columns, Start(start, bias, clamp), next_block)
        all_sizes(builder, simd.vector_ir(scalar), rows, 1, product)
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def tile_by_lane(typing_context, rows, k, a, b, c):
    """C[m, j] = sum over k of A[k, m] * B[k, j] for m < rows, j < VECTORS * lanes.

    As `tile`, but A[k, m] is array[at + k//lanes*step + m*lanes + k%lanes], and the number of k is a multiple of lanes.
    C is in the cache and is not prefetched.
    """
    i, scalar = types.int64, c[0].dtype

    def codegen(context, builder, signature, arguments):
        rows, *product = located(context, builder, signature, arguments)
        vector = simd.vector_ir(scalar)
        all_sizes(builder, vector, rows, vector.count, Product(*product))
        return context.get_dummy_value()

    return types.void(i, i, *map(simd.operand, (a, b, c))), codegen
