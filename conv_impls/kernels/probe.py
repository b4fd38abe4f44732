"""Microbenchmark kernels for `conv_impls.choice.probes`: multiply-adds, reads, nothing (launch cost).

Idea
    Independent chains of vector multiply-adds, emitted as LLVM IR by an intrinsic, give the FMA peak: they do not use
    memory. Two FMA units of latency 4 need eight chains. Twelve fit 16 registers with the two constants, twenty-four
    fit 32. More chains spill, and the stores are measured instead: 24 chains of 512 bits gave 37 GFLOP/s on a Zen 3
    core (AVX2, 16 registers) that reaches 113.
    Sums of integers give the read bandwidth: LLVM may reorder them, so it vectorises the loop.
Source
    The method of Agner Fog's instruction tables (latency times throughput chains in flight); LLVM language reference,
    `llvm.fma`. Bandwidth by working set: McCalpin's STREAM, and lmbench's bw_mem.
Limits
    Bandwidth of reads only: slower writes are not measured.
"""

from __future__ import annotations

from typing import NamedTuple

from llvmlite import ir
from numba import types, uintp
from numba.extending import intrinsic

from conv_impls.kernels.runtime.compile import kernel
from conv_impls.kernels.runtime.operands import Integers, of_call, of_plan
from conv_impls.kernels.simd import REGISTERS, VECTOR_BYTES, fma_ir

CHAINS = 24 if REGISTERS == 32 else 12


@intrinsic
def _run_chains(typing_context, trips, like):
    """Run every chain ``trips`` times in vectors of ``like``'s type. The returned sum keeps LLVM from removing them."""

    def codegen(context, builder, signature, arguments):
        lanes = VECTOR_BYTES * 8 // like.bitwidth
        vector = ir.VectorType(context.get_value_type(like), lanes)
        entry = builder.block
        loop, done = builder.append_basic_block("fma_loop"), builder.append_basic_block("fma_done")
        a, b = (ir.Constant(vector, [value] * lanes) for value in (0.999, 1e-3))
        builder.branch(loop)
        builder.position_at_end(loop)
        count = builder.phi(ir.IntType(64))
        count.add_incoming(ir.Constant(ir.IntType(64), 0), entry)
        phis = [builder.phi(vector) for _ in range(CHAINS)]
        for i, phi in enumerate(phis):
            phi.add_incoming(ir.Constant(vector, [float(i)] * lanes), entry)
        results = [fma_ir(builder, phi, a, b) for phi in phis]
        following = builder.add(count, ir.Constant(ir.IntType(64), 1))
        count.add_incoming(following, loop)
        for phi, result in zip(phis, results, strict=True):
            phi.add_incoming(result, loop)
        builder.cbranch(builder.icmp_signed("<", following, arguments[0]), loop, done)
        builder.position_at_end(done)
        total = results[0]
        for result in results[1:]:
            total = builder.fadd(total, result)
        return builder.extract_element(total, ir.Constant(ir.IntType(32), 0))

    return like(types.int64, like), codegen


class Chains(NamedTuple):
    """Integer parameters of `chains`."""

    trips: int


class ChainsOperands(NamedTuple):
    """Operands of `chains` without its result."""

    sizes: Chains


class Reads(NamedTuple):
    """Elements of each part, and how many times it reads them."""

    count: int
    passes: int


class ReadOperands(NamedTuple):
    """Operands of `read` without its result."""

    data: Integers
    sizes: Reads


@kernel
def chains(part, parts, operands):
    """Each part runs all chains."""
    y = of_call(operands)[1]
    y[part] = _run_chains(of_plan(operands, ChainsOperands).sizes.trips, y[part])


@kernel
def read(part, parts, operands):
    """Each part reads its own elements repeatedly."""
    y, (data, sizes) = of_call(operands)[1], of_plan(operands, ReadOperands)
    total, first = 0, part * sizes.count
    for _ in range(sizes.passes):
        for i in range(uintp(first), uintp(first + sizes.count)):
            total += data[i]
    y[part] = total


@kernel
def nothing(part, parts, operands):
    """Empty kernel: its time is the cost of the launch and of waiting for all parts."""
