"""The register tiles of depthwise convolution: outputs stay in registers during the loop over the taps.

Idea
    By position, lanes are columns of one channel: the weights of a kernel column stay in registers, and every output
    row that uses an image vector shares its load. By channel, lanes are channels: a run of outputs shares a vector of
    weights. One generator emits every size; a switch selects one. Phi nodes carry the accumulators, as in
    `conv_impls.kernels.tile`.
Source
    As `conv_impls.kernels.depthwise_position` and `conv_impls.kernels.depthwise_channel`.
Limits
    Image vectors are loaded whole: memory must be readable after the last tap. Stores stop at the end of the output.
"""

from __future__ import annotations

from itertools import product

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from conv_impls.kernels import simd
from conv_impls.kernels.runtime import llvm
from conv_impls.kernels.tile import loop

I64 = ir.IntType(64)
# Outputs of a tile by position: up to 14 accumulators and 7 weights with 32 registers, 8 accumulators with 16. Most
# images have 7 * 2^n rows; other heights use some smaller tiles.
ROWS, VECTORS = (7, 4, 2, 1) if simd.REGISTERS == 32 else (4, 2, 1), 2
# Outputs of a tile by channel. Registers hold the accumulators and one vector of weights; the image stays in memory.
COLUMNS = 14
# (kernel rows of one pass, vertical stride) of the available tiles; taller kernels take several passes.
PASSES = ((7, 1), (5, 1), (3, 1), (1, 1), (3, 2), (1, 2))


@intrinsic
def position_tile(typing_context, which, size, kw, source, taps, weight, y, bias, first, clamp):
    """Y[i, j] = max(clamp, start + sum over taps) for i < rows, j < columns, in one pass of a kernel.

    ``size`` is (rows, columns), ``source`` and ``y`` are (array, at, row), ``weight`` and ``bias`` (array, at). Tap
    (p, q) of output (i, j) is source[at + (i*stride + p)*row + taps[q] + j]; its weight is weight[at + q*height + p];
    (height, stride) is PASSES[which]. Sums start from bias[at] if ``first``, else from Y.
    """
    integer, dtype = types.int64, y[0].dtype

    def codegen(context, builder, signature, arguments):
        which_v, size_v, kw_v, source_v, taps_v, weight_v, y_v, bias_v, first_v, floor_v = arguments
        rows_v, columns_v = cgutils.unpack_tuple(builder, size_v)
        vector = simd.vector_ir(dtype)
        scalar, lanes = vector.element, vector.count
        (image, row_v), (kernel_at,), (out, y_row_v), (start,) = (
            simd.located(context, builder, kind, value)
            for kind, value in ((source, source_v), (weight, weight_v), (y, y_v), (bias, bias_v))
        )
        # Cast to the type of the weights: one loop steps through both in elements of that type.
        table = llvm.to(builder, context.make_array(taps)(context, builder, taps_v).data, scalar)
        row_bytes = [builder.mul(row_v, I64(i * llvm.itemsize(scalar))) for i in range(5)]
        least = simd.splat_ir(builder, floor_v, vector)
        offset = simd.splat_ir(builder, builder.load(start, typ=scalar), vector)
        from_bias = builder.icmp_signed("!=", first_v, I64(0))

        def at(base, *terms):
            return llvm.at(builder, base, scalar, *terms)

        def below(base, rows):
            # Steps of four rows: one pointer per row is a chain of additions, twice as slow as the products.
            rest = [row_bytes[rows % 4]] if rows % 4 else []
            return llvm.at_bytes(builder, base, *[row_bytes[4]] * (rows // 4), *rest)

        def masks(vectors):
            return [
                simd.mask_ir(builder, vector, I64(0), builder.sub(columns_v, I64(v * lanes))) for v in range(vectors)
            ]

        def emit(height, stride, count, vectors):
            name = f"pass{height}s{stride}_{count}x{vectors}"

            def block(suffix):
                return builder.function.append_basic_block(f"{name}_{suffix}")

            tile = [(i, v) for i in range(count) for v in range(vectors)]
            here = {(i, v): at(out, builder.mul(y_row_v, I64(i)), v * lanes) for i, v in tile}
            entry, again, ready = builder.block, block("again"), block("ready")
            builder.cbranch(from_bias, ready, again)
            builder.position_at_end(again)
            lanes_left = masks(vectors)
            before = [llvm.load_masked(builder, vector, here[i, v], lanes_left[v]) for i, v in tile]
            builder.branch(ready)
            builder.position_at_end(ready)
            sums = []
            for value in before:
                phi = builder.phi(vector)
                phi.add_incoming(offset, entry)
                phi.add_incoming(value, again)
                sums.append(phi)

            def column(values, tap, w):
                values = dict(zip(tile, values, strict=True))
                weights = [simd.splat_ir(builder, builder.load(at(w, p), typ=scalar), vector) for p in range(height)]
                line = at(image, llvm.load(builder, I64, tap))
                for r in range((count - 1) * stride + height):
                    reached = [(i, r - i * stride) for i in range(count) if 0 <= r - i * stride < height]
                    for v in range(vectors if reached else 0):
                        seen = llvm.load(builder, vector, at(below(line, r), v * lanes))
                        for i, p in reached:
                            values[i, v] = simd.fma_ir(builder, seen, weights[p], values[i, v])
                return list(values.values())

            walks = [(table, I64(8 // llvm.itemsize(scalar))), (kernel_at, I64(height))]
            sums = loop(builder, block, "column", kw_v, walks, sums, at, column)
            sums = [builder.select(builder.fcmp_ordered("<", x, least), least, x) for x in sums]
            whole = builder.icmp_signed(">=", columns_v, I64(vectors * lanes))
            with builder.if_else(whole) as (full, part):
                with full:
                    for spot, value in zip(tile, sums, strict=True):
                        llvm.store(builder, value, here[spot])
                with part:
                    lanes_left = masks(vectors)
                    for spot, value in zip(tile, sums, strict=True):
                        llvm.store_masked(builder, value, here[spot], lanes_left[spot[1]])

        wide = builder.zext(builder.icmp_signed(">", columns_v, I64(lanes)), I64)
        case = builder.add(builder.mul(builder.add(builder.mul(which_v, I64(ROWS[0])), rows_v), I64(VECTORS)), wide)
        done = builder.append_basic_block("tiles_done")
        switch = builder.switch(case, done)
        for index, (height, stride) in enumerate(PASSES):
            for count in ROWS:
                for vectors in range(1, VECTORS + 1):
                    block = builder.append_basic_block(f"tile{height}s{stride}_{count}x{vectors}")
                    switch.add_case(I64((index * ROWS[0] + count) * VECTORS + vectors - 1), block)
                    builder.position_at_end(block)
                    emit(height, stride, count, vectors)
                    builder.branch(done)
        builder.position_at_end(done)
        return context.get_dummy_value()

    kinds = (integer, types.UniTuple(integer, 2), integer, simd.operand(source), taps, simd.operand(weight),
             simd.operand(y), simd.operand(bias), integer, dtype)  # fmt: skip
    return types.void(*kinds), codegen


@intrinsic
def channel_tile(typing_context, columns, outer, inner, stride, source, weight, bias, y, first, clamp):
    """y[at + j*lanes] = max(clamp, start + sum over taps) for j < columns; every element is a vector.

    Two nested loops, ``outer`` and ``inner``, run over the taps: each is (count, step in the image, step in the
    weights). The first product is source[at + j*stride*lanes] times weight[at]. Operands are (array, at); stride is 1
    or 2. Sums start from bias[at] if ``first``, else from y.
    """
    integer, dtype = types.int64, y[0].dtype

    def codegen(context, builder, signature, arguments):
        columns_v, outer_v, inner_v, stride_v, source_v, weight_v, bias_v, y_v, first_v, floor_v = arguments
        vector = simd.vector_ir(dtype)
        scalar, lanes = vector.element, vector.count
        (image,), (kernel_at,), (bias_at,), (out,) = (
            simd.located(context, builder, kind, value)
            for kind, value in ((source, source_v), (weight, weight_v), (bias, bias_v), (y, y_v))
        )
        outer_count, outer_image, outer_weight = cgutils.unpack_tuple(builder, outer_v)
        inner_count, inner_image, inner_weight = cgutils.unpack_tuple(builder, inner_v)
        least = simd.splat_ir(builder, floor_v, vector)
        offset = llvm.load(builder, vector, bias_at)
        from_bias = builder.icmp_signed("!=", first_v, I64(0))

        def at(base, *terms):
            return llvm.at(builder, base, scalar, *terms)

        done = builder.append_basic_block("columns_done")
        # One case per stride, so that it is a constant: a chain of 14 additions took twice the time of the 14 products.
        switch = builder.switch(builder.add(builder.mul(stride_v, I64(COLUMNS)), columns_v), done)
        for stride, count in product((1, 2), range(1, COLUMNS + 1)):
            case = builder.append_basic_block(f"columns{count}s{stride}")
            switch.add_case(I64(stride * COLUMNS + count), case)
            builder.position_at_end(case)

            def block(name, count=count, stride=stride):
                return builder.function.append_basic_block(f"columns{count}s{stride}_{name}")

            def tap(values, seen, w, stride=stride):
                weights = llvm.load(builder, vector, w)
                images = [llvm.load(builder, vector, at(seen, j * stride * lanes)) for j in range(len(values))]
                return [simd.fma_ir(builder, a, weights, b) for a, b in zip(images, values, strict=True)]

            def line(values, seen, w, block=block, tap=tap):
                walks = [(seen, inner_image), (w, inner_weight)]
                return loop(builder, block, "inner", inner_count, walks, values, at, tap)

            again, ready = block("again"), block("ready")
            builder.cbranch(from_bias, ready, again)
            builder.position_at_end(again)
            before = [llvm.load(builder, vector, at(out, j * lanes)) for j in range(count)]
            builder.branch(ready)
            builder.position_at_end(ready)
            sums = []
            for value in before:
                sums.append(builder.phi(vector))
                sums[-1].add_incoming(offset, case)
                sums[-1].add_incoming(value, again)
            walks = [(image, outer_image), (kernel_at, outer_weight)]
            sums = loop(builder, block, "outer", outer_count, walks, sums, at, line)
            for j, value in enumerate(sums):
                value = builder.select(builder.fcmp_ordered("<", value, least), least, value)
                llvm.store(builder, value, at(out, j * lanes))
            builder.branch(done)
        builder.position_at_end(done)
        return context.get_dummy_value()

    walk = types.UniTuple(integer, 3)
    located = simd.operand(source), simd.operand(weight), simd.operand(bias), simd.operand(y)
    return types.void(integer, walk, walk, integer, *located, integer, dtype), codegen
