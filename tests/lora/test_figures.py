"""The figures and widgets of the lesson on LoRA: they show what they are given, and a live run leaves no trace."""

from __future__ import annotations

import io

import pytest
import torch
from PIL import Image

from rapidadapt_lessons.lora import figures
from rapidadapt_lessons.show import plots
from rapidadapt_lessons.show.plots import Picture
from rapidadapt_lessons.training.rows import Row

ROWS = [Row(tuple((7 * i + 3 * j) % 90 + 3 for j in range(6)), 4) for i in range(10)]


def check(picture: Picture, *told: str) -> None:
    """The picture can be drawn, its axes are labelled, and its description holds what is asked for."""
    Image.open(io.BytesIO(picture.png())).load()
    for axes in picture.figure.axes:
        assert axes.get_xlabel() or not axes.axison
    for text in told:
        assert text in picture.alt


def test_memory_bars_tell_every_part_and_the_sum():
    parts = {"weights": 100_000_000, "activations": 50_000_000, "gradients": 2_000_000, "optimiser": 4_000_000}
    check(figures.memory_bars({"some way": parts}, "Memory"), "some way: weights 100, activations 50", "156 in all")


@pytest.mark.parametrize("options", [{}, {"log_x": True}])
def test_lines_tell_their_values_or_what_they_are_told_to(options):
    picture = plots.lines({"a": {1: 0.5, 10: 0.25}}, title="T", xlabel="x", ylabel="y", **options)
    check(picture, "a: 0.50 at 1, 0.25 at 10", "y by x")
    told = plots.lines({"a": {1: 0.5}}, title="T", xlabel="x", ylabel="y", alt="in words", **options)
    assert told.alt == "in words"


def test_what_does_not_depend_on_x_is_a_line_from_side_to_side():
    picture = plots.lines({"a": {1: 0.5, 10: 0.25}}, title="T", xlabel="x", ylabel="y", levels={"b": 0.4, "c": 0.3})
    check(picture, "a: 0.50 at 1, 0.25 at 10; b: 0.40; c: 0.30.")
    [axes] = picture.figure.axes
    assert [line.get_ydata()[0] for line in axes.lines[1:]] == [0.4, 0.3] and axes.get_ylim()[0] == 0
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a", "b", "c"]


def test_a_spectrum_says_how_many_values_hold_most_of_an_update():
    """Singular values 3, 1, 0, 0: nine tenths of 9 + 1 are held by one."""
    delta = torch.zeros(4, 5)
    delta[0, 0], delta[1, 1] = 3.0, 1.0
    check(figures.spectrum({"one": delta, "all": torch.eye(4)}, "S"), "one: 1 of 4 hold", "all: 4 of 4 hold")


def test_the_family_stands_by_its_size_with_lora_as_the_mark():
    numbers = {"LoRA": 2_442_240.0, "prompt tuning": 4608.0}
    measured = {
        "loss": {"LoRA": [0.5, 0.25], "prompt tuning": [0.75, 0.25]},
        "updates": {"LoRA": [20], "prompt tuning": [5]},
    }
    picture = figures.family_dots(numbers, measured, "F", live={"loss": {"prompt tuning": 0.625}})
    small = "prompt tuning: 4,608 trained numbers, loss 0.50, your run 0.62, updates 5.00"
    check(picture, f"F. {small}; LoRA: 2,442,240 trained numbers, loss 0.38, updates 20.00.")
    sizes, loss, updates = picture.figure.axes
    assert [label.get_text() for label in sizes.get_yticklabels()] == ["prompt tuning", "LoRA"]
    assert [axes.lines[0].get_xdata()[0] for axes in (loss, updates)] == [0.375, 20]
    assert [dots.get_offsets()[:, 0].tolist() for dots in loss.collections[:2]] == [[0.75, 0.25], [0.5, 0.25]]
    assert "your run" in [text.get_text() for text in loss.texts] and not updates.texts


def test_levels_are_drawn_over_the_weights():
    weight = torch.randn(8, 64, generator=torch.Generator().manual_seed(0))
    check(figures.levels_picture(weight), "16 vertical lines", "0.08 apart near zero")
