"""How much faster the shared-prefix cache makes scoring, beside the plain path.

Run: python benchmarks/prefix_cache.py [rounds]
Both paths score the same few-shot prompts in turn, and their order changes each round. A ratio is taken within a
round, so a machine that is busy slows both sides of it.
"""

from __future__ import annotations

import sys
import time
from itertools import product
from statistics import median

from rapidadapt_lessons import load_model, load_task
from rapidadapt_lessons.prompting.prompts import build_prompts
from rapidadapt_lessons.prompting.scoring import Continuation, score_continuations

SHOTS = (1, 4, 16)
QUERIES = (16, 64)
TASK = "plurals"


def pairs_for(shots: int, queries: int) -> list[tuple[str, str]]:
    """Return (prompt, answer) for as many queries, all with the same examples in front."""
    episode = load_task(TASK).episode(shots, n_query=queries)
    prompts = build_prompts(episode.query, episode.support)
    return [(p.text, p.answer_prefix + q.y + p.stop) for p, q in zip(prompts, episode.query)]


def seconds(model, tokenizer, pairs: list[tuple[str, str]], cache: bool) -> tuple[float, list[Continuation]]:
    """Return how long one path takes, and its scores."""
    start = time.perf_counter()
    scored = score_continuations(model, tokenizer, pairs, cache=cache)
    return time.perf_counter() - start, scored


def measure(model, tokenizer, pairs: list[tuple[str, str]], rounds: int) -> tuple[list[tuple[float, float]], float]:
    """Return (plain, cached) seconds of each round, and the largest difference of a log-probability in nats.

    A first round only warms up and is dropped.
    """
    times, difference = [], 0.0
    for i in range(rounds + 1):
        took, scores = {}, {}
        for cache in (False, True) if i % 2 else (True, False):
            took[cache], scores[cache] = seconds(model, tokenizer, pairs, cache)
        for plain, cached in zip(scores[False], scores[True]):
            difference = max(difference, float((plain.logprobs - cached.logprobs).abs().max()))
        times.append((took[False], took[True]))
    return times[1:], difference


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    model, tokenizer = load_model()
    print(f"Task {TASK}, on {model.device}, {rounds} rounds. Times are medians; the ratio is plain / cached.")
    print(f"{'shots':>5} {'queries':>8} {'plain':>9} {'cached':>9} {'ratio':>7} {'lowest':>8} {'highest':>8}  apart by")
    for shots, queries in product(SHOTS, QUERIES):
        times, difference = measure(model, tokenizer, pairs_for(shots, queries), rounds)
        ratios = [plain / cached for plain, cached in times]
        plain, cached = (f"{median(column):.3f} s" for column in zip(*times))
        spread = f"{median(ratios):>7.1f} {min(ratios):>8.1f} {max(ratios):>8.1f}"
        print(f"{shots:>5} {queries:>8} {plain:>9} {cached:>9} {spread}  {difference:.1e}", flush=True)
    print(
        f"At {shots} shots and {queries} queries the cached path is {median(ratios):.1f} times as fast as the plain "
        f"one ({min(ratios):.1f} to {max(ratios):.1f}); the largest difference of a log-probability is "
        f"{difference:.1e} nats."
    )


if __name__ == "__main__":
    main()
