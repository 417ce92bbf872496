"""An experience, its rows to train on and its rows to measure, and the experiences of tasks and domains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..errors import CourseError
from ..lm.tasks import load_task
from ..lm.texts import load_domain
from ..lm.types import Tokenizer
from ..prompting.prompts import Template, build_prompts
from .rows import Row, answer_rows, text_rows


@dataclass(frozen=True)
class Experience:
    """One domain or task of a stream: examples to learn from, and others to be measured on."""

    name: str
    train: tuple[Any, ...]
    test: tuple[Any, ...]


def task_experience(
    tokenizer: Tokenizer, name: str, *, pattern: str | None = None, train: int = 40, test: int = 24, seed: int = 0
) -> Experience:
    """Return a text task as an experience of a stream; `train` of its examples are drawn by the seed.

    `pattern` is the prompt's, with {x} and {y}, such as "{x} -> {y}"; None for the task's own cue. Raises as
    `tasks.load_task`, `Task.episode` and `prompting.Template`.
    """
    task = load_task(name)
    episode = task.episode(train, seed=seed, n_query=test)
    template = Template(pattern or task.cue)

    def rows(examples) -> tuple[Row, ...]:
        prompts = build_prompts(examples, template=template)
        return tuple(answer_rows(tokenizer, prompts, [example.y for example in examples]))

    return Experience(name, rows(episode.support), rows(episode.query))


def domain_experience(
    tokenizer: Tokenizer, name: str, *, train: int = 80, test: int = 16, length: int = 48
) -> Experience:
    """Return a domain of running text as an experience of a stream, in rows of `length` tokens.

    Raises as `texts.load_domain` and `rows.text_rows`; CourseError where the domain has too little text.
    """
    domain = load_domain(name)
    sides = []
    for documents, count in ((domain.train, train), (domain.held_out, test)):
        rows = text_rows(tokenizer, "\n\n".join(documents), length)
        if len(rows) < count:
            raise CourseError(f"{name!r} has {len(rows)} rows of {length} tokens, not {count}.", "ask for fewer.")
        step = len(rows) // count  # from all over the domain, not only its first documents
        sides.append(tuple(rows[::step][:count]))
    return Experience(name, *sides)
