"""The reference pages are complete: names, commands, fields, statuses, words. The links of the site lead somewhere."""

from __future__ import annotations

import argparse
import doctest
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from pages import DOCS, ROOT
from sphinx.errors import SphinxError

import conv_impls
from bench.cli.main import app
from bench.store.folder import Config
from bench.store.records import FAILED, STATUSES, Case, Record
from bench.store.schema import Environment, Level, Machine, Threads
from conv_impls import lesson, workloads
from docs.extensions import commands, ladder, links, pictures, records, site

MODULES = (conv_impls, lesson, workloads)
WORDS = (
    "round", "repetition", "sample", "turn", "planned", "eager", "peak", "peer", "best peer", "weak", "regret",
    "utilisation", "effective GFLOP/s",
)  # fmt: skip


def text(page: str) -> str:
    return (DOCS / page).read_text(encoding="utf-8")


def undocumented(page: str, module: Any) -> set[str]:
    """Public names of a module that the page does not document in this module or in the package."""
    found: dict[str, set[str]] = {}
    current = ""
    for directive, name in re.findall(r"^\.\. (currentmodule|auto\w+):: (\S+)", page, re.MULTILINE):
        if directive == "currentmodule":
            current = name
        elif directive != "automodule":
            found.setdefault(current, set()).add(name)
    shared = found.get("conv_impls", set())
    here = found.get(module.__name__, set())
    # A name that a module takes from the package is documented there.
    return {
        name for name in module.__all__
        if name not in here and not (name in shared and getattr(module, name) is getattr(conv_impls, name))
    }  # fmt: skip


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_the_api_page_has_every_public_name(module: Any) -> None:
    page = text("reference/api.md")
    assert undocumented(page, module) == set()


def test_a_name_that_the_api_page_lacks_would_be_seen() -> None:
    page = text("reference/api.md")
    assert undocumented(page.replace(".. autofunction:: plan\n", ""), conv_impls) == {"plan"}
    # `im2col` of the lesson is another function than that of the package.
    without = page.replace(".. autofunction:: im2col\n.. autofunction:: conv2d_im2col\n", "")
    assert undocumented(without, lesson) == {"im2col", "conv2d_im2col"}


def test_the_command_line_page_has_every_command_and_option() -> None:
    made = {command.name: command for command in commands.bench() + commands.library()}
    assert len(made) == len(app.registered_commands) + 4
    run = {option.names: option for option in made["python -m bench run"].options}
    assert run["--budget NUMBER"].default == "280.0"
    assert {"--out PATH", "--resume PATH", "--plugin TEXT"} <= set(run)
    assert [option.names for option in made["python -m bench compare"].options][:2] == ["RUN_A", "RUN_B"]
    assert [option.names for option in made["python -m bench machine"].options] == ["--seconds NUMBER", "--json"]
    assert [o.default for o in made["python -m bench report"].options if o.names == "--out PATH"] == ["results"]
    assert all(
        option.help for command in made.values() for option in command.options if "precision" not in option.names
    )
    assert all(line.startswith(command.name) for command in made.values() for line in command.examples)
    page = text("reference/command_line.md")
    assert "{computed} bench" in page
    assert "{computed} library" in page


def test_options_of_argparse_are_read_as_they_are() -> None:
    parser = argparse.ArgumentParser(description="Two\nlines.", epilog="tool do --fast\nanother line")
    parser.add_argument("input", help="a_file")
    parser.add_argument("--mode", choices=("a", "b"), default="a", help="which")
    parser.add_argument("--fast", action="store_true", help="less")
    made = commands._of_argparse("tool do", parser)
    assert made == commands.Command(
        "tool do", "Two lines.",
        [
            commands.Option("INPUT", "a_file"), commands.Option("--mode a|b", "which", "a"),
            commands.Option("--fast", "less"),
        ],
        ["tool do --fast"],
    )  # fmt: skip
    lines = list(commands.markdown([made]))
    assert lines[:3] == ["## `tool do`", "", "Two lines."]
    assert ": a\\_file" in lines
    assert ": which Default: `a`." in lines


@pytest.mark.parametrize("kind", [Record, Case])
def test_every_field_of_a_record_has_a_text_and_a_type(kind: type[msgspec.Struct]) -> None:
    found = records.fields(kind)
    assert [field.name for field in found] == list(kind.__struct_fields__)
    assert all(field.text.endswith(".") and field.kind for field in found)
    # A time, a size or a rate names its unit.
    assert all(field.unit for field in found if field.name.endswith(("_s", "_bytes", "_gflops")))


def test_a_field_without_a_text_would_be_seen() -> None:
    class Forgetful(msgspec.Struct):
        """A type.

        Attributes
        ----------
        known
            Something.
        """

        known: int
        forgotten_s: float

    with pytest.raises(LookupError, match="forgotten_s"):
        records.fields(Forgetful)


def test_types_are_words() -> None:
    assert {field.name: (field.kind, field.unit) for field in records.fields(Record)}["median_s"] == (
        "number or null", "seconds",
    )  # fmt: skip
    assert "| `timer_ns` | number | nanoseconds |" in list(records.keys(Machine))
    assert "| `read_gb_per_s` | number | GB/s |" in list(records.keys(Level))
    for kind in (Config, Environment, Threads):
        assert len(list(records.keys(kind))) == len(kind.__annotations__) + 2


def test_the_page_of_statuses_has_all_of_them_and_their_exit_codes() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \|.*\| (yes|no) \|$", text("reference/statuses.md"), re.MULTILINE))
    assert set(rows) == set(STATUSES)
    assert {status for status, code in rows.items() if code == "yes"} == set(FAILED)


def test_the_glossary_has_every_word_once() -> None:
    terms = re.findall(r"^(\S.*)\n  \S", text("glossary.md"), re.MULTILINE)
    assert set(WORDS) <= set(terms)
    assert len(terms) == len(set(terms))


def test_every_computed_part_is_known() -> None:
    used = {
        word
        for page in DOCS.glob("**/*.md")
        for word in re.findall(r"\{computed\} (\w+)", page.read_text(encoding="utf-8"))
    }
    assert used == set(site.COMPUTED)
    assert len(list(site.backends())) > 3 * len(["auto", "numba_simd", "python_loops"])
    assert "| `resnet50` | 23 | 53 | 4.09 |" in list(site.workload_table())


def test_links_out_of_the_pages_lead_to_pages_of_the_site() -> None:
    page, found = DOCS / "tutorial.md", set[Path]()
    source = "[direct](../conv_impls/kernels/direct.py), [how](../CONTRIBUTING.md), [one](../examples/a.ipynb)"
    changed = site.linked(page, source, found.add)
    assert changed.startswith("[direct](/made/source/conv_impls/kernels/direct.py.md), [how](/contributing.md), [one](")
    assert found == {ROOT / "conv_impls" / "kernels" / "direct.py"}
    notebook = next((ROOT / "examples").glob("1_*.ipynb")).name
    assert site.linked(page, f"[one](../examples/{notebook})") == f"[one](/made/examples/{notebook})"
    assert site.linked(page, "[all](../results)") == "all (`results`)"
    for same in ("[p](performance.md#a)", "[x](https://a.org/b)", "[y](#here)", "[z](../missing.py)"):
        assert site.linked(page, same) == same


@pytest.fixture
def built(tmp_path: Path) -> Path:
    (tmp_path / "sub").mkdir()
    (tmp_path / "index.html").write_text(
        '<a href="sub/page.html#part">x</a><a href="https://a.org/b">y</a><img src="a.png">'
    )
    (tmp_path / "sub" / "page.html").write_text('<p id="part"><a href="../index.html">x</a><a href="#part">y</a></p>')
    (tmp_path / "a.png").touch()
    return tmp_path


def test_a_site_without_broken_links_passes(built: Path) -> None:
    assert list(links.broken(built)) == []
    site.finish(finished(built), None)


@pytest.mark.parametrize(
    ("link", "reason"),
    [
        ("missing.html", "no such file"), ("sub/page.html#other", "no such anchor"), ("#other", "no such anchor"),
        ("../../etc/passwd", "leads out of the site"), ("https:///b", "expected an http or https address"),
        ("htps://a.org/", "expected an http or https address"), ("b.png", "no such file"),
    ],
)  # fmt: skip
def test_a_broken_link_fails_the_build(built: Path, link: str, reason: str) -> None:
    (built / "other.html").write_text(f'<a href="{link}">x</a>')
    assert list(links.broken(built)) == [f"other.html: {link}: {reason}"]
    with pytest.raises(SphinxError, match=re.escape(reason)):
        site.finish(finished(built), None)


@pytest.mark.parametrize(
    "module", [commands, ladder, links, pictures, records, site], ids=lambda module: module.__name__
)
def test_the_examples_in_the_extensions_are_right(module: Any) -> None:
    failed, tried = doctest.testmod(module)
    assert failed == 0
    assert tried == module.__loader__.get_source(module.__name__).count(">>> ")


def finished(folder: Path) -> Any:
    return SimpleNamespace(outdir=folder, builder=SimpleNamespace(format="html"))
