"""Independent chains of vector multiply-adds, emitted as LLVM IR through a Numba intrinsic: the FMA peak, no memory.

Source: the method of Agner Fog's instruction tables (latency times throughput chains in flight); LLVM language
reference, `llvm.fma`. Twenty-four chains of 512 bits keep two FMA units of latency 4 busy and fit 32 registers; on a
narrower machine LLVM splits each vector, and the surplus waits in registers and cache without hurting much.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import njit, prange, types
from numba.extending import intrinsic

CHAINS, LANES = 24, 16


@intrinsic  # type: ignore[untyped-decorator]
def _run_chains(typing_context: Any, trips: Any) -> Any:
    """Run every chain ``trips`` times and return a sum, so that nothing is optimised away."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vector = ir.VectorType(ir.FloatType(), LANES)
        fma = _declare(builder.module, vector)
        entry = builder.block
        loop, done = builder.append_basic_block("fma_loop"), builder.append_basic_block("fma_done")
        a, b = (ir.Constant(vector, [value] * LANES) for value in (0.999, 1e-3))
        builder.branch(loop)
        builder.position_at_end(loop)
        count = builder.phi(ir.IntType(64))
        count.add_incoming(ir.Constant(ir.IntType(64), 0), entry)
        phis = [builder.phi(vector) for _ in range(CHAINS)]
        for i, phi in enumerate(phis):
            phi.add_incoming(ir.Constant(vector, [float(i)] * LANES), entry)
        results = [builder.call(fma, (phi, a, b)) for phi in phis]
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

    return types.float32(types.int64), codegen


def _declare(module: Any, vector: Any) -> Any:
    """The fused multiply-add of this vector type; llvmlite's own declare_intrinsic knows scalars only."""
    name = f"llvm.fma.v{LANES}f32"
    return module.globals.get(name) or ir.Function(module, ir.FunctionType(vector, (vector,) * 3), name)


@njit
def _serial(trips):  # type: ignore[no-untyped-def]
    return _run_chains(trips)


@njit(parallel=True)
def _parallel(trips, threads):  # type: ignore[no-untyped-def]
    total = 0.0
    for _ in prange(threads):
        total += _run_chains(trips)
    return total


def chains(trips: int, threads: int) -> float:
    """Run ``trips`` steps of every chain on each of ``threads`` threads."""
    result: float = _serial(trips) if threads == 1 else _parallel(trips, threads)
    return result
