"""Nearest class mean: keep one mean per class, and answer with the class whose mean is nearest to the input.

Nothing is trained, so nothing is forgotten (Mensink et al. 2013, IEEE TPAMI 35; iCaRL decides the same way: Rebuffi et
al. 2017, arXiv 1611.07725).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..guards import require_some
from ..training.loop import TrainConfig
from .digits import Digit
from .stream import Method, Scenario, Stream


class NearestMean(Method):
    """Keep the mean of the scenario's features (of a digit: its pixels) for each label of each experience.

    Where experiences share their labels, as in domain-incremental learning, a label has a mean for each of them.
    """

    name = "nearest class mean"
    kept = ("means", "labels")

    def __init__(self) -> None:
        self.means: list[Tensor] = []
        self.labels: list[int] = []

    def start(self, model: nn.Module, stream: Stream, seed: int) -> None:
        self.means, self.labels = [], []

    def learn(self, model: nn.Module, stream: Stream, index: int, config: TrainConfig) -> None:
        examples, scenario = stream.experiences[index].train, stream.scenario
        for label in sorted(scenario.classes(examples)):
            own = [digit for digit in examples if digit.label == label]
            self.means.append(scenario.features(model, own).mean(0))
            self.labels.append(label)

    def answers(self, model: nn.Module, scenario: Scenario, examples: Sequence[Digit]) -> list[int]:
        """Return the label of the nearest mean among each example's classes; -1 where none of them has a mean yet.

        Raises CourseError before the first experience.
        """
        require_some(self.means, "means to compare with", "learn at least one experience first.")
        distances = torch.cdist(scenario.features(model, examples), torch.stack(self.means)).tolist()
        found = []
        for digit, row in zip(examples, distances):
            among = digit.among or self.labels
            found.append(min(((d, label) for d, label in zip(row, self.labels) if label in among), default=(0, -1))[1])
        return found

    def score(self, model: nn.Module, stream: Stream, index: int) -> float:
        test = stream.experiences[index].test
        answers = self.answers(model, stream.scenario, test)
        return sum(answer == digit.label for answer, digit in zip(answers, test)) / len(test)

    @property
    def stored_numbers(self) -> int:
        return sum(mean.numel() for mean in self.means)
