"""Look through the built web book, without a browser or a network, and say what is wrong with it.

    python tools/book_check.py build/book/html

Every link and anchor inside the book leads somewhere; no page or stylesheet loads anything from another host; each
page has its language, a title, one heading of the first rank and no rank left out; each picture has a description.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# Where a page names what it loads. A `link` loads only for some of its relations.
LOADS = {("script", "src"), ("img", "src"), ("img", "srcset"), ("source", "src"), ("source", "srcset"),
         ("iframe", "src"), ("embed", "src"), ("object", "data"), ("video", "src"), ("audio", "src"),
         ("image", "href"), ("use", "href"), ("form", "action")}  # fmt: skip
LINK_LOADS = {"stylesheet", "icon", "preload", "prefetch", "modulepreload", "preconnect", "dns-prefetch", "manifest"}
PRINTED = "jb-print-docs-body"  # a second title and table of contents, that the theme shows in print
CSS_URL = re.compile(r"url\(\s*['\"]?([^'\")]+)|@import\s+['\"]([^'\"]+)")


@dataclass
class Page:
    """What of a page is checked."""

    loads: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    anchors: set[str] = field(default_factory=set)
    headings: list[int] = field(default_factory=list)
    without_alt: list[str] = field(default_factory=list)
    language: str = ""
    title: str = ""


class _Reader(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.page, self.inside = Page(), ""
        self.is_counting = False  # headings of the page's own text: not of what only shows in print
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        page, values = self.page, {name: value or "" for name, value in attrs}
        self.inside = tag
        page.anchors |= {values[name] for name in ("id", "name") if values.get(name)}
        page.loads += [values[name] for name in values if (tag, name) in LOADS]
        page.loads += [found[0] or found[1] for found in CSS_URL.findall(values.get("style", ""))]
        if tag in ("main", "article") or values.get("id") == PRINTED:
            self.is_counting = tag != "div"
        if tag == "html":
            page.language = values.get("lang", "")
        elif tag == "link" and LINK_LOADS & set(values.get("rel", "").split()):
            page.loads.append(values.get("href", ""))
        elif tag == "a" and "href" in values:
            page.links.append(values["href"])
        elif tag == "img" and not values.get("alt", "").strip():
            page.without_alt.append(values.get("src", "")[:80])
        elif self.is_counting and re.fullmatch("h[1-6]", tag):
            page.headings.append(int(tag[1]))

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""
        self.is_counting &= tag != "main"

    def handle_data(self, data: str) -> None:
        if self.inside == "title" and not self.page.title:
            self.page.title = data.strip()
        elif self.inside == "style":
            self.page.loads += [found[0] or found[1] for found in CSS_URL.findall(data)]


def read(html: str) -> Page:
    return _Reader(html).page


def problems(root: Path) -> list[str]:
    """Return what is wrong in the book whose pages lie in `root`, each with its page; nothing when all is well."""
    pages = {path: read(path.read_text(encoding="utf-8")) for path in sorted(root.rglob("*.html"))
             if "_static" not in path.relative_to(root).parts}  # fmt: skip
    if not pages:
        return [f"{root}: there are no pages"]
    anchors = {path.resolve(): page.anchors for path, page in pages.items()}
    wrong = []
    for path, page in pages.items():
        found = [*_wrong_alone(page), *_wrong_loads(path, page.loads, root), *_wrong_links(path, page, root, anchors)]
        wrong += [f"{path.relative_to(root)}: {problem}" for problem in found]
    for path in sorted(root.rglob("*.css")):
        urls = [found[0] or found[1] for found in CSS_URL.findall(path.read_text(encoding="utf-8", errors="replace"))]
        wrong += [f"{path.relative_to(root)}: {problem}" for problem in _wrong_loads(path, urls, root)]
    return wrong


def _wrong_alone(page: Page) -> list[str]:
    wrong = [f"a picture has no description: {source}" for source in page.without_alt]
    if not page.language:
        wrong.append("the page does not say its language")
    if not page.title:
        wrong.append("the page has no title")
    if page.headings.count(1) != 1 or page.headings[0] != 1:
        wrong.append(f"one heading of the first rank was expected, at the top; the ranks are {page.headings}")
    wrong += [f"a heading of rank {b} follows one of rank {a}" for a, b in zip(page.headings, page.headings[1:])
              if b > a + 1]  # fmt: skip
    return wrong


def _wrong_loads(path: Path, addresses: list[str], root: Path) -> list[str]:
    wrong = []
    for address in addresses:
        parts = urlsplit(address.strip())
        if parts.scheme == "data" or not address.strip() or address.startswith("#"):
            continue
        if parts.scheme or parts.netloc:
            wrong.append(f"loads from another host: {address}")
        elif not _target(path, parts.path, root).is_file():
            wrong.append(f"loads a file that is not there: {address}")
    return wrong


def _wrong_links(path: Path, page: Page, root: Path, anchors: dict[Path, set[str]]) -> list[str]:
    wrong = []
    for link in page.links:
        parts = urlsplit(link)
        if parts.scheme or parts.netloc:
            continue  # an ordinary link to elsewhere: the reader decides
        target = _target(path, parts.path, root) if parts.path else path.resolve()
        if not target.is_relative_to(root.resolve()) or not target.is_file():
            wrong.append(f"a link leads nowhere: {link}")
        elif parts.fragment and target in anchors and unquote(parts.fragment) not in anchors[target]:
            wrong.append(f"a link's anchor is not there: {link}")
    return wrong


def _target(path: Path, address: str, root: Path) -> Path:
    base = root if address.startswith("/") else path.parent
    return (base / unquote(address).lstrip("/")).resolve()


def main(arguments: list[str]) -> int:
    """Print what is wrong with the book in the folder named, and return the exit status."""
    wrong = problems(Path(arguments[0]))
    print("\n".join([*wrong, f"{len(wrong)} things are wrong."]))
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
