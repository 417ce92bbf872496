"""One adapter for each experience: kept apart, where each input must be routed to one, or averaged into one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import CourseError
from ..guards import require_one_of, require_some
from ..lm.model import evaluating
from ..lora.layers import combine, lora_layers
from ..training.loop import TrainConfig
from .stream import Method, Scenario, Stream, fit, set_trainable_state, swapped, trainable_state

ROUTERS = ("oracle", "centroid", "surprise")


class PerTask(Method):
    """Train each experience from the same start, and keep all the results.

    Args:
        router: who chooses for an input. "oracle": its experience is given. "centroid": the nearest mean of the
            experiences' features, as the untrained start sees them. "surprise": the adapter under which the input
            itself is the most probable (text only). CourseError for any other.
    """

    kept = ("adapters", "centroids", "untrained")

    def __init__(self, router: str = "oracle"):
        require_one_of(ROUTERS, "router", router)
        self.router = router
        self.name = "adapter each" if router == "oracle" else f"adapter each, {router}"
        self.adapters: list[dict[str, Tensor]] = []
        self.centroids: list[Tensor] = []
        self.untrained: dict[str, Tensor] = {}

    def start(self, model: nn.Module, stream: Stream, seed: int) -> None:
        self.adapters, self.centroids, self.untrained = [], [], trainable_state(model)

    def learn(self, model: nn.Module, stream: Stream, index: int, config: TrainConfig) -> None:
        examples = stream.experiences[index].train
        set_trainable_state(model, self.untrained)
        if self.router == "centroid":
            self.centroids.append(_features(stream.scenario, model, examples).mean(0))
        fit(model, stream.scenario, examples, config)
        self.adapters.append(trainable_state(model))

    def route(self, model: nn.Module, scenario: Scenario, examples: Sequence[Any]) -> list[int]:
        """Return which adapter should answer each example, by its input; CourseError for "oracle", or with none yet."""
        require_some(self.adapters, "adapters to route to", "learn at least one experience first.")
        if self.router == "oracle":
            raise CourseError('the router "oracle" chooses nothing itself.', 'use "centroid" or "surprise".')
        if self.router == "centroid":
            with swapped(model, self.untrained):
                features = _features(scenario, model, examples)
            return torch.cdist(features, torch.stack(self.centroids)).argmin(1).tolist()
        costs = []
        for adapter in self.adapters:
            with swapped(model, adapter), torch.no_grad():
                costs.append(scenario.surprise(model, examples))
        return torch.stack(costs, 1).argmin(1).tolist()

    def score(self, model: nn.Module, stream: Stream, index: int) -> float:
        test, scenario = stream.experiences[index].test, stream.scenario
        if self.router == "oracle":
            with swapped(model, self.adapters[index] if index < len(self.adapters) else self.untrained):
                return scenario.score(model, test)
        routes, total = self.route(model, scenario, test), 0.0
        for chosen in set(routes):
            mine = [example for example, route in zip(test, routes) if route == chosen]
            with swapped(model, self.adapters[chosen]):
                total += scenario.score(model, mine) * len(mine)
        return total / len(test)

    @property
    def stored_numbers(self) -> int:
        weights = [value for adapter in self.adapters for value in adapter.values()]
        return sum(value.numel() for value in weights + self.centroids)


class Averaged(PerTask):
    """Train as `PerTask` does, then answer everything with the mean of all the results, `scale` times its update.

    For LoRA that is the exact mean of the updates B A, at the sum of the ranks (`lora.combine`), which the mean of the
    B times the mean of the A is not; for a whole model the mean of its weights (Wortsman et al. 2022).
    """

    def __init__(self, scale: float = 1.0):
        super().__init__("oracle")
        if not math.isfinite(scale):
            raise CourseError(f"scale is {scale}.", "give a finite number; 1 is the mean.")
        self.name, self.scale = "average", scale

    def average(self, model: nn.Module) -> dict[str, Tensor]:
        """Return the averaged weights, which `stream.swapped` puts to use; CourseError where there are none yet."""
        require_some(self.adapters, "adapters to average", "learn at least one experience first.")
        weight = self.scale / len(self.adapters)
        if lora_layers(model):
            return combine(self.adapters, [weight] * len(self.adapters))
        return {
            name: start + weight * sum(adapter[name] - start for adapter in self.adapters)
            for name, start in self.untrained.items()
        }

    def score(self, model: nn.Module, stream: Stream, index: int) -> float:
        with swapped(model, self.average(model)):
            return stream.scenario.score(model, stream.experiences[index].test)


@torch.no_grad()
def _features(scenario: Scenario, model: nn.Module, examples: Sequence[Any]) -> Tensor:
    with evaluating(model):
        return scenario.features(model, examples).float()
