"""Gain against harm: what is drawn, where names stand, and what the description tells."""

from __future__ import annotations

import math
from itertools import combinations

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.text import Text

from rapidadapt_lessons.errors import CourseError
from rapidadapt_lessons.show.looks import look
from rapidadapt_lessons.show.picture import Picture
from rapidadapt_lessons.show.trade_off import attempts, compact, trade_off

HARM = {"LoRA": {1e-4: [18, 18], 1e-3: [20, 45], 1e-2: [9000, 1000]}, "full fine-tuning": {1e-5: [18.5, 18.5]}}
LOSS = {"LoRA": {1e-4: [0.6, 0.5], 1e-3: [0.2, 0.4], 1e-2: [0.7, 0.9]}, "full fine-tuning": {1e-5: [0.3, 0.5]}}
SAID = {"title": "T", "xlabel": "perplexity", "ylabel": "loss"}


def names(picture: Picture) -> list[str]:
    return [text.get_text() for text in picture.figure.axes[0].texts]


def hollow(picture: Picture) -> list[list[float]]:
    """Return where the rings are."""
    found = [dots for dots in picture.figure.axes[0].collections if not len(dots.get_facecolors())]
    return [dots.get_offsets()[0].tolist() for dots in found]


def test_a_curve_goes_through_mean_loss_and_geometric_mean_harm_and_shows_every_run():
    picture = trade_off(HARM, LOSS, **SAID)
    [axes] = picture.figure.axes
    assert axes.lines[0].get_xdata() == pytest.approx([18, 30, 3000])
    assert axes.lines[0].get_ydata() == pytest.approx([0.55, 0.3, 0.8])
    assert to_hex(axes.lines[0].get_color()).upper() == look("LoRA").colour
    assert [dots.get_offsets().tolist() for dots in axes.collections][1] == [[20, 0.2], [45, 0.4]]
    assert {"LoRA", "full fine-tuning", "1e-4", "0.01", "1e-5"} <= set(names(picture)) and hollow(picture) == []
    assert "LoRA: 1e-4 (0.55 at 18.0), 1e-3 (0.30 at 30.0), 0.01 (0.80 at 3,000); full" in picture.alt


def test_a_setting_with_a_run_that_diverged_has_no_point_and_is_told():
    harm = {"LoRA": {1e-3: [20.0, 45.0], 1.0: [30.0, math.nan]}}
    picture = trade_off(harm, {"LoRA": {1e-3: [0.2, 0.4], 1.0: [0.5, math.nan]}}, **SAID)
    assert len(picture.figure.axes[0].lines[0].get_xdata()) == 1
    assert "1 diverged" in picture.alt and "1" not in names(picture)
    nothing = trade_off({"LoRA": {1.0: [math.nan]}}, {"LoRA": {1.0: [math.nan]}}, **SAID)
    assert "LoRA: 1 diverged" in nothing.alt and len(nothing.png()) > 1000


def test_the_start_is_a_cross_the_live_run_a_ring_and_both_are_told():
    picture = trade_off(HARM, LOSS, start=(17.5, 0.9), live={"LoRA": (19.0, 0.45)}, **SAID)
    assert hollow(picture) == [[19.0, 0.45]]
    assert {"base model", "your run"} <= set(names(picture))
    assert picture.alt.endswith("base model (0.90 at 17.5); your run: LoRA (0.45 at 19.0).")


def test_what_lies_beyond_the_right_edge_is_told_but_not_named_in_the_picture():
    picture = trade_off(HARM, LOSS, most=60, **SAID)
    assert picture.figure.axes[0].get_xlim()[1] == 60 and picture.figure.axes[0].get_xlim()[0] < 18
    assert "0.01" not in names(picture) and "1e-3" in names(picture) and "0.01 (0.80 at 3,000)" in picture.alt


def test_no_values_is_an_error():
    with pytest.raises(CourseError, match="values to draw"):
        trade_off({}, {}, **SAID)


RUNS = {"r 8, 3e-4": (19.5, 0.7), "r 64, 1e-3": (22.1, 0.42), "r 1, 1e-3": (22.2, 0.44), "r 8, 1e-3": (22.1, 0.43)}


def test_every_run_is_a_dot_the_newest_has_a_ring_and_the_start_is_a_cross():
    picture = attempts(RUNS, (19.6, 5.2), most=80, **SAID)
    dots = [found.get_offsets()[0].tolist() for found in picture.figure.axes[0].collections]
    assert dots == [[19.6, 5.2], *map(list, RUNS.values()), list(RUNS["r 8, 1e-3"])]
    assert hollow(picture) == [[22.1, 0.43]]
    assert {*RUNS, "base model"} <= set(names(picture))
    assert "base model (5.20 at 19.6); r 8, 3e-4 (0.70 at 19.5)" in picture.alt
    assert picture.alt.endswith("r 8, 1e-3 (0.43 at 22.1), the newest.")


def test_names_do_not_cover_one_another():
    picture = attempts(RUNS, (19.6, 5.2), most=80, **SAID)
    canvas = FigureCanvasAgg(picture.figure)
    canvas.draw()
    texts = picture.figure.axes[0].texts
    boxes = {text.get_text(): Text.get_window_extent(text, canvas.get_renderer()) for text in texts}  # without its line
    assert [(a, b) for a, b in combinations(boxes, 2) if boxes[a].overlaps(boxes[b])] == []


def test_what_went_off_the_scale_stands_at_the_edge_and_hides_nothing():
    wild = {"a": (5e9, 9.0), "b": (math.inf, math.inf), "c": (math.nan, math.nan), "d": (500.0, 0.3), "e": (20.0, 99.0)}
    picture = attempts(RUNS | wild, (19.6, 5.2), most=80, **SAID)
    [axes] = picture.figure.axes
    places = [tuple(found.get_offsets()[0]) for found in axes.collections][5:10]
    assert len(set(places)) == 5 and all(x <= 80 and y <= axes.get_ylim()[1] for x, y in places)
    assert [x for x, _ in places] == [80, 80, 80, 80, 20] and places[3][1] == 0.3
    assert "b (inf at inf)" in picture.alt and {*wild} <= set(names(picture))
    assert len(picture.png()) > 1000


def test_without_runs_there_is_the_base_model_alone():
    assert attempts({}, (19.6, 5.2), most=80, **SAID).alt.endswith("base model (5.20 at 19.6).")


@pytest.mark.parametrize(
    ("value", "text"),
    [(3e-4, "3e-4"), (10**-3.5, "3.2e-4"), (1e-5, "1e-5"), (0.05, "0.05"), (0.00999, "1e-2"), (30, "30"), (0, "0")],
)
def test_a_setting_is_written_in_few_letters(value, text):
    assert compact(value) == text
