"""What the package shows, what importing it loads, and which way imports point."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import conv_impls

ROOT = Path(__file__).parent.parent
MODULES = sorted(p for folder in ("conv_impls", "bench") for p in (ROOT / folder).rglob("*.py"))
# Who may import whom inside conv_impls; bench may import all of it, and nothing imports bench or tests.
PLUMBING = {
    "adjoint", "choice", "errors", "padding", "patches", "problem", "reference", "registry", "validation",
}  # fmt: skip


def imports(path: Path) -> set[str]:
    """Every module this file imports, dotted."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                assert "bench" in path.parts, f"{path}: relative import"
                package = path.relative_to(ROOT).parts[: -node.level]
                base = ".".join([*package, *filter(None, [node.module])])
            found |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return found


PACKAGE = ROOT / "conv_impls" / "__init__.py"


def climbs(modules: set[str]) -> set[str]:
    """What is taken from the package itself rather than from one of its modules."""
    names = {m.removeprefix("conv_impls.") for m in modules if m.startswith("conv_impls.") and m.count(".") == 1}
    files = {p.stem for p in PACKAGE.parent.iterdir()}
    return (names - files) | ({"conv_impls"} & modules if not names else set())


# Every room may import this file, which imports none.
SHARED = "program"
# Rooms of bench: whose files each may import. A number passes them in this order, and nothing imports the command line.
ROOMS = {
    "store": set(),
    "machine": set(),
    "peers": {"machine"},
    "run": {"store", "machine", "peers", "analysis.stats"},
    "analysis": {"store", "machine", "peers"},
    "report": {"analysis", "store", "machine", "peers"},
    "cli": {"run", "report", "analysis", "store", "machine", "peers"},
}  # fmt: skip


def wrong_arrows(room: str, modules: set[str]) -> set[str]:
    """Imports of a file of this room that its room may not have."""
    inside = {m.removeprefix("bench.") for m in modules if m.startswith("bench.")}
    # A package is imported with each of its modules, so its own name says nothing.
    return {
        m
        for m in inside
        if not any(f"{m}.".startswith(f"{k}.") or k.startswith(f"{m}.") for k in {room, SHARED, *ROOMS[room]})
    }


def test_all_names_exactly_what_is_public() -> None:
    public = {n for n, v in vars(conv_impls).items() if not n.startswith("_") and not isinstance(v, type(ast))}
    assert set(conv_impls.__all__) == public
    assert conv_impls.__all__ == sorted(conv_impls.__all__, key=lambda n: (not n.isupper(), n[0].islower(), n))


def test_no_name_is_shadowed_once_a_backend_is_loaded() -> None:
    conv_impls.get_backend("numpy_strided")
    assert "numpy_strided" in conv_impls.backends()
    assert callable(conv_impls.trace)


@pytest.mark.parametrize("name", ["numba", "scipy", "bench", "pandas", "matplotlib"])
def test_importing_the_package_does_not_load(name: str) -> None:
    code = f"import conv_impls, sys; conv_impls.backends(); print({name!r} in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    inside = {m for m in imports(path) if m.split(".")[0] in ("conv_impls", "bench", "tests")}
    where = path.relative_to(ROOT).parts
    if where[0] == "conv_impls":
        assert not [m for m in inside if m.startswith(("bench", "tests"))]
        assert path == PACKAGE or not climbs(inside)
    if where == ("bench", f"{SHARED}.py"):
        assert not inside
    if where[0] == "bench" and len(where) > 2:
        assert not wrong_arrows(where[1], inside)
    if where[:2] == ("conv_impls", "kernels"):
        outside = {m.split(".")[0] for m in imports(path)}
        assert outside - sys.stdlib_module_names <= {"numpy", "numba", "llvmlite", "conv_impls"}
        assert all(m.startswith("conv_impls.kernels") for m in inside)
    if where[:2] == ("conv_impls", "backends"):
        shared = ("conv_impls.backends._", "conv_impls.backends")
        others = {m for m in inside if "." in m and not m.startswith(shared[0]) and m != shared[1]}
        assert {m.split(".")[1] for m in others} <= PLUMBING | {"kernels"}


def test_the_parent_of_a_run_loads_no_backend() -> None:
    loaded = "[m for m in sys.modules if m.startswith(('numba', 'conv_impls.backends.'))]"
    code = f"import bench.run.driver, sys; print({loaded})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_wrong_arrow_between_rooms_would_be_seen() -> None:
    assert wrong_arrows("run", {"bench.analysis.stats", "bench.store.records.Case", "bench.run.check"}) == set()
    assert wrong_arrows("run", {"bench.analysis.frame.frame"}) == {"analysis.frame.frame"}
    assert wrong_arrows("store", {"bench.run.driver"}) == {"run.driver"}
    assert wrong_arrows("report", {"bench.cli.main"}) == {"cli.main"}


def test_a_climb_to_the_package_would_be_seen() -> None:
    assert climbs({"conv_impls", "conv_impls.validation", "conv_impls.errors.ConvError"}) == set()
    assert climbs({"conv_impls", "conv_impls.__version__", "conv_impls.plan"}) == {"__version__", "plan"}
    assert climbs({"conv_impls"}) == {"conv_impls"}


def test_an_arrow_the_wrong_way_would_be_seen(tmp_path: Path) -> None:
    bad = tmp_path / "bad.py"
    bad.write_text("def f():\n    from bench import store\n")
    assert "bench.store" in imports(bad)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_file_opens_with_its_idea_and_stays_short(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(text)), "no docstring"
    assert text.count("\n") <= 340
