"""MAML's start against a pretrained one on new sinusoids, each at its best inner rate (Finn et al. 2017, figure 3).

python studies/sinusoids.py
"""

from __future__ import annotations

from runner import Study, main

ITERATIONS = (1000, 3000, 10_000)  # 1000 are the lesson's; at 10,000 errors still fall, and no order changes
STEPS = (0, 1, 10)
RATES = (0.001, 0.003, 0.01, 0.02, 0.03, 0.05, 0.1)


def adapted(start: str, iterations: int, seed: int) -> dict[str, float]:
    """Train a start, and adapt it to 600 new tasks of 10 points: the mean squared error on 50 others of each.

    The seed draws the network and all tasks. For each number of steps, the inner rate is the one that is best for that
    number on 100 tasks for validation. One that diverges is never the best.
    """
    import torch

    from rapidadapt_lessons.meta import sinusoids

    method = {"MAML": sinusoids.MAML, "pretrained": sinusoids.PRETRAINED}[start]
    params, _ = sinusoids.train_starts(method, [seed], iterations, task_seed=seed)
    draw = torch.Generator().manual_seed(10_000 + seed)  # not the tasks of the training
    validation, test = (sinusoids.draw_waves(tasks, draw).batch(10, 50, draw) for tasks in (100, 600))

    def errors(batch) -> torch.Tensor:  # [rates, steps + 1]
        curves = [sinusoids.curve(method, params, batch, inner_lr=rate).mean((0, 1)) for rate in RATES]
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
    settings=[{"start": start, "iterations": n} for start in ("MAML", "pretrained") for n in ITERATIONS],
    seconds=13,
    tolerance={"": 0.3},  # thousands of updates: rounding differs from one processor to the next, and grows
)

if __name__ == "__main__":
    raise SystemExit(main(STUDY, __file__))
