"""MAML's start against a pretrained one on new sinusoids, each at its best inner rate (Finn et al. 2017, figure 3).

python studies/sinusoids.py
"""

from __future__ import annotations

from functools import cache

from runner import Study, main

SEEDS = 5
ITERATIONS = (1000, 3000, 10_000)  # 1000 are the lesson's; at 10,000 errors still fall, and no order changes
STEPS = range(11)
RATES = (0.001, 0.003, 0.01, 0.02, 0.03, 0.05, 0.1)


@cache
def trained(start: str, iterations: int) -> dict:
    """Return the starts of all seeds, trained side by side with 10 points for each task."""
    from rapidadapt_lessons.meta import sinusoids

    method = {"MAML": sinusoids.MAML, "pretrained": sinusoids.PRETRAINED}[start]
    return sinusoids.train_starts(method, range(SEEDS), iterations)[0]


def adapted(start: str, iterations: int, points: int, seed: int) -> dict[str, float]:
    """Adapt one start to 600 new tasks of some points: the mean squared error on 50 others of each, by steps.

    The seed draws the network and all tasks. For each number of steps, the inner rate is the one that is best for that
    number on 100 tasks for validation. One that diverges is never the best.
    """
    import torch

    from rapidadapt_lessons.meta import sinusoids

    params = {name: p[seed : seed + 1] for name, p in trained(start, iterations).items()}
    draw = torch.Generator().manual_seed(10_000 + seed)  # not the tasks of the training
    validation, test = (sinusoids.draw_waves(tasks, draw).batch(points, 50, draw) for tasks in (100, 600))

    def errors(batch) -> torch.Tensor:  # [rates, steps + 1]; without an inner rate of training, MAML means all layers
        curves = [sinusoids.curve(sinusoids.MAML, params, batch, inner_lr=rate).mean((0, 1)) for rate in RATES]
        return torch.stack(curves).nan_to_num(torch.inf)

    tuned, found, by_steps = errors(validation), errors(test), {}
    for steps in STEPS:
        best = int(tuned[:, steps].argmin())
        by_steps[f"validation error after {steps}"] = float(tuned[best, steps])
        by_steps[f"error after {steps}"] = float(found[best, steps])
    return by_steps


STUDY = Study(
    name="sinusoids",
    question="Does one step from MAML's start beat ten from a pretrained one?",
    run=adapted,
    settings=[
        {"start": start, "iterations": n, "points": points}
        for start in ("MAML", "pretrained")
        for n in ITERATIONS
        for points in (5, 10, 20)
    ],
    seconds=4,
    tolerance={"": 0.3},  # thousands of updates: rounding differs from one processor to the next, and grows
    seeds=SEEDS,
)

if __name__ == "__main__":
    raise SystemExit(main(STUDY, __file__))
