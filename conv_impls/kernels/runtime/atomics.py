"""Atomic access to words that threads share, and waiting until a word changes. Linux on x86-64 and 64-bit Arm.

Idea
    An address is an int64, so that no thread holds a reference to an array of another thread. All accesses are
    sequentially consistent. A job has few of them, so a weaker order would not be worth its proof.
Source
    LLVM language reference, "Atomic Memory Ordering Constraints"; futex(2). The system call numbers come from
    arch/x86/entry/syscalls and include/uapi/asm-generic/unistd.h of Linux.
Limits
    A futex is 32 bits: `sleep` compares the low half of a word. Both architectures are little-endian.
"""

from __future__ import annotations

import platform
import sys

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from conv_impls.kernels.runtime import llvm

I32, I64 = ir.IntType(32), ir.IntType(64)
MACHINE = platform.machine()
# futex, sched_setaffinity, sched_getaffinity, rt_sigprocmask, getpid, gettid.
CALLS = {"x86_64": (202, 203, 204, 14, 39, 186), "aarch64": (98, 122, 123, 135, 172, 178)}
SUPPORTED = sys.platform == "linux" and MACHINE in CALLS
FUTEX, SET_AFFINITY, AFFINITY, SIGNALS, PID, TID = CALLS.get(MACHINE, (0,) * 6)
# FUTEX_WAIT and FUTEX_WAKE, private to the process.
WAIT, WAKE = 128, 129
CLOCK_MONOTONIC, SIG_BLOCK = 1, 0
# Signals that every thread must accept: its own faults (ILL, TRAP, ABRT, BUS, FPE, SEGV), PROF, and the two signals
# that glibc sends to each thread (for setuid, for example) and waits for.
EACH_THREADS = sum(1 << number - 1 for number in (4, 5, 6, 7, 8, 11, 27, 32, 33))
# A mask of 8,192 cores, the most that Linux supports.
MASK_WORDS = 128


def _word(builder, address):
    return builder.inttoptr(address, I64.as_pointer())


def _syscall(builder, *arguments):
    """A system call with these 64-bit numbers, through libc's `syscall`."""
    kind = ir.FunctionType(I64, [I64], var_arg=True)
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, "syscall"), arguments)


@intrinsic
def load(typing_context, address):
    """Load the word at an address."""

    def codegen(context, builder, signature, arguments):
        return builder.load_atomic(_word(builder, arguments[0]), "seq_cst", 8)

    return types.int64(types.int64), codegen


@intrinsic
def store(typing_context, address, value):
    """Store a word at an address."""

    def codegen(context, builder, signature, arguments):
        builder.store_atomic(arguments[1], _word(builder, arguments[0]), "seq_cst", 8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


@intrinsic
def add(typing_context, address, value):
    """Atomic add to the word at an address; returns the old value."""

    def codegen(context, builder, signature, arguments):
        return builder.atomic_rmw("add", _word(builder, arguments[0]), arguments[1], "seq_cst")

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def swap_if(typing_context, address, expected, value):
    """Compare-and-swap: store ``value`` if the word equals ``expected``; returns whether it did."""

    def codegen(context, builder, signature, arguments):
        word, expected_v, value_v = _word(builder, arguments[0]), *arguments[1:]
        return builder.extract_value(builder.cmpxchg(word, expected_v, value_v, "seq_cst"), 1)

    return types.boolean(types.int64, types.int64, types.int64), codegen


@intrinsic
def pause(typing_context):
    """Spin-wait hint: leaves the core to its other hardware thread, and the memory bus idle, for a moment."""

    def codegen(context, builder, signature, arguments):
        name, hint = ("llvm.x86.sse2.pause", ()) if MACHINE == "x86_64" else ("llvm.aarch64.hint", (I32(1),))
        llvm.call(builder, name, ir.VoidType(), *hint)
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def sleep(typing_context, address, value):
    """Futex wait until a wake-up of this address; returns at once if its low 32 bits differ from those of value."""

    def codegen(context, builder, signature, arguments):
        word, value_v = arguments
        _syscall(builder, I64(FUTEX), word, I64(WAIT), value_v, I64(0), I64(0), I64(0))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


@intrinsic
def wake(typing_context, address):
    """Futex wake: wakes all threads that sleep at this address."""

    def codegen(context, builder, signature, arguments):
        _syscall(builder, I64(FUTEX), arguments[0], I64(WAKE), I64(2**31 - 1), I64(0), I64(0), I64(0))
        return context.get_dummy_value()

    return types.void(types.int64), codegen


@intrinsic
def nanoseconds(typing_context):
    """The monotonic clock."""

    def codegen(context, builder, signature, arguments):
        kind = ir.FunctionType(I32, [I32, I64.as_pointer()])
        clock = cgutils.get_or_insert_function(builder.module, kind, "clock_gettime")
        now = cgutils.alloca_once(builder, I64, 2)
        builder.call(clock, [I32(CLOCK_MONOTONIC), now])
        seconds, rest = (builder.load(builder.gep(now, [I64(i)], source_etype=I64), typ=I64) for i in range(2))
        return builder.add(builder.mul(seconds, I64(10**9)), rest)

    return types.int64(), codegen


def _affinity(builder, thread):
    """The affinity of a thread: (mask, its address, its length in bytes, negative if the system call fails)."""
    mask = cgutils.alloca_once(builder, I64, MASK_WORDS)
    at = builder.ptrtoint(mask, I64)
    return mask, at, _syscall(builder, I64(AFFINITY), thread, I64(8 * MASK_WORDS), at)


@intrinsic
def cores(typing_context):
    """Number of cores that the calling thread may run on; 0 if the system call fails."""

    def codegen(context, builder, signature, arguments):
        mask, _, length = _affinity(builder, I64(0))
        count = cgutils.alloca_once_value(builder, I64(0))
        with cgutils.for_range(builder, builder.sdiv(length, I64(8))) as loop:
            bits = builder.load(builder.gep(mask, [loop.index], source_etype=I64), typ=I64)
            ones = builder.ctpop(bits)
            builder.store(builder.add(builder.load(count, typ=I64), ones), count)
        return builder.load(count, typ=I64)

    return types.int64(), codegen


@intrinsic
def thread_id(typing_context):
    """The thread ID (gettid) of the calling thread."""

    def codegen(context, builder, signature, arguments):
        return _syscall(builder, I64(TID))

    return types.int64(), codegen


@intrinsic
def block_signals(typing_context):
    """Block signals sent to the process, so that other threads handle them."""

    def codegen(context, builder, signature, arguments):
        blocked = cgutils.alloca_once_value(builder, I64(~EACH_THREADS))
        _syscall(builder, I64(SIGNALS), I64(SIG_BLOCK), builder.ptrtoint(blocked, I64), I64(0), I64(8))
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def follow(typing_context, thread):
    """Copy the affinity of another thread to the calling one; if that thread has ended, that of the main thread."""

    def codegen(context, builder, signature, arguments):
        _, at, found = _affinity(builder, arguments[0])
        length = cgutils.alloca_once_value(builder, found)
        with builder.if_then(builder.icmp_signed("<", found, I64(0))):
            first = _syscall(builder, I64(PID))
            builder.store(_syscall(builder, I64(AFFINITY), first, I64(8 * MASK_WORDS), at), length)
        _set_affinity(builder, I64(0), builder.load(length, typ=I64), at)
        return context.get_dummy_value()

    return types.void(types.int64), codegen


@intrinsic
def keep_off(typing_context, thread):
    """Restrict a thread to the calling thread's cores without the current one, so that it wakes on another core."""

    def codegen(context, builder, signature, arguments):
        mask, at, length = _affinity(builder, I64(0))
        kind = ir.FunctionType(I32, [])
        core = builder.call(cgutils.get_or_insert_function(builder.module, kind, "sched_getcpu"), [])
        core = builder.and_(builder.zext(core, I64), I64(64 * MASK_WORDS - 1))
        word = builder.gep(mask, [builder.lshr(core, I64(6))], source_etype=I64)
        bit = builder.shl(I64(1), builder.and_(core, I64(63)))
        builder.store(builder.and_(builder.load(word, typ=I64), builder.not_(bit)), word)
        _set_affinity(builder, arguments[0], length, at)
        return context.get_dummy_value()

    return types.void(types.int64), codegen


def _set_affinity(builder, thread, length, at):
    """Linux rejects an empty mask. A mask that could not be read is passed with length 0, so it is rejected too."""
    read = builder.icmp_signed(">", length, I64(0))
    _syscall(builder, I64(SET_AFFINITY), thread, builder.select(read, length, I64(0)), at)
