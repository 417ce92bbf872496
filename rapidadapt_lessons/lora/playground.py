"""The playground at the end of lesson 3: an adapter for the reader's own pairs, values in, HTML out."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import CourseError
from ..lm.types import Model, Tokenizer
from ..prompting.answers import best_answers
from ..prompting.own_text import read_lines, require_few_tokens
from ..prompting.prompts import ARROW, build_prompt, template_of
from ..show.html import require_whole, table
from ..show.plots import lines
from ..training.loop import TrainConfig, train
from ..training.rows import Row, exact_rows, pair_rows, perplexity
from . import layers as lora


def lora_playground(
    model: Model,
    tokenizer: Tokenizer,
    elsewhere: Sequence[Row],
    pairs: str,
    query: str,
    template: str = ARROW.pattern,
    rank: int = 8,
    lr: float = 2e-3,
    steps: int = 10,
) -> str:
    """Train a fresh adapter on the reader's pairs, ask a query before and after, and take the adapter out again.

    `elsewhere` has nothing to do with the pairs, to see what else changes; `pairs` are as for `read_lines`; `template`
    has {x} and, at the end, {y}. Raises BadData and BadPrompt, and as `lora.inject` and `loop.train`.
    """
    task, rows = pair_rows(tokenizer, template, read_lines(pairs))
    require_whole(query)
    if not 0 < lr <= 1:
        raise CourseError(f"lr is {lr}.", "give a rate above 0, at most 1; 2e-3 is usual.")
    prompt = build_prompt(query, (), template_of(task))
    require_few_tokens(tokenizer, [prompt.text])

    def measured() -> tuple[str, str, str, str]:
        [(answer, p)] = best_answers(model, tokenizer, [prompt])
        right = exact_rows(model, rows)
        return repr(answer), f"{p:.2f}", f"{sum(right)} of {len(right)}", f"{perplexity(model, elsewhere):.1f}"

    before = measured()
    lora.inject(model, lora.LoRAConfig(rank, 2 * rank))
    try:
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        history = train(model, rows, TrainConfig(steps, min(8, len(rows)), lr=lr), progress=False)
        after = measured()
    finally:
        lora.remove(model)
    names = (f"answer to {prompt.text!r}", "its probability", "your pairs answered right", "perplexity elsewhere")
    title = f"{trained:,} trained numbers, {len(rows)} pairs"
    losses = {"loss": dict(enumerate(history.losses))}
    return (
        table(["", "before", "after"], zip(names, before, after))
        + lines(losses, title=title, xlabel="step", ylabel="loss per token (nats)").html()
        + "<p>Right on the pairs that it was trained on is memory; your query, if it is none of them, tells more. And "
        "what else has changed? The last line of the table is text that has nothing to do with your pairs: higher is "
        "worse. Try queries of other kinds, too. The adapter has been taken out again.</p>"
    )
