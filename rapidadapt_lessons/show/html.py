"""Texts and tables as HTML. What a learner typed stays text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from ..errors import BadData

CELL = 'style="text-align:left; padding:2px 10px"'


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
    """Return a table of texts as HTML."""
    top = "".join(f"<th {CELL}>{escape(cell, quote=False)}</th>" if cell else f"<td {CELL}></td>" for cell in head)
    body = ("<tr>" + "".join(f"<td {CELL}>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{top}</tr>{''.join(body)}</table>"
