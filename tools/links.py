"""Check the links of every page and notebook.

    python tools/links.py               files, and headings after a #: offline (part of `make lint`)
    python tools/links.py --external    addresses on the web, one request each (`make links`)

Exits with 1 where a link is broken, and with 2 where no address at all could be reached: then nothing is known.
"""

from __future__ import annotations

import re
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import nbformat
from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).resolve().parents[1]
PLACES = ("*.md", "docs/*.md", "book/*.md", "classroom/*.md", "scale/*.md", "exercises/*", "solutions/*", "notebooks/*")


@dataclass(frozen=True)
class Link:
    """Where a link stands, relative to the root, and what it leads to."""

    page: str
    target: str


def pages(root: Path = ROOT) -> list[Path]:
    """Return every page and notebook of the project, in order."""
    return sorted({path for place in PLACES for path in root.glob(place) if path.suffix in (".md", ".ipynb")})


def text_of(path: Path) -> str:
    """Return a page's Markdown; of a notebook, that of its text cells."""
    if path.suffix != ".ipynb":
        return path.read_text(encoding="utf-8")
    cells = nbformat.read(path, as_version=4).cells
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def targets(text: str) -> list[str]:
    """Return what the links and pictures of a Markdown text lead to, those in its HTML too.

    >>> targets("[a](b.md#c) and <https://d.example> and `[no](link)`")
    ['b.md#c', 'https://d.example']
    """
    found = []
    for token in _tokens(text):
        found += [str(value) for key, value in token.attrs.items() if key in ("href", "src")]
        if token.type.startswith("html"):
            found += re.findall(r"(?:href|src)=[\"']([^\"']+)", token.content)
    return found


def anchors(path: Path) -> set[str]:
    """Return the names by which a page's headings can be linked: GitHub's for a page, JupyterLab's for a notebook."""
    tokens = list(_tokens(text_of(path)))
    headings = [after.content for token, after in zip(tokens, tokens[1:]) if token.type == "heading_open"]
    named = set(re.findall(r"(?:id|name)=[\"']([^\"']+)", text_of(path)))
    if path.suffix == ".ipynb":
        return named | {heading.replace(" ", "-") for heading in headings}
    return named | {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken(root: Path = ROOT) -> list[Link]:
    """Return the links to files and headings that are not there, or lie outside the project."""
    wrong = []
    for page in pages(root):
        for target in targets(text_of(page)):
            if re.match(r"[a-z][a-z0-9+.-]*:|//", target):
                continue
            name, _, anchor = unquote(target).partition("#")
            file = (page.parent / name).resolve() if name else page
            missing = not file.exists() or not file.is_relative_to(root)
            if missing or (anchor and file.suffix in (".md", ".ipynb") and anchor not in anchors(file)):
                wrong.append(Link(str(page.relative_to(root)), target))
    return wrong


def external(root: Path = ROOT) -> dict[str, list[str]]:
    """Return every address on the web that is linked, and the pages on which it stands."""
    found: dict[str, list[str]] = {}
    for page in pages(root):
        for target in targets(text_of(page)):
            if target.startswith(("http://", "https://")):
                found.setdefault(target.partition("#")[0], []).append(str(page.relative_to(root)))
    return found


def ask(address: str, timeout: float = 20) -> str:
    """Return what an address answers: "ok", "broken (...)", or "unreachable (...)" where nothing was learnt."""
    request = urllib.request.Request(address, headers={"User-Agent": "Mozilla/5.0 (link check)"})
    try:
        with urllib.request.urlopen(request, timeout=timeout):
            return "ok"
    except urllib.error.HTTPError as error:
        refused = error.code in (401, 403, 405, 429) or error.code >= 500  # the page may well be there
        return f"unreachable ({error.code})" if refused else f"broken ({error.code})"
    except (OSError, ValueError) as error:
        return f"unreachable ({error})"


def main(arguments: list[str]) -> int:
    """Check, print what is wrong, and return the exit status."""
    if arguments != ["--external"]:
        wrong = broken()
        for link in wrong:
            print(f"{link.page}: {link.target!r} leads nowhere")
        print(f"links: {len(pages())} pages, {len(wrong)} broken links")
        return int(bool(wrong))
    answers = {address: ask(address) for address in external()}
    for address, answer in answers.items():
        if answer != "ok":
            print(f"{address}: {answer} (in {', '.join(sorted(set(external()[address])))})")
    reached = sum(not answer.startswith("unreachable") for answer in answers.values())
    print(f"addresses: {reached} of {len(answers)} answered")
    if not reached:
        print("None could be reached, so nothing is known about them. What to do: run it where there is a network.")
        return 2
    return int(any(answer.startswith("broken") for answer in answers.values()))


def _tokens(text: str) -> Iterator[Token]:
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        yield token
        yield from token.children or ()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
