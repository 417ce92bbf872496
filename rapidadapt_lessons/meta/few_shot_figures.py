"""What is read from one picture of each letter, and what several starts make of a reader's own text task."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

import torch
from torch import Tensor

from ..errors import BadData, CourseError
from ..guards import require_some
from ..lora import layers as lora
from ..prompting.answers import best_answers
from ..prompting.own_text import own_task, read_lines, require_few_tokens
from ..prompting.prompts import build_prompt, template_of
from ..show.html import table
from ..show.looks import COLOURS, looks
from ..show.plots import Picture, canvas, panel_canvas
from . import meta_lora
from .few_shot import PatchNet, read_drawing
from .meta_lora import State
from .task_batch import TaskBatch

MOST_STEPS = 20
MOST_OWN_PAIRS = 16


def reading_picture(net: PatchNet, batch: TaskBatch, *, title: str, each: int = 1) -> Picture:
    """Draw the first task: a column for each support picture, a row for each of the first `each` queries of each class,
    and in the cells the probability that `read_drawing` gives. The correct cell is framed. One shot only.
    """
    support, ways = batch.support_x[0, :, 0], len(batch.support_y[0])
    chosen = [i for k in range(ways) for i in (batch.query_y[0] == k).nonzero()[:each, 0].tolist()]
    queries, classes = batch.query_x[0, chosen, 0], batch.query_y[0, chosen].tolist()
    found = torch.stack([read_drawing(net, support, query) for query in queries])
    figure, grid = panel_canvas(0.95 * (ways + 1), 0.8 * (len(queries) + 1) + 0.5, ways + 1, len(queries) + 1)
    for place, axes in enumerate(grid):
        row, column = divmod(place, ways + 1)
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        if row and column:
            share = found[row - 1, column - 1].item()
            axes.imshow([[share]], cmap="Blues", vmin=0, vmax=1.3)
            axes.text(0, 0, f"{share:.2f}", ha="center", va="center", color="white" if share > 0.7 else "black")
            if classes[row - 1] == column - 1:
                axes.spines[:].set(visible=True, color=COLOURS[1], lw=2.5)
        elif row or column:
            axes.imshow(1 - (queries[row - 1] if row else support[column - 1]).numpy(), cmap="gray", vmin=0, vmax=1)
    grid[0].text(0.5, 0.5, "support \u2192\nquery \u2193", ha="center", va="center", transform=grid[0].transAxes)
    figure.suptitle(title, x=0.02, ha="left", fontsize=12)
    correct = sum(probabilities.argmax().item() == k for probabilities, k in zip(found, classes))
    alt = (
        f"Grid of pictures and numbers. {title}. On top {ways} letters, one picture of each; below, {len(queries)} new "
        "pictures of them, turned, slanted, light or bold. Each row tells the probability of each letter, with the "
        f"correct one framed. The highest is the correct one in {correct} of {len(queries)} rows."
    )
    return Picture(figure, alt)


def prototype_map(features: Tensor, classes: Tensor, centres: Tensor, *, title: str) -> Picture:
    """Draw query features [queries, d], with their classes [queries], and prototypes [ways, d] as stars.

    The plane drawn is the one in which the prototypes lie furthest apart. The description says how many queries are
    right in tenths only, since a trained network's last ones differ between processors.
    """
    middle = centres.mean(0)
    plane = torch.linalg.svd(centres - middle, full_matrices=False).Vh[:2]
    points, stars = (((x - middle) @ plane.T).numpy() for x in (features, centres))
    figure, axes = canvas(6.2, 4.4)
    for k, style in enumerate(looks([f"letter {k + 1}" for k in range(len(centres))]).values()):
        own = points[(classes == k).numpy()]
        axes.scatter(own[:, 0], own[:, 1], color=style.colour, marker=style.marker, s=26, alpha=0.75, lw=0)
        axes.scatter(*stars[k], color=style.colour, marker="*", s=330, ec="black", lw=1, zorder=3)
        name = {"color": style.ink, "weight": "bold", "xytext": (11, 7), "textcoords": "offset points", "zorder": 4}
        axes.annotate(f"{k + 1}", stars[k].tolist(), **name)
    axes.set(xticks=[], yticks=[], xlabel="two of the features' directions", aspect="equal")
    axes.set_title(title, loc="left")
    near = (torch.cdist(features, centres).argmin(1) == classes).float().mean().item()
    alt = (
        f"Scatter plot. {title}. {len(features)} new pictures of {len(centres)} letters as points, each letter's "
        f"prototype as a star. About {10 * near:.0f} in 10 lie nearest to their own letter's star, in all directions."
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
