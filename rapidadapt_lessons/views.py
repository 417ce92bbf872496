"""What the widgets show: one plain function each, values in, HTML out.

They hold no state and need no browser, so tests and readers call them directly.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING

from .calibration import batch_calibration, content_free_prior, contextual_calibration
from .errors import BadData, CourseError
from .plots import horizontal_bars, strips
from .prompting import ARROW, Template, build_prompt, build_prompts, chat_prompt, reorder, templates_for
from .scoring import (
    count_tokens,
    generate_answers,
    label_logprobs,
    label_probabilities,
    next_tokens,
    score_continuations,
)
from .tasks import load_task

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from .prompting import Prompt
    from .tasks import Example, Task

CHAT = "chat"
CELL = 'style="text-align:left; padding:2px 10px"'


def next_token_view(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, text: str, k: int = 10) -> str:
    """Show the k most probable next tokens after a text as bars.

    Raises: BadPrompt when the text is empty or too long.
    """
    found: dict[str, float] = {}
    for token, p in next_tokens(model, tokenizer, text, k):
        # Different tokens can read alike: those that are part of a character all print as the same mark.
        alike = sum(name.startswith(repr(token)) for name in found)
        found[f"{token!r} ({alike + 1})" if alike else repr(token)] = p
    end = (text.strip().splitlines() or [text])[-1][-40:]
    title = f"What comes after “{'… ' if end != text else ''}{end}”?"
    return horizontal_bars(found, title=title, xlabel="probability of the next token", limit=1.1).html()


def prompt_view(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task_name: str,
    shots: int,
    template: str = "arrow",
    order_seed: int = 0,
    n_query: int = 12,
) -> str:
    """Show one prompt, the model's answer to each query with its probability, and the accuracy.

    Args:
        template: a name from `prompting.templates_for`, or "chat".
        order_seed: order of the examples; 0 keeps the order in which they were drawn.

    Raises: UnknownTask, NotEnoughExamples; CourseError for an unknown template.
    """
    task = load_task(task_name)
    episode = task.episode(shots, seed=0, n_query=n_query)
    prompts = task_prompts(tokenizer, task, episode.query, reorder(episode.support, order_seed), template)
    answers, probabilities = best_answers(model, tokenizer, task, prompts)
    rows, right = [], 0
    for query, answer, probability in zip(episode.query, answers, probabilities):
        right += answer == query.y
        rows.append((query.x, answer, f"{probability:.2f}", "yes" if answer == query.y else f"no: {query.y}"))
    return (
        f"<p><b>{escape(task.title)}</b>: {right} of {n_query} right; "
        f"{count_tokens(tokenizer, prompts[0].text)} tokens in the first prompt.</p>"
        + text_block(prompts[0].text)
        + table(("query", "the model's answer", "its probability", "right?"), rows)
    )


def order_view(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task_name: str,
    shots: int,
    seed: int,
    order_seed: int,
    n_query: int = 40,
    template: Template = ARROW,
) -> str:
    """Show, for a two-label task, where each query falls before and after contextual and batch calibration.

    The examples are a balanced draw; the queries are as balanced as their number allows.

    Args:
        seed: which examples are drawn.
        order_seed: order of the examples; 0 keeps the order in which they were drawn.
        template: how examples and queries are written.

    Raises: CourseError when the task does not have exactly two labels; see also `Task.episode`.
    """
    task = load_task(task_name)
    if len(task.labels) != 2:
        raise CourseError(f"{task_name!r} has {len(task.labels)} labels.", "choose a task with exactly two.")
    episode = task.episode(shots, seed=seed, n_query=n_query, balanced=True)
    support = reorder(episode.support, order_seed)
    scores = label_logprobs(model, tokenizer, build_prompts(episode.query, support, template), task.labels)
    plain = label_probabilities(scores)
    prior = content_free_prior(model, tokenizer, support, task.labels, template)
    tables = {
        "as it comes": plain,
        "contextual": contextual_calibration(plain, prior),
        "batch": batch_calibration(scores),
    }
    target = task.labels[1]
    groups, accuracies = {}, []
    for name, table in tables.items():
        by_truth: dict[str, list[float]] = {label: [] for label in task.labels}
        for query, p in zip(episode.query, table[:, 1].tolist()):
            by_truth[query.y].append(p)
        groups[name] = {f"truly {label}": values for label, values in by_truth.items() if values}
        right = sum((p > 0.5) == (q.y == target) for p, q in zip(table[:, 1].tolist(), episode.query))
        accuracies.append(f"{name} {right / n_query:.2f}")
    picture = strips(
        groups,
        title="Accuracy: " + ", ".join(accuracies),
        xlabel=f"probability of {target} (between the two labels)",
        line=0.5,
        line_label="decision",
    )
    order = ", ".join(f"{x} → {y}" for x, y in support)
    return f"<p>Examples, in this order: {escape(order)}</p>{picture.html()}"


def require_whole(text: str) -> None:
    """Raise BadData where a text holds half a character (a lone surrogate), which no tokenizer can read."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadData(f"character {error.start + 1} is half of one ({text[error.start]!a}).", "delete it.") from error


def text_block(text: str) -> str:
    """Return a text as it is, line by line, as HTML."""
    return f"<pre style='background:#F3F3F3;color:#111;padding:8px;white-space:pre-wrap'>{escape(text)}</pre>"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of texts as HTML. What a learner typed stays text."""
    top = "".join(f"<th {CELL}>{escape(cell, quote=False)}</th>" if cell else f"<td {CELL}></td>" for cell in head)
    body = ("<tr>" + "".join(f"<td {CELL}>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{top}</tr>{''.join(body)}</table>"


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
