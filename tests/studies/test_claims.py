"""Claims hold at both ends of their intervals, and the intervals are what they say they are."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from claim import Interval, mean_interval, share_interval
from claims import CLAIMS
from scipy import stats

from rapidadapt_lessons.errors import CourseError


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.id)
def test_every_claim_holds_at_both_ends(claim):
    found = claim.interval()
    assert claim.holds(), f"{claim.sentence} is not so: {found}"
    assert found.seeds >= 5 and (claim.above > -math.inf or claim.below < math.inf)
    # A bound inside the interval is missed, although the mean keeps it: the check can fail.
    assert not replace(claim, above=(found.low + found.mean) / 2, below=math.inf).holds()
    assert not replace(claim, above=-math.inf, below=(found.mean + found.high) / 2).holds()


def test_ids_are_unique():
    assert len({claim.id for claim in CLAIMS}) == len(CLAIMS)


def test_an_interval_of_differences_is_students():
    values = [0.1, 0.3, 0.2, 0.25, 0.15]
    found, t = mean_interval(values), stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (found.low, found.high) == (pytest.approx(t.low), pytest.approx(t.high)) and found.seeds == 5


def test_shares_stay_between_0_and_1_and_equal_seeds_are_no_certainty():
    """Five times 24 of 24: Student's interval would have width zero. As many answers again tell more."""
    all_right = share_interval([1.0] * 5, 24)
    assert all_right.high == 1.0 and 0.9 < all_right.low < 0.99
    assert share_interval([1.0] * 5, 48).low > all_right.low
    assert share_interval([0.0] * 5, 24) == Interval(0.0, 0.0, pytest.approx(1 - all_right.low), 5)


def test_seeds_that_differ_by_more_than_chance_widen_the_interval():
    steady, uneven = share_interval([0.5] * 5, 48), share_interval([0.2, 0.8, 0.5, 0.3, 0.7], 48)
    assert uneven.mean == pytest.approx(steady.mean)
    assert uneven.low < steady.low and uneven.high > steady.high


@pytest.mark.parametrize("values", [[0.5] * 3, [0.5, 0.5, 0.5, 0.5, math.nan]])
def test_three_runs_or_a_failed_one_give_no_interval(values):
    for interval in (mean_interval, lambda shares: share_interval(shares, 24)):
        with pytest.raises(CourseError, match="5 finite ones or more"):
            interval(values)


def test_what_is_no_share_is_refused():
    with pytest.raises(CourseError, match="shares from 0 to 1"):
        share_interval([0.5, 0.5, 0.5, 0.5, 1.5], 24)
