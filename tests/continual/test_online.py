"""Online learning: tested before trained, in fixed memory, and a drift noticed soon and not without cause."""

from __future__ import annotations

import gc
import itertools
import random
import sys
import tracemalloc
from collections import deque

import pytest
import torch

from rapidadapt_lessons.continual.digits import DigitScenario, digit_network, drifting_digits
from rapidadapt_lessons.continual.online import DETECTORS, Rate, SGDLearner, make_detector, prequential
from rapidadapt_lessons.errors import CourseError, MissingPackage, TrainingDiverged


class Last:
    """Predicts that the next example is the last one again."""

    def __init__(self):
        self.known, self.calls = None, []

    def test(self, example):
        self.calls.append(("test", example))
        return float(self.known == example)

    def learn(self, example, rate):
        self.calls.append(("learn", example, rate))
        self.known = example


def test_every_example_tests_before_it_trains():
    learner = Last()
    list(prequential(learner, "aab", rate=Rate(0.5, 0.5)))
    assert learner.calls == [
        ("test", "a"), ("learn", "a", 0.5), ("test", "a"), ("learn", "a", 0.5), ("test", "b"), ("learn", "b", 0.5),
    ]  # fmt: skip


def test_the_reports_are_the_means_worked_out_by_hand():
    reports = list(prequential(Last(), "aabbbbb", window=2, every=2))
    assert [report.seen for report in reports] == [2, 4, 6]
    assert [report.recent for report in reports] == [0.5, 0.5, 1.0]  # right at places 2, 4, 5, 6, 7
    assert [report.overall for report in reports] == [1 / 2, 2 / 4, 4 / 6]


class Constant:
    """Costs nothing, so that a million examples are a matter of seconds."""

    def test(self, example):
        return example

    def learn(self, example, rate):
        pass


def forever(seed: int = 0):
    draw = random.Random(seed)
    while True:
        yield float(draw.random() < 0.8)


class Hoarder(Constant):
    """Keeps everything, as a buffer without a bound would."""

    def __init__(self):
        self.kept = []

    def learn(self, example, rate):
        self.kept.append(example)


def growth(learner, detector, count: int) -> int:
    """Return by how many bytes the memory in use grows between the 20,000th example and the last."""
    reports = prequential(learner, itertools.islice(forever(), count), detector=detector, window=500, every=1000)
    kept = deque(maxlen=1)  # what a reader of an endless stream would do
    gc.collect()
    tracemalloc.start()
    try:
        early = 0
        for report in reports:
            kept.append(report)
            if report.seen == 20_000:
                early = tracemalloc.get_traced_memory()[0]
        assert kept[0].seen == count
        return tracemalloc.get_traced_memory()[0] - early
    finally:
        tracemalloc.stop()


def test_a_million_examples_take_no_more_memory_than_twenty_thousand():
    assert growth(Constant(), None, 1_000_000) < 2_000


def test_the_same_check_catches_a_learner_that_keeps_everything():
    assert growth(Hoarder(), None, 60_000) > 100_000


@pytest.mark.parametrize("name", DETECTORS)
def test_a_detectors_memory_stays_bounded(name):
    """ADWIN's window may grow with the stream, but only in the logarithm of its length."""
    assert growth(Constant(), make_detector(name), 100_000) < 20_000


def test_the_recent_mean_is_over_the_window_alone_and_over_fewer_at_the_start():
    scores = [float(place % 5) for place in range(10)]
    reports = list(prequential(Constant(), scores, window=3, every=1))
    assert [report.recent for report in reports[:3]] == [0, 0.5, 1] and reports[-1].recent == 3


def test_the_digits_never_end_and_their_memory_stays_the_same():
    stream = drifting_digits([50])
    first = list(itertools.islice(stream, 2_000))
    gc.collect()
    tracemalloc.start()
    try:
        for _ in itertools.islice(stream, 5_000):
            pass
        gc.collect()  # Python keeps freed tuples at hand until then
        assert tracemalloc.get_traced_memory()[0] < 10_000
    finally:
        tracemalloc.stop()
    assert len(first) == 2_000


# Drift.


def errors(seed: int, change_at: int | None, count: int, before: float = 0.1, after: float = 0.5) -> list[float]:
    draw = random.Random(seed)
    share = lambda place: after if change_at is not None and place >= change_at else before  # noqa: E731
    return [float(draw.random() < share(place)) for place in range(count)]


def alarms(name: str, values: list[float]) -> list[int]:
    detector, found = make_detector(name), []
    for place, value in enumerate(values):
        detector.update(value)
        if detector.drift_detected:
            found.append(place)
    return found


@pytest.mark.parametrize("name", DETECTORS)
def test_a_detector_notices_a_jump_in_the_errors_within_a_few_hundred_examples(name):
    delays = []
    for seed in range(5):
        after = [place for place in alarms(name, errors(seed, 1000, 2000)) if place >= 1000]
        delays.append(after[0] - 1000 if after else 10_000)
    assert max(delays) < 300


def test_adwin_seldom_cries_wolf():
    assert sum(len(alarms("adwin", errors(seed, None, 5000))) for seed in range(5)) <= 2


def test_a_drift_is_reported_once_and_sets_the_rate_back_to_its_boost():
    class Fires:
        drift_detected = False
        seen = 0

        def update(self, x):
            assert x == 1.0 - (self.seen % 2)
            self.seen += 1
            self.drift_detected = self.seen == 5

    rate = Rate(base=0.1, boost=0.9, half_life=1)
    examples = [float(place % 2) for place in range(8)]
    reports = list(prequential(Constant(), examples, rate=rate, detector=Fires(), every=1))
    assert [report.drift for report in reports] == [False] * 4 + [True] + [False] * 3
    expected = [0.9, 0.5, 0.3, 0.2, 0.9, 0.5, 0.3, 0.2]
    assert [report.rate for report in reports] == pytest.approx(expected)


def test_a_drift_between_two_reports_is_not_lost():
    class Fires:
        drift_detected = False
        seen = 0

        def update(self, x):
            self.seen += 1
            self.drift_detected = self.seen == 2

    reports = list(prequential(Constant(), [1.0] * 9, detector=Fires(), every=3))
    assert [report.drift for report in reports] == [True, False, False]


def test_digits_change_their_pixels_order_exactly_where_they_should():
    plain, drifting = drifting_digits([]), drifting_digits([30, 60], seed=0)
    pairs = list(itertools.islice(zip(plain, drifting), 90))
    assert all(a.label == b.label and sorted(a.pixels) == sorted(b.pixels) for a, b in pairs)
    assert [a.pixels == b.pixels for a, b in pairs] == [True] * 30 + [False] * 60
    orders = [[b.pixels for _, b in pairs[i : i + 30]] for i in (30, 60)]
    assert orders[0] != orders[1]


# A real learner.


def reports(boost: float, detector, count: int = 2400):
    learner = SGDLearner(digit_network(), DigitScenario())
    stream = itertools.islice(drifting_digits([1200]), count)
    return list(prequential(learner, stream, rate=Rate(0.02, boost, 150), detector=detector, window=200, every=50))


def test_a_network_learns_online_falls_at_the_drift_and_recovers():
    found = {report.seen: report for report in reports(0.02, make_detector())}
    assert found[1200].recent > 0.8
    assert found[1400].recent < found[1200].recent - 0.2
    assert found[2400].recent > found[1400].recent + 0.2
    drifts = [seen for seen, report in found.items() if report.drift and seen > 1200]
    assert drifts and drifts[0] <= 1300


def test_a_step_is_plain_gradient_descent_on_the_trained_parameters():
    model, scenario = digit_network(), DigitScenario()
    model[0].requires_grad_(False)
    [digit] = itertools.islice(drifting_digits([]), 1)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    grads = torch.autograd.grad(scenario.loss(model, [digit]), list(model[2].parameters()))
    SGDLearner(model, scenario).learn(digit, 0.25)
    assert torch.equal(model[0].weight, before["0.weight"])
    assert torch.allclose(model[2].weight, before["2.weight"] - 0.25 * grads[0])
    assert torch.allclose(model[2].bias, before["2.bias"] - 0.25 * grads[1])


# Bad input.


@pytest.mark.parametrize("arguments", [{"base": 0}, {"boost": -1.0}, {"half_life": float("inf")}])
def test_a_rate_that_makes_no_sense_is_refused(arguments):
    with pytest.raises(CourseError, match=f"{next(iter(arguments))} is"):
        Rate(**arguments)


def test_an_empty_window_is_refused_before_anything_is_learned():
    with pytest.raises(CourseError, match="window is 0"):
        prequential(Constant(), forever(), window=0)
    with pytest.raises(CourseError, match="every is 0"):
        prequential(Constant(), forever(), every=0)


def test_an_unknown_detector_and_a_missing_river_are_refused_in_different_words(monkeypatch):
    with pytest.raises(CourseError, match="no drift detector 'kswin'"):
        make_detector("kswin")
    monkeypatch.setitem(sys.modules, "river", None)
    with pytest.raises(MissingPackage, match="'river' is not installed"):
        make_detector("adwin")


def test_a_loss_that_is_not_finite_leaves_the_weights_alone():
    model = digit_network()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    [digit] = itertools.islice(drifting_digits([]), 1)
    broken = digit._replace(pixels=(float("nan"),) * 64)
    with pytest.raises(TrainingDiverged, match="the loss became nan"):
        SGDLearner(model, DigitScenario()).learn(broken, 0.1)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_a_model_with_nothing_to_train_is_refused():
    with pytest.raises(CourseError, match="requires a gradient"):
        SGDLearner(digit_network().requires_grad_(False), DigitScenario())
