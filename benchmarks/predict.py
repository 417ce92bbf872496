"""How much faster `predict` answers many queries together than one at a time.

Run: python benchmarks/predict.py [rounds]
The same 64 queries are answered by the same predictor, once together and once one after another, in turn; the order
changes each round. A ratio is taken within a round, so a machine that is busy slows both sides of it. LoRA's matrices
are random here: how long an answer takes depends on them only through its length.
"""

from __future__ import annotations

import sys
import time
from statistics import median

import torch

from rapidadapt_lessons import load_model, load_task
from rapidadapt_lessons.choosing.methods import ADAPTER, FEW, LORA
from rapidadapt_lessons.lm.download import DEFAULT_MODEL
from rapidadapt_lessons.lora import layers as lora
from rapidadapt_lessons.prompting.prompts import template_of
from rapidadapt_lessons.tool.predict import Predictor
from rapidadapt_lessons.tool.saved_prompt import Adapted

QUERIES, SHOTS = 64, 16
GOAL = 5.0


def kinds() -> dict[str, tuple[Adapted, list[str]]]:
    """Return each kind of predictor, and what it is asked."""
    found = {}
    for task_name in ("continents", "plurals"):
        task = load_task(task_name)
        episode = task.episode(SHOTS, balanced=bool(task.labels))
        texts = [e.x for e in (*task.query_set, *task.support_pool)][:QUERIES]
        kind = "labels" if task.labels else "written out"
        shared = {"template": template_of(task), "labels": task.labels, "max_new_tokens": 12}
        found[f"{kind}, {SHOTS} examples in the prompt"] = (
            Adapted(DEFAULT_MODEL, FEW, examples=episode.support, **shared), texts
        )  # fmt: skip
        found[f"{kind}, adapter"] = Adapted(DEFAULT_MODEL, LORA, adapter=True, **shared), texts
    return found


def seconds(predictor: Predictor, texts: list[str], at_once: int) -> float:
    """Return how long all answers take."""
    begin = time.perf_counter()
    for start in range(0, len(texts), at_once):
        predictor.answers(texts[start : start + at_once])
    return time.perf_counter() - begin


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    model, tokenizer = load_model()
    print(
        f"{QUERIES} queries, {rounds} rounds, {torch.get_num_threads()} threads. Medians; the ratio is one / together."
    )
    print(f"{'':<38} {'one':>8} {'together':>9} {'ratio':>6} {'lowest':>7} {'highest':>8}")
    slowest = []
    for name, (how, texts) in kinds().items():
        if how.adapter:
            lora.inject(model, ADAPTER)
        predictor = Predictor(model, tokenizer, how)
        predictor.answers(texts[:4])  # warm up
        times = []
        for i in range(rounds):
            took = {at_once: seconds(predictor, texts, at_once) for at_once in ((1, QUERIES), (QUERIES, 1))[i % 2]}
            times.append((took[1], took[QUERIES]))
        if how.adapter:
            lora.remove(model)
        ratios = [one / together for one, together in times]
        one, together = (f"{median(column):.2f} s" for column in zip(*times))
        slowest.append(median(ratios))
        spread = f"{median(ratios):>6.1f} {min(ratios):>7.1f} {max(ratios):>8.1f}"
        print(f"{name:<38} {one:>8} {together:>9} {spread}", flush=True)
    verdict = "reached" if min(slowest) >= GOAL else "missed"
    print(f"At least {GOAL:g} times the rate: {verdict}. The least is {min(slowest):.1f} times.")


if __name__ == "__main__":
    main()
