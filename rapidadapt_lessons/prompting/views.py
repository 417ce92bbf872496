"""What the widgets of lessons 0 and 1 show: one plain function each, values in, HTML out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import prod

from ..lm.tasks import Example, load_task
from ..lm.types import Model, Tokenizer
from ..show.html import Markup, chips, columns, table, text_block
from ..show.plots import horizontal_bars
from .answers import Answer, AnswerToken, answer_tokens, best_answers
from .prompts import reorder, task_prompts
from .scoring import count_tokens, generate_answers, next_tokens


def next_token_view(model: Model, tokenizer: Tokenizer, text: str, k: int = 10) -> str:
    """Show the k most probable next tokens after a text as bars. Raises: as `scoring.next_tokens`."""
    found: dict[str, float] = {}
    for token, p in next_tokens(model, tokenizer, text, k):
        # Different tokens can read alike: those that are part of a character all print as the same mark.
        alike = sum(name.startswith(repr(token)) for name in found)
        found[f"{token!r} ({alike + 1})" if alike else repr(token)] = p
    end = (text.strip().splitlines() or [text])[-1][-40:]
    title = f"What comes after “{'… ' if end != text else ''}{end}”?"
    return horizontal_bars(found, title=title, xlabel="probability of the next token", limit=1.1).html()


def prompt_view(
    model: Model,
    tokenizer: Tokenizer,
    task_name: str,
    shots: int,
    template: str = "arrow",
    order_seed: int = 0,
    draw: int = 0,
) -> str:
    """Show one prompt, the model's answer to each of twelve queries with its probability, and the accuracy.

    An answer opens to the probability of each of its tokens, and where it is wrong to the correct answer's too.
    The template is a name from `templates_for`, or "chat"; `order_seed` is as for `reorder`; `draw` draws the examples.
    Raises UnknownTask, NotEnoughExamples, and CourseError for an unknown template.
    """
    return _asked(model, tokenizer, task_name, shots, template, order_seed, draw).html(draw)


def shots_view(
    model: Model,
    tokenizer: Tokenizer,
    task_name: str,
    shots: int,
    draw: int = 0,
    template: str = "arrow",
    *,
    kept: dict,
    most: int = 8,
) -> str:
    """Show `prompt_view` under columns: how many of twelve queries are right with 0 to `most` examples of this draw.

    The answers of all these prompts are computed at the first call and put into `kept`, an empty dictionary at first,
    which the caller passes every time: then moving a slider from 0 to `most` computes nothing.
    Raises as `prompt_view`.
    """
    asked = []
    for n in range(most + 1):
        key = task_name, template, n, draw if n else None  # without examples every draw is the same
        if key not in kept:
            kept[key] = _asked(model, tokenizer, task_name, n, template, 0, draw)
        asked.append(kept[key])
    one, right = asked[shots], {f"{n}": one.right for n, one in enumerate(asked)}
    title = f"{shots} example{'s' * (shots != 1)}: {one.right} of {len(one.queries)} right"
    chart = columns(right, len(one.queries), f"{shots}", title=title, xlabel="examples in the prompt")
    return chart + one.html(draw)


@dataclass(frozen=True)
class _Asked:
    """A prompt for each query of a task, and what the model answers, one entry for each query."""

    title: str  # the task's
    queries: Sequence[Example]
    prompt: str  # the first query's
    length: int  # of that prompt, in tokens
    answers: Sequence[Answer]
    tokens: Sequence[Sequence[AnswerToken]]  # of the model's answers
    correct: Sequence[Sequence[AnswerToken]]  # of the correct answers

    @property
    def right(self) -> int:
        return sum(answer.text == query.y for answer, query in zip(self.answers, self.queries))

    def html(self, draw: int) -> str:
        rows = []
        for query, answer, tokens, correct in zip(self.queries, self.answers, self.tokens, self.correct):
            is_right = answer.text == query.y
            opened = f"<div>{_token_chips(tokens)}</div>"
            opened += "" if is_right else f"<div>correct: {_token_chips(correct)}</div>"
            said = Markup(f"<details><summary>{escape(answer.text) or '(nothing)'}</summary>{opened}</details>")
            rows.append((query.x, said, f"{answer.probability:.2f}", "yes" if is_right else f"no: {query.y}"))
        told = f"{self.right} of {len(rows)} right; {self.length} tokens in the first prompt."
        return (
            f"<p><b>{escape(self.title)}</b>, draw {draw}: {told}</p>{text_block(self.prompt)}"
            "<p>Open an answer to see the probability of each of its tokens.</p>"
            + table(("query", "the model's answer", "its probability", "right?"), rows)
        )


def _asked(
    model: Model, tokenizer: Tokenizer, task_name: str, shots: int, template: str, order_seed: int, draw: int
) -> _Asked:
    """Ask the first twelve queries of a task. Arguments and errors as for `prompt_view`."""
    task = load_task(task_name)
    episode = task.episode(shots, seed=draw, n_query=12)
    prompts = task_prompts(tokenizer, task, episode.query, reorder(episode.support, order_seed), template)
    expected = [query.y for query in episode.query]
    correct = answer_tokens(model, tokenizer, prompts, expected)
    if task.labels:
        answers = best_answers(model, tokenizer, prompts, task.labels)
        tokens = answer_tokens(model, tokenizer, prompts, [answer.text for answer in answers])
    else:
        # Where each token of the correct answer is the most probable one, it is what the model writes.
        texts, tokens = [*expected], [*correct]
        wrong = [i for i, own in enumerate(correct) if not all(token.is_best for token in own)]
        others = [prompts[i] for i in wrong]
        written = generate_answers(model, tokenizer, others, max_new_tokens=12)
        for i, text, own in zip(wrong, written, answer_tokens(model, tokenizer, others, written)):
            texts[i], tokens[i] = text, own
        answers = [Answer(text, prod(token.probability for token in own)) for text, own in zip(texts, tokens)]
    length = count_tokens(tokenizer, prompts[0].text)
    return _Asked(task.title, episode.query, prompts[0].text, length, answers, tokens, correct)


def _token_chips(tokens: Sequence[AnswerToken]) -> str:
    names = [*(repr(token.text) for token in tokens[:-1]), "the end"]
    return chips(zip(names, (token.probability for token in tokens)))
