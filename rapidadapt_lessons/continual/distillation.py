"""Learning without forgetting: stay close to what the old model says (Li and Hoiem 2016, arXiv 1606.09282).

The teacher is the model before the new experience: loss = -log P(y | x) + strength T^2 KL(teacher(x) / T ||
student(x) / T), of outputs before the softmax, over the classes that it knows (temperature T: Hinton et al. 2015).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..guards import require_at_least, require_positive
from ..lm.model import evaluating
from ..training.loop import TrainConfig
from .stream import Method, Stream, fit, swapped, trainable_state


def distillation_loss(student: Tensor, teacher: Tensor, temperature: float = 2.0) -> Tensor:
    """Return T^2 KL(teacher || student) of outputs before the softmax, [n, classes], averaged over n.

    T^2 keeps its gradient's size the same for every T.
    """
    log_student = F.log_softmax(student / temperature, -1)
    log_teacher = F.log_softmax(teacher / temperature, -1)
    return temperature**2 * F.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True)


class LwF(Method):
    """Fine-tuning that keeps answering as the model before this experience did.

    Raises CourseError where the strength is below 0, or the temperature not above 0.
    """

    name = "LwF"
    kept = ("known", "stored_numbers")

    def __init__(self, strength: float = 1.0, temperature: float = 2.0):
        require_at_least(0, "strength", strength)
        require_positive("temperature", temperature, "give a positive number; 2 is usual.")
        self.strength, self.temperature = strength, temperature
        self.known: list[int] = []  # classes that the teacher knows; none of them means all

    def start(self, model: nn.Module, stream: Stream, seed: int) -> None:
        self.known, self.stored_numbers = [], 0

    def learn(self, model: nn.Module, stream: Stream, index: int, config: TrainConfig) -> None:
        scenario, examples = stream.scenario, stream.experiences[index].train
        teacher = trainable_state(model)
        columns = self.known or slice(None)

        def loss(model: nn.Module, batch: Sequence[Any]) -> Tensor:
            with evaluating(model), torch.no_grad(), swapped(model, teacher):  # no dropout in the teacher's answers
                old = scenario.logits(model, batch)[:, columns]
            own_loss, new = scenario.loss_and_logits(model, batch)
            return own_loss + self.strength * distillation_loss(new[:, columns], old, self.temperature)

        fit(model, scenario, examples, config, loss if index else None)
        self.known = sorted({*self.known, *scenario.classes(examples)})
        self.stored_numbers = sum(value.numel() for value in teacher.values())  # kept while an experience is learned
