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
    ends = {p.stop: tuple(dict.fromkeys((p.stop, tokenizer.eos_token))) for p in prompts}
    pairs = [(p.text, p.answer_prefix + text + end) for p, text in zip(prompts, texts) for end in ends[p.stop]]
    scored = iter(scoring.score_continuations(model, tokenizer, pairs))
    return [min(1.0, sum(math.exp(next(scored).total) for _ in ends[p.stop])) for p in prompts]
