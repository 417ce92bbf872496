"""What the widgets of lessons 5 to 7 answer, as plain functions of what a learner did by hand."""

from __future__ import annotations

import json

import pytest
import torch

from rapidadapt_lessons.errors import BadData, CourseError
from rapidadapt_lessons.meta import click_points, maml, sinusoids
from rapidadapt_lessons.meta.hands import points
from rapidadapt_lessons.meta.sinusoids import ANIL, MAML, MetaMethod

CLICKED = [[-2.0, 1.0], [0.0, 3.0], [1.5, -2.0]]


@pytest.fixture(scope="module")
def starts():
    params, _ = sinusoids.train_starts(MAML, (0,), 100)
    return {"MAML": (MAML, sinusoids.select(params, 0)), "ANIL": (ANIL, sinusoids.select(params, 0))}


# Points and curves


def test_each_start_adapts_to_the_clicked_points_as_the_inner_loop_does(starts):
    shown = points.points_answer(starts, {"points": CLICKED})["starts"]
    x, y = torch.tensor(CLICKED).T[:, :, None]
    for name, (method, params) in starts.items():
        assert len(shown[name]["curves"]) == len(shown[name]["errors"]) == points.SLIDER_STEPS + 1
        for steps in (0, 1, 10):
            options = {"inner_lr": method.inner_lr, "steps": steps, "adaptable": method.adaptable}
            adapted = maml.inner_loop(sinusoids.network(), params, x, y, **options)
            values = points.heights(adapted, points.PLANE_GRID)
            assert shown[name]["curves"][steps] == pytest.approx(values.tolist(), abs=0.0051)
            assert shown[name]["errors"][steps] == f"{maml.mse(points.heights(adapted, x), y[:, 0]):.2f}"
    assert shown["MAML"]["curves"][1] != shown["ANIL"]["curves"][1]


def test_without_points_only_the_start_is_there(starts):
    for shown in points.points_answer(starts, {"points": []})["starts"].values():
        assert len(shown["curves"]) == 1 and shown["errors"] == []


@pytest.mark.parametrize(
    ("clicked", "told"),
    [([[0, 1]] * 51, "51 points"), ([[5.1, 0]], "(5.1, 0)"), ([[0, -6.2]], "outside"), ([[float("nan"), 0]], "nan")],
)
def test_points_that_are_too_many_or_off_the_plane_are_refused(starts, clicked, told):
    with pytest.raises(BadData) as caught:
        points.points_answer(starts, {"points": clicked})
    assert told in caught.value.problem


def test_a_start_that_diverges_is_told_in_words_and_sent_without_infinity(starts):
    wild = {"wild": (MetaMethod("wild", inner_lr=1e4), starts["MAML"][1])}
    shown = points.points_answer(wild, {"points": CLICKED})["starts"]["wild"]
    assert shown["errors"][-1] == "no longer finite" and shown["curves"][-1] is None
    assert shown["curves"][0] is not None
    json.dumps(shown, allow_nan=False)


def test_the_plane_begins_with_an_example_and_has_a_picture_of_it(starts):
    hand = click_points(starts)
    assert hand.widget.asked == {"points": hand.widget.fixed["examples"][0]["points"], "step": 1}
    assert hand.widget.answered == points.points_answer(starts, hand.widget.asked)
    assert hand.widget.fixed["colours"]["MAML"] == "#D55E00"
    assert hand.still.alt.startswith("Line chart to be clicked on. 5 points, 1 gradient step: the curves of MAML and")
    [axes] = hand.still.figure.axes
    drawn = axes.collections[0].get_offsets().tolist()
    assert drawn == [pytest.approx(point) for point in hand.widget.asked["points"]]
    with pytest.raises(CourseError, match="no starts"):
        click_points({})


def test_an_examples_points_lie_on_its_curve():
    made = points.sinusoid_example(2.0, 1.0, (-5.0, 0.0, 5.0))
    assert [y for _, y in made["points"]] == [made["curve"][i] for i in (0, 50, 100)]
