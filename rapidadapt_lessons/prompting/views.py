"""What lesson 1's widgets show: one plain function each, values in, HTML out."""

from __future__ import annotations

from html import escape

from ..lm.tasks import load_task
from ..lm.types import Model, Tokenizer
from ..show.html import table, text_block
from ..show.plots import horizontal_bars
from .answers import best_answers
from .prompts import reorder, task_prompts
from .scoring import count_tokens, next_tokens


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
    model: Model, tokenizer: Tokenizer, task_name: str, shots: int, template: str = "arrow", order_seed: int = 0
) -> str:
    """Show one prompt, the model's answer to each of twelve queries with its probability, and the accuracy.

    The template is a name from `templates_for`, or "chat"; `order_seed` is as for `reorder`.
    Raises UnknownTask, NotEnoughExamples, and CourseError for an unknown template.
    """
    task = load_task(task_name)
    episode = task.episode(shots, n_query=12)
    prompts = task_prompts(tokenizer, task, episode.query, reorder(episode.support, order_seed), template)
    rows, right = [], 0
    for query, (answer, probability) in zip(episode.query, best_answers(model, tokenizer, prompts, task.labels)):
        right += answer == query.y
        rows.append((query.x, answer, f"{probability:.2f}", "yes" if answer == query.y else f"no: {query.y}"))
    return (
        f"<p><b>{escape(task.title)}</b>: {right} of {len(rows)} right; "
        f"{count_tokens(tokenizer, prompts[0].text)} tokens in the first prompt.</p>"
        + text_block(prompts[0].text)
        + table(("query", "the model's answer", "its probability", "right?"), rows)
    )
