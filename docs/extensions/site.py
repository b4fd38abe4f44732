"""Sphinx extension: directives whose content is computed, pages of source files, notebooks, and the check of links.

{rung} NAME              picture and measured time of a rung of the tutorial
{computed} WHAT [TYPE]   one entry of `COMPUTED`, such as the table of all rungs or the fields of a record
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.errors import SphinxError
from sphinx.util.docutils import SphinxDirective

from bench.analysis.numbers import number
from bench.run.options import RUNS
from bench.store import folder, records, schema
from conv_impls import get_backend, registry, workloads

from . import commands, links, pictures
from . import records as reference
from .ladder import Ladder, newest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
# Files that are made before the build; git ignores this folder.
MADE = DOCS / "made"
LINK = re.compile(r"\[([^\]]+)\]\((?!https?:|#|/)([^)#\s]+)(#[^)\s]*)?\)")
# Files outside docs/ that are pages of the site.
PAGES = {ROOT / "CONTRIBUTING.md": "/contributing.md", ROOT / "CHANGELOG.md": "/changelog.md"}


@cache
def measured() -> Ladder:
    """The ladder of this build."""
    return newest(RUNS)


class Rung(SphinxDirective):
    """The picture of a rung and its time."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """The nodes that replace the directive."""
        rung = self.arguments[0]
        picture = nodes.raw("", pictures.svg(rung), format="html")
        figure = nodes.figure("", picture, nodes.caption("", pictures.caption(rung)), classes=["rung"])
        sentence, machine = measured().sentence(rung), measured().machine
        time = nodes.paragraph("", "", nodes.strong("", "Measured: "), nodes.Text(f"{sentence} {machine}."))
        return [figure, nodes.container("", time, classes=["measured"])]


class Computed(SphinxDirective):
    """Content that is computed as Markdown."""

    required_arguments, optional_arguments = 1, 1

    def run(self) -> list[nodes.Node]:
        """The nodes that replace the directive."""
        name, *arguments = self.arguments
        return self.parse_text_to_nodes("\n".join(COMPUTED[name](*arguments)), allow_section_headings=True)


def ladder() -> Iterator[str]:
    """Table of all rungs with their times."""
    yield from ("| rung | backend | one call | speed-up |", "|--:|---|--:|--:|")
    yield from (f"| {' | '.join(row)} |" for row in measured().rows())
    yield from ("", "Speed-up: time of rung 1 on the same layer divided by the time of this rung. " + measured().note())


def backends() -> Iterator[str]:
    """The backends of the package, without plug-ins."""
    for name in sorted(name for name, module in registry.sources().items() if module.startswith("conv_impls.")):
        entry = get_backend(name)
        facts = f"{entry.mode}, accuracy `{entry.accuracy}`, equal bits: `{entry.deterministic}`"
        yield from (f"`{name}`", f": {entry.idea}. Source: {entry.source}. ({facts})", "")


def workload_table() -> Iterator[str]:
    """The built-in workloads."""
    yield from ("| name | layers | convolutions | GMAC |", "|---|--:|--:|--:|")
    for name in workloads.available():
        layers = workloads.load(name)
        macs = sum(layer.count * layer.problem.macs for layer in layers)
        yield f"| `{name}` | {len(layers)} | {sum(layer.count for layer in layers)} | {number(macs / 1e9)} |"


COMPUTED: dict[str, Callable[..., Iterator[str]]] = {
    "ladder": ladder,
    "bench": lambda: commands.markdown(commands.bench()),
    "library": lambda: commands.markdown(commands.library()),
    "fields": lambda name: reference.markdown(getattr(records, name)),
    "keys": lambda name: reference.keys(getattr(folder, name, None) or getattr(schema, name)),
    "backends": backends,
    "workloads": workload_table,
}


def linked(page: Path, text: str, found: Callable[[Path], None] = lambda path: None) -> str:
    """Markdown of a page with links that work on the site.

    A link to a source file or a notebook leads to its page. A link to another file outside of docs/ becomes a name.

    Parameters
    ----------
    page : Path
    text : str
    found : callable
        Is called with each source file.
    """

    def replaced(match: re.Match[str]) -> str:
        words, link, _ = match.groups()
        target = (page.parent / link).resolve()
        if DOCS in target.parents or not target.exists():
            return match[0]
        if target in PAGES:
            return f"[{words}]({PAGES[target]})"
        name = target.relative_to(ROOT)
        if target.suffix == ".ipynb":
            return f"[{words}](/made/{name})"
        if target.suffix == ".py":
            found(target)
            return f"[{words}](/made/source/{name}.md)"
        return f"{words} (`{name}`)"

    return LINK.sub(replaced, text)


def prepare(app: Sphinx) -> None:
    """Make the pages of source files, and copy the notebooks."""
    shutil.rmtree(MADE, ignore_errors=True)
    sources: set[Path] = set()
    for page in DOCS.rglob("*.md"):
        linked(page, page.read_text(encoding="utf-8"), sources.add)
    for source in sources:
        page = MADE / "source" / f"{source.relative_to(ROOT)}.md"
        page.parent.mkdir(parents=True, exist_ok=True)
        include = f"```{{literalinclude}} {os.path.relpath(source, page.parent)}\n:language: python\n```"
        page.write_text(f"---\norphan: true\n---\n\n# {source.relative_to(ROOT)}\n\n{include}\n", encoding="utf-8")
    shutil.copytree(
        ROOT / "examples", MADE / "examples", ignore=lambda _, names: [n for n in names if not n.endswith(".ipynb")]
    )


def read(app: Sphinx, docname: str, source: list[str]) -> None:
    """Change the links of a page before it is parsed."""
    page = Path(app.env.doc2path(docname))
    if page.suffix == ".md":
        source[0] = linked(page, source[0])


def finish(app: Sphinx, error: Exception | None) -> None:
    """Fail if a link of the built site is broken."""
    if error is None and app.builder.format == "html" and (found := list(links.broken(Path(app.outdir)))):
        raise SphinxError("broken links:\n" + "\n".join(found))


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directives and events."""
    app.add_directive("rung", Rung)
    app.add_directive("computed", Computed)
    app.connect("builder-inited", prepare)
    app.connect("source-read", read)
    app.connect("build-finished", finish)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
