"""Calibration against numbers worked by hand, and on a judge that is biased on purpose."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rapidadapt_lessons.errors import BadPrompt, NonFiniteScores
from rapidadapt_lessons.lm.tasks import load_task
from rapidadapt_lessons.prompting.calibration import (
    CONTENT_FREE,
    batch_calibration,
    content_free_prior,
    contextual_calibration,
)
from rapidadapt_lessons.prompting.prompts import QA, build_prompt, reorder
from rapidadapt_lessons.prompting.scoring import label_logprobs

TRUTH = torch.tensor([0, 1, 1, 0, 1, 0])


def judge(bias: list[float]) -> torch.Tensor:
    """Return log-probabilities [6, 2] of a judge who sees every query rightly, and then adds a bias."""
    evidence = torch.tensor([0.6, 0.9, 0.5, 0.7, 1.2, 0.4])
    seen = torch.stack([torch.where(TRUTH == 0, evidence, -evidence), torch.where(TRUTH == 1, evidence, -evidence)], -1)
    return (seen + torch.tensor(bias)).log_softmax(-1)


tables = st.lists(st.lists(st.floats(-20, 0), min_size=3, max_size=3), min_size=1, max_size=5).map(
    lambda rows: torch.tensor(rows, dtype=torch.float64)
)


# Contextual calibration


def test_contextual_calibration_worked_by_hand():
    """0.6 / 0.8 = 0.75 and 0.4 / 0.2 = 2, of 2.75; 0.9 / 0.8 = 1.125 and 0.1 / 0.2 = 0.5, of 1.625."""
    done = contextual_calibration(torch.tensor([[0.6, 0.4], [0.9, 0.1]]), torch.tensor([0.8, 0.2]))
    torch.testing.assert_close(done, torch.tensor([[3 / 11, 8 / 11], [9 / 13, 4 / 13]]))


@given(tables)
def test_a_prior_of_equal_parts_changes_nothing(logprobs):
    p = logprobs.softmax(-1)
    torch.testing.assert_close(contextual_calibration(p, torch.full((3,), 1 / 3, dtype=torch.float64)), p)


@given(tables, st.lists(st.floats(0.01, 1), min_size=3, max_size=3))
def test_rows_sum_to_1_and_only_the_priors_proportions_matter(logprobs, prior):
    p, prior = logprobs.softmax(-1), torch.tensor(prior, dtype=torch.float64)
    done = contextual_calibration(p, prior)
    torch.testing.assert_close(done.sum(-1), torch.ones(len(p), dtype=torch.float64))
    torch.testing.assert_close(contextual_calibration(p, prior * 7), done)
    # Zhao et al. write softmax(p / prior): the same label wins.
    assert torch.equal(done.argmax(-1), (p / prior).argmax(-1))


def test_a_query_that_looks_like_the_prior_is_undecided():
    prior = torch.tensor([0.7, 0.2, 0.1])
    torch.testing.assert_close(contextual_calibration(prior[None], prior), torch.full((1, 3), 1 / 3))


def test_a_biased_judge_is_repaired():
    bias = [3.0, 0.0]
    biased = judge(bias).softmax(-1)
    assert biased.argmax(-1).tolist() == [0] * 6
    repaired = contextual_calibration(biased, torch.tensor(bias).softmax(-1))
    assert torch.equal(repaired.argmax(-1), TRUTH)
    torch.testing.assert_close(repaired, judge([0.0, 0.0]).softmax(-1))


@pytest.mark.parametrize(
    "prior", [[1.0, 0.0], [float("nan"), 0.5], [float("inf"), 0.5], [-0.1, 1.1]], ids=["zero", "nan", "inf", "negative"]
)
def test_a_prior_that_nothing_can_be_divided_by_is_told(prior):
    with pytest.raises(NonFiniteScores) as caught:
        contextual_calibration(torch.tensor([[0.5, 0.5]]), torch.tensor(prior))
    assert str(torch.tensor(prior).tolist()) in caught.value.problem
    assert "label words" in caught.value.remedy


# Batch calibration


def test_batch_calibration_worked_by_hand():
    """(3/4, 1/4) and (1/4, 3/4) have the log-odds log 3 and -log 3: their mean is 0, so nothing changes.
    (9/10, 1/10) and (1/2, 1/2) have log 9 and 0: their mean is log 3, and log 3 and -log 3 are left."""
    even = torch.tensor([[0.75, 0.25], [0.25, 0.75]])
    torch.testing.assert_close(batch_calibration(even.log()), even)
    leaning = torch.tensor([[0.9, 0.1], [0.5, 0.5]])
    torch.testing.assert_close(batch_calibration(leaning.log()), even)


@given(tables, st.lists(st.floats(-9, 9), min_size=3, max_size=3), st.floats(-9, 9))
def test_a_shift_of_a_label_or_of_a_row_changes_nothing(logprobs, per_label, per_row):
    done = batch_calibration(logprobs)
    torch.testing.assert_close(done.sum(-1), torch.ones(len(logprobs), dtype=torch.float64))
    torch.testing.assert_close(batch_calibration(logprobs + torch.tensor(per_label, dtype=torch.float64)), done)
    rows = per_row * torch.arange(len(logprobs), dtype=torch.float64)[:, None]
    torch.testing.assert_close(batch_calibration(logprobs + rows), done)


def test_batch_calibration_repairs_a_biased_judge_when_labels_are_equally_frequent():
    assert torch.equal(batch_calibration(judge([3.0, 0.0])).argmax(-1), TRUTH)


def test_batch_calibration_does_harm_when_they_are_not():
    only_one_label = judge([0.0, 0.0])[TRUTH == 1]
    assert only_one_label.argmax(-1).tolist() == [1, 1, 1]
    assert 0 in batch_calibration(only_one_label).argmax(-1)


def test_a_single_query_says_nothing_about_the_bias():
    torch.testing.assert_close(batch_calibration(torch.tensor([[-1.0, -5.0, -9.0]])), torch.full((1, 3), 1 / 3))


# The prior, from the real model


def test_the_prior_is_the_mean_over_queries_without_content(real_model):
    task = load_task("sentiment")
    support = task.episode(4).support
    prior = content_free_prior(*real_model, support, task.labels, QA)
    assert prior.shape == (2,) and float(prior.sum()) == pytest.approx(1)
    rows = [
        label_logprobs(*real_model, [build_prompt(x, support, QA)], task.labels).softmax(-1)[0] for x in CONTENT_FREE
    ]
    torch.testing.assert_close(prior, sum(rows) / len(rows), atol=1e-4, rtol=0)
    alone = content_free_prior(*real_model, support, task.labels, QA, inputs=["N/A"])
    torch.testing.assert_close(alone, rows[0], atol=1e-4, rtol=0)
    assert float((alone - prior).abs().max()) > 1e-3, "the inputs of CONTENT_FREE do not all say the same"


def test_calibration_makes_up_for_the_order_of_the_examples(real_model):
    """The four examples in several orders: after calibration, P(first label) depends less on the order."""
    task = load_task("sentiment")
    episode = task.episode(4, seed=2, n_query=8)
    plain, repaired = [], []
    for seed in range(3):
        support = reorder(episode.support, seed)
        prompts = [build_prompt(query.x, support) for query in episode.query]
        p = label_logprobs(*real_model, prompts, task.labels).softmax(-1)
        plain.append(p[:, 0])
        repaired.append(contextual_calibration(p, content_free_prior(*real_model, support, task.labels))[:, 0])
    spread_plain = torch.stack(plain).mean(-1)
    spread_repaired = torch.stack(repaired).mean(-1)
    assert spread_plain.max() - spread_plain.min() > 0.05
    assert spread_repaired.max() - spread_repaired.min() < spread_plain.max() - spread_plain.min()


def test_one_label_has_no_prior(real_model):
    with pytest.raises(BadPrompt, match="two different labels"):
        content_free_prior(*real_model, (), ["positive"])
