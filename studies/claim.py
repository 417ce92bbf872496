"""Claims: what a lesson's bold sentence says of a study, as an inequality that its whole 95% interval must satisfy.

A takeaway carries its claim's id in a comment, `**...** <!-- claim: lora-rate-ten-times -->`; one that is mathematics
names the test that proves it, `<!-- proof: tests/meta/test_maml.py::test_name -->`. `tests/studies/test_claims.py`
fails where a claim does not hold.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
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
        section: of the lesson, such as "3.9".
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
