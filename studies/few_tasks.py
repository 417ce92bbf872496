"""Meta-overfitting: MAML's start from few tasks, judged on those and on fresh ones.

python studies/few_tasks.py
"""

from __future__ import annotations

from runner import Study, main

RATE, STEPS = 0.1, 3
TASKS = (2, 5, 10, 20, 40, 160)
SHOTS = (3, 10)
PARTS = ("query", "support")


def adapted(shots: int, trained_on: str, tasks: int, seed: int) -> dict[str, float]:
    """Find MAML's exact start for some lines, and adapt it by three steps: the loss on those lines, and on 400 others.

    The seed draws the lines. `trained_on` names the part of each task whose loss after adapting the start makes small;
    the first number is the loss on that part, the second always on the query. The inner rate is one with which no
    setting diverges; at other rates the gaps are alike.
    """
    from dataclasses import replace

    from rapidadapt_lessons.meta import landscape, maml

    family = landscape.line_family(tasks, shots, seed=seed)
    fresh = landscape.line_family(400, shots, seed=2000 + seed)
    if trained_on == "support":
        x, y = family.batch.support_x, family.batch.support_y
        family = replace(family, batch=maml.TaskBatch(x, y, x, y))
    point = landscape.resting_point(family, "MAML", RATE, STEPS)
    return {
        "loss on the training tasks": float(landscape.loss_at(family, point, RATE, STEPS)),
        "loss on fresh tasks": float(landscape.loss_at(fresh, point, RATE, STEPS)),
    }


STUDY = Study(
    name="few_tasks",
    question="How many tasks does MAML need, and what does judging on the support cost?",
    run=adapted,
    settings=[
        {"shots": shots, "trained_on": part, "tasks": tasks} for shots in SHOTS for part in PARTS for tasks in TASKS
    ],
    seconds=0.05,
    tolerance={"": 0.01},
    seeds=20,
    quick=True,
)

if __name__ == "__main__":
    raise SystemExit(main(STUDY, __file__))
