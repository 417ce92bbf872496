"""A row as its tokens and labels, to look at."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from ..errors import CourseError
from ..lm.types import Tokenizer
from ..show.html import Markup
from .rows import IGNORED

BOX = "display:inline-block; text-align:center; border-radius:4px; padding:1px 6px; margin:2px; color:#111"
LETTERS = "font-family:monospace"  # no <code>: themes give it colours of their own, too pale on grey
FILLS = {False: "background:#E5E5E5; border:1px solid #7F7F7F", True: "background:#F8E6BF; border:1px solid #E69F00"}


def label_chips(tokenizer: Tokenizer, ids: Sequence[int], labels: Sequence[int]) -> Markup:
    """Return a box for each token, its label below: grey where that is -100, yellow where the token counts. HTML.

    Raises CourseError where tokens and labels differ in number.
    """
    if len(ids) != len(labels):
        raise CourseError(f"{len(ids)} tokens came with {len(labels)} labels.", "give one label to each token.")

    def written(token: int) -> str:
        return escape(tokenizer.decode([token]).replace("\n", "↵").replace(" ", "␣"))

    boxes = []
    for token, label in zip(ids, labels):
        below = "−100" if label == IGNORED else written(label)
        style = f"{BOX}; {FILLS[label != IGNORED]}"
        boxes.append(f'<span style="{style}"><span style="{LETTERS}">{written(token)}</span><br>{below}</span>')
    counted = sum(label != IGNORED for label in labels)
    told = f"{len(labels)} tokens: {counted} count, {len(labels) - counted} are masked."
    return Markup(f'<div style="line-height:1.5">{"".join(boxes)}<br>{told}</div>')
