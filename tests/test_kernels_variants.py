"""Kernels compiled for this machine, for AVX2 and for SSE alone: right everywhere, and tiles that stay in registers.

Each variant is compiled once, in a child with a cache of its own, which also hands out the assembly. Limits: compiling
all kernels takes a minute, so the short form has the tiles of this machine alone.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
from harness import NUMBA, run_python

from conv_impls.kernels import simd
from conv_impls.kernels.runtime.target import features as target_features
from conv_impls.kernels.tile import ROWS

X86 = platform.machine() in ("x86_64", "AMD64")
# Processor, its features that matter, vector bytes, rows of the largest tile.
VARIANTS = {
    "host": (None, None, simd.VECTOR_BYTES, ROWS),
    "avx2": ("haswell", "+sse4.2,+popcnt,+avx,+avx2,+fma,+bmi,+bmi2", 32, 6),
    "sse": ("nehalem", "+sse4.2,+popcnt", 16, 6),
}
CHILD = """
from pathlib import Path
from conv_impls import Conv2dProblem, get_backend
from conv_impls.kernels import implicit, simd, winograd
from conv_impls.kernels.winograd_axes import Tile
from harness import check

problems = [Conv2dProblem(2, c, (h, w), o, (k, k), (s, s), ((p, p), (p, p)), groups=g)
            for c, h, w, o, k, s, p, g in [
                (5, 13, 37, 21, 3, 1, 1, 1), (19, 6, 7, 40, 3, 1, 1, 1), (7, 9, 20, 17, 1, 1, 0, 1),
                (3, 15, 18, 9, 5, 2, 2, 1), (6, 11, 19, 6, 3, 1, 1, 6), (20, 7, 7, 20, 3, 2, 1, 20)]]
for name in {backends}:
    for turn, p in enumerate(problems):
        if get_backend(name).supports(p) is None:
            check(p, name, 1 + turn % 2, relu=turn % 3 == 0)
winograd_kernel = winograd.kernels_of(Tile((2, 2), (3, 3), (1, 1)))[0]
for name, kernel in {{"implicit": implicit.kernels_of(False)[0], "winograd": winograd_kernel}}.items():
    Path({folder!r}, name + ".s").write_text("\\n".join(kernel.inspect_asm().values()))
print(simd.VECTOR_BYTES)
"""
Build = Callable[[str], Path]


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """A function from a variant to the folder of its assembly, after its results were found right."""

    @cache
    def run(variant: str) -> Path:
        folder = tmp_path_factory.mktemp(variant)
        cpu, features, vector_bytes, _ = VARIANTS[variant]
        target = {"NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": features} if cpu and features else {}
        # What is compiled for this machine is checked by all other tests: two backends bring the kernels read here.
        names = NUMBA if features else ["numba_simd", "numba_winograd_f2"]
        done = run_python(CHILD.format(folder=str(folder), backends=names), NUMBA_CACHE_DIR=str(folder), **target)
        assert done.stdout.strip() == str(vector_bytes), done.stderr
        return folder

    return run


def need(variant: str) -> None:
    features = VARIANTS[variant][1]
    if features and not (X86 and all(target_features().get(one.strip("+")) for one in features.split(","))):
        pytest.skip(f"this machine lacks one of {features}")


class Loop(NamedTuple):
    """What an innermost loop holds: multiply-adds, broadcasts and vector loads from memory, spilled vectors."""

    products: int
    broadcasts: int
    loads: int
    spills: int


PATTERNS = {
    "products": r"vf\w*m(add|sub)|mulps",
    "broadcasts": r"(vbroadcastss|movss)\t[^%]",
    "loads": r"v?mov[ua]ps\t[^%,]*\((?!%rsp)",
    "spills": r".*\(%rsp.*%[xyz]mm|.*%[xyz]mm.*\(%rsp",
}


def loops(assembly: str) -> Iterator[Loop]:
    """The loops of one block: from a label to the jump back to it."""
    label, body = "", list[str]()
    for line in map(str.strip, assembly.splitlines()):
        if start := re.match(r"(\.L\w+):", line):
            label, body = start[1], []
        elif label and re.fullmatch(rf"j\w+\s+{re.escape(label)}", line):
            yield Loop(**{name: sum(bool(re.match(p, item)) for item in body) for name, p in PATTERNS.items()})
        else:
            body.append(line)


def full_tiles(assembly: str, rows: int) -> list[Loop]:
    """The loops of the largest tile, as often as LLVM unrolled them."""
    found = []
    for loop in loops(assembly):
        times = loop.products // (2 * rows)
        if times and loop[:3] == (2 * rows * times, rows * times, 2 * times):
            found.append(loop)
    return found


@pytest.mark.long
@pytest.mark.parametrize("variant", ["avx2", "sse"])
def test_results_are_right_on_every_instruction_set(build: Build, variant: str) -> None:
    need(variant)
    build(variant)


@pytest.mark.skipif(not X86, reason="reads x86 assembly")
# Winograd on SSE is left out: LLVM unrolls its loop by four lanes there, and spills 12 vectors for 48 products.
@pytest.mark.long
@pytest.mark.parametrize(
    ("variant", "kernel"),
    [
        ("host", "implicit"), ("host", "winograd"), ("avx2", "implicit"), ("avx2", "winograd"), ("sse", "implicit"),
    ],
)  # fmt: skip
def test_the_largest_tile_keeps_its_sums_in_registers(build: Build, variant: str, kernel: str) -> None:
    need(variant)
    found = full_tiles((build(variant) / f"{kernel}.s").read_text(), VARIANTS[variant][3])
    assert found, "no loop has the products, broadcasts and loads of the largest tile"
    assert not sum(loop.spills for loop in found), found


def test_the_reader_of_assembly_sees_spills_and_missing_products() -> None:
    load, product = "\tvmovups\t(%rax), %zmm1", "\tvfmadd231ps\t%zmm1, %zmm2, %zmm3"
    broadcast, jump = "\tvbroadcastss\t4(%rcx), %zmm2", "\tjne\t.LBB0_1"
    right = [".LBB0_1:", load, load, *[broadcast, product, product] * 14, "\tmovq\t8(%rsp), %rdi", jump]
    assert full_tiles("\n".join(right), 14) == [Loop(28, 14, 2, 0)]
    for spill in ("\tvmovaps\t%zmm3, 64(%rsp)", "\tvmovaps\t64(%rsp), %zmm3", "\tvaddps\t64(%rsp), %zmm1, %zmm3"):
        assert full_tiles("\n".join([*right[:-1], spill, jump]), 14) == [Loop(28, 14, 2, 1)]
    assert not full_tiles("\n".join([*right[:3], *right[4:]]), 14)
    assert not full_tiles("\n".join(right[:-1]), 14)
