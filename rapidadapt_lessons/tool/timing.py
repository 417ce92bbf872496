"""How long things take on this machine, in a second or a few, and what fits into a prompt and into a step."""

from __future__ import annotations

import random
import timeit
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..choosing.methods import fresh_adapter, most_examples
from ..lm.model import context_length
from ..lm.tasks import Example, Task
from ..lm.types import Model, Tokenizer
from ..lora import layers as lora
from ..meta.meta_lora import MetaConfig
from ..meta.meta_lora import draw_rows as meta_rows
from ..meta.text_tasks import load_family
from ..prompting import scoring
from ..prompting.answers import answered_right
from ..prompting.prompts import build_prompt, template_of
from ..training.rows import Row, batches, collate, task_rows, token_loss

MOST_SHOTS = 32
ROWS = 8  # examples in an update
META_ROWS = 6  # examples in an inner step of meta-training
ROW_TOKENS = 2048  # in one forward pass of training: more are cut into several, with the same gradient


@dataclass(frozen=True)
class Timing:
    """Seconds that things take on this machine."""

    answer: float  # scoring one query without examples
    shot: float  # reading one example in a prompt, once for all queries
    write: float  # writing out one answer, among others; 0 where there are labels to choose from
    step: float  # one update of an adapter
    meta_step: float  # one inner step of meta-training

    def sentence(self) -> str:
        """Return it as a line for people."""
        written = f", writing one {self.write * 1e3:.0f} ms" if self.write else ""
        return (
            f"Timing: a query {self.answer * 1e3:.0f} ms, an example in the prompt {self.shot * 1e3:.0f} ms{written}, "
            f"an update {self.step * 1e3:.0f} ms, an inner step of meta-training {self.meta_step * 1e3:.0f} ms."
        )


def prompt_examples(task: Task, k: int, seed: int) -> tuple[Example, ...]:
    """Return the k examples that a prompt shows."""
    return task.episode(k, seed=seed, balanced=bool(task.labels)).support


def rows_at_once(tokenizer: Tokenizer, task: Task) -> int:
    """Return how many rows training takes in one forward pass: ROWS, or a half, a quarter, an eighth of them."""
    longest = max(len(row.ids) for row in task_rows(tokenizer, task, task.support_pool))
    return next((n for n in (ROWS, ROWS // 2, ROWS // 4) if n * longest <= ROW_TOKENS), 1)


def shots_that_fit(model: Model, tokenizer: Tokenizer, task: Task, longest: str, seed: int, max_new_tokens: int) -> int:
    """Return how many examples, MOST_SHOTS at most, fit into half of the model's context and leave room for the longest
    input and its answer."""
    template, limit = template_of(task), context_length(model)
    for k in range(min(MOST_SHOTS, most_examples(task)), 0, -1):
        shown = prompt_examples(task, k, seed)
        shots = scoring.count_tokens(tokenizer, template.separator.join(template.shot(*e) for e in shown))
        whole = scoring.count_tokens(tokenizer, build_prompt(longest, shown, template).text)
        if shots <= limit // 2 and whole + max_new_tokens + 8 <= limit:
            return k
    return 0


def time_steps(
    model: Model, tokenizer: Tokenizer, task: Task,
    *, shots: int, seed: int, max_new_tokens: int, batch_size: int,
) -> Timing:  # fmt: skip
    """Time each part of a plan, for a second or a few. Gradients are thrown away; the model ends as it was."""
    queries = task.query_set[:8]
    score = lambda support: answered_right(model, tokenizer, task, queries, support)  # noqa: E731
    answer = _seconds(lambda: score(())) / len(queries)
    few = prompt_examples(task, min(shots, 8), seed)
    shot = max(0.0, _seconds(lambda: score(few)) - answer * len(queries)) / len(few) if few else 0.0
    write = 0.0
    if not task.labels:
        prompts = [build_prompt(q.x, few, template_of(task)) for q in queries]
        answers = lambda: scoring.generate_answers(model, tokenizer, prompts, max_new_tokens=max_new_tokens)  # noqa: E731
        write = _seconds(answers, 1) / len(queries)
    family = load_family()[:3]
    config = MetaConfig(rows=META_ROWS)
    inner = [row for task_ in family for row in meta_rows(tokenizer, task_, config, random.Random(seed))]
    fresh_adapter(model)
    try:
        step = _seconds(lambda: _gradient(model, task_rows(tokenizer, task, task.support_pool[:ROWS]), batch_size))
        meta_step = _seconds(lambda: _gradient(model, inner, META_ROWS)) / len(family)
    finally:
        lora.remove(model)
    return Timing(answer, shot, write, step, meta_step)


def _gradient(model: Model, rows: Sequence[Row], batch_size: int) -> None:
    for piece in batches(rows, batch_size):
        token_loss(model, collate(piece, model.device)).backward()
    model.zero_grad(set_to_none=True)


def _seconds(do: Callable[[], object], times: int = 2) -> float:
    """Return the least time that something takes, the first time apart, which warms up."""
    return min(timeit.repeat(do, number=1, repeat=times + 1)[1:])
