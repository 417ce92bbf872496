"""Claims: what a lesson's bold sentence says of a study, as an inequality that its whole 95% interval must satisfy.

A takeaway carries its claim's id in a comment, `**...** <!-- claim: lora-rate-ten-times -->`; one that is mathematics
names the test that proves it, `<!-- proof: tests/meta/test_maml.py::test_name -->`. `tests/studies/test_claims.py`
fails where a claim does not hold.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING

from rapidadapt_lessons.errors import CourseError
from rapidadapt_lessons.show.intervals import interval
from rapidadapt_lessons.studies.records import Records, load

if TYPE_CHECKING:
    import pandas as pd

FEWEST = 5  # seeds


@dataclass(frozen=True)
class Interval:
    """A mean over seeds and its 95% interval."""

    mean: float
    low: float
    high: float
    seeds: int


@dataclass(frozen=True)
class Claim:
    """One takeaway.

    Attributes:
        id: as in the lesson's comment.
        section: of the lesson, such as "2.9".
        sentence: what is claimed, in words.
        study: its name.
        value: from the study's records to one number per seed, a series; a paired difference where draws are shared.
        above, below: what the whole interval must lie above, or below.
        queries: where the numbers are shares of right answers: of how many queries each.
    """

    id: str
    section: str
    sentence: str
    study: str
    value: Callable[[Records], pd.Series]
    above: float = -math.inf
    below: float = math.inf
    queries: int | None = None

    def values(self, records: Records | None = None) -> pd.Series:
        """Return the number of each seed."""
        return self.value(records or load(self.study))

    def interval(self, records: Records | None = None) -> Interval:
        """Return the interval over the study's seeds."""
        values = self.values(records).tolist()
        return share_interval(values, self.queries) if self.queries else mean_interval(values)

    def holds(self, records: Records | None = None) -> bool:
        """Return whether the inequality is true at both ends."""
        found = self.interval(records)
        return self.above < found.low and found.high < self.below


def mean_interval(values: list[float]) -> Interval:
    """Return the mean of numbers or of paired differences, and Student's 95% interval, from five seeds or more.

    Raises:
        CourseError: fewer than five values, or one is not finite.
    """
    n, _ = _counted(values)
    found = interval(values, bounds=(-math.inf, math.inf))
    return Interval(found.mean, found.low, found.high, n)


def share_interval(values: list[float], queries: int) -> Interval:
    """Return the mean of shares between 0 and 1, and a 95% interval that stays between them and never has width zero.

    Seeds differ by more than the draw of queries alone would make them. So the number of answers is divided by the
    ratio of the two variances, and Clopper and Pearson's interval is taken at what is left (Korn and Graubard 1998).

    Args:
        values: for each seed, the share of right answers.
        queries: how many were asked for each.

    Raises:
        CourseError: as `mean_interval`, or a value is no share.
    """
    from scipy.stats import beta, norm, t

    n, mean = _counted(values)
    if not all(0 <= value <= 1 for value in values) or queries < 1:
        raise CourseError(f"the shares are {values}, of {queries} queries.", "give shares from 0 to 1.")
    between = sum((value - mean) ** 2 for value in values) / (n - 1)
    by_chance = mean * (1 - mean) / queries
    answers = n * queries / max(1.0, between / by_chance if by_chance else 1.0)
    answers *= float(norm.ppf(0.975) / t.ppf(0.975, n - 1)) ** 2
    right = mean * answers
    low = float(beta.ppf(0.025, right, answers - right + 1)) if right > 0 else 0.0
    high = float(beta.ppf(0.975, right + 1, answers - right)) if right < answers else 1.0
    return Interval(mean, low, high, n)


def _counted(values: list[float]) -> tuple[int, float]:
    if len(values) < FEWEST or not all(map(math.isfinite, values)):
        raise CourseError(f"the values are {values}.", f"give {FEWEST} finite ones or more, one for each seed.")
    return len(values), sum(values) / len(values)


def valley(records: Records, method: str, rank: int = 8) -> pd.Series:
    """Return where the test loss is lowest for each seed of `lora_rate`: the learning rate, as a power of ten.

    That is the lowest point of the parabola through the losses at four rates, which are a factor of three apart.
    """
    import numpy as np
    import pandas as pd

    losses = records.nested("test loss", "lr", method=method, rank=rank)
    square, slope, _ = np.polyfit(np.log10(list(losses)), np.array(list(losses.values())), 2)
    return pd.Series(-slope / (2 * square), records.seeds)


def digits(records: Records, scenario: str, metric: str = "ACC") -> pd.DataFrame:
    """Return a row for each seed and a column for each method, at the rate and strength that validation chose for it.

    Args:
        scenario: "task", "domain" or "class", of the study `digit_scenarios`.
    """
    import pandas as pd

    tuned = records.tuned("validation ACC", over=("lr", "strength"), lowest=False)
    return pd.DataFrame(tuned.nested(metric, "scenario", "method")[f"{scenario}-incremental"])


def _adapted(records: Records, family: str, start: str) -> pd.Series:
    """Return the loss after three steps at the inner rate that is best for this start on validation tasks."""
    tuned = records.tuned("validation loss", over=("inner_lr",))
    return tuned.values("loss after 3 steps", family=family, start=start)


def _sinusoid_error(records: Records, start: str, steps: int) -> pd.Series:
    """Return the error after some steps, with the training that is best for it on validation tasks."""
    tuned = records.tuned(f"validation error after {steps}", over=("iterations",))
    return tuned.values(f"error after {steps}", start=start)


def _calibrated_less_lora(records: Records, examples: int) -> pd.Series:
    """Return the accuracy on continents of the calibrated prompt less that of LoRA, from the same examples."""
    prompt, lora = (records.values("accuracy", method=m, examples=examples) for m in ("calibrated few-shot", "LoRA"))
    return prompt - lora


def _more_than_rule(records: Records, task: str) -> pd.Series:
    """Return the accuracy with eight examples less that of the spelling rule."""
    return records.values("exact match", task=task, shots=8) - records.values("rule", task=task, shots=8)


def labelled(records: Records, shown: str) -> pd.Series:
    """Return the accuracy with examples of a kind, the mean over the tasks of `example_labels`."""
    tasks = records.rows["task"].unique()
    return sum(records.values("accuracy", task=task, shown=shown) for task in tasks) / len(tasks)


def _exact(records: Records, task: str, format: str) -> pd.Series:
    """Return the share of exact matches with four examples."""
    return records.values("exact match", task=task, format=format, shots=4)


def _lenient(records: Records, task: str, shots: int) -> pd.Series:
    """Return the share of replies in chat that contain the answer."""
    return records.values("lenient match", task=task, format="chat", shots=shots)


def _cue_less_question(records: Records, task: str) -> pd.Series:
    return _exact(records, task, "cue") - _exact(records, task, "question and answer")


def _least_gain_over_system_prompt(records: Records) -> pd.Series:
    """Return what four examples in chat gain over a system prompt without any, on the task where that is least."""
    asked = {"format": "chat, system prompt", "shots": 0}
    tasks = records.rows["task"].unique()
    gains = [_exact(records, task, "chat") - records.values("exact match", task=task, **asked) for task in tasks]
    return reduce(lambda a, b: a.combine(b, min), gains)


CLAIMS = (
    Claim(
        "more-examples-more-verbs",
        "How every lesson works",
        "Eight examples get more verbs right than one.",
        "few_shot",
        lambda records: (
            records.values("exact match", task="past_tense", shots=8)
            - records.values("exact match", task="past_tense", shots=1)
        ),
        above=0.0,
    ),
    Claim(
        "few-shot-plurals",
        "1.3",
        "Four examples are enough for plurals: over 80% of the answers are right.",
        "few_shot",
        lambda records: records.values("exact match", task="plurals", shots=4),
        above=0.8,
        queries=66,
    ),
    Claim(
        "lora-rate-ten-times",
        "2.9",
        "Start LoRA's learning rate at least ten times higher than full fine-tuning's.",
        "lora_rate",
        lambda records: valley(records, "LoRA, all linear") - valley(records, "full fine-tuning", rank=0),
        above=math.log10(10),
    ),
    Claim(
        "class-incremental-ewc-forgets",
        "5.12",
        "When all ten classes compete, EWC and LwF barely beat fine-tuning.",
        "digit_scenarios",
        lambda records: (acc := digits(records, "class"))[["EWC", "LwF"]].max(axis=1) - acc["fine-tuning"],
        below=0.1,
    ),
    Claim(
        "class-incremental-replay-beats-ewc",
        "5.12",
        "Replay of 50 images ends more than 0.5 above EWC.",
        "digit_scenarios",
        lambda records: (acc := digits(records, "class"))["replay"] - acc["EWC"],
        above=0.5,
    ),
    Claim(
        "class-incremental-means-beat-replay",
        "5.12",
        "One stored mean per class beats replay of 50 images.",
        "digit_scenarios",
        lambda records: (acc := digits(records, "class"))["nearest class mean"] - acc["replay"],
        above=0.0,
    ),
    Claim(
        "task-incremental-all-hold",
        "5.12",
        "When the model is told which pair an image is from, all six methods end above 0.9.",
        "digit_scenarios",
        lambda records: digits(records, "task").min(axis=1),
        above=0.9,
    ),
    Claim(
        "domain-incremental-forgets",
        "5.12",
        "When the question is only even or odd, fine-tuning ends more than 0.1 below joint training.",
        "digit_scenarios",
        lambda records: (acc := digits(records, "domain"))["joint"] - acc["fine-tuning"],
        above=0.1,
    ),
    Claim(
        "maml-point-adapts-better",
        "3.6",
        "MAML's point adapts better to new lines than the average task's, each at its own best inner rate.",
        "maml_points",
        lambda records: _adapted(records, "lines", "average task") - _adapted(records, "lines", "MAML"),
        above=0.0,
    ),
    Claim(
        "waves-rate-before-start",
        "3.10",
        "At its own best inner rate, the average task's start adapts better than MAML's does at 0.3.",
        "maml_points",
        lambda records: (
            records.values("loss after 3 steps", family="waves", start="MAML", inner_lr=0.3)
            - _adapted(records, "waves", "average task")
        ),
        above=0.0,
    ),
    Claim(
        "one-maml-step-beats-ten",
        "4.5",
        "One step from MAML's start beats ten steps from a pretrained one.",
        "sinusoids",
        lambda records: _sinusoid_error(records, "pretrained", 10) - _sinusoid_error(records, "MAML", 1),
        above=0.0,
    ),
    Claim(
        "two-processes-one-run",
        "7.1",
        "Two processes that share the rows of each update do what one process does, up to rounding.",
        "two_processes",
        lambda records: records.values("largest difference", processes=2),
        below=1e-4,
    ),
    Claim(
        "adapter-beats-eight-examples",
        "2.1",
        "Asked with no example, the adapter gets more verbs right than a prompt that shows eight.",
        "adapter_or_prompt",
        lambda records: (
            records.tuned("validation loss", over=("lr",)).values("exact match", method="LoRA")
            - records.values("exact match", method="prompt", examples=8)
        ),
        above=0.0,
    ),
    Claim(
        "calibrate-before-training",
        "6.3",
        "With 4 examples as with 16, the calibrated prompt is at most one answer in twenty behind LoRA.",
        "choose_continents",
        lambda records: _calibrated_less_lora(records, 4).combine(_calibrated_less_lora(records, 16), min),
        above=-1 / 20,
    ),
    # Lesson 1
    Claim(
        "few-shot-beats-spelling",
        "1.4",
        "With eight examples, the model gets more plurals and more past tenses right than a spelling rule.",
        "few_shot",
        lambda records: _more_than_rule(records, "plurals").combine(_more_than_rule(records, "past_tense"), min),
        above=0.0,
    ),
    Claim(
        "random-labels-cost",
        "1.5",
        "Random labels cost more than five points, on average over the four tasks.",
        "example_labels",
        lambda records: labelled(records, "correct labels") - labelled(records, "random labels"),
        above=0.05,
    ),
    Claim(
        "labels-need-their-words",
        "1.5",
        "Labels on unrelated words bring less than five points over no example at all.",
        "example_labels",
        lambda records: labelled(records, "correct labels, unrelated words") - labelled(records, "nothing"),
        below=0.05,
    ),
    Claim(
        "format-spread",
        "1.6",
        "With the same examples, question and answer gets over 20 points more past tenses right than chat.",
        "prompt_formats",
        lambda records: _exact(records, "past_tense", "question and answer") - _exact(records, "past_tense", "chat"),
        above=0.2,
    ),
    Claim(
        "no-format-wins",
        "1.6",
        "Question and answer beats the sentence on past tenses, and the sentence beats it on capitals.",
        "prompt_formats",
        lambda records: _cue_less_question(records, "capitals").combine(
            -_cue_less_question(records, "past_tense"), min
        ),
        above=0.0,
    ),
    Claim(
        "chat-says-plurals",
        "1.7",
        "Asked in chat without an example, the model says over 70% of the plurals, in replies that are no exact match.",
        "prompt_formats",
        lambda records: (
            _lenient(records, "plurals", 0) - records.values("exact match", task="plurals", format="chat", shots=0)
        ),
        above=0.7,
        queries=66 // 5,  # nothing is drawn: all five seeds are one run over 66 words
    ),
    Claim(
        "examples-beat-system-prompt",
        "1.7",
        "Without an example the system prompt brings no exact match; four examples in chat bring over 20 points per "
        "task.",
        "prompt_formats",
        _least_gain_over_system_prompt,
        above=0.2,
    ),
    Claim(
        "examples-cost-capitals",
        "1.7",
        "In chat, four examples cost over 20 points of the capitals that the model says without any.",
        "prompt_formats",
        lambda records: _lenient(records, "capitals", 0) - _lenient(records, "capitals", 4),
        above=0.2,
    ),
    Claim(
        "paired-arrow-beats-chat",
        "1.8",
        "Compared on the same draws, the arrow gets over ten points more past tenses right than chat.",
        "prompt_formats",
        lambda records: _exact(records, "past_tense", "arrow") - _exact(records, "past_tense", "chat"),
        above=0.1,
    ),
    Claim(
        "few-shot-sixteen-beat-one",
        "1.9",
        "For past tenses, sixteen examples beat one by more than 40 points.",
        "few_shot",
        lambda records: (
            records.values("exact match", task="past_tense", shots=16)
            - records.values("exact match", task="past_tense", shots=1)
        ),
        above=0.4,
    ),
)
