"""Calibration where the queries are not as many of each label: what batch calibration takes for granted (Zhou 2024).

python studies/skewed_calibration.py
"""

from __future__ import annotations

import random
from functools import cache
from itertools import permutations
from statistics import mean

from runner import Study, main

SHOTS, QUERIES = 4, 40
REPAIRS = ("none", "contextual", "batch")


@cache
def scored(seed: int):
    """Return for each of six orders of labels the label scores of all 100 queries and the content-free prior."""
    from rapidadapt_lessons.lm import load_model, load_task
    from rapidadapt_lessons.prompting import build_prompts, calibration, scoring, template_of

    model, tokenizer = load_model()
    asked = load_task("sentiment")
    support, template = asked.episode(SHOTS, seed=seed, balanced=True).support, template_of(asked)
    orders = {tuple(example.y for example in order): order for order in permutations(support)}.values()
    return [
        (
            scoring.label_logprobs(model, tokenizer, build_prompts(asked.query_set, o, template), asked.labels),
            calibration.content_free_prior(model, tokenizer, o, asked.labels, template),
        )
        for o in orders
    ]


def judged(positive: float, seed: int) -> dict[str, float]:
    """Return the accuracy, and the mean of the two labels' accuracies, on 40 queries, over six orders of the examples.

    The seed draws the four examples, two of each label, and which of the task's queries are asked.
    """
    import torch

    from rapidadapt_lessons.lm import load_task
    from rapidadapt_lessons.prompting import calibration

    asked = load_task("sentiment")
    truth = torch.tensor([asked.labels.index(query.y) for query in asked.query_set])
    draw, wanted = random.Random(seed), round(positive * QUERIES)
    parts = [(truth == label).nonzero()[:, 0].tolist() for label in (0, 1)]
    asked_now = draw.sample(parts[0], QUERIES - wanted) + draw.sample(parts[1], wanted)
    found: dict[str, list[float]] = {}
    for scores, prior in scored(seed):
        scores = scores[asked_now]
        calibrated = calibration.contextual_calibration(scores.softmax(-1), prior)
        for repair, table in zip(REPAIRS, (scores, calibrated, calibration.batch_calibration(scores))):
            right = (table.argmax(-1) == truth[asked_now]).double()
            labels = (right[: QUERIES - wanted].mean() + right[QUERIES - wanted :].mean()) / 2
            found.setdefault(f"accuracy, {repair}", []).append(right.mean().item())
            found.setdefault(f"balanced accuracy, {repair}", []).append(labels.item())
    return {name: mean(values) for name, values in found.items()}


STUDY = Study(
    name="skewed_calibration",
    question="Which calibration holds up when one label is rare among the queries?",
    run=judged,
    settings=[{"positive": positive} for positive in (0.05, 0.2, 0.5, 0.8, 0.95)],
    seconds=3,
    tolerance={"": 0.05, **{f"balanced accuracy, {repair}": 0.15 for repair in REPAIRS}},  # a rare label: 2 queries
    seeds=10,
)

if __name__ == "__main__":
    raise SystemExit(main(STUDY, __file__))
