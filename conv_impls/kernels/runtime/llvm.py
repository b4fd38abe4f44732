"""Memory access in LLVM IR, spelled so that the LLVM of every supported Numba reads it.

Idea
    Numba 0.61 has LLVM 15, whose pointers carry the type of what they point to; Numba 0.62 to 0.65 have LLVM 20, which
    does without; LLVM 22 has also moved the alignment of masked loads and stores out of their operands. Each LLVM reads
    the older spelling and upgrades it, so this file writes the oldest one for all, and no generator knows a version: an
    address is a pointer to the scalars it steps over, and is cast here to what is loaded or stored.
    Loops say for themselves that they are to stay as they are written (`keep_rolled`).
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
    """How LLVM spells a vector type in the names of its intrinsics."""
    return f"v{vector.count}f{8 * itemsize(vector)}"


def to(builder, address, kind):
    """The same address as a pointer to this type."""
    return builder.bitcast(address, kind.as_pointer())


def at(builder, address, scalar, *steps):
    """The address so many scalars further on; a step is a Python integer or a 64-bit value."""
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
    """Lanes outside the mask are zero, and their memory is not touched."""
    place, zero = to(builder, address, vector), ir.Constant(vector, [0.0] * vector.count)
    return call(builder, f"llvm.masked.load.{suffix(vector)}.p0", vector, place, I32(itemsize(vector)), mask, zero)


def store_masked(builder, value, address, mask):
    vector = value.type
    place, align = to(builder, address, vector), I32(itemsize(vector))
    call(builder, f"llvm.masked.store.{suffix(vector)}.p0", ir.VoidType(), value, place, align, mask)


def prefetch(builder, address, *, write=False, level=1):
    """Ask for the cache line of an address that need not be valid, into this level of cache."""
    numbers = I32(int(write)), I32(4 - level), I32(1)
    call(builder, "llvm.prefetch.p0", ir.VoidType(), to(builder, address, I8), *numbers)


class _LoopId(ir.values.MDValue):
    """Metadata of one loop: LLVM wants a node that is unlike all others and begins with itself."""

    def descr(self, buf):
        rest = ", ".join(operand.get_reference() for operand in self.operands)
        buf += (f"distinct !{{ {self.get_reference()}, {rest} }}", "\n")


def keep_rolled(builder, branch):
    """Have LLVM not unroll the loop that this branch, its last instruction, closes."""
    module = builder.module
    rule = module.add_metadata([ir.MetaDataString(module, "llvm.loop.unroll.disable")])
    branch.set_metadata("llvm.loop", _LoopId(module, [rule], name=str(len(module.metadata))))
