"""Depthwise convolution: each channel by itself, lanes along a row of the image or along channels. Pure kernels.

Idea
    By position: bands of rows of one channel are copied into a padded buffer that stays in L1, columns apart by stride phase,
    so that every tap of every output vector is one load. A tile of `ROWS` x `VECTORS` outputs stays in registers while
    kernel columns go by; each vector loaded serves all rows of the tile it reaches, and a column's weights stay in
    registers.
    By channel, for images too narrow for vectors: as many channels as lanes are transposed, every load is aligned, every
    tap a vector of weights, rows of taps in the padding are left out, and results are transposed back.
Source
    Zhang, Lo & Lu 2020, "High performance depthwise and pointwise convolutions on mobile devices", arXiv:2001.02504,
    sec. 3; by channel it is the NCHWc layout of Georganas et al. 2018, arXiv:1808.05567, sec. II, made on the way.
Limits
    One input channel a group. By channel: zero padding, as many output channels as input channels.
"""

from __future__ import annotations

from itertools import product

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from conv_impls.kernels import simd
from conv_impls.kernels.cache import kernel
from conv_impls.kernels.simd import (
    constant, evens, finish_rows, load, load_lanes, load_rows, odds, scatter_rows, store, store_rows, transpose,
)  # fmt: skip
from conv_impls.kernels.team import WORK, X, Y, array_at, table_at
from conv_impls.kernels.tile import _loop

I64 = ir.IntType(64)
# Outputs of a tile by position: up to 14 accumulators, beside 7 weights, with 32 registers, and 8 with 16. Images have
# 7 * 2^n rows more often than not; other numbers take some smaller tiles.
ROWS, VECTORS = (7, 4, 2, 1) if simd.REGISTERS == 32 else (4, 2, 1), 2
# Outputs of a tile by channel: accumulators, one vector of weights, and the image comes from memory.
COLUMNS = 14
# (kernel rows of one pass, vertical stride) of the tiles there are; taller kernels take several passes.
PASSES = ((7, 1), (5, 1), (3, 1), (1, 1), (3, 2), (1, 2))
# Slots of the operands.
WEIGHT, BIAS, FLOOR, SIZES, LINES, TAPS, PADS, CHUNKS = range(3, 11)


@intrinsic
def position_tile(
    typing_context,
    which,
    rows,
    kw,
    source,
    at,
    row,
    taps,
    weight,
    w_at,
    y,
    y_at,
    y_row,
    columns,
    bias,
    bias_at,
    first,
    floor,
):
    """y[y_at + i*y_row + j] = max(floor, start + sum over taps) for i < rows, j < columns, in one pass of a kernel.

    The tap (p, q) of output (i, j) is source[at + (i*stride + p)*row + taps[q] + j], its weight
    weight[w_at + q*height + p]; (height, stride) is PASSES[which]. Sums start from bias[bias_at], or from y where
    not ``first``.
    """
    integer, dtype = types.int64, y.dtype

    def codegen(context, builder, signature, arguments):
        (which_v, rows_v, kw_v, source_v, at_v, row_v, taps_v, weight_v, w_at_v, y_v, y_at_v, y_row_v, columns_v, bias_v,
         bias_at_v, first_v, floor_v) = arguments  # fmt: skip
        vector = simd.vector_ir(dtype)
        scalar, lanes = vector.element, vector.count
        image, kernel_at, out, start = (
            simd.pointer(context, builder, kind, value, index)
            for kind, value, index in (
                (source, source_v, at_v), (weight, weight_v, w_at_v), (y, y_v, y_at_v), (bias, bias_v, bias_at_v),
            )
        )  # fmt: skip
        table = context.make_array(taps)(context, builder, taps_v).data
        row_bytes = [builder.mul(row_v, I64(i * simd.itemsize(scalar))) for i in range(5)]
        least = simd.splat_ir(builder, floor_v, vector)
        offset = simd.splat_ir(builder, builder.load(start, typ=scalar), vector)
        from_bias = builder.icmp_signed("!=", first_v, I64(0))

        def at(base, *terms):
            for term in terms:
                base = builder.gep(base, [term if isinstance(term, ir.Value) else I64(term)], source_etype=scalar)
            return base

        def below(base, rows):
            # By fours: one pointer for each row is a chain of additions, twice as slow as the products.
            for _ in range(rows // 4):
                base = builder.gep(base, [row_bytes[4]], source_etype=ir.IntType(8))
            return builder.gep(base, [row_bytes[rows % 4]], source_etype=ir.IntType(8)) if rows % 4 else base

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
            before = [simd.load_masked_ir(builder, vector, here[i, v], lanes_left[v]) for i, v in tile]
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
                line = at(image, builder.load(tap, typ=I64))
                for r in range((count - 1) * stride + height):
                    reached = [(i, r - i * stride) for i in range(count) if 0 <= r - i * stride < height]
                    for v in range(vectors if reached else 0):
                        seen = simd.load_ir(builder, vector, at(below(line, r), v * lanes))
                        for i, p in reached:
                            values[i, v] = simd.fma_ir(builder, seen, weights[p], values[i, v])
                return list(values.values())

            walks = [(table, I64(8 // simd.itemsize(scalar))), (kernel_at, I64(height))]
            sums = _loop(builder, block, "column", kw_v, walks, sums, at, column)
            sums = [builder.select(builder.fcmp_ordered("<", x, least), least, x) for x in sums]
            whole = builder.icmp_signed(">=", columns_v, I64(vectors * lanes))
            with builder.if_else(whole) as (full, part):
                with full:
                    for spot, value in zip(tile, sums, strict=True):
                        simd.store_ir(builder, value, here[spot])
                with part:
                    lanes_left = masks(vectors)
                    for spot, value in zip(tile, sums, strict=True):
                        simd.store_masked_ir(builder, value, here[spot], lanes_left[spot[1]])

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

    kinds = (integer, integer, integer, source, integer, integer, taps, weight, integer, y, integer, integer, integer, bias,
             integer, integer, dtype)  # fmt: skip
    return types.void(*kinds), codegen


@intrinsic
def channel_tile(typing_context, columns, kh, kw, stride, source, at, row, column, weight, w_at, y, y_at):
    """y[y_at + j*lanes] = sum over p < kh, q < kw of weight[w_at + (p*kw + q)*lanes] * source[at + p*row + q*column + j*stride*lanes]

    for j < columns, all of them vectors; stride is 1 or 2.
    """
    integer, dtype = types.int64, y.dtype

    def codegen(context, builder, signature, arguments):
        (columns_v, kh_v, kw_v, stride_v, source_v, at_v, row_v, column_v, weight_v, w_at_v, y_v, y_at_v) = arguments
        vector = simd.vector_ir(dtype)
        scalar, lanes = vector.element, vector.count
        image, kernel_at, out = (
            simd.pointer(context, builder, kind, value, index)
            for kind, value, index in ((source, source_v, at_v), (weight, weight_v, w_at_v), (y, y_v, y_at_v))
        )

        def at(base, *terms):
            for term in terms:
                base = builder.gep(base, [term if isinstance(term, ir.Value) else I64(term)], source_etype=scalar)
            return base

        w_row = builder.mul(kw_v, I64(lanes))
        done = builder.append_basic_block("columns_done")
        # Strides are constants of the code: fourteen additions in a row took twice the time of the fourteen products.
        switch = builder.switch(builder.add(builder.mul(stride_v, I64(COLUMNS)), columns_v), done)
        for stride, count in product((1, 2), range(1, COLUMNS + 1)):
            case = builder.append_basic_block(f"columns{count}s{stride}")
            switch.add_case(I64(stride * COLUMNS + count), case)
            builder.position_at_end(case)

            def block(name, count=count, stride=stride):
                return builder.function.append_basic_block(f"columns{count}s{stride}_{name}")

            def tap(values, seen, w, stride=stride):
                weights = simd.load_ir(builder, vector, w)
                images = [simd.load_ir(builder, vector, at(seen, j * stride * lanes)) for j in range(len(values))]
                return [simd.fma_ir(builder, a, weights, b) for a, b in zip(images, values, strict=True)]

            def kernel_row(values, seen, w, block=block, tap=tap):
                return _loop(builder, block, "tap", kw_v, [(seen, column_v), (w, I64(lanes))], values, at, tap)

            zeros = [ir.Constant(vector, [0.0] * lanes)] * count
            sums = _loop(builder, block, "row", kh_v, [(image, row_v), (kernel_at, w_row)], zeros, at, kernel_row)
            for j, value in enumerate(sums):
                simd.store_ir(builder, value, at(out, j * lanes))
            builder.branch(done)
        builder.position_at_end(done)
        return context.get_dummy_value()

    kinds = (integer, integer, integer, integer, source, integer, integer, integer, weight, integer, y, integer)
    return types.void(*kinds), codegen


@njit(error_model="numpy")
def _stage(x, image, w, stride, first, count, lines, pads, to, row, pitch, margin, left, work, lanes):
    """Padded rows ``first`` to first + count - 1 of one channel; columns of one stride phase lie side by side.

    Zeros beside the image are there from the start and stay; ``pads`` says where other padding comes from.
    """
    zero = constant(work, 0.0)
    for r in range(first, first + count):
        if lines[r] < 0:
            for s in range(stride):
                for b in range(0, -(-w // stride), lanes):
                    store(zero, work, to + s * pitch + margin + b)
        else:
            line = image + lines[r] * w
            if stride == 1:
                for b in range(0, w, lanes):
                    seen = load(x, line + b) if b + lanes <= w else load_lanes(x, line + b, 0, w - b)
                    store(seen, work, to + margin + b)
            elif stride == 2:
                even = to + left % 2 * pitch + margin
                odd = to + (left + 1) % 2 * pitch + margin
                for b in range(0, w, 2 * lanes):
                    if b + 2 * lanes <= w:
                        one, two = load(x, line + b), load(x, line + b + lanes)
                    else:
                        one, two = load_lanes(x, line + b, 0, w - b), load_lanes(x, line + b + lanes, 0, w - b - lanes)
                    store(evens(one, two), work, even + b // 2)
                    store(odds(one, two), work, odd + b // 2)
            else:
                for s in range(stride):
                    at = to + (s + left) % stride * pitch + margin
                    for b in range(s, w, stride):
                        work[at + b // stride] = x[line + b]
            for k in range(1, 2 * pads[0], 2):
                work[to + pads[k]] = x[line + pads[k + 1]]
        to += row


@njit(error_model="numpy")
def _rows(left):
    """Of the heights of a tile, the largest that fits."""
    for rows in ROWS:
        if rows <= left:
            return rows
    return 1


@njit(error_model="numpy")
def _by_position(part, parts, x, weight, bias, y, work, at, operands, sizes, floor, lanes):
    """Lanes are columns: for each band of rows of a channel, stage it and convolve it with all its kernels."""
    images, channels, multiplier, h, w, oh, ow, kh, kw, stride_h, stride_w, dilation, bands, row, pitch, margin, left = (
        sizes[2], sizes[3], sizes[4], sizes[5], sizes[6], sizes[7], sizes[8], sizes[9], sizes[10], sizes[11], sizes[12],
        sizes[13], sizes[14], sizes[15], sizes[16], sizes[17], sizes[18],
    )  # fmt: skip
    chunk_count, apart, tile_row = sizes[19], sizes[20], sizes[21]
    lines, taps = table_at(operands, LINES), table_at(operands, TAPS)
    pads, chunks = table_at(operands, PADS), table_at(operands, CHUNKS)
    for task in range(part * images * bands // parts, (part + 1) * images * bands // parts):
        image, band = task // bands, task % bands
        i0, i1 = band * oh // bands, (band + 1) * oh // bands
        deep = (i1 - i0 - 1) * stride_h + (kh - 1) * dilation + 1
        _stage(
            x, image * h * w, w, stride_w, i0 * stride_h, deep, lines, pads, at, row, pitch, margin, left, work, lanes
        )
        for m in range(multiplier):
            o = image % channels * multiplier + m
            out = ((image * multiplier + m) * oh + i0) * ow
            # Rows as far apart as the taps share their loads.
            for t in range(min(apart, i1 - i0)):
                count = (i1 - i0 - t + apart - 1) // apart
                i = here = 0
                while i + here < count:
                    i += here
                    here = _rows(count - i)
                    source = at + (t + i * apart) * stride_h * row
                    target = out + (t + i * apart) * ow
                    for j in range(0, ow, VECTORS * lanes):
                        for k in range(chunk_count):
                            position_tile(chunks[3 * k], here, kw, work, source + chunks[3 * k + 1] + j, tile_row, taps,
                                          weight, o * kh * kw + chunks[3 * k + 2], y, target + j, apart * ow, ow - j,
                                          bias, o, k == 0, floor[(k + 1) // chunk_count])  # fmt: skip


@njit(error_model="numpy")
def _by_channel(part, parts, x, weight, bias, y, work, at, operands, sizes, floor, lanes):
    """Lanes are channels: transpose them into work, convolve there, transpose back."""
    batch, channels, h, w, oh, ow, kh, kw, stride_h, stride_w, dilation_h, dilation_w, top, row, out_at = (
        sizes[2], sizes[3], sizes[5], sizes[6], sizes[7], sizes[8], sizes[9], sizes[10], sizes[11], sizes[12], sizes[13],
        sizes[14], sizes[15], sizes[16], sizes[17],
    )  # fmt: skip
    places = table_at(operands, LINES)
    blocks = -(-channels // lanes)
    for task in range(part * batch * blocks // parts, (part + 1) * batch * blocks // parts):
        first = task % blocks * lanes
        here = min(lanes, channels - first)
        image = task // blocks * channels + first
        for p in range(0, h * w, lanes):
            block = load_rows(x, image * h * w + p, h * w, here, h * w - p)
            scatter_rows(transpose(block), work, at, places, p)
        for i in range(oh):
            above = i * stride_h - top
            # Kernel rows that see the image.
            low = min(kh, max(0, -(above // dilation_h)))
            high = max(low, min(kh, (h - 1 - above) // dilation_h + 1))
            source, kernel_at = at + (above + low * dilation_h) * row, (first * kh + low * lanes) * kw
            groups = -(-ow // COLUMNS)
            for g in range(groups):
                j = g * ow // groups
                target = at + out_at + (i * ow + j) * lanes
                if low < high:
                    channel_tile((g + 1) * ow // groups - j, high - low, kw, stride_w, work, source + j * stride_w * lanes,
                                 dilation_h * row, dilation_w * lanes, weight, kernel_at, work, target)  # fmt: skip
                else:
                    for k in range(j, (g + 1) * ow // groups):
                        store(constant(work, 0.0), work, target + (k - j) * lanes)
        for p in range(0, oh * ow, lanes):
            block = transpose(load_rows(work, at + out_at + p * lanes, lanes, lanes, lanes))
            block = finish_rows(block, bias, first, here, floor[1])
            store_rows(block, y, image * oh * ow + p, oh * ow, here, oh * ow - p)


@kernel(error_model="numpy")
def convolve(phase, part, parts, operands):
    """All of it in one phase: each part stages what it needs."""
    sizes, work = table_at(operands, SIZES), array_at(operands, WORK)
    by_channel, lanes, at = sizes[0], sizes[1], part * sizes[22]
    x, y = array_at(operands, X), array_at(operands, Y)
    weight, bias, floor = array_at(operands, WEIGHT), array_at(operands, BIAS), array_at(operands, FLOOR)
    if by_channel:
        _by_channel(part, parts, x, weight, bias, y, work, at, operands, sizes, floor, lanes)
    else:
        _by_position(part, parts, x, weight, bias, y, work, at, operands, sizes, floor, lanes)
