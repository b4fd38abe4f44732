"""Run by tests/arm.sh on 64-bit Arm, once for each dtype: every backend against the reference, and the tiles' assembly.

Each loop of the direct tiles must keep its sums in registers. NEON has 32 vectors of 16 bytes, and the largest tile
needs more than 16 of them. Limits: qemu says nothing about speed.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator

from harness import check

from conv_impls import Conv2dProblem, backends, get_backend
from conv_impls.kernels.runtime import target

# C_in, H, W, C_out, kernel, stride, padding, groups.
PROBLEMS = [
    (5, 13, 21, 17, 3, 1, 1, 1), (7, 9, 12, 9, 1, 1, 0, 1), (3, 15, 18, 9, 5, 2, 2, 1), (6, 11, 19, 6, 3, 1, 1, 6),
    (20, 7, 7, 20, 3, 2, 1, 20), (6, 9, 9, 4, 3, 1, 1, 2),
]  # fmt: skip
VECTOR = re.compile(r"\b[vq]([0-9]|[12][0-9]|3[01])\b")
SPILL = re.compile(r"\b(?:str|ldr|stp|ldp|stur|ldur)\s+q\d+.*\[sp\b")
PRODUCT = re.compile(r"\bfml[as]\s+v")


def loops(assembly: str) -> Iterator[list[str]]:
    """Bodies of the innermost loops: from a label to a conditional branch back to it, without another label between."""
    label, body = "", list[str]()
    for line in map(str.strip, assembly.splitlines()):
        if start := re.match(r"(\.L\w+):", line):
            label, body = start[1], []
            continue
        body.append(line)
        if label and re.match(rf"(?:b\.\w+|cbn?z|tbn?z)\s.*{re.escape(label)}$", line):
            # A copy: what follows the loop is none of it.
            yield list(body)


def faults(assembly: str) -> list[str]:
    """What is wrong with the loops that multiply: spilled vectors, or no loop that uses more than 16 of them."""
    found = [body for body in loops(assembly) if sum(bool(PRODUCT.search(line)) for line in body) >= 8]
    spilled = sum(bool(SPILL.search(line)) for body in found for line in body)
    used = max((len({name for line in body for name in VECTOR.findall(line)}) for body in found), default=0)
    wrong = [f"{spilled} loads and stores of spilled vectors"] if spilled else []
    return wrong + ([] if used > 16 else [f"the largest loop uses {used} vector registers"])


def self_test() -> None:
    body = [f"fmla v{i}.4s, v{i + 1}.4s, v31.s[0]" for i in range(28)]
    right = [".LBB0_1:", *body, "b.ne .LBB0_1"]
    assert not faults("\n".join(right))
    assert faults("\n".join([*right[:-1], "str q3, [sp, #64]", right[-1]]))
    assert not faults("\n".join(["str q3, [sp, #64]", *right, "ldr q3, [sp, #64]", ".LBB0_2:"]))
    assert faults("\n".join([right[0], *body[:10], right[-1]]))


def main(dtype: str) -> int:
    self_test()
    assert target.architecture() in ("aarch64", "arm64"), target.architecture()
    assert (target.vector_bytes(), target.registers()) == (16, 32), (target.vector_bytes(), target.registers())
    for name in sorted({*backends()} - {"auto"}):
        if get_backend(name).kind == "choose":
            continue
        done = 0
        for turn, (c, h, w, o, k, s, p, g) in enumerate(PROBLEMS):
            problem = Conv2dProblem(1, c, (h, w), o, (k, k), (s, s), ((p, p), (p, p)), groups=g, dtype=dtype)
            if get_backend(name).supports(problem) is None:
                check(problem, name, 1 + turn % 2, relu=turn % 3 == 0)
                done += 1
        print(f"{name} {dtype}: {done} problems are right", flush=True)
    from conv_impls.kernels import depthwise_position, implicit

    wrong = []
    for kernel in (*implicit.kernels_of(False), depthwise_position.convolve):
        for assembly in kernel.inspect_asm().values():
            wrong += [f"{kernel.py_func.__qualname__}: {fault}" for fault in faults(assembly)]
    print("\n".join(wrong) or f"{dtype}: tiles use more than 16 registers and spill none")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
