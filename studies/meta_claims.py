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


def sinusoid_error(records: Records, start: str, steps: int, points: int = 10, iterations: int = 1000) -> pd.Series:
    """Return the error after some steps, each seed at the inner rate that is best for it on validation tasks."""
    return records.values(f"error after {steps}", start=start, points=points, iterations=iterations)


def method_error(records: Records, method: str, inner_steps: int, steps: int) -> pd.Series:
    """Return the error after some steps of a method that was trained with so many inner steps."""
    return records.values(f"error after {steps}", method=method, inner_steps=inner_steps)


def outside_error(records: Records, start: str, amplitude: float, steps: int, phases: str = "trained") -> pd.Series:
    """Return the error after some steps as a share of the tasks' mean square."""
    return records.values(f"relative error after {steps}", start=start, amplitude=amplitude, phases=phases)


def layer_error(records: Records, layers: str, steps: int) -> pd.Series:
    """Return the error after some steps of some layers of MAML's start alone."""
    return records.values(f"error after {steps}", layers=layers)


def layer_similarity(records: Records) -> pd.Series:
    """Return how much CKA before and after one step falls from layer to layer: the smaller of the two falls."""
    first, second, output = (
        records.values(f"CKA of {layer} after 1", layers="all") for layer in ("layer 1", "layer 2", "head")
    )
    return (first - second).combine(second - output, min)


SINUSOID_CLAIMS = (
    Claim(
        "one-step-from-maml",
        "6.1",
        "After one step on ten points, MAML's start has less than a third of the pretrained start's error.",
        "sinusoids",
        lambda records: sinusoid_error(records, "MAML", 1) / sinusoid_error(records, "pretrained", 1),
        below=1 / 3,
    ),
    Claim(
        "starts-are-level-before-a-step",
        "6.1",
        "Before any step, their errors differ by less than 0.05.",
        "sinusoids",
        lambda records: sinusoid_error(records, "MAML", 0) - sinusoid_error(records, "pretrained", 0),
        above=-0.05,
        below=0.05,
    ),
    Claim(
        "one-maml-step-beats-ten",
        "6.6",
        "One step from MAML's start beats ten steps from a pretrained one.",
        "sinusoids",
        lambda records: sinusoid_error(records, "pretrained", 10) - sinusoid_error(records, "MAML", 1),
        above=0.0,
    ),
    Claim(
        "one-maml-step-beats-ten-with-five-points",
        "6.6",
        "It does so with five points, too.",
        "sinusoids",
        lambda records: sinusoid_error(records, "pretrained", 10, 5) - sinusoid_error(records, "MAML", 1, 5),
        above=0.0,
    ),
    Claim(
        "more-training-helps-maml",
        "6.6",
        "Training MAML for 10,000 iterations instead of 1,000 lowers its error after one step further.",
        "sinusoids",
        lambda records: sinusoid_error(records, "MAML", 1) - sinusoid_error(records, "MAML", 1, iterations=10_000),
        above=0.0,
    ),
    Claim(
        "fomaml-loses-on-sinusoids",
        "6.6",
        "After one step, FOMAML's error is higher than MAML's.",
        "meta_methods",
        lambda records: method_error(records, "FOMAML", 1, 1) - method_error(records, "MAML", 1, 1),
        above=0.0,
    ),
    Claim(
        "reptile-is-level",
        "6.6",
        "Trained with as many inner steps, MAML and Reptile differ by less than 0.06 after ten steps.",
        "meta_methods",
        lambda records: method_error(records, "Reptile", 5, 10) - method_error(records, "MAML", 5, 10),
        above=-0.06,
        below=0.06,
    ),
    Claim(
        "reptile-beats-one-step-maml-later",
        "6.6",
        "After ten steps, Reptile beats MAML that was trained with one.",
        "meta_methods",
        lambda records: method_error(records, "MAML", 1, 10) - method_error(records, "Reptile", 5, 10),
        above=0.0,
    ),
    Claim(
        "layer-one-adapts",
        "6.7",
        "Adapting layer 1 alone does as well as adapting all layers; adapting the head alone does not.",
        "feature_reuse",
        lambda records: (
            (layer_error(records, "layer 1", 1) - layer_error(records, "all", 1))
            / (layer_error(records, "head", 1) - layer_error(records, "all", 1))
        ),
        below=0.05,
    ),
    Claim(
        "anil-is-behind-maml",
        "6.7",
        "A start trained as ANIL has a higher error after one step than MAML's.",
        "meta_methods",
        lambda records: method_error(records, "ANIL", 1, 1) - method_error(records, "MAML", 1, 1),
        above=0.0,
    ),
    Claim(
        "best-head-is-behind-maml",
        "6.7",
        "Even the best possible head is no match for ten steps of all layers.",
        "feature_reuse",
        lambda records: records.values("error of the solved head", layers="head") - layer_error(records, "all", 10),
        above=0.0,
    ),
    Claim(
        "features-look-the-same",
        "6.7",
        "Measured by CKA, layer 1 changes less than layer 2, and layer 2 less than the output.",
        "feature_reuse",
        layer_similarity,
        above=0.0,
    ),
    Claim(
        "large-waves-are-within-reach",
        "6.8",
        "At amplitude 8, one step from MAML's start beats a hundred from random weights.",
        "sinusoids_outside",
        lambda records: outside_error(records, "random", 8.0, 100) - outside_error(records, "MAML", 8.0, 1),
        above=0.0,
    ),
    Claim(
        "large-waves-cost-twice-the-error",
        "6.8",
        "Between amplitudes 5 and 8 its share of error about doubles.",
        "sinusoids_outside",
        lambda records: outside_error(records, "MAML", 8.0, 1) / outside_error(records, "MAML", 5.0, 1),
        above=1.5,
        below=3.0,
    ),
    Claim(
        "new-phases-hurt-more",
        "6.8",
        "New phases hurt more: amplitude 3 with new phases has more error than amplitude 8 with trained ones.",
        "sinusoids_outside",
        lambda records: outside_error(records, "MAML", 3.0, 1, "new") - outside_error(records, "MAML", 8.0, 1),
        above=0.0,
    ),
)


# Lesson 7, meta-learning at work


WORK_CLAIMS: tuple[Claim, ...] = ()
