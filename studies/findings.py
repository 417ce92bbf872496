"""Published findings, and whether the course's recorded studies agree: the rows of docs/reproductions.md.

A row is a `Finding` at the end of this file. What a study gives for it is a claim: a lesson's own, by its id, or one
that is written here because no lesson draws it. After a change: `make reproductions`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from claims import CLAIMS, Claim

from rapidadapt_lessons.errors import CourseError
from rapidadapt_lessons.studies.records import Records

if TYPE_CHECKING:
    import pandas as pd

AGREES, DISAGREES, UNDECIDED = "agrees", "disagrees", "undecided"


@dataclass(frozen=True)
class Finding:
    """What a paper found, and how it is looked for here.

    Attributes:
        paper: authors and year.
        figure: where in the paper.
        found: what it found, in words, as a whole sentence.
        claim: a study's one number for each seed; to agree is to satisfy its inequality.
        number: what that number is, in words.
        digits: of it, behind the point.
        note: what is different here; where it does not agree, why not.
    """

    paper: str
    figure: str
    found: str
    claim: Claim
    number: str
    digits: int = 2
    note: str = ""

    def verdict(self) -> str:
        """Return whether the inequality holds at both ends of the 95% interval, or fails at both, or neither."""
        found = self.claim.interval()
        if self.claim.holds():
            return AGREES
        fails = found.high <= self.claim.above or found.low >= self.claim.below
        return DISAGREES if fails else UNDECIDED

    def seen(self) -> str:
        """Return the number's mean and its range over the seeds, in words."""
        values, mean = self.claim.values(), self.claim.interval().mean
        mean, low, high = (f"{value:.{self.digits}f}" for value in (mean, values.min(), values.max()))
        return f"{self.number}: {mean} ({low} to {high}, {len(values)} seeds)"


def lesson_claim(name: str) -> Claim:
    """Return the claim of this id. Raises CourseError where there is none."""
    for claim in CLAIMS:
        if claim.id == name:
            return claim
    raise CourseError(f"there is no claim {name!r}.", "see `CLAIMS` in studies/claims.py.")


def _gain_by_calibration(records: Records) -> pd.Series:
    """Return the share of right continents with a calibrated prompt less with the plain one, 4 and 16 examples."""
    plain, calibrated = (
        sum(records.values("accuracy", method=method, examples=examples) for examples in (4, 16)) / 2
        for method in ("few-shot", "calibrated few-shot")
    )
    return calibrated - plain


def _test_loss(records: Records, rank: int) -> pd.Series:
    """Return LoRA's test loss at the rate that is best for this rank on validation words."""
    return records.tuned("validation loss", over=("lr",)).values("test loss", method="LoRA, all linear", rank=rank)


# The first ones stand in the README too.
FINDINGS = (
    Finding(
        "Brown et al. 2020",
        "figure 1.2",
        "A large language model learns a task from examples in its prompt, and more examples teach it more.",
        Claim(
            "few-shot-sixteen-beat-one",
            "1.5",
            "For past tenses sixteen examples beat one.",
            "few_shot",
            lambda records: (
                records.values("exact match", task="past_tense", shots=16)
                - records.values("exact match", task="past_tense", shots=1)
            ),
            above=0.0,
        ),
        "past tenses, share right with 16 examples less with one",
        note="Their curves climb steeply at 175 billion weights only. Here 135 million are enough for a rule of "
        "spelling, and far from enough for French names (section 1.5).",
    ),
    Finding(
        "Schulman et al. 2025",
        "learning-rate sweeps",
        "LoRA's best learning rate is about ten times that of full fine-tuning.",
        Claim(
            "lora-best-rate-ten-times",
            "2.9",
            "On a scale of powers of ten, the ratio of the best rates is nearer to 10 than to 1 or 100.",
            "lora_rate",
            lesson_claim("lora-rate-ten-times").value,
            above=0.5,
            below=1.5,
        ),
        "LoRA's best rate over full fine-tuning's, as a power of ten",
        note="Ten times or more is sure; whether ten or a hundred is nearer, five seeds do not tell. For runs "
        "as short as these, 30 updates, the authors report about 15.",
    ),
    Finding(
        "Schulman et al. 2025",
        "learning-rate sweeps",
        "At LoRA's best rate, which hardly depends on the rank, a small set is learned as well with a low rank.",
        Claim(
            "lora-rank-hardly-matters",
            "2.9",
            "From rank 1 to rank 64 the loss changes by less than 0.1 nats per token.",
            "lora_rate",
            lambda records: _test_loss(records, 64) - _test_loss(records, 1),
            above=-0.1,
            below=0.1,
        ),
        "loss on other words with rank 64 less with rank 1, nats per token",
    ),
    Finding(
        "Zhao et al. 2021",
        "figure 1",
        "Dividing out what the prompt alone suggests makes few-shot answers more accurate.",
        Claim(
            "calibration-helps",
            "6.3",
            "The calibrated prompt is right more often than the plain one, over 4 and 16 examples.",
            "choose_continents",
            _gain_by_calibration,
            above=0.0,
        ),
        "continents, share right with a calibrated prompt less with the plain one, mean of 4 and 16 examples",
    ),
    Finding(
        "Finn et al. 2017",
        "figures 2 and 3",
        "On a new sinusoid, MAML's start comes closer in one gradient step than a pretrained one in ten.",
        lesson_claim("one-maml-step-beats-ten"),
        "mean squared error of the pretrained start after ten steps less that of MAML's after one",
        note="10,000 iterations of 25 tasks here, 70,000 there.",
    ),
    Finding(
        "van de Ven et al. 2022",
        "table of Split MNIST",
        "When classes arrive one after another and all compete, EWC and LwF hardly forget less than fine-tuning.",
        lesson_claim("class-incremental-ewc-forgets"),
        "final accuracy (ACC) of the better of EWC and LwF less fine-tuning's, digits",
        note="8 x 8 digits in place of MNIST.",
    ),
    Finding(
        "Goyal et al. 2017",
        "section 3",
        "Processes that add up their gradients, each by its share of the batch, compute what one process does.",
        lesson_claim("two-processes-one-run"),
        "largest difference of the losses of eight updates, nats per token",
        digits=6,
        note="To the last bit they are not equal: sums are added in another order.",
    ),
)
