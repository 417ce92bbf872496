"""Elastic weight consolidation: hold on to the weights that mattered (Kirkpatrick et al. 2017, PNAS 114, equation 3).

With theta* the weights after an experience, later ones pay (strength / 2) sum_i F_i (theta_i - theta*_i)^2, where
F_i = 1/N sum_n ( d log P(y_n | x_n, theta*) / d theta_i )^2 over its examples: the empirical Fisher's diagonal.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import CourseError
from ..guards import require_at_least, require_some
from ..lm.model import evaluating
from ..training.loop import TrainConfig
from .stream import Method, Scenario, Stream, fit, trainable_state


def fisher_diagonal(model: nn.Module, scenario: Scenario, examples: Sequence[Any]) -> dict[str, Tensor]:
    """Return the diagonal empirical Fisher of the trained parameters, by name, in the parameters' shapes.

    The answers are the examples' own, not draws from the model (for what that changes: Kunstner et al. 2019).
    Raises CourseError where there are no examples, nothing is trained, or a gradient is not finite.
    """
    require_some(examples, "examples for the Fisher information")
    fisher = {name: torch.zeros_like(value) for name, value in trainable_state(model).items()}
    parameters = [p for p in model.parameters() if p.requires_grad]
    with evaluating(model):
        for example in examples:  # one by one: the square of each gradient; that of their mean is about 0 near optima
            log_p = -scenario.loss(model, [example], "sum")
            for name, grad in zip(fisher, torch.autograd.grad(log_p, parameters, allow_unused=True)):
                if grad is not None:
                    fisher[name] += grad**2 / len(examples)
    for name, value in fisher.items():
        if not torch.isfinite(value).all():
            raise CourseError(f"the Fisher information of {name} is not finite.", "train with a lower rate first.")
    return fisher


class EWC(Method):
    """Fine-tuning with a spring from each weight to where it was, as stiff as its Fisher information.

    Offline, every experience so far has its own springs (2 numbers for each weight and experience). Online, there
    is one set, which fades (Schwarz et al. 2018, section 3.3): F <- decay F + F_new, held at the latest weights.

    Args:
        strength: lambda above.
        decay: gamma of Schwarz et al., from 0 to 1; online only.
        examples: how many of an experience's examples the Fisher is computed from.

    Raises CourseError for a value that makes no sense.
    """

    kept = ("springs",)

    def __init__(self, strength: float = 100.0, online: bool = False, decay: float = 1.0, examples: int = 100):
        require_at_least(0, "strength", strength)
        require_at_least(1, "examples", examples)
        if not 0 <= decay <= 1:
            raise CourseError(f"decay is {decay}.", "give a share from 0 to 1.")
        self.name = "online EWC" if online else "EWC"
        self.strength, self.online, self.decay, self.examples = strength, online, decay, examples
        self.springs: list[tuple[dict[str, Tensor], dict[str, Tensor]]] = []  # (Fisher, weights) of each set

    def start(self, model: nn.Module, stream: Stream, seed: int) -> None:
        self.springs = []

    def learn(self, model: nn.Module, stream: Stream, index: int, config: TrainConfig) -> None:
        scenario, examples = stream.scenario, stream.experiences[index].train

        def loss(model: nn.Module, batch: Sequence[Any]) -> Tensor:
            return scenario.loss(model, batch) + self.penalty(model)

        fit(model, scenario, examples, config, loss if self.springs else None)
        draw = torch.randperm(len(examples), generator=torch.Generator().manual_seed(config.seed))
        self.remember(model, scenario, [examples[i] for i in draw[: self.examples].tolist()])

    def remember(self, model: nn.Module, scenario: Scenario, examples: Sequence[Any]) -> None:
        """Compute the Fisher here, and put springs on it. Raises as `fisher_diagonal`."""
        fisher = fisher_diagonal(model, scenario, examples)
        if self.online and self.springs:
            fisher = {name: self.decay * self.springs[0][0][name] + value for name, value in fisher.items()}
            self.springs = []
        self.springs.append((fisher, trainable_state(model)))

    def penalty(self, model: nn.Module) -> Tensor:
        """Return the penalty above, over all sets of springs, a scalar; CourseError where there are none yet."""
        remedy = "call remember(model, scenario, examples) after the first experience."
        require_some(self.springs, "springs: EWC has no Fisher information yet", remedy)
        parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        terms = [(f[name] * (p - at[name]) ** 2).sum() for f, at in self.springs for name, p in parameters.items()]
        return self.strength / 2 * torch.stack(terms).sum()

    @property
    def stored_numbers(self) -> int:
        return sum(value.numel() for pair in self.springs for half in pair for value in half.values())
