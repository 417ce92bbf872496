"""What lessons 5 to 7, on meta-learning, conclude from their studies."""

from __future__ import annotations

from typing import TYPE_CHECKING

from claim import Claim

if TYPE_CHECKING:
    import pandas as pd

    from rapidadapt_lessons.studies.records import Records


# Lesson 5, the mathematics of MAML


METHODS = ("Reptile", "first-order MAML", "MAML")


def adapted(records: Records, family: str, start: str) -> pd.Series:
    """Return the loss after three steps at the inner rate that is best for this start on validation tasks."""
    tuned = records.tuned("validation loss", over=("inner_lr",))
    return tuned.values("loss after 3 steps", family=family, start=start)


def aligned(records: Records) -> pd.Series:
    """Return how much more a task's two gradients agree after 1,000 steps of the least of three methods than after
    joint training."""
    import pandas as pd

    cosines = {name: records.values("cosine, 1000 steps", method=name) for name in (*METHODS, "joint training")}
    return pd.DataFrame({name: cosines[name] - cosines["joint training"] for name in METHODS}).min(axis=1)


def during_maml(records: Records, metric: str, steps: int) -> pd.Series:
    """Return what is measured while MAML trains the networks of `meta_gradients`."""
    return records.values(f"{metric}, {steps} steps", method="MAML")


def angle_growth(records: Records, of: str, steps: int) -> pd.Series:
    """Return by how many degrees first-order MAML's angle to MAML has grown; `of` is "per task" or "of the mean"."""
    metric = f"first-order MAML, angle {of}"
    return during_maml(records, metric, steps) - during_maml(records, metric, 0)


def cancelled(records: Records) -> pd.Series:
    """Return by what share 50 steps of MAML shrink the mean gradient, as a multiple of a single task's."""
    left = [
        during_maml(records, "gradient, norm of the mean", n) / during_maml(records, "gradient, norm per task", n)
        for n in (0, 50)
    ]
    return 1 - left[1] / left[0]


def on_tasks(records: Records, which: str, trained_on: str = "query", shots: int = 10, tasks: int = 2) -> pd.Series:
    """Return the loss of a start of `few_tasks` on "the training tasks" or on "fresh tasks"."""
    return records.values(f"loss on {which}", trained_on=trained_on, shots=shots, tasks=tasks)


MATH_CLAIMS = (
    Claim(
        "maml-point-adapts-better",
        "5.3",
        "The MAML point adapts better to new lines than the average-task point, each at its best α.",
        "maml_points",
        lambda records: adapted(records, "lines", "average task") - adapted(records, "lines", "MAML"),
        above=0.0,
    ),
    Claim(
        "meta-learning-aligns-gradients",
        "5.7",
        "After 1,000 steps of MAML, first-order MAML or Reptile, a new task's two gradients agree more than after "
        "joint training.",
        "meta_gradients",
        aligned,
        above=0.0,
    ),
    Claim(
        "first-order-is-as-good",
        "5.8",
        "On lines, first-order MAML's start adapts as well as MAML's, to within 0.02, each at its best α.",
        "maml_points",
        lambda records: adapted(records, "lines", "first-order MAML") - adapted(records, "lines", "MAML"),
        above=-0.02,
        below=0.02,
    ),
    Claim(
        "reptile-beats-average",
        "5.8",
        "Reptile's start adapts better than the average task's.",
        "maml_points",
        lambda records: adapted(records, "lines", "average task") - adapted(records, "lines", "Reptile"),
        above=0.0,
    ),
    Claim(
        "reptile-behind-maml",
        "5.8",
        "It adapts worse than MAML's.",
        "maml_points",
        lambda records: adapted(records, "lines", "Reptile") - adapted(records, "lines", "MAML"),
        above=0.0,
    ),
    Claim(
        "mean-angle-grows-first",
        "5.8",
        "In the first 50 steps, the mean direction's angle grows.",
        "meta_gradients",
        lambda records: angle_growth(records, "of the mean", 50),
        above=0.0,
    ),
    Claim(
        "task-angle-waits",
        "5.8",
        "A single task's angle grows by less than 5 degrees, if at all.",
        "meta_gradients",
        lambda records: angle_growth(records, "per task", 50),
        below=5.0,
    ),
    Claim(
        "tasks-cancel",
        "5.8",
        "Relative to a single task's gradient, MAML's mean gradient shrinks by more than a fifth.",
        "meta_gradients",
        cancelled,
        above=0.2,
    ),
    Claim(
        "task-angle-grows-later",
        "5.8",
        "By 1,000 steps a single task's angle has grown by more than 20 degrees.",
        "meta_gradients",
        lambda records: angle_growth(records, "per task", 1000),
        above=20.0,
    ),
    Claim(
        "two-tasks-are-too-few",
        "5.9",
        "Trained on two tasks, MAML's start has more than twice as much loss on fresh tasks as on those two.",
        "few_tasks",
        lambda records: on_tasks(records, "fresh tasks") - 2 * on_tasks(records, "the training tasks"),
        above=0.0,
    ),
    Claim(
        "forty-tasks-are-enough",
        "5.9",
        "With 40 tasks the gap is below 0.03.",
        "few_tasks",
        lambda records: on_tasks(records, "fresh tasks", tasks=40) - on_tasks(records, "the training tasks", tasks=40),
        below=0.03,
    ),
    Claim(
        "the-support-flatters",
        "5.9",
        "With 160 tasks of three examples each, the support loss is less than two thirds of the loss on fresh queries.",
        "few_tasks",
        lambda records: (
            on_tasks(records, "fresh tasks", "support", 3, 160) * 2 / 3
            - on_tasks(records, "the training tasks", "support", 3, 160)
        ),
        above=0.0,
    ),
    Claim(
        "training-on-the-support-costs",
        "5.9",
        "A start trained on the queries then adapts better to fresh tasks than one trained on the supports.",
        "few_tasks",
        lambda records: (
            on_tasks(records, "fresh tasks", "support", 3, 160) - on_tasks(records, "fresh tasks", "query", 3, 160)
        ),
        above=0.0,
    ),
    Claim(
        "maml-point-on-waves",
        "5.10",
        "On waves too, MAML's start adapts better than the average task's, each at its best α.",
        "maml_points",
        lambda records: adapted(records, "waves", "average task") - adapted(records, "waves", "MAML"),
        above=0.0,
    ),
    Claim(
        "waves-rate-before-start",
        "5.10",
        "At its best α, the average task's start adapts better than MAML's does at 0.3.",
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
        "With five points, too, one step from MAML's start beats ten.",
        "sinusoids",
        lambda records: sinusoid_error(records, "pretrained", 10, 5) - sinusoid_error(records, "MAML", 1, 5),
        above=0.0,
    ),
    Claim(
        "more-training-helps-maml",
        "6.6",
        "Training MAML for 10,000 iterations instead of 1,000 lowers its one-step error further.",
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
        "Trained with equally many inner steps, MAML and Reptile differ by less than 0.06 after ten steps.",
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
        "Between amplitudes 5 and 8, its relative error about doubles.",
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
        "From one picture of each of five letters, a trained network reads more than four in five queries correctly.",
        "letters",
        lambda records: read(records, "ProtoNet", 1),
        above=0.8,
        queries=5000,
    ),
    Claim(
        "pixels-read-less",
        "7.1",
        "Comparing pixels reads less than half as many.",
        "letters",
        lambda records: read(records, "ProtoNet", 1) - 2 * read(records, "nearest neighbour in pixels", 1),
        above=0.0,
    ),
    Claim(
        "classifier-beats-maml",
        "7.2",
        "Trained on equally many pictures, a classifier with class means beats MAML on 1-shot tasks.",
        "letters",
        lambda records: read(records, CLASS_MEANS, 1) - read(records, "MAML", 1),
        above=0.0,
    ),
    Claim(
        "protonet-a-little-ahead",
        "7.2",
        "From one picture, ProtoNet leads that classifier by less than five points.",
        "letters",
        lambda records: read(records, "ProtoNet", 1) - read(records, CLASS_MEANS, 1),
        above=0.0,
        below=0.05,
    ),
    Claim(
        "fine-tuning-equals-class-means",
        "7.3",
        "On the letters, tuned fine-tuning comes within three points of class means on the same features.",
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
        "After one step, the meta-learned start is at least 20 points ahead of plain LoRA.",
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
        "After five steps on the same eight examples, the jointly trained start answers more queries than the prompt.",
        "meta_lora_start",
        lambda records: answered(records, "jointly trained", 5) - answered(records, "the prompt", 0),
        above=0.0,
    ),
    Claim(
        "one-plain-step-loses-to-prompt",
        "7.6",
        "One step from plain LoRA is at least 20 points behind the prompt.",
        "meta_lora_start",
        lambda records: answered(records, "the prompt", 0) - answered(records, "plain LoRA", 1),
        above=0.2,
    ),
    Claim(
        "prompt-first",
        "7.7",
        "Try the prompt first: with eight examples and no training, it answers more than half of the queries.",
        "meta_lora_start",
        lambda records: answered(records, "the prompt", 0),
        above=0.5,
        queries=128,
    ),
)
