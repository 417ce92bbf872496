"""Texts and tables as HTML. What a learner typed stays text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape

from ..errors import BadData

CHIP = "display:inline-block; color:#111; border:1px solid #777; border-radius:4px; padding:0 5px; margin:2px"
CELL = 'style="text-align:left; padding:2px 10px"'


class Markup(str):
    """HTML that is ready: `table` passes it through, where every other text is escaped."""


def require_whole(text: str) -> None:
    """Raise BadData where a text holds half a character (a lone surrogate), which no tokenizer can read."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadData(f"character {error.start + 1} is half of one ({text[error.start]!a}).", "delete it.") from error


def text_block(text: str) -> str:
    """Return a text, line by line, as HTML."""
    return f"<pre style='background:#F3F3F3;color:#111;padding:8px;white-space:pre-wrap'>{escape(text)}</pre>"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table as HTML: of texts, and where a cell is `Markup` of that."""
    top = "".join(f"<th {CELL}>{escape(cell, quote=False)}</th>" if cell else f"<td {CELL}></td>" for cell in head)
    body = ("<tr>" + "".join(f"<td {CELL}>{_whole(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{top}</tr>{''.join(body)}</table>"


def chips(parts: Iterable[tuple[str, float]]) -> Markup:
    """Return texts in a row, each with its share from 0 to 1, as a number and as a shade from white to blue."""
    shown = []
    for text, share in parts:
        shade = ",".join(f"{255 - share * (255 - channel):.0f}" for channel in (0x56, 0xB4, 0xE9))
        shown.append(f'<span style="{CHIP}; background:rgb({shade})"><code>{escape(text)}</code> {share:.2f}</span>')
    return Markup("".join(shown))


def columns(counts: Mapping[str, int], most: int, chosen: str, *, title: str, xlabel: str) -> Markup:
    """Return counts from 0 to `most` as columns with a name below each; the chosen one is dark.

    It is HTML and no image, quick enough to draw while a slider moves.
    """
    bars = []
    for name, count in counts.items():
        colour, weight = ("#0072B2", "bold") if name == chosen else ("#B5D3E7", "normal")
        bar = f'<div style="height:{max(2, round(110 * count / most))}px; background:{colour}; margin:0 12%"></div>'
        bars.append(f'<div style="flex:1; font-weight:{weight}">{count}{bar}{escape(name)}</div>')
    told = ", ".join(f"{count} at {escape(name)}" for name, count in counts.items())
    return Markup(
        f'<div role="img" aria-label="Column chart. {escape(title)}. Of {most}, by {escape(xlabel)}: {told}." '
        'style="background:#FFF; color:#222; padding:8px; max-width:34em; text-align:center">'
        f'<div style="text-align:left"><b>{escape(title)}</b></div>'
        f'<div style="display:flex; align-items:flex-end">{"".join(bars)}</div>{escape(xlabel)}</div>'
    )


def _whole(cell: str) -> str:
    return cell if isinstance(cell, Markup) else escape(cell)
