"""All orders of a few examples, and the picture of one of them."""

from __future__ import annotations

import re
from html import unescape

import pytest
import torch

from rapidadapt_lessons.errors import CourseError
from rapidadapt_lessons.lm.tasks import load_task
from rapidadapt_lessons.prompting.calibration import content_free_prior
from rapidadapt_lessons.prompting.orders import Ordered, in_every_order, order_view
from rapidadapt_lessons.prompting.prompts import build_prompts, template_of
from rapidadapt_lessons.prompting.scoring import label_logprobs

SENTIMENT = load_task("sentiment")
EPISODE = SENTIMENT.episode(2, seed=3, n_query=8, balanced=True)


def test_every_order_is_asked_once(real_model):
    found = in_every_order(*real_model, SENTIMENT, EPISODE.support, EPISODE.query)
    assert [one.support for one in found] == [EPISODE.support, EPISODE.support[::-1]]
    for one in found:
        prompts = build_prompts(EPISODE.query, one.support, template_of(SENTIMENT))
        assert torch.equal(one.logprobs, label_logprobs(*real_model, prompts, SENTIMENT.labels))
        prior = content_free_prior(*real_model, one.support, SENTIMENT.labels, template_of(SENTIMENT))
        assert torch.equal(one.prior, prior)
    assert not torch.equal(found[0].logprobs, found[1].logprobs)


# Every word leans to positive by the same; the one that is negative leans less.
LEANING = Ordered(EPISODE.support, torch.tensor([[0.1, 0.6], [0.3, 0.4]]).log(), torch.tensor([0.3, 0.7]))
QUERIES = [query for label in ("positive", "negative") for query in EPISODE.query if query.y == label][::4][:2]


def test_the_view_tells_each_repair_and_the_order():
    shown = unescape(order_view(SENTIMENT, QUERIES, LEANING))
    assert [query.y for query in QUERIES] == ["positive", "negative"]
    assert "Correct: uncalibrated 50%, contextual 100%, batch 100%" in shown
    # 0.6 of 0.7 is 0.86; divided by the prior, (0.6 / 0.7) / (0.6 / 0.7 + 0.1 / 0.3) is 0.72
    assert re.search(r"uncalibrated \(really positive\): mean 0.86", shown)
    assert re.search(r"contextual \(really positive\): mean 0.72", shown)
    places = [shown.index(f"{x} → {y}") for x, y in EPISODE.support]
    assert places == sorted(places) and "probability of positive" in shown


def test_too_many_orders_and_tasks_without_two_labels_are_refused():
    five = SENTIMENT.episode(5, n_query=2).support
    for task, support in ((SENTIMENT, five), (load_task("plurals"), EPISODE.support)):
        with pytest.raises(CourseError, match="in every order") as caught:
            in_every_order(None, None, task, support, EPISODE.query)
        assert caught.value.remedy
    with pytest.raises(CourseError, match="'continents' has 4 labels"):
        order_view(load_task("continents"), QUERIES, LEANING)
