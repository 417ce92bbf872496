"""What examples cost with every query, and what is left of it when their part is computed once (a prefix cache).

python studies/prompt_cost.py
"""

from __future__ import annotations

import time
from functools import cache
from statistics import median

from runner import Study, main

QUERIES, ROUNDS = 32, 3


@cache
def loaded():
    from rapidadapt_lessons.lm import load_model

    return load_model()


def measured(shots: int, seed: int) -> dict[str, float]:
    """Return how many tokens are read per query, and ratios of times. The seed draws the examples; plurals.

    What is timed stands side by side: with these examples, the same from the cache, and with no example, in turn,
    three times over. A ratio is one of medians, so a machine that is busy or slow does little to it.
    """
    from rapidadapt_lessons.lm import load_task
    from rapidadapt_lessons.prompting import build_prompts, scoring

    model, tokenizer = loaded()
    task = load_task("plurals")
    queries = task.query_set[:QUERIES]
    few = build_prompts(queries, task.episode(shots, seed=seed).support)
    ways = {"plain": (few, False), "cached": (few, True), "no examples": (build_prompts(queries), False)}
    times: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(ROUNDS):
        for way, (prompts, shared) in ways.items():
            start = time.perf_counter()
            scoring.exact_matches(model, tokenizer, prompts, [query.y for query in queries], cache=shared)
            times[way].append(time.perf_counter() - start)
    seconds = {way: median(taken) for way, taken in times.items()}
    return {
        **tokens_read(tokenizer, few, [query.y for query in queries]),
        "times faster with the cache": seconds["plain"] / seconds["cached"],
        "times slower than no examples": seconds["plain"] / seconds["no examples"],
        "cached, times slower than no examples": seconds["cached"] / seconds["no examples"],
    }


def tokens_read(tokenizer, prompts, answers) -> dict[str, float]:
    """Return the tokens that a forward pass reads per query, without the padding: without the cache, and with it."""
    from rapidadapt_lessons.prompting.forward import shared_length

    texts = [tokenizer(prompt.text)["input_ids"] for prompt in prompts]
    ends = [tokenizer(p.answer_prefix + y + p.stop)["input_ids"] for p, y in zip(prompts, answers)]
    rows = [tuple(text + end[:-1]) for text, end in zip(texts, ends)]  # the last token is predicted, never read
    shared, total = shared_length(rows, min(map(len, texts)) - 1), sum(map(len, rows))
    saved = shared * (len(rows) - 1)
    return {"tokens per query, plain": total / len(rows), "tokens per query, cached": (total - saved) / len(rows)}


STUDY = Study(
    name="prompt_cost",
    question="What do examples cost with every query, and how much of it does a prefix cache save?",
    run=measured,
    settings=[{"shots": shots} for shots in (0, 1, 4, 16)],
    seconds=9,
    # Tokens are counted. Times depend on the processor, its caches and what else it does: another machine may well
    # find half the ratio, or twice. What lessons conclude leaves that room.
    tolerance={"": 10.0, "tokens per query, plain": 1e-6, "tokens per query, cached": 1e-6},
)

if __name__ == "__main__":
    raise SystemExit(main(STUDY, __file__))
