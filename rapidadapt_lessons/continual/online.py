"""Online learning: one example at a time, for ever, in fixed memory.

Prequential evaluation (Dawid 1984; Gama et al. 2013) needs no test set: every example first tests the model
and then trains it. A drift detector watches the errors, and the learning rate jumps when it fires and decays
again. Nothing here grows with the stream (tested over a million examples).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from ..errors import CourseError, MissingPackage, TrainingDiverged
from .stream import Scenario, trainable_state

DETECTORS = ("adwin", "page_hinkley", "ddm")


class OnlineLearner(Protocol):
    """Whatever can be tested on one example, and then learn it."""

    def test(self, example: Any) -> float:
        """Return the score on the example, from 0 (wrong) to 1 (right)."""

    def learn(self, example: Any, rate: float) -> None:
        """Take one step on the example."""


class Detector(Protocol):
    """Whatever watches a number and says when it has changed; river's detectors do."""

    drift_detected: bool

    def update(self, x: float) -> Any:
        """Take in one number."""


def make_detector(name: str = "adwin") -> Detector:
    """Return one of river's drift detectors, for a stream of errors, 0 or 1.

    Args:
        name: "adwin" compares the two sides of every cut of an adaptive window (Bifet and Gavalda 2007);
            "page_hinkley" adds up deviations from the mean (Page 1954); "ddm" watches for an error rate some
            standard deviations above its lowest (Gama et al. 2004).

    Raises:
        CourseError: there is no such detector.
        MissingPackage: river is not installed.
    """
    if name not in DETECTORS:
        raise CourseError(f"there is no drift detector {name!r}.", f"choose one of {', '.join(DETECTORS)}.")
    try:
        from river import drift
        from river.drift import binary
    except ImportError as error:
        raise MissingPackage(
            f"the package 'river' is not installed, or is broken ({error}).",
            "run `python -m pip install river`, in the environment that runs the notebook.",
        ) from error
    return {"adwin": drift.ADWIN, "page_hinkley": drift.PageHinkley, "ddm": binary.DDM}[name]()


@dataclass(frozen=True)
class Rate:
    """A learning rate that jumps at a drift and decays back.

    rate(t) = base + (boost - base) 2^(-t / half_life), with t the examples since the last drift, or since
    the start. With boost = base it is constant.

    Raises:
        CourseError: a value that makes no sense.
    """

    base: float = 0.02
    boost: float = 0.02
    half_life: float = 100.0

    def __post_init__(self) -> None:
        for name in ("base", "boost", "half_life"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise CourseError(f"{name} is {getattr(self, name)}.", "give a positive number.")

    def at(self, since: int) -> float:
        """Return the rate `since` examples after the last drift."""
        return self.base + (self.boost - self.base) * 2.0 ** (-since / self.half_life)


class SlidingMean:
    """The mean of the last `window` values, in O(window) memory: O(1) time to add one, O(window) to read the mean.

    Raises:
        CourseError: window is less than 1.
    """

    def __init__(self, window: int):
        if window < 1:
            raise CourseError(f"a window of {window} examples holds nothing.", "give at least 1.")
        self.values: deque[float] = deque(maxlen=window)

    def add(self, value: float) -> None:
        """Take in one value, and let the oldest go."""
        self.values.append(value)

    @property
    def mean(self) -> float:
        """Of what is in the window; NaN when that is nothing."""
        return sum(self.values) / len(self.values) if self.values else math.nan


@dataclass(frozen=True)
class Report:
    """Where a stream stands.

    Attributes:
        seen: examples so far.
        recent: mean score over the window.
        overall: mean score over everything so far.
        rate: the learning rate of the last step.
        drift: whether a drift was detected since the last report.
    """

    seen: int
    recent: float
    overall: float
    rate: float
    drift: bool


def prequential(
    learner: OnlineLearner,
    examples: Iterable[Any],
    *,
    rate: Rate | None = None,
    detector: Detector | None = None,
    window: int = 200,
    every: int = 50,
) -> Iterator[Report]:
    """Test on each example, then learn it; yield a report after every `every` of them.

    It is a generator over a stream that may never end: take as many reports as you want. It keeps the
    window and a few numbers; what the reports are kept in is up to you.

    Args:
        rate: the learning rate; constant if None.
        detector: gets 1 - score of each example; None for no detection.

    Raises:
        CourseError: window or every is less than 1.
    """
    if every < 1:
        raise CourseError(f"a report after every {every} examples was asked for.", "give at least 1.")
    rate, recent = rate or Rate(), SlidingMean(window)
    return _prequential(learner, examples, rate, detector, recent, every)


def _prequential(
    learner: OnlineLearner,
    examples: Iterable[Any],
    rate: Rate,
    detector: Detector | None,
    recent: SlidingMean,
    every: int,
) -> Iterator[Report]:
    total, since, drift = 0.0, 0, False
    for seen, example in enumerate(examples, start=1):
        score = learner.test(example)  # before it is learned, or this would be a training score
        recent.add(score)
        total += score
        if detector is not None:
            detector.update(1.0 - score)
            if detector.drift_detected:
                since, drift = 0, True
        step = rate.at(since)
        learner.learn(example, step)
        since += 1
        if seen % every == 0:
            yield Report(seen, recent.mean, total / seen, step, drift)
            drift = False


class SGDLearner:
    """A model that takes one step of plain gradient descent on each example, with its trained parameters.

    Raises:
        CourseError: nothing in the model requires a gradient.
    """

    def __init__(self, model: nn.Module, scenario: Scenario):
        trainable_state(model)  # says so when there is nothing to train
        self.model, self.scenario = model, scenario
        self._trained = [p for p in model.parameters() if p.requires_grad]

    def test(self, example: Any) -> float:
        return self.scenario.score(self.model, [example])

    def learn(self, example: Any, rate: float) -> None:
        """Take one step.

        Raises:
            TrainingDiverged: the loss is not finite. The weights are those before the step.
        """
        loss = self.scenario.loss(self.model, [example])
        if not torch.isfinite(loss):
            raise TrainingDiverged(f"the loss became {loss.item()} at rate {rate:g}.", "lower the rate.")
        for parameter, grad in zip(self._trained, torch.autograd.grad(loss, self._trained)):
            parameter.data.add_(grad, alpha=-rate)
