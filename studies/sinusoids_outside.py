"""MAML's start on sinusoids of a kind that it was not trained on: larger ones, and others in phase.

python studies/sinusoids_outside.py
"""

from __future__ import annotations

import math
from functools import cache

from runner import Study, main

SEEDS, ITERATIONS = 5, 10_000
RATES = (0.001, 0.003, 0.01, 0.02, 0.03, 0.05)
STARTS = ("MAML", "pretrained", "random")
PHASES = {"trained": (0.0, math.pi), "new": (math.pi, 2 * math.pi)}


@cache
def trained(start: str) -> dict:
    """Return the starts of all seeds, trained side by side; the random ones as they are."""
    from rapidadapt_lessons.meta import sinusoids

    if start == "random":
        return sinusoids.stack([sinusoids.network(seed) for seed in range(SEEDS)])
    method = {"MAML": sinusoids.MAML, "pretrained": sinusoids.PRETRAINED}[start]
    return sinusoids.train_starts(method, range(SEEDS), ITERATIONS)[0]


def adapted(start: str, amplitude: float, phases: str, seed: int) -> dict[str, float]:
    """Adapt one start to 200 new tasks of 10 points: the error on 50 others of each, as a share of their square.

    Training had amplitudes from 0.1 to 5 and phases from 0 to pi. 1 is the error of predicting zero. The seed draws the
    network and all tasks. For each number of steps, the inner rate is the one that is best for that number on 100
    other tasks of the very kind. A random start may also take 100 steps.
    """
    import torch

    from rapidadapt_lessons.meta import sinusoids

    params = {name: p[seed : seed + 1] for name, p in trained(start).items()}
    draw, (low, high) = torch.Generator().manual_seed(10_000 + seed), PHASES[phases]

    def tasks(count: int):
        phase = low + (high - low) * torch.rand(count, generator=draw)
        return sinusoids.Waves(torch.full((count,), amplitude), phase).batch(10, 50, draw)

    validation, test = tasks(100), tasks(200)
    most = 100 if start == "random" else 10

    def errors(batch, rate: float) -> torch.Tensor:  # [steps + 1]
        found = sinusoids.curve(sinusoids.MAML, params, batch, steps=most, inner_lr=rate).mean((0, 1))
        return found.nan_to_num(torch.inf) / batch.query_y.square().mean()

    tuned, told = torch.stack([errors(validation, rate) for rate in RATES]), {}
    for steps in (n for n in (0, 1, 10, 100) if n <= most):
        rate = RATES[int(tuned[:, steps].argmin())]
        told |= {f"relative error after {steps}": float(errors(test, rate)[steps]), f"rate for {steps}": rate}
    return told


STUDY = Study(
    name="sinusoids_outside",
    question="How far does MAML's start carry outside of the tasks that it was trained on?",
    run=adapted,
    settings=[
        {"start": start, "amplitude": float(amplitude), "phases": phases}
        for start in STARTS
        for phases, amplitudes in (("trained", (1, 2, 3, 4, 5, 6, 7, 8)), ("new", (1, 3, 5)))
        for amplitude in amplitudes
    ],
    seconds=4,
    tolerance={"": 0.3},  # thousands of updates: rounding differs from one processor to the next, and grows
    seeds=SEEDS,
)

if __name__ == "__main__":
    raise SystemExit(main(STUDY, __file__))
