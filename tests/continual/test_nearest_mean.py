"""Nearest class mean: its means and answers on images that can be worked out by hand."""

from __future__ import annotations

import pytest
import torch

from rapidadapt_lessons.continual.digits import Digit, DigitScenario, digit_network, split_digits
from rapidadapt_lessons.continual.nearest_mean import NearestMean
from rapidadapt_lessons.continual.stream import Stream, run_stream, trainable_state
from rapidadapt_lessons.errors import CourseError
from rapidadapt_lessons.training.data import Experience
from rapidadapt_lessons.training.loop import TrainConfig

CONFIG = TrainConfig(steps=1)


def grey(brightness: float, label: int, among: tuple[int, ...] = ()) -> Digit:
    """Return an image whose pixels are all alike, so that distances are differences of brightness."""
    return Digit((brightness,) * 64, label, among)


def learned(*experiences: Experience) -> tuple[NearestMean, list[list[float]]]:
    method = NearestMean()
    result = run_stream(method, digit_network(), Stream("greys", experiences, DigitScenario()), CONFIG)
    return method, result.matrix.tolist()


def test_the_means_are_those_of_the_training_images_and_the_nearest_one_answers():
    """The test images alone would give class 0 a mean of 0.85, and 0.9 would be right."""
    dark = Experience("0, 1", (grey(0, 0), grey(0.25, 0), grey(1, 1)), (grey(0.5, 0), grey(0.9, 1), grey(0.9, 0)))
    bright = Experience("2", (grey(0.5, 2), grey(0.75, 2)), (grey(0.7, 2), grey(0.3, 2)))
    method, matrix = learned(dark, bright)
    assert [mean.tolist() for mean in method.means] == [[0.125] * 64, [1.0] * 64, [0.625] * 64]
    assert method.labels == [0, 1, 2] and method.stored_numbers == 3 * 64 and method.stored_examples == 0
    # 0.5 is nearest to class 0 until class 2 has its mean; 0.3 stays nearest to class 0.
    assert matrix == [[pytest.approx(2 / 3), 0.0], [pytest.approx(1 / 3), 0.5]]


def test_labels_that_come_again_have_a_mean_for_each_experience():
    """Even digits at 0 and 0.75, odd ones at 1 and 0.25: one mean for each label would put them in the middle."""
    first = Experience("a", (grey(0, 0), grey(1, 1)), (grey(0.1, 0), grey(0.9, 1)))
    second = Experience("b", (grey(0.75, 0), grey(0.25, 1)), (grey(0.7, 0), grey(0.3, 1)))
    method, matrix = learned(first, second)
    assert method.labels == [0, 1, 0, 1] and matrix == [[1.0, 0.0], [1.0, 1.0]]


def test_only_the_classes_of_an_example_compete():
    low, high = (0, 1), (2, 3)
    first = Experience("0, 1", (grey(0, 0, low), grey(1, 1, low)), (grey(0.4, 0, low), grey(0.6, 1, low)))
    second = Experience("2, 3", (grey(0.4, 2, high), grey(0.6, 3, high)), (grey(0, 2, high), grey(1, 3, high)))
    method, matrix = learned(first, second)
    assert matrix == [[1.0, 0.0], [1.0, 1.0]], "before class 2 and 3 have a mean, nothing is answered"
    everything = [grey(0.4, 0), grey(0.4, 0, low)]
    assert method.answers(digit_network(), DigitScenario(), everything) == [2, 0]


def test_the_model_is_not_touched_and_the_order_of_experiences_is_of_no_matter():
    model, untouched = digit_network(), digit_network()
    ends = []
    for experiences in (split_digits().experiences, split_digits().experiences[::-1]):
        stream = Stream("digits", experiences, DigitScenario())
        ends.append(run_stream(NearestMean(), model, stream, CONFIG).matrix[-1])
    assert torch.equal(ends[0], ends[1].flip(0)) and ends[0].mean() > 0.85
    assert all(torch.equal(value, trainable_state(untouched)[name]) for name, value in trainable_state(model).items())


def test_a_run_that_was_stopped_goes_on_with_its_means(tmp_path):
    stream, seen = split_digits(), []

    def stop(so_far):
        seen.append(so_far)
        if len(seen) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_stream(NearestMean(), digit_network(), stream, CONFIG, checkpoint=tmp_path / "run", on_experience=stop)
    resumed = run_stream(NearestMean(), digit_network(), stream, CONFIG, checkpoint=tmp_path / "run")
    assert torch.equal(resumed.matrix, run_stream(NearestMean(), digit_network(), stream, CONFIG).matrix)


def test_without_a_mean_there_is_no_answer():
    with pytest.raises(CourseError, match="no means to compare with"):
        NearestMean().answers(digit_network(), DigitScenario(), [grey(0, 0)])
