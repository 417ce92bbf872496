"""What a lesson consists of: its texts, where each stands, the takeaways among them, its figures, what it prints."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import nbformat
from markdown_it import MarkdownIt
from markdown_it.token import Token
from mdit_py_plugins.dollarmath import dollarmath_plugin
from nbformat import NotebookNode


@dataclass(frozen=True)
class Text:
    """A paragraph, a heading or a cell of a table.

    Attributes:
        cell: the notebook's cell, from 0.
        section: the last second-level heading, or "header" before the first.
        kind: "prose" (a paragraph, in a list too), "title" (a heading or a table's cell) or "aside" (in a fold-out or
            among the references).
        token: the parser's, of type "inline".
        words: what it says without markup, code and mathematics a single ▪ each.
    """

    cell: int
    section: str
    kind: str
    token: Token
    words: str


@dataclass(frozen=True)
class Takeaway:
    """A paragraph that is bold as a whole, or is held by a claim, and what the comment on its line names.

    Attributes:
        lesson: the notebook's name without its ending.
        section: its number, such as "1.5", or its heading where it has none.
        sentence: what it says, without markup.
        claim, proof: what holds it.
        bold: whether it is a section's one takeaway, and not a lesser result.
    """

    lesson: str
    section: str
    sentence: str
    claim: str | None = None
    proof: str | None = None
    bold: bool = True


def tokens(source: str) -> list[Token]:
    """Return the tokens of a Markdown text, its tables and its mathematics among them."""
    return _parser().parse(source)


def plain(token: Token, literal: bool = True) -> str:
    """Return an inline token's words without markup; unless literal, code and mathematics are a single ▪ each."""
    parts = []
    for child in token.children or ():
        if child.type == "code_inline" or child.type.startswith("math"):
            parts.append(child.content if literal else "▪")
        elif child.type == "text":
            parts.append(child.content)
        elif child.type in ("softbreak", "hardbreak"):
            parts.append(" ")
    return " ".join("".join(parts).split())


def texts(cells: list[NotebookNode]) -> Iterator[Text]:
    """Yield the texts of a notebook's cells in order. A fold-out ends with its cell, where browsers end it too."""
    section = "header"
    for i, cell in enumerate(cells):
        depth, parent = 0, None
        for token in tokens(cell.source) if cell.cell_type == "markdown" else ():
            if token.type == "html_block":
                depth += token.content.count("<details") - token.content.count("</details")
            if token.type == "inline":
                if parent.type == "heading_open" and parent.tag == "h2":
                    section = plain(token)
                aside = depth > 0 or re.match("References|Sources|Further reading", section)
                kind = "aside" if aside else "prose" if parent.type == "paragraph_open" else "title"
                yield Text(i, section, kind, token, plain(token, literal=False))
            parent = token


def number(section: str) -> str | None:
    """Return the number that a section's heading begins with, such as "1.5"."""
    found = re.match(r"\d+\.\d+\b", section)
    return found[0] if found else None


def takeaways(notebook: Path) -> list[Takeaway]:
    """Return a lesson's takeaways in order: paragraphs outside fold-outs and lists that are bold as a whole, and those
    of plain text, in lists too, that a comment as below ends.

    A comment behind the bold text may name what holds it, `<!-- claim: ID -->` or `<!-- proof: FILE::TEST -->`. A bold
    line that ends in a colon introduces what follows, and is none.
    """
    return takeaways_among(list(texts(nbformat.read(notebook, as_version=4).cells)), notebook.stem)


def takeaways_among(written: list[Text], lesson: str) -> list[Takeaway]:
    """Return the takeaways among the texts of a lesson, as `takeaways`."""
    found = []
    for text in written:
        # The parser puts an empty text on either side of bold.
        inside = [token for token in text.token.children or () if token.type != "text" or token.content.strip()]
        if text.kind != "prose" or not inside:
            continue
        sentence, rest, bold = plain(text.token), inside, False
        if text.token.level == 1 and inside[0].type == "strong_open":
            closed = next(i for i, token in enumerate(inside) if (token.type, token.level) == ("strong_close", 0))
            rest = inside[closed + 1 :]
            bold = not sentence.endswith(":") and all(token.type in ("html_inline", "softbreak") for token in rest)
        comments = " ".join(token.content for token in rest)
        held = dict(re.findall(r"<!--\s*(claim|proof):\s*(\S+)\s*-->", comments))
        if bold or held:
            found.append(Takeaway(lesson, number(text.section) or text.section, sentence, bold=bold, **held))
    return found


def count_words(text: str) -> int:
    """Return how many words a text has: what holds a letter, a digit, or a piece of code or mathematics."""
    return len(re.findall(r"\S*[\w▪]\S*", text))


def parentheses(text: str) -> list[str]:
    """Return what stands in parentheses, also in those inside others. A bare year is a citation's, and left out."""
    found, begun = [], []
    for i, letter in enumerate(text):
        if letter == "(":
            begun.append(i + 1)
        elif letter == ")" and begun:
            found.append(text[begun.pop() : i])
    return [inside for inside in found if not re.fullmatch(r"\d{4}[a-z]?", inside)]


def sentences(text: str) -> list[str]:
    """Return a text's sentences: each ends in . ! or ? before something that can begin one."""
    return re.split(r"(?<=[.!?])[\"”’)]*\s+(?=[\"“‘(]*[A-Z0-9▪])", text)


def figures(cells: list[NotebookNode], written: list[Text]) -> Iterator[tuple[int, str]]:
    """Yield each figure's cell and its description: stored images but for widgets', Markdown's but for badges."""
    for i, cell in enumerate(cells):
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if any(kind.startswith("image/") for kind in data) and not any("widget-view" in kind for kind in data):
                yield i, str(data.get("text/plain", ""))
            elif "data:image/svg+xml" in data.get("text/html", ""):
                yield i, f"Schematic. {data['text/plain']}"
    for text in written:
        for token in text.token.children or ():
            if token.type == "image" and "badges/" not in str(token.attrs["src"]):
                yield text.cell, token.content


def verdicts(cell: NotebookNode) -> Iterator[str]:
    """Yield the printed lines that say True or False, but for arguments as in `inplace=False`."""
    for output in cell.outputs:
        shown = (
            output.get("text", "") if output.output_type == "stream" else output.get("data", {}).get("text/plain", "")
        )
        yield from (line for line in shown.splitlines() if re.search(r"(?<![=\w])(?:True|False)\b", line))


@cache
def _parser() -> MarkdownIt:
    return MarkdownIt("commonmark").enable("table").use(dollarmath_plugin, double_inline=True)
