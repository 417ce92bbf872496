"""Which label, or which text, and how probable: what a model answers to a prompt (lessons 1 and 2)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from ..errors import CourseError
from ..lm.tasks import Example, Task
from ..lm.types import Model, Tokenizer
from . import calibration, scoring
from .prompts import Prompt, build_prompts, template_of


class Answer(NamedTuple):
    """What the model answers, and how probable it finds that, 0 to 1."""

    text: str
    probability: float


class AnswerToken(NamedTuple):
    """A token of an answer, how probable it is after those before it, and whether no other is more probable."""

    text: str
    probability: float
    is_best: bool


def best_answers(
    model: Model,
    tokenizer: Tokenizer,
    prompts: Sequence[Prompt],
    labels: Sequence[str] = (),
    *,
    prior: Tensor | None = None,
    max_new_tokens: int = 12,
) -> list[Answer]:
    """Return the model's answer to each prompt.

    With labels that is the likeliest one, its probability taken among the labels; without, it is the greedy answer,
    its probability taken among all possible texts.

    `prior` is as for `label_scores`; `max_new_tokens` counts where there are no labels.
    """
    if labels:
        best = label_scores(model, tokenizer, prompts, labels, prior).max(-1)
        return [Answer(labels[i], p) for i, p in zip(best.indices.tolist(), best.values.tolist())]
    texts = scoring.generate_answers(model, tokenizer, prompts, max_new_tokens=max_new_tokens)
    return [Answer(*pair) for pair in zip(texts, text_probabilities(model, tokenizer, prompts, texts))]


def answered_right(
    model: Model,
    tokenizer: Tokenizer,
    task: Task,
    queries: Sequence[Example],
    support: Sequence[Example] = (),
    *,
    prior: Tensor | None = None,
) -> tuple[bool, ...]:
    """Say for each query whether the model, with the support in its prompt, answers it right.

    `prior` is as for `label_scores`. Raises CourseError where there is one, but the task has no labels.
    """
    prompts = build_prompts(queries, support, template_of(task))
    if task.labels:
        found = best_answers(model, tokenizer, prompts, task.labels, prior=prior)
        return tuple(answer.text == q.y for answer, q in zip(found, queries))
    if prior is not None:
        raise CourseError(f"{task.name!r} has no labels to calibrate.", "leave calibration to label tasks.")
    return tuple(scoring.exact_matches(model, tokenizer, prompts, [q.y for q in queries]))


def label_scores(
    model: Model, tokenizer: Tokenizer, prompts: Sequence[Prompt], labels: Sequence[str], prior: Tensor | None = None
) -> Tensor:
    """Return the probability of each label among the labels, [prompts, labels]; each row sums to 1.

    `prior` is what the prompt alone suggests, [labels] (`calibration.content_free_prior`), to be divided out.
    """
    scores = scoring.label_logprobs(model, tokenizer, prompts, labels).softmax(-1)
    return scores if prior is None else calibration.contextual_calibration(scores, prior)


def text_probabilities(
    model: Model, tokenizer: Tokenizer, prompts: Sequence[Prompt], texts: Sequence[str]
) -> list[float]:
    """Return for each prompt how probable it is, among all possible texts, that the model answers just this one.

    A text ends in its prompt's stop or in the end of the text: two ways to say the same, so their probabilities add.
    """
    scored = _with_ends(model, tokenizer, prompts, texts)
    return [min(1.0, sum(math.exp(score.total) for _, score in ways)) for ways in scored]


def answer_tokens(
    model: Model, tokenizer: Tokenizer, prompts: Sequence[Prompt], texts: Sequence[str]
) -> list[tuple[AnswerToken, ...]]:
    """Return for each prompt the tokens of a text that answers it. The last is the end, by the prompt's stop.

    The end's probability counts both ways to end, so the tokens' probabilities multiply to `text_probabilities`.
    """
    answers = []
    for ways in _with_ends(model, tokenizer, prompts, texts):
        text, score = ways[0]
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        before = float(score.logprobs[:-1].sum())
        end = min(1.0, sum(math.exp(way.total - before) for _, way in ways))
        probabilities = [*score.logprobs[:-1].exp().tolist(), end]
        is_best = [*score.greedy[:-1].tolist(), any(way.greedy[-1].item() for _, way in ways)]
        answers.append(tuple(map(AnswerToken, (tokenizer.decode([i]) for i in ids), probabilities, is_best)))
    return answers


def _with_ends(
    model: Model, tokenizer: Tokenizer, prompts: Sequence[Prompt], texts: Sequence[str]
) -> list[list[tuple[str, scoring.Continuation]]]:
    """Return for each text the ways to write it, the prompt's stop or the end of text after it, each with its score."""
    ends = {p.stop: tuple(dict.fromkeys((p.stop, tokenizer.eos_token))) for p in prompts}
    ways = [[p.answer_prefix + text + end for end in ends[p.stop]] for p, text in zip(prompts, texts)]
    pairs = [(p.text, way) for p, of_text in zip(prompts, ways) for way in of_text]
    scored = iter(scoring.score_continuations(model, tokenizer, pairs))
    return [[(way, next(scored)) for way in of_text] for of_text in ways]
