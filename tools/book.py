"""Make the web book in build/book/html from the lessons, exercises and docs. Nothing is run; stored outputs are shown.

    python tools/book.py                 everything, with all links checked
    python tools/book.py --out FOLDER    into FOLDER/html

Pages are taken from where they are, into FOLDER/src, and changed on the way: figures become files, widgets pictures
of the state that they were stored in, terms links to the glossary, and links to files that are no pages lead to the
repository. What the pages load comes from npm, pinned in book/package-lock.json, and no page asks another host.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import os
import re
import shutil
import struct
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path

import book_check
import nbformat
from book_diagram import Unreadable, diagram_html
from nbformat import NotebookNode
from places import SETUP
from slides import WIDGET_STATE, WIDGET_VIEW, shown, widget_html

ROOT = Path(__file__).resolve().parents[1]
BOOK = ROOT / "book"
PACKAGES = ROOT / "build" / "book-npm"  # npm's folder, shared by all builds
BRANCH = "main"

# Pages that have another name in the book than their file has.
RENAMED = {"README.md": "index.md", "exercises/README.md": "exercises/index.md"}
PAGES = ("notebooks/*.ipynb", "exercises/*.ipynb", "docs/*.md", "exercises/README.md", "README.md")

FENCED = re.compile(r"(^```.*?^```[^\n]*$)", re.DOTALL | re.MULTILINE)
TEXT_SKIPPED = re.compile(r"(^```.*?^```[^\n]*$|`[^`\n]+`|\$\$.*?\$\$|\$[^$\n]+\$|^#.*?$)", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"(!?\[(?:[^\[\]]|!\[[^\]]*\]\([^)]*\))*\]\()([^)\s]+)(\))")
BOOK_BADGE = re.compile(r"\[!\[[^\]]*\]\([^)]*badges/book\.svg\)\]\([^)]*\)")  # leads to where the reader is
ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:")
EMBEDDED = re.compile(r'src="data:image/(png|svg)(?:\+xml)?;base64,([^"]+)"')
ENTRY = re.compile(r"- \*\*(?P<term>[^*(]+?)(?: \((?P<short>[^)]+)\))?\*\*: (?P<text>.*)")


class BookError(Exception):
    """The book could not be made. The message says why, and what to do."""


def main(arguments: Sequence[str]) -> int:
    """Make the book and return the exit status."""
    parser = argparse.ArgumentParser(description="Make the web book.")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "book", help="the folder to write to")
    out = parser.parse_args(arguments).out.resolve()
    try:
        make(out)
    except BookError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"The book is in {out / 'html' / 'index.html'}")
    return 0


def make(out: Path) -> None:
    """Write the book into `out/html`.

    Raises:
        BookError: npm or a package is missing, Sphinx warns of something, or a link leads nowhere.
    """
    packages = npm_packages()
    for folder in ("src", "files", "doctrees", "html"):
        shutil.rmtree(out / folder, ignore_errors=True)
    source, files = out / "src", out / "files"
    stage(source, files / "root", packages)
    mathjax = files / "static" / "mathjax"
    mathjax.mkdir(parents=True)
    shutil.copy(packages / "mathjax" / "es5" / "tex-svg.js", mathjax)
    shutil.copy(packages / "mathjax" / "LICENSE", mathjax)
    command = [sys.executable, "-m", "sphinx", "--builder", "html", "--quiet", "--fail-on-warning", "--keep-going"]
    command += ["--conf-dir", str(BOOK), "--doctree-dir", str(out / "doctrees")]
    command += ["--define", f"html_static_path=_static,{files / 'static'}"]
    command += ["--define", f"html_extra_path={files / 'root'}", str(source), str(out / "html")]
    if subprocess.run(command, cwd=ROOT).returncode:
        raise BookError("Sphinx did not make the book without a warning. What to do: mend what it says above.")
    for page in pages():  # what the download button gives: the notebook as it is, with its widgets
        if page.suffix == ".ipynb":
            shutil.copy(ROOT / page, out / "html" / "_sources" / page)
    if wrong := book_check.problems(out / "html"):
        raise BookError("\n".join([*wrong, f"{len(wrong)} things are wrong in the book. What to do: mend them."]))


def npm_packages() -> Path:
    """Return the folder of npm's packages, fetched when the lock has changed since the last time.

    Raises:
        BookError: there is no npm, or it could not fetch them.
    """
    lock = (BOOK / "package-lock.json").read_bytes()
    folder, stamp = PACKAGES / "node_modules", PACKAGES / "stamp"
    if stamp.is_file() and stamp.read_text() == hashlib.sha256(lock).hexdigest():
        return folder
    if not (npm := shutil.which("npm")):
        raise BookError("npm is missing, which fetches what the book's pages load. What to do: install Node.js.")
    PACKAGES.mkdir(parents=True, exist_ok=True)
    stamp.unlink(missing_ok=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(BOOK / name, PACKAGES)
    command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel", "error"]
    if subprocess.run(command, cwd=PACKAGES).returncode:
        raise BookError("npm ci failed in build/book-npm. What to do: see what it says above; it needs the network.")
    stamp.write_text(hashlib.sha256(lock).hexdigest())
    return folder


def pages() -> list[Path]:
    """Return the files that become pages, relative to the repository."""
    return [path.relative_to(ROOT) for pattern in PAGES for path in sorted(ROOT.glob(pattern))]


def page_name(path: Path) -> Path:
    """Return the place in the book of a page's file, both relative."""
    return Path(RENAMED.get(path.as_posix(), path))


def repository() -> str:
    """Return the repository's address, from the one place that holds it."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return settings["project"]["urls"]["Repository"].rstrip("/")


def stage(source: Path, files: Path, packages: Path) -> None:
    """Write the pages into `source`, and their figures into `files`, which becomes part of the book's root."""
    terms = glossary_terms((ROOT / "docs" / "glossary.md").read_text(encoding="utf-8"))
    for path in pages():
        target = source / page_name(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".ipynb":
            figures = Figures(files, path)
            notebook = staged_notebook(nbformat.read(ROOT / path, as_version=4), path, terms, figures)
            nbformat.write(notebook, target)
        else:
            text = (ROOT / path).read_text(encoding="utf-8")
            target.write_text(staged_text(text, path, terms, packages), encoding="utf-8")
    shutil.copytree(ROOT / "docs", source / "docs", ignore=lambda _, names: [n for n in names if n.endswith(".md")],
                    dirs_exist_ok=True)  # fmt: skip


def staged_text(text: str, path: Path, terms: dict[str, str], packages: Path) -> str:
    """Return the text of a page of Markdown as the book has it."""
    if path == Path("docs/glossary.md"):
        text = as_glossary(text, terms)
    text = with_book_links(text, path)
    text = re.sub(r"^```mermaid\n(.*?)^```$", lambda found: drawn(found[1], path, packages), text, flags=re.M | re.S)
    if path == Path("README.md"):
        frame = (BOOK / "index.md").read_text(encoding="utf-8")
        text = frame.replace("<!-- README -->", text)
    return text


def drawn(diagram: str, path: Path, packages: Path) -> str:
    """Return a Mermaid diagram as a picture in the page's own HTML, which needs no program to show it."""
    try:
        return f"```{{raw}} html\n{diagram_html(diagram, BOOK / 'diagram.cjs', packages)}\n```"
    except Unreadable as error:
        raise BookError(f"{path}: {error}") from error


def staged_notebook(notebook: NotebookNode, path: Path, terms: dict[str, str], figures: Figures) -> NotebookNode:
    """Return a notebook as the book has it: figures as files, widgets as pictures, terms and links leading on."""
    state = notebook.metadata.pop("widgets", {}).get(WIDGET_STATE, {}).get("state", {})
    linked: set[str] = set()
    notebook.cells = [cell for cell in notebook.cells if cell.id != SETUP]  # only matters where a notebook came alone
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            text = with_book_links(cell.source, path)
            cell.source = with_terms(text, terms, linked) if path.parts[0] == "notebooks" else text
        elif cell.cell_type == "code":
            outputs = (still(output, state) for output in cell.outputs)
            cell.outputs = [figures.outside(output) for output in outputs if output is not None]
    return notebook


# Links ------------------------------------------------------------------------------------------------------------


def with_book_links(text: str, path: Path) -> str:
    """Return a page's text with its links right for the book.

    A link to another page leads to it, one to another file of the repository to the file's address there. Pictures
    from other hosts, such as badges, give way to their descriptions: no page loads anything from elsewhere.
    The badge that leads to the book is left out.
    """
    here = page_name(path).parent

    def moved(found: re.Match) -> str:
        target, hash_sign, anchor = found[2].partition("#")
        if not target or ELSEWHERE.match(target):
            return found[0]
        file = (ROOT / path.parent / target).resolve()
        if not file.exists() or not file.is_relative_to(ROOT):
            return found[0]  # Sphinx will say that it leads nowhere
        inside = file.relative_to(ROOT)
        if inside in known or found[0].startswith("!"):
            address = Path(os.path.relpath(page_name(inside), here)).as_posix()
        else:
            address = f"{repository()}/{'tree' if file.is_dir() else 'blob'}/{BRANCH}/{inside.as_posix()}"
        return f"{found[1]}{address}{hash_sign}{anchor}{found[3]}"

    known = set(pages())
    text = BOOK_BADGE.sub("", text)
    text = outside_of(lambda part: re.sub(r"!\[([^\]]*)\]\(https?:[^)]*\)", r"\1", part), text)
    return outside_of(lambda part: LINK.sub(moved, part), text)


def outside_of(change: Callable[[str], str], text: str, skipped: re.Pattern = FENCED) -> str:
    """Return the text with the parts changed that `skipped` does not match."""
    parts = skipped.split(text)
    return "".join(part if i % 2 else change(part) for i, part in enumerate(parts))


# Glossary ---------------------------------------------------------------------------------------------------------


def glossary_terms(text: str) -> dict[str, str]:
    """Return the glossary's terms by every name that a text may use: short forms, plurals, small letters."""
    names: dict[str, str] = {}
    for line in text.splitlines():
        if found := ENTRY.match(line):
            for name in filter(None, (found["term"], found["short"])):
                names |= {f"{name.casefold()}{ending}": found["term"] for ending in ("", "s", "d")}
    return names


def as_glossary(text: str, terms: dict[str, str]) -> str:
    """Return the page of the glossary with its list as Sphinx's glossary, words in italics leading to their terms."""
    lines, items = [], []
    for line in text.splitlines():
        if found := ENTRY.match(line):
            names = [name for name in (found["term"], found["short"]) if name]
            items += [*names, f"  {with_terms(found['text'], terms, None, '*')}", ""]
        else:
            lines.append(line)
    return "\n".join([*lines, "", "```{glossary}", *items, "```", ""])


def with_terms(text: str, terms: dict[str, str], linked: set[str] | None, mark: str = "**") -> str:
    """Return the text with words between marks that are terms leading to the glossary.

    Args:
        terms: as from `glossary_terms`.
        linked: the terms that were linked before and need it no more, added to; None links them every time.
    """

    def named(found: re.Match) -> str:
        term = terms.get(" ".join(found[1].split()).casefold())
        if term is None or (linked is not None and term in linked):
            return found[0]
        if linked is not None:
            linked.add(term)
        return f"{mark}{{term}}`{found[1]} <{term}>`{mark}"

    star = re.escape(mark)
    pattern = re.compile(rf"(?<![*\w]){star}([^*`<>]+){star}(?![*\w])")
    return outside_of(lambda part: pattern.sub(named, part), text, TEXT_SKIPPED)


# Figures and widgets ----------------------------------------------------------------------------------------------


class Figures:
    """The figures of one notebook, as files with their size and description."""

    def __init__(self, files: Path, path: Path) -> None:
        self.folder = files / "figures" / path.stem
        self.address = os.path.relpath(f"figures/{path.stem}", page_name(path).parent)
        self.numbers = count(1)

    def outside(self, output: NotebookNode) -> NotebookNode:
        """Return the output with the pictures in its HTML as files beside the page."""
        if html := output.get("data", {}).get("text/html"):
            output.data["text/html"] = re.sub(EMBEDDED, self._written, html)
        return output

    def _written(self, found: re.Match) -> str:
        kind, image = found[1], base64.b64decode(found[2])
        if kind == "png":
            width, height = struct.unpack(">II", image[16:24])  # its first chunk begins with them
        else:
            width, height = re.search(r'viewBox="0 0 (\d+) (\d+)"', image.decode()).groups()
        self.folder.mkdir(parents=True, exist_ok=True)
        name = f"{next(self.numbers):02}.{kind}"
        (self.folder / name).write_bytes(image)
        return f'src="{self.address}/{name}" width="{width}" height="{height}" loading="lazy"'


def still(output: NotebookNode, state: dict) -> NotebookNode | None:
    """Return an output that shows without a kernel, or None where nothing is to be seen (a bar of progress)."""
    view = output.get("data", {}).get(WIDGET_VIEW)
    if view is None or "text/html" in output.data:
        return shown(output, state)
    parts = list(widget_html(view["model_id"], state))
    is_progress = any(model.endswith("ProgressModel") for model in models_of(view["model_id"], state))
    if is_progress or not any(map(str.strip, parts)):
        return None
    controls = [part for part in parts if part.startswith("<code>")]
    shows = [part for part in parts if not part.startswith("<code>")]
    note = f'<p class="widget-controls">Controls, live in the notebook: {" ".join(controls)}</p>' if controls else ""
    output.data = nbformat.from_dict({"text/html": f'<div class="widget-still">{note}{"".join(shows)}</div>'})
    return output


def models_of(name: str, state: dict) -> Iterator[str]:
    """Yield the names of the models that a stored widget consists of."""
    if model := state.get(name):
        yield model["model_name"]
        for child in model["state"].get("children", []):
            yield from models_of(child.removeprefix("IPY_MODEL_"), state)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
