"""Memory access in LLVM IR, in a syntax that the LLVM of every supported Numba reads.

Idea
    Numba 0.61 has LLVM 15 with typed pointers. Numba 0.62 to 0.65 have LLVM 20 with opaque pointers. LLVM 22 has also
    moved the alignment of masked loads and stores out of their operands. Each LLVM reads the older syntax and upgrades
    it. So this file always writes the oldest syntax, and no code generator depends on a version: an address is a
    pointer to scalars, and is cast here to the type that is loaded or stored.
    Metadata of a loop disables its unrolling (`keep_rolled`).
Source
    LLVM language reference, "llvm.loop"; "Opaque Pointers"; the upgrades are those of llvm/lib/IR/AutoUpgrade.cpp.
Limits
    Addresses are not checked. A vector needs the alignment of its elements only.
"""

from __future__ import annotations

from llvmlite import ir
from numba.core import cgutils

I8, I32, I64 = (ir.IntType(bits) for bits in (8, 32, 64))


def call(builder, name, result, *arguments):
    """Call an intrinsic by its full name; llvmlite's own declare_intrinsic knows scalars only."""
    kind = ir.FunctionType(result, [a.type for a in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments)


def itemsize(kind):
    """Bytes of a float, a double or a 64-bit integer, or of each element of a vector of those."""
    return 4 if isinstance(getattr(kind, "element", kind), ir.FloatType) else 8


def suffix(vector):
    """Suffix for a vector type in the names of LLVM intrinsics."""
    return f"v{vector.count}f{8 * itemsize(vector)}"


def to(builder, address, kind):
    """The same address as a pointer to this type."""
    return builder.bitcast(address, kind.as_pointer())


def at(builder, address, scalar, *steps):
    """The address plus ``steps`` scalars; a step is a Python integer or a 64-bit value."""
    for step in steps:
        step = step if isinstance(step, ir.Value) else I64(step)
        address = builder.gep(address, [step], source_etype=scalar)
    return address


def at_bytes(builder, address, *steps):
    """As `at`, with steps of bytes."""
    return builder.bitcast(at(builder, to(builder, address, I8), I8, *steps), address.type)


def load(builder, kind, address):
    return builder.load(to(builder, address, kind), align=itemsize(kind), typ=kind)


def store(builder, value, address):
    builder.store(value, to(builder, address, value.type), align=itemsize(value.type))


def load_masked(builder, vector, address, mask):
    """Masked load: lanes outside the mask are zero, and their memory is not accessed."""
    place, zero = to(builder, address, vector), ir.Constant(vector, [0.0] * vector.count)
    return call(builder, f"llvm.masked.load.{suffix(vector)}.p0", vector, place, I32(itemsize(vector)), mask, zero)


def store_masked(builder, value, address, mask):
    vector = value.type
    place, align = to(builder, address, vector), I32(itemsize(vector))
    call(builder, f"llvm.masked.store.{suffix(vector)}.p0", ir.VoidType(), value, place, align, mask)


def prefetch(builder, address, *, write=False, level=1):
    """Prefetch the cache line of an address into this cache level; the address may be invalid."""
    numbers = I32(int(write)), I32(4 - level), I32(1)
    call(builder, "llvm.prefetch.p0", ir.VoidType(), to(builder, address, I8), *numbers)


class _LoopId(ir.values.MDValue):
    """Metadata of one loop: LLVM requires a distinct node whose first operand is the node itself."""

    def descr(self, buf):
        rest = ", ".join(operand.get_reference() for operand in self.operands)
        buf += (f"distinct !{{ {self.get_reference()}, {rest} }}", "\n")


def keep_rolled(builder, branch):
    """Prevent LLVM from unrolling the loop that ends with this branch."""
    module = builder.module
    rule = module.add_metadata([ir.MetaDataString(module, "llvm.loop.unroll.disable")])
    branch.set_metadata("llvm.loop", _LoopId(module, [rule], name=str(len(module.metadata))))
