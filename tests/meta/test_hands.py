"""What the widgets of lessons 5 to 7 answer, as plain functions of what a learner did by hand."""

from __future__ import annotations

import json

import pytest
import torch

from rapidadapt_lessons.errors import BadData, CourseError
from rapidadapt_lessons.meta import click_points, drag_start, draw_letters, few_shot, glyphs, landscape, maml, sinusoids
from rapidadapt_lessons.meta.hands import letters, points, start
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


# The start and its inner steps


@pytest.fixture(scope="module")
def lines():
    return landscape.line_family(tasks=6)


def test_the_inner_steps_follow_the_gradient_of_each_tasks_support_loss(lines):
    tasks, rate = [start.one_task(lines, task) for task in (1, 4)], 0.1
    shown = start.start_answer(tasks, rate, 2, start.LINE_LIMITS, {"start": [-1.0, 2.0]})
    for panel, task in zip(shown["panels"], (1, 4)):
        x, y = lines.batch.support_x[task][:, 0], lines.batch.support_y[task][:, 0]
        a, b, path, losses = -1.0, 2.0, [], []
        for _ in range(3):  # the gradient of the mean squared error of a line, by hand
            error = a + b * x - y
            path.append([a, b])
            losses.append(f"{error.square().mean():.2f}")
            a, b = a - rate * 2 * error.mean().item(), b - rate * 2 * (error * x).mean().item()
        assert panel["path"] == [pytest.approx(point) for point in path] and panel["losses"] == losses
    both = [float(panel["losses"][0]) for panel in shown["panels"]]
    assert float(shown["means"][0]) == pytest.approx(sum(both) / 2, abs=0.011)


def test_the_best_points_and_contours_of_each_task_are_sent_in_its_own_coordinates(lines):
    hand = drag_start(lines, [1, 4], 0.1, 3)
    for drawn, task in zip(hand.widget.fixed["panels"], (1, 4)):
        assert drawn["best"] == pytest.approx(landscape.task_optima(lines)[task].tolist())
        places = torch.tensor([point for band in drawn["bands"] for part in band for point in part])
        for values, (low, high) in zip(places.T, start.LINE_LIMITS):
            assert (values.min().item(), values.max().item()) == pytest.approx((low, high), abs=1e-6)
        one = start.one_task(lines, task)
        for x, y, text in drawn["labels"]:  # a contour's number is the loss where it stands
            here = landscape.loss_at(one, torch.tensor([x, y], dtype=torch.float64), 0.0, 0).item()
            assert float(text) == pytest.approx(here, rel=0.12)
    json.dumps([hand.widget.fixed, hand.widget.answered], allow_nan=False)
    told = hand.widget.answered["panels"][0]["losses"]
    assert f"loss {told[0]} at the start and {told[-1]} after 3 inner steps" in hand.still.alt
    assert len(hand.still.figure.axes) == 2


def test_waves_have_a_landscape_to_drag_over_too():
    hand = drag_start(landscape.wave_family(tasks=2), [1], 0.5, 4, start=(1.0, 0.0))
    [drawn] = hand.widget.fixed["panels"]
    assert "phase" in drawn["title"] and hand.widget.fixed["axes"][0].startswith("amplitude")
    assert len(hand.widget.answered["means"]) == 5


def test_steps_that_diverge_are_told_in_words_and_sent_without_infinity(lines):
    shown = start.start_answer([start.one_task(lines, 0)], 1e9, 20, start.LINE_LIMITS, {"start": [0.0, 0.0]})
    assert shown["panels"][0]["losses"][-1] == "too large" and len(shown["panels"][0]["path"]) < 21
    json.dumps(shown, allow_nan=False)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"tasks": []}, r"tasks are \[\]"),
        ({"tasks": [0, 1, 2]}, "tasks are"),
        ({"tasks": [6]}, r"tasks are \[6\]"),
        ({"inner_lr": 0.0}, "inner_lr is 0"),
        ({"steps": 0}, "steps is 0"),
        ({"steps": 21}, "steps is 21"),
        ({"start": (9.0, 0.0)}, "off the map"),
    ],
)
def test_what_cannot_be_dragged_over_is_refused(lines, change, told):
    with pytest.raises(CourseError, match=told):
        drag_start(lines, **{"tasks": [0], "inner_lr": 0.1, "steps": 3} | change)


# Letters

CROSS = [[[0.2, 0.2], [0.8, 0.8]], [[0.8, 0.2], [0.2, 0.8]]]
STICK = [[[0.5, 0.1], [0.5, 0.9]]]
CORNER = [[[0.3, 0.1], [0.3, 0.9], [0.8, 0.9]]]


def shrunk(strokes, by: float = 0.4):
    return [[[0.1 + by * x, 0.5 + by * y] for x, y in stroke] for stroke in strokes]


@pytest.fixture(scope="module")
def net():
    return few_shot.PatchNet(5)


@pytest.fixture(scope="module")
def samples():
    return letters.letter_samples("HEBREW")


def drawn(*strokes):
    return {"boxes": [{"strokes": one} if one else {} for one in strokes]}


def test_strokes_become_a_picture_as_the_fonts_have_them_wherever_they_were_drawn():
    large, small = (letters.box_picture({"strokes": one}, torch.empty(0)) for one in (CROSS, shrunk(CROSS)))
    assert large.shape == (glyphs.SIZE, glyphs.SIZE) and torch.allclose(large, small, atol=0.02)
    inked = (large > 0.1).nonzero()
    assert (inked.amin(0).tolist(), inked.amax(0).tolist()) == ([4, 4], [23, 23])
    assert torch.allclose(large, large.flip(0), atol=0.02) and large[13, 13] > 0.9
    stick = letters.box_picture({"strokes": STICK}, torch.empty(0))
    assert stick[4:24].sum(1).mean().item() == pytest.approx(letters.PEN * 20, abs=0.5)  # the pen's width in pixels


def test_a_dot_is_ink_and_an_empty_box_none():
    dot = letters.ink([[[0.5, 0.5]]])
    assert dot.max() == 1 and dot.sum() < 0.02 * dot.numel()
    for empty in ({}, {"strokes": []}):
        assert letters.box_picture(empty, torch.empty(0)) is None


def test_the_sixth_drawing_is_read_as_read_drawing_reads_it(net, samples):
    shown = letters.letters_answer(net, samples, drawn(CROSS, None, STICK, CORNER, None, shrunk(STICK)))
    pictures = torch.stack([letters.box_picture({"strokes": one}, samples) for one in (CROSS, STICK, CORNER, STICK)])
    expected = few_shot.read_drawing(net, pictures[:3], pictures[3])
    assert [shown["shares"][i] for i in (0, 2, 3)] == pytest.approx(expected.tolist(), abs=0.02)
    assert shown["shares"][1] is shown["shares"][4] is None and max(expected) == expected[1] > 0.5
    assert shown["seen"][1] is None
    assert shown["seen"][2] == "".join(str(round(9 * value)) for value in pictures[1].flatten().tolist())
    json.dumps(shown, allow_nan=False)


@pytest.mark.parametrize("boxes", [(CROSS, STICK, None, None, None, None), (CROSS, None, None, None, None, STICK)])
def test_nothing_is_read_before_there_is_something_to_choose_from(net, samples, boxes):
    assert letters.letters_answer(net, samples, drawn(*boxes))["shares"] == [None] * 5


def test_the_example_shows_five_letters_and_one_of_them_in_another_face(net, samples):
    for number in range(8):
        boxes = letters.letters_example(number, len(samples))
        numbers = [box["sample"] for box in boxes]
        assert len(set(numbers[:5])) == 5 and numbers[5] in numbers[:5]
    hand = draw_letters(net, script="HEBREW")
    assert hand.widget.asked["boxes"] == hand.widget.fixed["examples"][0]
    assert sum(hand.widget.answered["shares"]) == pytest.approx(1, abs=1e-3)
    seen = hand.widget.answered["seen"]
    assert seen[0] == letters.in_digits(samples[0, 0]) and seen[5] == letters.in_digits(samples[1, 1]) != seen[1]
    assert hand.still.alt.startswith("Five boxes, each with a Hebrew letter") and len(hand.still.figure.axes) == 6


@pytest.mark.parametrize(
    ("boxes", "told"),
    [
        ([{}] * 5, "5 boxes"),
        ([{"sample": 99}, *[{}] * 5], "no sample 99"),
        ([{"strokes": [[[0.5, 0.5]] * 3001]}, *[{}] * 5], "more ink"),
    ],
)
def test_boxes_that_cannot_be_read_are_refused(net, samples, boxes, told):
    with pytest.raises(BadData, match=told):
        letters.letters_answer(net, samples, {"boxes": boxes})


def test_an_unknown_script_is_refused(net):
    with pytest.raises(CourseError, match="KLINGON"):
        draw_letters(net, script="KLINGON")
