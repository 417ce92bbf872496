"""Which label, or which text, and how probable: what a model answers to a prompt (lessons 1 and 2)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from ..errors import CourseError
from ..lm.tasks import Example, Task
from . import calibration, scoring
from .prompts import (
    Prompt,
    Template,
    build_prompt,
    build_prompts,
    chat_prompt,
    template_of,
    templates_for,
)
from .scoring import generate_answers, label_logprobs, label_probabilities, score_continuations

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from ..lm.tasks import Example, Task
    from .prompts import Prompt


def answered_right(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    queries: Sequence[Example],
    support: Sequence[Example] = (),
    *,
    prior: Tensor | None = None,
) -> tuple[bool, ...]:
    """Say for each query whether the model, with the support in its prompt, answers it right.

    Args:
        prior: what the prompt alone suggests, [labels], to be divided out (Zhao et al. 2021, section 5); from
            `calibration.content_free_prior`.

    Raises:
        CourseError: there is a prior, but the task has no labels.
    """
    template = template_of(task)
    prompts = build_prompts(queries, support, template)
    if not task.labels:
        if prior is not None:
            raise CourseError(f"{task.name!r} has no labels to calibrate.", "leave calibration to label tasks.")
        return tuple(scoring.exact_matches(model, tokenizer, prompts, [q.y for q in queries]))
    scores = label_scores(model, tokenizer, prompts, task.labels, prior)
    return tuple(task.labels[i] == q.y for i, q in zip(scores.argmax(-1).tolist(), queries))


def label_scores(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    labels: Sequence[str],
    prior: Tensor | None = None,
) -> Tensor:
    """Return the probability of each label among the labels, [prompts, labels], with the prior divided out if given."""
    scores = scoring.label_probabilities(scoring.label_logprobs(model, tokenizer, prompts, labels))
    return scores if prior is None else calibration.contextual_calibration(scores, prior)


CHAT = "chat"


def task_prompts(
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    queries: Sequence[Example],
    support: Sequence[Example],
    template: str | Template,
) -> list[Prompt]:
    """Write a prompt for each query, by a template, a template's name, or "chat".

    Raises: CourseError for an unknown name.
    """
    if template == CHAT:
        return [chat_prompt(tokenizer, q.x, support, task.question) for q in queries]
    if isinstance(template, str):
        known = templates_for(task)
        if template not in known:
            raise CourseError(f"there is no template {template!r}.", f"choose one of {', '.join(known)}, {CHAT}.")
        template = known[template]
    return [build_prompt(q.x, support, template) for q in queries]


def best_answers(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, task: Task, prompts: Sequence[Prompt]
) -> tuple[list[str], list[float]]:
    """Return the model's answer to each prompt and its probability.

    For a task with labels that is the likeliest label, its probability taken among the labels; for the
    others it is the greedy answer, its probability taken among all possible texts.
    """
    if task.labels:
        best = label_probabilities(label_logprobs(model, tokenizer, prompts, task.labels)).max(-1)
        return [task.labels[i] for i in best.indices.tolist()], best.values.tolist()
    answers = generate_answers(model, tokenizer, prompts, max_new_tokens=12)
    # An answer ends in its stop or in the end of the text: two ways to say the same, so their probabilities add.
    ends = {p.stop: tuple(dict.fromkeys((p.stop, tokenizer.eos_token))) for p in prompts}
    pairs = [(p.text, p.answer_prefix + a + end) for p, a in zip(prompts, answers) for end in ends[p.stop]]
    scored = iter(score_continuations(model, tokenizer, pairs))
    return answers, [sum(math.exp(next(scored).total) for _ in ends[p.stop]) for p in prompts]
