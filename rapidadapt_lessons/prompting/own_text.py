"""A reader's own lines of text as pairs and as a task, for the playgrounds."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import BadData
from ..lm.tasks import Example, Task
from ..lm.types import Tokenizer
from ..show.html import require_whole
from .prompts import template_of
from .scoring import count_tokens

MOST_LABELS = 8  # a file with more different answers is no choice between labels
MOST_PAIRS = 32
MOST_PAIR_TOKENS = 100
READ, PROMPTS, EVERY = "only read them", "try the prompts", "try every way"


def read_lines(text: str, most: int = MOST_PAIRS) -> list[Example]:
    """Return the pairs of a text: a line each, what the model reads, a comma, what it should answer.

    A line's last comma counts. Empty lines are left out; runs of white space become one space.
    Raises BadData where a line lacks a side, there are more than `most`, or the text holds half a character.
    """
    require_whole(text)
    pairs, faulty = [], []
    for number, line in enumerate(text.split("\n"), start=1):
        x, _, y = (" ".join(part.split()) for part in line.rpartition(","))
        if x and y:
            pairs.append(Example(x, y))
        elif line.strip():
            faulty.append(f"line {number} is {line.strip()[:40]!r}")
    if faulty:
        raise BadData(f"{'; '.join(faulty[:3])}.", 'write "what the model reads, what it should answer" in each line.')
    if len(pairs) > most:
        raise BadData(f"there are {len(pairs)} pairs; {most} is the most here.", "delete some.")
    return pairs


def own_task(template: str, pairs: Sequence[Example], labels: Sequence[str] = (), instruction: str = "") -> Task:
    """Return a task without queries. Raises BadPrompt for a faulty template, BadData for more than MOST_LABELS."""
    instruction = instruction.strip() or "Answer as in the examples."
    if len(labels) > MOST_LABELS:
        raise BadData(f"there are {len(labels)} labels; {MOST_LABELS} is the most here.", "delete some.")
    task = Task(
        name="yours", title="yours", instruction=instruction, cue=template.strip(),
        question=f"{instruction} {{x}}", source="typed", support_pool=tuple(pairs), query_set=(), labels=tuple(labels),
    )  # fmt: skip
    template_of(task)  # raises where it is faulty
    return task


def require_few_tokens(tokenizer: Tokenizer, texts: Sequence[str]) -> None:
    """Raise BadData for a text of more than MOST_PAIR_TOKENS tokens."""
    for text in texts:
        if (tokens := count_tokens(tokenizer, text)) > MOST_PAIR_TOKENS:
            raise BadData(f"{text[:40]!r} has {tokens} tokens; {MOST_PAIR_TOKENS} is the most here.", "shorten it.")
