"""MAML's point and those of three other methods, each at inner rates of its own, on fresh tasks (Finn et al. 2017).

python studies/maml_points.py
"""

from __future__ import annotations

from runner import Study, main

STEPS = 3
LINE_RATES = (0.05, 0.08, 0.1, 0.12, 0.135, 0.15, 0.18)
LINE_STARTS = ("average task", "Reptile", "first-order MAML", "MAML")
WAVE_RATES = (0.3, 0.6, 0.9, 1.05, 1.2)
WAVE_STARTS = ("average task", "MAML")


def judged(family: str, start: str, inner_lr: float, seed: int) -> dict[str, float]:
    """Find a start for 40 tasks, and adapt it by three steps to fresh ones: 400 for validation, 400 for the result.

    The seed draws the tasks. A start is the one for the inner rate with which it is judged; the average task's is the
    same at all rates. Lines have exact resting points. On waves the average task's is found by gradient descent from
    where the lesson begins, and MAML's from there on.
    """
    from functools import partial

    from rapidadapt_lessons.meta import landscape

    draw = landscape.line_family if family == "lines" else partial(landscape.wave_family, spread=1.5)
    tasks, validation, test = draw(seed=seed), draw(400, seed=1000 + seed), draw(400, seed=2000 + seed)
    if family == "lines":
        point = landscape.resting_point(tasks, start, inner_lr, STEPS)
    else:
        point = landscape.descend(tasks, "average task", (0.3, 1.0), inner_lr, STEPS, rate=0.2, updates=200)[-1]
        if start == "MAML":
            point = landscape.descend(tasks, start, tuple(point.tolist()), inner_lr, STEPS, rate=0.1, updates=200)[-1]
    return {
        "first parameter": float(point[0]),
        "second parameter": float(point[1]),
        "loss before adapting": float(landscape.loss_at(test, point, inner_lr, 0)),
        "loss after 3 steps": float(landscape.loss_at(test, point, inner_lr, STEPS)),
        "validation loss": float(landscape.loss_at(validation, point, inner_lr, STEPS)),
    }


LINES = [{"family": "lines", "start": start, "inner_lr": rate} for start in LINE_STARTS for rate in LINE_RATES]
WAVES = [{"family": "waves", "start": start, "inner_lr": rate} for start in WAVE_STARTS for rate in WAVE_RATES]

STUDY = Study(
    name="maml_points",
    question="Is MAML's point the best to adapt from, when each has its own inner rate and tasks are new?",
    run=judged,
    settings=[*LINES, *WAVES],
    seconds=0.3,
    tolerance={"": 0.01},
    seeds=20,
    quick=True,
)

if __name__ == "__main__":
    raise SystemExit(main(STUDY, __file__))
