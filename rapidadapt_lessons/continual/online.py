"""Online learning: one example at a time, for ever, in fixed memory.

Prequential evaluation (Dawid 1984; Gama et al. 2013): every example first tests the model and then trains it. A drift
detector watches the errors; when it fires, the learning rate jumps, then decays again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from ..errors import MissingPackage, TrainingDiverged
from ..guards import require_at_least, require_one_of, require_positive
from .stream import Scenario, trainable_state

DETECTORS = ("adwin", "page_hinkley", "ddm")


class OnlineLearner(Protocol):
    """Whatever can be tested on one example, and then learn it."""

    def test(self, example: Any) -> float:
        """Return the score on the example, from 0 (wrong) to 1 (right)."""

    def learn(self, example: Any, rate: float) -> None:
        """Take one step on the example."""


def make_detector(name: str = "adwin") -> Any:
    """Return one of river's drift detectors, for a stream of errors, 0 or 1: `update(error)`, then `drift_detected`.

    "adwin" compares the two sides of every cut of an adaptive window (Bifet and Gavalda 2007); "page_hinkley" adds up
    deviations from the mean (Page 1954); "ddm" watches for an error rate some standard deviations above its lowest
    (Gama et al. 2004). Raises CourseError for any other, MissingPackage where river is not installed.
    """
    require_one_of(DETECTORS, "drift detector", name)
    try:
        from river import drift
        from river.drift import binary
    except ImportError as error:
        remedy = "run `python -m pip install river`, in the environment that runs the notebook."
        raise MissingPackage(f"the package 'river' is not installed, or is broken ({error}).", remedy) from error
    return {"adwin": drift.ADWIN, "page_hinkley": drift.PageHinkley, "ddm": binary.DDM}[name]()


@dataclass(frozen=True)
class Rate:
    """A learning rate that jumps at a drift and decays back: base + (boost - base) 2^(-t / half_life), with t the
    examples since the last drift, or since the start. CourseError where one of them is not positive.
    """

    base: float = 0.02
    boost: float = 0.02
    half_life: float = 100.0

    def __post_init__(self) -> None:
        for name in ("base", "boost", "half_life"):
            require_positive(name, getattr(self, name))

    def at(self, since: int) -> float:
        """Return the rate `since` examples after the last drift."""
        return self.base + (self.boost - self.base) * 2.0 ** (-since / self.half_life)


@dataclass(frozen=True)
class PrequentialReport:
    """Where a stream stands."""

    seen: int  # examples so far
    recent: float  # mean score over the window
    overall: float  # mean score over everything so far
    rate: float  # the learning rate of the last step
    drift: bool  # whether a drift was detected since the last report


def prequential(
    learner: OnlineLearner,
    examples: Iterable[Any],
    *,
    rate: Rate = Rate(),
    detector: Any = None,
    window: int = 200,
    every: int = 50,
) -> Iterator[PrequentialReport]:
    """Test on each example of a stream that may never end, then learn it; yield a report after every `every` of them.

    Only the last `window` scores and a few numbers are kept. A detector (`make_detector`) gets 1 - score of each
    example. Raises CourseError where window or every is less than 1.
    """
    require_at_least(1, "window", window)
    require_at_least(1, "every", every)

    def reports() -> Iterator[PrequentialReport]:  # a generator of its own, so that the checks above come at once
        recent: deque[float] = deque(maxlen=window)
        total, since, drift = 0.0, 0, False
        for seen, example in enumerate(examples, start=1):
            score = learner.test(example)  # before it is learned, or this would be a training score
            recent.append(score)
            total += score
            if detector is not None:
                detector.update(1.0 - score)
                if detector.drift_detected:
                    since, drift = 0, True
            step, since = rate.at(since), since + 1
            learner.learn(example, step)
            if seen % every == 0:
                yield PrequentialReport(seen, sum(recent) / len(recent), total / seen, step, drift)
                drift = False

    return reports()


class SGDLearner:
    """One step of plain gradient descent on each example, with the model's trained parameters."""

    def __init__(self, model: nn.Module, scenario: Scenario):
        trainable_state(model)  # raises CourseError where there is nothing to train
        self.model, self.scenario = model, scenario
        self.trained = [p for p in model.parameters() if p.requires_grad]

    def test(self, example: Any) -> float:
        return self.scenario.score(self.model, [example])

    def learn(self, example: Any, rate: float) -> None:
        """Take one step; TrainingDiverged where the loss is not finite, and the weights stay as they are."""
        loss = self.scenario.loss(self.model, [example])
        if not torch.isfinite(loss):
            raise TrainingDiverged(f"the loss became {loss.item()} at rate {rate:g}.", "lower the rate.")
        for parameter, grad in zip(self.trained, torch.autograd.grad(loss, self.trained)):
            parameter.data.add_(grad, alpha=-rate)
