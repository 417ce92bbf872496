"""Where each lesson opens: badges in the README and the lessons, and the cell that sets a lesson up on Colab.

    python tools/places.py             write all of it from the address in pyproject.toml (make places)
    python tools/places.py --check     change nothing; exit status 1 where a file says something else

After changing `[project.urls] Repository`, run it once. Stored outputs are kept: no notebook is run.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tomllib
from collections.abc import Sequence
from html import escape
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell

ROOT = Path(__file__).resolve().parents[1]
REF = "main"  # the branch that Binder and Colab open
NOT_YET = ()  # lessons without badges; empty when every lesson has them
BADGES, SETUP = "places-badges", "places-setup"  # the ids of the two cells
BEGIN, END = "<!-- places: written by `make places` -->", "<!-- /places -->"
FIRST_LESSON = "00_start_here"
SVG = """\
<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="20" role="img" aria-label="{label}">
<title>{label}</title>
<rect width="{width}" height="20" rx="3" fill="{colour}"/>
<text x="{middle}" y="14" fill="#fff" text-anchor="middle" textLength="{length}"
 font-family="Verdana,DejaVu Sans,sans-serif" font-size="11">{label}</text>
</svg>
"""
# File, text, colour. White on each of the colours has a contrast of more than 4.5 to 1.
PICTURES = (
    ("colab", "Open in Colab", "#8a4b00"),
    ("binder", "Open in Binder", "#7a3e6d"),
    ("book", "Read in the book", "#0a5c8a"),
)
SETUP_SOURCE = """\
# Where only this notebook was opened (Colab): install the course. Where it is set up already, this does nothing.
try:
    from rapidadapt_lessons.setup import colab
except ImportError:
    %pip install --quiet --no-deps git+{repository}@{ref}
    from rapidadapt_lessons.setup import colab
colab.install({built})"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Write, or check, and return the exit status."""
    parser = argparse.ArgumentParser(description="Write badges and the Colab cell into the README and the lessons.")
    parser.add_argument("lessons", nargs="*", type=Path, help="notebooks; all lessons when left out")
    parser.add_argument("--check", action="store_true", help="change nothing; say what would change")
    chosen = parser.parse_args(arguments)
    changed = {path: text for path, text in planned(chosen.lessons or lessons()).items() if read(path) != text}
    for path, text in changed.items():
        print(f"{path.relative_to(ROOT)}{' is out of date: run `make places`' if chosen.check else ''}")
        if not chosen.check:
            write(path, text)
    return int(chosen.check and bool(changed))


def planned(notebooks: Sequence[Path]) -> dict[Path, str]:
    """Return the text that each file should have, by its path: README, badges, and the notebooks."""
    address = repository()
    readme = ROOT / "README.md"
    files = {readme: with_readme_badges(readme.read_text(encoding="utf-8"), address)}
    for name, label, colour in PICTURES:
        files[ROOT / "docs" / "badges" / f"{name}.svg"] = picture(label, colour)
    for path in notebooks:
        notebook = with_places(nbformat.read(path, as_version=4), path.stem, address)
        files[path.resolve()] = nbformat.writes(notebook) + "\n"
    return files


def lessons() -> list[Path]:
    """Return the lessons that have badges."""
    return [path for path in sorted((ROOT / "notebooks").glob("*.ipynb")) if path.name not in NOT_YET]


def repository() -> str:
    """Return the repository's address, from pyproject.toml, the one place that holds it.

    Raises:
        ValueError: it is not that of a GitHub repository, which is what Binder's and Colab's addresses are made of.
    """
    address = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]["Repository"]
    owner_and_name(address)
    return address


def owner_and_name(address: str) -> tuple[str, str]:
    """Return a repository's owner and name.

    >>> owner_and_name("https://github.com/ada/engine")
    ('ada', 'engine')

    Raises:
        ValueError: the address is of another form.
    """
    found = re.fullmatch(r"https://github\.com/([\w.-]+)/([\w.-]+?)", address)
    if not found or address.endswith((".git", "/")):
        raise ValueError(f"Repository is {address!r} in pyproject.toml. Give it as https://github.com/OWNER/NAME.")
    return found[1], found[2]


def opened_at(stem: str, address: str) -> dict[str, str]:
    """Return where a lesson opens, by the badge's name: on Colab, on Binder, and as a page of the book."""
    owner, name = owner_and_name(address)
    return {
        "colab": f"https://colab.research.google.com/github/{owner}/{name}/blob/{REF}/notebooks/{stem}.ipynb",
        "binder": f"https://mybinder.org/v2/gh/{owner}/{name}/{REF}?urlpath=lab/tree/notebooks/{stem}.ipynb",
        "book": f"https://{owner}.github.io/{name}/notebooks/{stem}.html",
    }


def badges(stem: str, address: str, pictures: str) -> str:
    """Return a line of Markdown with the badges; `pictures` is the way to their folder."""
    there = opened_at(stem, address)
    return " ".join(f"[![{label}]({pictures}/{name}.svg)]({there[name]})" for name, label, _ in PICTURES)


def picture(label: str, colour: str) -> str:
    """Return a badge's picture. It lies in the project, so that reading a lesson asks nobody on the network."""
    length = round(6.6 * len(label))
    return SVG.format(label=escape(label), colour=colour, length=length, width=length + 16, middle=length / 2 + 8)


def setup_source(notebook: NotebookNode, address: str, ref: str = REF) -> str:
    """Return the code of the cell that sets a lesson up where only its notebook was opened."""
    needs = any(re.search(r"\bl2l\b", cell.source) for cell in notebook.cells if cell.cell_type == "code")
    return SETUP_SOURCE.format(repository=address, ref=ref, built='"learn2learn"' if needs else "")


def with_places(notebook: NotebookNode, stem: str, address: str) -> NotebookNode:
    """Return the lesson with its two cells behind the first one, and its cells' numbers in order again."""
    cells = [cell for cell in notebook.cells if cell.get("id") not in (BADGES, SETUP)]
    line = new_markdown_cell(badges(stem, address, "../docs/badges"), id=BADGES)
    setup = new_code_cell(setup_source(notebook, address), id=SETUP)
    notebook.cells = [*cells[:1], line, setup, *cells[1:]]
    renumber(notebook)
    return notebook


def renumber(notebook: NotebookNode) -> None:
    """Number the code cells, and the results that they show, from 1 on, as a run from the top does."""
    for number, cell in enumerate((cell for cell in notebook.cells if cell.cell_type == "code"), start=1):
        cell.execution_count = number
        for output in cell.outputs:
            if "execution_count" in output:
                output.execution_count = number


def with_readme_badges(readme: str, address: str) -> str:
    """Return the README with the badges of the first lesson, below its title where it has none yet."""
    block = f"{BEGIN}\n{badges(FIRST_LESSON, address, 'docs/badges')}\n{END}"
    if BEGIN in readme:
        return re.sub(f"{re.escape(BEGIN)}.*?{re.escape(END)}", lambda _: block, readme, count=1, flags=re.DOTALL)
    title, _, rest = readme.partition("\n")
    return f"{title}\n\n{block}\n{rest}"


def read(path: Path) -> str:
    """Return a file's text, or nothing where there is no file."""
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def write(path: Path, text: str) -> None:
    """Write a file in place of the old one, at one stroke."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.new")
    new.write_text(text, encoding="utf-8")
    os.replace(new, path)


if __name__ == "__main__":
    sys.exit(main())
