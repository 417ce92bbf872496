"""A published finding, and the claim on a recorded study that says whether it is seen here too."""

from __future__ import annotations

from dataclasses import dataclass

from claim import Claim
from claims import CLAIMS

from rapidadapt_lessons.errors import CourseError

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
