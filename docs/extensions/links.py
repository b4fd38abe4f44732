"""Links of the built site: each internal link leads to a file and an anchor of the site.

External links are checked for their form only: the check needs no network.
"""

from __future__ import annotations

from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# Attributes that contain links.
LINKS = {"href", "src"}
# Links to other programs, and data inside the page.
NO_FILE = {"mailto", "data"}


class _Page(HTMLParser):
    """The links and anchors of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect links and anchors of one element."""
        for name, value in attrs:
            if name in LINKS and value:
                self.links.append(value)
            elif name == "id" and value:
                self.anchors.add(value)


def broken(site: Path) -> Iterator[str]:
    """One line for each broken link: the page, the link, and the reason."""
    pages = {path: _Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}
    for path, page in pages.items():
        for link in dict.fromkeys(page.links):
            reason = _fault(site, path, link, pages)
            if reason:
                yield f"{path.relative_to(site)}: {link}: {reason}"


def _fault(site: Path, path: Path, link: str, pages: dict[Path, _Page]) -> str:
    """Why a link of a page is broken; empty if it is not."""
    parts = urlsplit(link)
    if parts.scheme in NO_FILE:
        return ""
    if parts.scheme or parts.netloc:
        known = parts.scheme in ("http", "https") and "." in parts.netloc and " " not in link
        return "" if known else "expected an http or https address"
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if target.is_dir():
        target /= "index.html"
    if site.resolve() not in target.parents:
        return "leads out of the site"
    if not target.is_file():
        return "no such file"
    if parts.fragment and target.suffix == ".html" and unquote(parts.fragment) not in pages[target].anchors:
        return "no such anchor"
    return ""
