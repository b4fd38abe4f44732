"""What a run stores of its machine: what makes two machines different, what is unknown, what holds libraries back."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.machine import cpu, libraries
from bench.machine import environment as machine
from bench.machine.environment import environment
from bench.run.isa import isa_variables
from conv_impls.kernels.runtime import target

ROOT = Path(__file__).parents[1]


def test_facts_that_change_speed_are_part_of_the_id(monkeypatch: pytest.MonkeyPatch) -> None:
    first = environment()
    assert {"cpus", "smt", "cpu_quota_cores", "hypervisor", "governor", "transparent_huge_pages"} <= set(first)
    monkeypatch.setattr(machine, "_huge_pages", lambda: "another")
    assert environment()["id"] != first["id"]


def test_facts_are_plain_where_nothing_can_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (cpu, target):
        monkeypatch.setattr(module, "text_of", lambda path: "")
    facts = environment()
    unknown = "smt", "cpu_quota_cores", "hypervisor", "governor", "transparent_huge_pages", *cpu.IDENTITY
    assert [facts[key] for key in unknown] == [None] * len(unknown)
    assert facts["cpu"]
    assert facts["caches"] == {}


def test_what_auto_remembers_is_a_fact_and_not_part_of_the_id(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CONV_IMPLS_CACHE_DIR", str(tmp_path))
    first = environment()
    assert (first["tuning"], first["limits"]) == ("none", "none")
    for name in ("tuning", "limits"):
        (tmp_path / f"{name}.json").write_text("{}")
    later = environment()
    assert later["id"] == first["id"]
    assert "none" not in (later["tuning"], later["limits"])
    (tmp_path / "tuning.json").write_text('{"more": {}}')
    assert environment()["tuning"] != later["tuning"]


def test_a_quota_is_in_cores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for text, cores in (("max 100000", None), ("150000 100000", 1.5)):
        monkeypatch.setattr(target, "text_of", lambda path, text=text: text)
        assert machine._cpu_quota() == cores


def test_family_model_and_stepping_tell_processors_of_one_name_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "model\t\t: {}\nmodel name\t: AMD EPYC\nstepping\t: 1\ncpu family\t: 25\nprocessor\t: 1\nmodel\t: 9"
    ids = []
    for number in (1, 17):
        monkeypatch.setattr(
            cpu, "text_of", lambda path, number=number: text.format(number) if "cpuinfo" in str(path) else ""
        )
        facts = environment()
        assert [facts[key] for key in ("cpu", *cpu.IDENTITY)] == ["AMD EPYC", 25, number, 1]
        ids.append(facts["id"])
    assert len(set(ids)) == 2


def test_an_empty_field_of_cpuinfo_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "text_of", lambda path: "stepping\t:\nmodel\t: unknown\ncpu family\t: 25")
    assert [cpu.facts()[key] for key in cpu.IDENTITY] == [25, None, None]


def test_vectors_are_as_wide_as_the_features_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    wide = {"avx2": True, "avx512f": True, "avx512vl": True}
    for known, bits in ((wide, 512), ({"avx2": True, "avx512f": False}, 256), ({}, 128)):
        monkeypatch.setattr(target, "features", lambda known=known: known)
        assert cpu.facts()["vector_bits"] == bits
        expected = {name: ("-" if "512" in name else "+") + name for name in known}
        assert isa_variables("avx2")["NUMBA_CPU_FEATURES"] == ",".join(expected.values())


def pool(path: str, kernel: str | None) -> dict[str, Any]:
    return {"user_api": "blas", "filepath": path} | ({"architecture": kernel} if kernel else {})


def test_the_kernel_is_that_of_numpys_own_blas(monkeypatch: pytest.MonkeyPatch) -> None:
    site = Path(np.__file__).resolve().parents[1]
    scipys, numpys = pool(f"{site}/scipy.libs/a.so", "Zen"), pool(f"{site}/numpy.libs/b.so", "SkylakeX")
    for pools, kernel in (
        ([scipys, numpys], "SkylakeX"), ([pool("/usr/lib/c.so", "Haswell")], "Haswell"), ([], None),
        ([pool("/usr/lib/mkl.so", None)], None), ([{"user_api": "openmp", "filepath": "/usr/lib/omp.so"}], None),
    ):  # fmt: skip
        monkeypatch.setattr("threadpoolctl.threadpool_info", lambda pools=pools: pools)
        assert libraries.blas_kernel() == kernel
    ids = set()
    for kernel in ("Zen", "SkylakeX"):
        monkeypatch.setattr(libraries, "blas_kernel", lambda kernel=kernel: kernel)
        ids.add(environment()["id"])
    assert len(ids) == 2


RESTRICTING = *libraries.ISA_VARIABLES, *libraries.THREAD_VARIABLES, "OPENBLAS_CORETYPE"


@pytest.fixture
def unrestricted(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in RESTRICTING:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_without_variables_nothing_is_restricted(unrestricted: pytest.MonkeyPatch) -> None:
    assert libraries.restrictions() == []
    unrestricted.setenv("NUMBA_ENABLE_AVX", "1")
    unrestricted.setenv("OMP_NUM_THREADS", "many")
    unrestricted.setenv("OPENBLAS_NUM_THREADS", "100000")
    assert libraries.restrictions() == []


@pytest.mark.parametrize("name", [name for name in RESTRICTING if name != "OPENBLAS_CORETYPE"])
def test_a_variable_that_restricts_a_library_is_named(unrestricted: pytest.MonkeyPatch, name: str) -> None:
    before = environment()
    unrestricted.setenv(name, "0")
    (line,) = environment()["warnings"]
    assert line.startswith(f"{name}=0 ")
    # A warning alone makes no other machine.
    assert environment()["id"] == before["id"]
    assert before["warnings"] == []


def test_a_long_value_stays_one_short_line(unrestricted: pytest.MonkeyPatch) -> None:
    unrestricted.setenv("NUMBA_CPU_FEATURES", "+avx2,\n" * 100)
    assert all(len(line) < 160 and "\n" not in line for line in libraries.restrictions())


def test_a_core_type_is_named_where_numpys_blas_would_take_another(unrestricted: pytest.MonkeyPatch) -> None:
    unrestricted.setenv("OPENBLAS_CORETYPE", "Haswell")
    for now, free, expected in (
        ("Haswell", "SkylakeX", "(the default is SkylakeX)"), ("Haswell", None, "unknown"),
        ("Haswell", "Haswell", None), (None, None, None),
    ):  # fmt: skip
        unrestricted.setattr(libraries, "blas_kernel", lambda now=now: now)
        unrestricted.setattr(libraries, "_free_kernel", lambda free=free: free)
        lines = libraries.restrictions()
        assert len(lines) == (expected is not None)
        assert all(line.startswith("OPENBLAS_CORETYPE=Haswell ") and str(expected) in line for line in lines)


def test_a_child_process_finds_the_kernel_without_the_variable() -> None:
    code = "from bench.machine.libraries import *; print(blas_kernel()); print(*restrictions(), sep='\\n')"
    variables = {name: value for name, value in os.environ.items() if name not in RESTRICTING}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=variables | {"OPENBLAS_CORETYPE": "Nehalem"}, capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    held, *lines = done.stdout.split("\n")
    free = libraries._free_kernel()
    if held == str(free):
        # Another BLAS, which does not read the variable.
        assert lines == ["", ""]
    else:
        assert f"its {held} kernels (the default is {free})" in lines[0]
