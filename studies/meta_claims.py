"""What lessons 5 to 7, on meta-learning, conclude from their studies."""

from __future__ import annotations

from typing import TYPE_CHECKING

from claim import Claim

if TYPE_CHECKING:
    import pandas as pd

    from rapidadapt_lessons.studies.records import Records


# Lesson 5, the mathematics of MAML


def adapted(records: Records, family: str, start: str) -> pd.Series:
    """Return the loss after three steps at the inner rate that is best for this start on validation tasks."""
    tuned = records.tuned("validation loss", over=("inner_lr",))
    return tuned.values("loss after 3 steps", family=family, start=start)


MATH_CLAIMS = (
    Claim(
        "maml-point-adapts-better",
        "5.6",
        "MAML's point adapts better to new lines than the average task's, each at its own best inner rate.",
        "maml_points",
        lambda records: adapted(records, "lines", "average task") - adapted(records, "lines", "MAML"),
        above=0.0,
    ),
    Claim(
        "waves-rate-before-start",
        "5.10",
        "At its own best inner rate, the average task's start adapts better than MAML's does at 0.3.",
        "maml_points",
        lambda records: (
            records.values("loss after 3 steps", family="waves", start="MAML", inner_lr=0.3)
            - adapted(records, "waves", "average task")
        ),
        above=0.0,
    ),
)

# Lesson 6, MAML from scratch


def sinusoid_error(records: Records, start: str, steps: int) -> pd.Series:
    """Return the error after some steps, with the training that is best for it on validation tasks."""
    tuned = records.tuned(f"validation error after {steps}", over=("iterations",))
    return tuned.values(f"error after {steps}", start=start)


SINUSOID_CLAIMS = (
    Claim(
        "one-maml-step-beats-ten",
        "6.5",
        "One step from MAML's start beats ten steps from a pretrained one.",
        "sinusoids",
        lambda records: sinusoid_error(records, "pretrained", 10) - sinusoid_error(records, "MAML", 1),
        above=0.0,
    ),
)

# Lesson 7, meta-learning at work


WORK_CLAIMS: tuple[Claim, ...] = ()
