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


def read(records: Records, method: str, shots: int) -> pd.Series:
    """Return the accuracy on new letters, from so many pictures of each."""
    return records.values("accuracy", method=method, shots=shots)


CLASS_MEANS = "class mean, classifier's features"


def answered(records: Records, start: str, *steps: int) -> pd.Series:
    """Return the exact match of a LoRA start on the held-out tasks, averaged over numbers of steps."""
    return sum(records.values(f"exact match after {k}", start=start) for k in steps) / len(steps)


def start_lead(records: Records, steps: int) -> pd.Series:
    """Return how much more the meta-learned start answers than plain LoRA, after some steps from each."""
    return answered(records, "meta-learned", steps) - answered(records, "plain LoRA", steps)


WORK_CLAIMS = (
    Claim(
        "letters-from-one-picture",
        "7.1",
        "From one picture of each of five letters, a trained network reads more than four in five of the next ones.",
        "letters",
        lambda records: read(records, "ProtoNet", 1),
        above=0.8,
        queries=5000,
    ),
    Claim(
        "pixels-read-less",
        "7.1",
        "The nearest picture in pixels reads less than half as many.",
        "letters",
        lambda records: read(records, "ProtoNet", 1) - 2 * read(records, "nearest neighbour in pixels", 1),
        above=0.0,
    ),
    Claim(
        "classifier-beats-maml",
        "7.2",
        "Trained on as many pictures, a classifier with class means beats MAML at reading from one picture.",
        "letters",
        lambda records: read(records, CLASS_MEANS, 1) - read(records, "MAML", 1),
        above=0.0,
    ),
    Claim(
        "protonet-a-little-ahead",
        "7.2",
        "ProtoNet is ahead of that classifier from one picture, by less than five points.",
        "letters",
        lambda records: read(records, "ProtoNet", 1) - read(records, CLASS_MEANS, 1),
        above=0.0,
        below=0.05,
    ),
    Claim(
        "fine-tuning-equals-class-means",
        "7.3",
        "On the letters, the tuned fine-tuning reads within three points of the class means of the same features.",
        "letters",
        lambda records: read(records, "fine-tuning", 1) - read(records, CLASS_MEANS, 1),
        above=-0.03,
        below=0.03,
    ),
    Claim(
        "joint-start-as-good",
        "7.5",
        "On the same rows, meta-learning's start is less than five points ahead of joint training's.",
        "meta_lora_start",
        lambda records: answered(records, "meta-learned", 1, 5, 10) - answered(records, "jointly trained", 1, 5, 10),
        below=0.05,
    ),
    Claim(
        "meta-start-ahead-after-one-step",
        "7.5",
        "After one step, the meta-learned start answers at least 20 points more of the queries than plain LoRA.",
        "meta_lora_start",
        lambda records: start_lead(records, 1),
        above=0.2,
    ),
    Claim(
        "lead-of-the-start-shrinks",
        "7.5",
        "After ten steps, more than half of that lead is gone.",
        "meta_lora_start",
        lambda records: start_lead(records, 1) / 2 - start_lead(records, 10),
        above=0.0,
    ),
    Claim(
        "trained-start-beats-prompt",
        "7.6",
        "After five steps on the same eight examples, the jointly trained start answers more than the prompt does.",
        "meta_lora_start",
        lambda records: answered(records, "jointly trained", 5) - answered(records, "the prompt", 0),
        above=0.0,
    ),
    Claim(
        "one-plain-step-loses-to-prompt",
        "7.6",
        "One step from plain LoRA answers at least 20 points fewer than the prompt.",
        "meta_lora_start",
        lambda records: answered(records, "the prompt", 0) - answered(records, "plain LoRA", 1),
        above=0.2,
    ),
    Claim(
        "prompt-first",
        "7.7",
        "Try the prompt first: with no training at all, eight examples answer more than half of the queries.",
        "meta_lora_start",
        lambda records: answered(records, "the prompt", 0),
        above=0.5,
        queries=128,
    ),
)
