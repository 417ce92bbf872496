"""How sure a number is: 95% intervals of a mean over repeats, and of a share of right answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from ..errors import CourseError
from ..guards import require_some


@dataclass(frozen=True)
class Interval:
    """A mean with its 95% interval over repeats. With one repeat the interval has no width."""

    mean: float
    low: float
    high: float


def interval(values: Sequence[float], bounds: tuple[float, float] = (0.0, 1.0)) -> Interval:
    """Return the mean of repeats and its 95% interval, by Student's t, cut at `bounds`. Without values CourseError."""
    require_some(values, "values to average", "run at least one seed.")
    centre = mean(values)
    if len(values) == 1:
        return Interval(centre, centre, centre)
    from scipy.stats import t

    half = float(t.ppf(0.975, len(values) - 1)) * stdev(values) / len(values) ** 0.5
    return Interval(centre, max(bounds[0], centre - half), min(bounds[1], centre + half))


def wilson(right: int, of: int) -> tuple[float, float]:
    """Return the 95% interval of a share by Wilson's score (Wilson 1927). Raises CourseError for a share of nothing."""
    if of < 1 or not 0 <= right <= of:
        raise CourseError(f"{right} right answers of {of}.", "give 1 query or more, and no more right answers.")
    from scipy.stats import binomtest

    found = binomtest(right, of).proportion_ci(method="wilson")
    return float(found.low), float(found.high)
