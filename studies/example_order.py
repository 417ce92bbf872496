"""The same four examples in all 24 orders (Lu et al. 2022, figure 1), and what calibration repairs (Zhao et al. 2021).

python studies/example_order.py
"""

from __future__ import annotations

from itertools import permutations
from statistics import mean

from runner import Study, main

SHOTS, QUERIES = 4, 100
REPAIRS = ("none", "contextual", "batch")


def judged(task: str, seed: int) -> dict[str, float]:
    """Return accuracies over the 24 orders, as they come and repaired. The seed draws the four examples.

    The queries are as many of each label, which is batch calibration's best case.
    """
    import torch

    from rapidadapt_lessons.lm import load_model, load_task
    from rapidadapt_lessons.prompting import build_prompts, calibration, scoring
    from rapidadapt_lessons.prompting.prompts import template_of

    model, tokenizer = load_model()
    asked = load_task(task)
    episode, template = asked.episode(SHOTS, seed=seed, balanced=True), template_of(asked)
    queries = episode.query[: QUERIES - QUERIES % len(asked.labels)]
    truth = torch.tensor([asked.labels.index(query.y) for query in queries])
    found: dict[str, list[float]] = {repair: [] for repair in REPAIRS}
    for order in permutations(episode.support):
        prompts = build_prompts(queries, order, template)
        scores = scoring.label_logprobs(model, tokenizer, prompts, asked.labels)
        prior = calibration.content_free_prior(model, tokenizer, order, asked.labels, template)
        tables = (
            scores,
            calibration.contextual_calibration(scores.softmax(-1), prior),
            calibration.batch_calibration(scores),
        )
        for repair, table in zip(REPAIRS, tables):
            found[repair].append((table.argmax(-1) == truth).double().mean().item())
    return {f"{name}, {repair}": f(found[repair]) for repair in REPAIRS for name, f in SUMMARIES.items()}


SUMMARIES = {"worst order": min, "mean order": mean, "best order": max}
STUDY = Study(
    name="example_order",
    question="How much does the order of the examples matter, and how much of that does calibration repair?",
    run=judged,
    settings=[{"task": task} for task in ("sentiment", "continents", "question_topic")],
    seconds=45,
    tolerance={"": 3.5 / QUERIES},
    seeds=10,
)

if __name__ == "__main__":
    raise SystemExit(main(STUDY, __file__))
