"""ACC, BWT, FWT and forgetting, on matrices small enough to work out by hand."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rapidadapt_lessons.continual.metrics import (
    average_accuracy,
    backward_transfer,
    forgetting,
    forward_transfer,
    plasticity,
)
from rapidadapt_lessons.errors import CourseError

# Learned in turn; experience 0 was at its best after experience 1, and experience 1 before it was learned.
R = [[0.8, 0.95, 0.1], [0.9, 0.6, 0.3], [0.5, 0.4, 0.7]]
BEFORE = [0.2, 0.1, 0.0]


def test_acc_is_the_mean_of_the_last_row():
    assert average_accuracy(R) == pytest.approx((0.5 + 0.4 + 0.7) / 3)


def test_bwt_averages_the_change_since_learning_over_all_experiences_but_the_last():
    assert backward_transfer(R) == pytest.approx(((0.5 - 0.8) + (0.4 - 0.6)) / 2)


def test_fwt_averages_the_head_start_over_all_experiences_but_the_first():
    assert forward_transfer(R, BEFORE) == pytest.approx(((0.95 - 0.1) + (0.3 - 0.0)) / 2)


def test_forgetting_is_from_the_best_since_learning():
    # Experience 0: best 0.9, after experience 1. Experience 1: 0.6, since its 0.95 was before it was learned.
    assert forgetting(R) == pytest.approx(((0.9 - 0.5) + (0.6 - 0.4)) / 2)


def test_plasticity_is_the_mean_of_the_diagonal():
    assert plasticity(R) == pytest.approx((0.8 + 0.6 + 0.7) / 3)


def test_with_two_experiences_the_average_is_over_one_and_not_two():
    r = [[1.0, 0.25], [0.5, 0.75]]
    assert backward_transfer(r) == -0.5
    assert forgetting(r) == 0.5
    assert forward_transfer(r, [0.0, 0.0]) == 0.25


def test_an_experience_that_gets_better_afterwards_has_negative_forgetting():
    r = [[0.5, 0.0], [0.75, 1.0]]
    assert forgetting(r) == -0.25 and backward_transfer(r) == 0.25


@given(st.integers(2, 5), st.integers(0, 10_000))
def test_forgetting_is_never_less_than_minus_bwt(count, seed):
    r = torch.rand(count, count, generator=torch.Generator().manual_seed(seed))
    assert forgetting(r) >= -backward_transfer(r) - 1e-12


@pytest.mark.parametrize("measure", [average_accuracy, backward_transfer, forgetting, plasticity])
@pytest.mark.parametrize("bad", [[], [[0.5, 0.5]], [0.5, 0.5], [[float("nan")] * 2] * 2])
def test_a_matrix_that_is_not_square_or_not_measured_is_refused(measure, bad):
    with pytest.raises(CourseError, match="the accuracy matrix"):
        measure(bad)


def test_a_number_that_is_not_needed_may_be_missing():
    nan = float("nan")
    assert backward_transfer([[0.5, nan], [0.25, 0.5]]) == -0.25
    with pytest.raises(CourseError, match="nan where a score is needed"):
        forward_transfer([[0.5, nan], [0.25, 0.5]], [0, 0])


@pytest.mark.parametrize("measure", [backward_transfer, forgetting, lambda r: forward_transfer(r, [0.0])])
def test_a_single_experience_has_no_transfer(measure):
    with pytest.raises(CourseError, match="at least 2"):
        measure([[0.5]])


def test_before_needs_one_score_for_each_experience():
    with pytest.raises(CourseError, match=r"`before` has shape \[2\] for 3 experiences"):
        forward_transfer(R, [0.1, 0.2])
