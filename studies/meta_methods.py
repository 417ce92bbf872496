"""MAML and its relatives on sinusoids, each at its own best inner rates (Finn 2017, Nichol 2018, Raghu 2020).

python studies/meta_methods.py
"""

from __future__ import annotations

from functools import cache

from runner import Study, main

SEEDS, ITERATIONS = 5, 1000
STEPS = range(11)
RATES = (0.005, 0.01, 0.02, 0.03, 0.05)
TRAINING_RATES = {  # the inner rate, for each method and number of inner steps: best of three in a trial of one seed
    ("MAML", 1): 0.01,
    ("FOMAML", 1): 0.02,
    ("ANIL", 1): 0.03,
    ("MAML", 5): 0.01,
    ("Reptile", 5): 0.02,
}


@cache
def trained(method: str, inner_steps: int) -> dict:
    """Return the starts of all seeds, trained side by side, with the same tasks for all methods."""
    from dataclasses import replace

    from rapidadapt_lessons.meta import sinusoids

    known = (sinusoids.MAML, sinusoids.FOMAML, sinusoids.ANIL, sinusoids.REPTILE)
    rule = {rule.name: rule for rule in known}[method]
    rule = replace(rule, steps=inner_steps, inner_lr=TRAINING_RATES[method, inner_steps])
    return sinusoids.train_starts(rule, range(SEEDS), ITERATIONS)[0]


def adapted(method: str, inner_steps: int, seed: int) -> dict[str, float]:
    """Adapt one start to 600 new tasks of 10 points: the mean squared error on 50 others of each, by steps.

    The seed draws the network and all tasks. For each number of steps, the rate of adapting is the one that is best for
    that number on 100 tasks for validation. One that diverges is never the best.
    """
    import torch

    from rapidadapt_lessons.meta import sinusoids

    params = {name: p[seed : seed + 1] for name, p in trained(method, inner_steps).items()}
    how = sinusoids.ANIL if method == "ANIL" else sinusoids.MAML  # which layers adapt, all that is taken from it
    draw = torch.Generator().manual_seed(10_000 + seed)  # not the tasks of the training
    validation, test = (sinusoids.draw_waves(tasks, draw).batch(10, 50, draw) for tasks in (100, 600))

    def errors(batch) -> torch.Tensor:  # [rates, steps + 1]
        curves = [sinusoids.curve(how, params, batch, inner_lr=rate).mean((0, 1)) for rate in RATES]
        return torch.stack(curves).nan_to_num(torch.inf)

    tuned, found = errors(validation), errors(test)
    return {f"error after {n}": float(found[int(tuned[:, n].argmin()), n]) for n in STEPS}


STUDY = Study(
    name="meta_methods",
    question="How far do MAML's relatives get on new sinusoids?",
    run=adapted,
    settings=[{"method": method, "inner_steps": steps} for method, steps in TRAINING_RATES],
    seconds=13,
    tolerance={"": 0.3},  # thousands of updates: rounding differs from one processor to the next, and grows
    seeds=SEEDS,
)

if __name__ == "__main__":
    raise SystemExit(main(STUDY, __file__))
