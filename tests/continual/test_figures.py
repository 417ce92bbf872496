"""What the lesson on continual learning shows, called directly."""

from __future__ import annotations

import math

import pytest
import torch

from rapidadapt_lessons.continual import figures as views
from rapidadapt_lessons.continual.online import PrequentialReport
from rapidadapt_lessons.continual.stream import StreamResult
from rapidadapt_lessons.errors import CourseError

NAN = math.nan


def result(matrix, method="fine-tuning", seconds=(1.0, 1.0), examples=0, numbers=0) -> StreamResult:
    names = tuple("abc"[: len(matrix)])
    r = torch.tensor(matrix, dtype=torch.float64)
    return StreamResult(method, names, r, torch.zeros(len(r)), tuple(seconds), examples, numbers)


HALF = result([[0.9, 0.1], [NAN, NAN]])
DONE = result([[0.9, 0.1], [0.5, 0.8]])
KEPT = result([[0.7, 0.1], [0.7, 0.6]], "replay", (3.0, 3.0), 50, 2000)


def test_a_matrix_that_is_half_full_leaves_the_rest_blank():
    picture = views.matrix_picture(HALF)
    assert [text.get_text() for text in picture.figure.axes[0].texts] == ["0.90", "0.10", "", ""]
    assert "after a: a 0.90, b 0.10; after b: a not measured yet, b not measured yet" in picture.alt
    assert b"PNG" in picture.png()[:8]


def test_a_varying_picture_has_its_numbers_in_the_description_alone():
    data, described = views.varying(views.matrix_picture(DONE))._repr_mimebundle_()
    assert data["text/plain"] == "Heat map. Its numbers, in the picture, differ between processors."
    assert "after b: a 0.50, b 0.80" in described["image/png"]["alt"] and "image/png" in data


def test_the_live_matrix_fills_in_and_goes_when_it_is_done():
    live = views.LiveMatrix()
    live(HALF)
    assert "not measured yet" in live._shown.value
    live(DONE)
    assert live._shown.value == ""


def test_the_plane_says_where_each_method_is():
    picture = views.plane({"fine-tuning": [DONE], "replay": [KEPT, KEPT]})
    assert "fine-tuning: plasticity 0.85, stability 0.60; replay: plasticity 0.65, stability 1.00" in picture.alt
    labels = [text.get_text() for text in picture.figure.axes[0].get_legend().get_texts()]
    assert labels == ["fine-tuning: ACC 0.65", "replay: ACC 0.65"]
    many = views.plane({f"method {i}": [DONE] for i in range(12)})
    assert len(many.figure.axes[0].get_legend().get_texts()) == 12 and many.png()


@pytest.mark.parametrize("value", [10, 50])
def test_a_trace_picks_out_one_value(value):
    picture = views.trace({10: [DONE], 50: [KEPT]}, value, "buffer size", {"fine-tuning": [DONE]})
    assert picture.alt.endswith(f"Picked: {value}.")
    assert "10: plasticity 0.85, stability 0.60; 50: plasticity 0.65, stability 1.00" in picture.alt


def test_a_value_that_was_not_run_is_refused():
    with pytest.raises(CourseError, match="no run with buffer size 7"):
        views.trace({10: [DONE]}, 7, "buffer size", {})


def test_the_fisher_is_summed_by_layer_and_kind():
    names = ("q_proj.lora_A", "q_proj.lora_B", "v_proj.lora_A")
    places = [(i, j) for i in range(3) for j in range(3)]
    fisher = {f"model.layers.{i}.self_attn.{names[j]}": torch.full((2, 2), 1.0 + i + j) for i, j in places}
    picture = views.fisher_picture(fisher)
    lines = {line.get_label(): list(line.get_ydata()) for line in picture.figure.axes[0].lines}
    assert lines == {"q_proj A": [4, 8, 12], "q_proj B": [8, 12, 16], "v_proj A": [12, 16, 20]}
    assert picture.alt.endswith("v_proj A, q_proj B, q_proj A.")
    with pytest.raises(CourseError, match="LoRA matrix"):
        views.fisher_picture({"0.weight": torch.ones(2)})


def test_costs_are_ratios_and_no_time_is_in_the_description():
    picture = views.cost_picture({"fine-tuning": [DONE], "replay": [KEPT]}, {"fine-tuning": 3e6, "replay": 2e8})
    panels = [[text.get_text().strip() for text in axes.texts] for axes in picture.figure.axes]
    assert panels[:3] == [["1.0", "3.0"], ["0", "2"], ["0", "50"]]
    assert "replay 2000 numbers and 50 examples" in picture.alt and "3.0" not in picture.alt
    with pytest.raises(CourseError, match="no result of 'fine-tuning'"):
        views.cost_picture({"replay": [KEPT]}, {"replay": 2e8})


def test_the_peak_of_memory_is_a_panel_of_its_own_and_only_the_highest_is_named():
    picture = views.cost_picture({"fine-tuning": [DONE], "replay": [KEPT]}, memory={"fine-tuning": 3e6, "replay": 2e8})
    assert [text.get_text().strip() for text in picture.figure.axes[3].texts] == ["3", "200"]
    assert "highest peak of memory: replay" in picture.alt and "200" not in picture.alt.replace("2000", "")
    with pytest.raises(CourseError, match="memory of 'replay' was not measured"):
        views.cost_picture({"fine-tuning": [DONE], "replay": [KEPT]}, memory={"fine-tuning": 3})


def test_a_tug_of_war_has_the_new_experience_across_and_the_old_one_up():
    picture = views.tug_of_war({"EWC": {100.0: (0.9, 0.2), 1.0: (0.1, 0.6)}, "LwF": {1.0: (0.5, 0.4)}}, "a", "b")
    lines = [line.get_xydata().tolist() for line in picture.figure.axes[0].lines]
    assert lines == [[[0.6, 0.1], [0.2, 0.9]], [[0.4, 0.5]]]
    assert "EWC: 1: a 0.10, b 0.60, 100: a 0.90, b 0.20; LwF: 1: a 0.50, b 0.40" in picture.alt
    same = views.tug_of_war({"EWC": {30.0: (0.5, 0.4), 1e4: (0.5, 0.4), 1e5: (0.6, 0.1)}}, "a", "b")
    assert [text.get_text() for text in same.figure.axes[0].texts] == ["30, $10^4$", "$10^5$"]


def test_long_names_of_neighbours_do_not_overlap():
    names = ("python_reference", "language_of_word", "sentiment", "continents", "dialogue")
    picture = views.matrix_picture(StreamResult("m", names, torch.zeros(5, 5), torch.zeros(5), (), 0, 0))
    picture.figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in picture.figure.axes[0].get_xticklabels()]
    assert all(left.x1 < right.x0 for left, right in zip(boxes, boxes[1:]))


def test_a_stream_is_drawn_with_its_drifts_and_detections():
    reports = [PrequentialReport(50, 0.8, 0.8, 0.1, False), PrequentialReport(100, 0.4, 0.6, 0.1, True)]
    picture = views.prequential_picture({"constant": reports}, [60])
    axes = picture.figure.axes[0]
    assert axes.lines[0].get_xydata().tolist() == [[50, 0.8], [100, 0.4]] and axes.lines[1].get_xdata()[0] == 60
    assert axes.collections[0].get_offsets()[:, 0].tolist() == [100]
    assert "changes at 60" in picture.alt and "constant: overall 0.60" in picture.alt


def test_routes_are_shares_of_each_experiences_inputs():
    picture = views.routing_picture({"a": [0, 0, 1, 0], "b": [1, 1, 1, 1]}, "who answers")
    assert "inputs of a: a 0.75, b 0.25; inputs of b: a 0.00, b 1.00" in picture.alt


@pytest.mark.parametrize(
    "draw", [lambda: views.plane({}), lambda: views.prequential_picture({}), lambda: views.tug_of_war({}, "a", "b")]
)
def test_nothing_to_draw_is_refused(draw):
    with pytest.raises(CourseError, match="there are no .* to draw"):
        draw()
