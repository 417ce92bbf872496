"""What a few-shot task looks like, and what several starts make of a reader's own."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

import torch

from ..errors import BadData, CourseError
from ..guards import require_some
from ..lora import layers as lora
from ..prompting.answers import best_answers
from ..prompting.own_text import own_task, read_lines, require_few_tokens
from ..prompting.prompts import build_prompt, template_of
from ..show.html import table
from ..show.looks import COLOURS
from ..show.plots import Picture, canvas
from . import meta_lora
from .meta_lora import State
from .task_batch import TaskBatch

MOST_STEPS = 20
MOST_OWN_PAIRS = 16


def episode_picture(batch: TaskBatch, *, title: str) -> Picture:
    """Show the first task's pictures, a row for each class: the support left of the line, the query right of it."""
    ways = int(batch.support_y[0].max()) + 1
    parts = [x[0].unflatten(0, (ways, -1))[:, :, 0] for x in (batch.support_x, batch.query_x)]
    shots, queries = (part.shape[1] for part in parts)
    side = parts[0].shape[-1]
    sheet = torch.cat(parts, 1).permute(0, 2, 1, 3).reshape(ways * side, (shots + queries) * side)
    figure, axes = canvas(0.62 * (shots + queries) + 1, 0.62 * ways + 0.6)
    axes.imshow((1 - sheet).numpy(), cmap="gray", vmin=0, vmax=1)
    for i in range(1, ways):
        axes.axhline(i * side - 0.5, color="#DDDDDD", lw=0.8)
    axes.axvline(shots * side - 0.5, color=COLOURS[1], lw=2.5)
    axes.set_yticks([(i + 0.5) * side for i in range(ways)], [f"class {i}" for i in range(ways)])
    places = [shots * side / 2, (shots + queries / 2) * side]
    axes.set_xticks(places, ["support", f"query ({queries} of each class)"])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(title, loc="left")
    alt = (
        f"Pictures in {ways} rows, one for each letter. {title}. Left of a line the support, {shots} of each letter; "
        f"right of it the query, {queries} of each. The same letter comes upright, slanted, light and bold, and is "
        "turned, stretched and shifted."
    )
    return Picture(figure, alt)


def own_task_view(
    model: torch.nn.Module, tokenizer, starts: Mapping[str, State], *, pairs: str, query: str,
    cue: str = "{x} -> {y}", steps: int = 5, lr: float = 6e-3,
) -> str:  # fmt: skip
    """Adapt each start to a reader's own pairs, ask each the same query before and after, and return a table as HTML.

    The last rows are the starts that read the pairs in their prompt and take no step. The LoRA layers end as they were.
    pairs: as for `read_lines`, 1 to MOST_OWN_PAIRS. cue: a pair with {x} and, at the end, {y}. steps: 0 to MOST_STEPS
    of Adam on all the pairs at once. Raises BadData for faulty pairs or no query, BadPrompt for a faulty cue, and
    CourseError for no starts, or steps or lr out of range.
    """
    require_some(starts, "starts to adapt from", "pass at least one, by its name.")
    if not 0 <= steps <= MOST_STEPS:
        raise CourseError(f"{steps} steps were asked for.", f"choose 0 to {MOST_STEPS}.")
    support, query = read_lines(pairs, MOST_OWN_PAIRS), " ".join(query.split())
    if not support or not query:
        told = f"there are {len(support)} pairs, and the query is {query!r}."
        raise BadData(told, 'write at least one pair, "cat, cats", and a query.')
    template = template_of(own_task(cue, support))
    require_few_tokens(tokenizer, [*(template.shot(*pair) for pair in support), template.query(query)])
    alone, behind = build_prompt(query, (), template), build_prompt(query, support, template)

    def asked(prompt) -> tuple[str, str]:
        [(answer, probability)] = best_answers(model, tokenizer, [prompt])
        return repr(answer), f"{probability:.2f}"

    kept, rows, reading = lora.adapter_state(model), [], []
    try:
        for name, start in starts.items():
            for taken in dict.fromkeys((0, steps)):
                meta_lora.adapt_lora(model, tokenizer, support, template, start=start, steps=taken, lr=lr)
                rows.append((name, f"{taken}", *asked(alone)))
                if not taken:
                    reading.append((f"{name}, the pairs in its prompt", "0", *asked(behind)))
    finally:
        lora.set_adapter_state(model, kept)
    known = [pair.y for pair in support if pair.x == query]
    note = f"<p>Your query is one of the pairs: {escape(repr(known[0]))} would be memory.</p>" if known else ""
    return table(("start", "steps", f"answer to {alone.text!r}", "its probability"), [*rows, *reading]) + note
