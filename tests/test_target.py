"""The CPU that kernels are compiled for: features as Numba has them, registers by architecture; and its caches."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import arm
import pytest
from harness import run_python

from conv_impls.kernels.runtime import target
from conv_impls.kernels.runtime.target import USUAL, Caches

ROOT = Path(__file__).parent.parent
SHOW = """
import json
from conv_impls.kernels.runtime import target
print(json.dumps([target.vector_bytes(), target.registers(), target.features(), target.name()]))
"""


def shown(code: str = SHOW, **variables: str) -> list[object]:
    found: list[object] = json.loads(run_python(code, **variables).stdout)
    return found


def described(monkeypatch: pytest.MonkeyPatch, features: str, architecture: str) -> tuple[int, int]:
    """Bytes and number of vector registers of a CPU of which LLVM says this."""
    target.features.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(target, "_features", lambda: features)
        patch.setattr(target, "architecture", lambda: architecture)
        found = target.vector_bytes(), target.registers()
    target.features.cache_clear()
    return found


@pytest.mark.parametrize(
    ("features", "architecture", "vectors"),
    [
        ("+avx2,+avx512f,+avx512vl", "x86_64", (64, 32)),
        # A tail needs both.
        ("+avx2,+avx512f,-avx512vl", "x86_64", (32, 16)),
        ("+sse2,-avx2", "x86_64", (16, 16)),
        ("", "x86_64", (16, 16)),
        ("+neon", "aarch64", (16, 32)),
        ("", "aarch64", (16, 32)),
        ("", "arm64", (16, 32)),
        ("", "something", (16, 16)),
    ],
)  # fmt: skip
def test_registers_follow_features_and_architecture(
    monkeypatch: pytest.MonkeyPatch, features: str, architecture: str, vectors: tuple[int, int]
) -> None:
    assert described(monkeypatch, features, architecture) == vectors


def test_what_numba_is_told_counts() -> None:
    if target.architecture() == "x86_64":
        assert shown(NUMBA_ENABLE_AVX="0")[:2] == [16, 16]
    width, _, features, name = shown(NUMBA_CPU_NAME="generic")
    assert (width, features, name) == (16, {}, "generic ")
    features = shown(NUMBA_CPU_FEATURES="+one,-two")[2]
    assert features == {"one": True, "two": False}


def test_a_cpu_that_llvm_cannot_describe_has_no_features() -> None:
    unknown = (
        "import llvmlite.binding as binding\n"
        "def unknown(): raise RuntimeError('features are unknown')\n"
        "binding.get_host_cpu_features = unknown\n"
    )
    width, _, features, name = shown(unknown + SHOW)
    assert (width, features) == (16, {})
    assert str(name).strip()


def test_caches_are_those_of_the_system(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def caches(*levels: tuple[str, str, str]) -> Caches:
        root = tmp_path / str(len(list(tmp_path.iterdir())))
        for number, (level, kind, size) in enumerate(levels):
            folder = root / f"cpu0/cache/index{number}"
            folder.mkdir(parents=True)
            for part, text in (("level", level), ("type", kind), ("size", size), ("shared_cpu_list", "0")):
                (folder / part).write_text(f"{text}\n")
        monkeypatch.setattr(target, "CPUS", root)
        target.caches.cache_clear()
        return target.caches()

    first = ("1", "Data", "48K"), ("1", "Instruction", "64K")
    assert caches(*first, ("2", "Unified", "256K"), ("3", "Unified", "16M")) == (48 * 2**10, 2**18, 2**24)
    assert caches(*first, ("2", "Unified", "512K")) == (48 * 2**10, 2**19, 2**19)
    assert caches() == USUAL
    monkeypatch.undo()
    target.caches.cache_clear()


def test_caches_are_known_without_numba() -> None:
    code = "from conv_impls.kernels.runtime import target; import sys; print(*target.caches(), 'numba' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [*map(str, target.caches()), "False"]


def test_the_check_of_arm_assembly_knows_spills_and_small_tiles() -> None:
    arm.self_test()
