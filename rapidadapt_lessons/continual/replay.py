"""Replay: keep a few old examples and mix them into every batch (Chaudhry et al. 2019, arXiv 1902.10486)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..guards import require_at_least, require_some
from ..training.loop import TrainConfig
from .stream import Method, Stream, fit


class Kept(NamedTuple):
    """An example in a buffer, the index of its experience, and its place in that experience's training examples."""

    experience: int
    place: int
    example: Any


class ReservoirBuffer:
    """A uniform sample of everything added so far, in fixed memory (Vitter 1985, algorithm R).

    After n additions each of the n is in it with probability size / n. CourseError where the size is less than 1.
    """

    def __init__(self, size: int, seed: int = 0):
        remedy = "give room for at least 1 example, or use plain fine-tuning."
        require_at_least(1, "the size of the replay buffer", size, remedy)
        self.size, self.seen = size, 0
        self.items: list[Kept] = []
        self.generator = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return len(self.items)

    def add(self, item: Kept) -> None:
        """Offer one item."""
        self.seen += 1
        if len(self.items) < self.size:
            self.items.append(item)
        elif (place := self.below(self.seen)) < self.size:  # with probability size / seen
            self.items[place] = item

    def below(self, bound: int) -> int:
        """Draw a whole number from 0 to bound - 1."""
        return int(torch.randint(bound, (), generator=self.generator))

    def sample(self, count: int) -> list[Any]:
        """Draw up to `count` different examples; CourseError where the buffer is empty."""
        require_some(self.items, "examples in the replay buffer", "add some before drawing from it.")
        order = torch.randperm(len(self.items), generator=self.generator)[:count]
        return [self.items[i].example for i in order.tolist()]

    def state(self) -> dict[str, Any]:
        """Return where the items came from, without the items themselves."""
        kept = [(item.experience, item.place) for item in self.items]
        return {"kept": kept, "seen": self.seen, "generator": self.generator.get_state()}

    def load(self, state: Mapping[str, Any], stream: Stream) -> None:
        """Fetch the items of `state` from their stream again."""
        self.items = [Kept(index, place, stream.experiences[index].train[place]) for index, place in state["kept"]]
        self.seen = state["seen"]
        self.generator.set_state(state["generator"])


class Replay(Method):
    """Fine-tuning with as many old examples in each batch as new ones, from a buffer of `size` examples."""

    name = "replay"
    buffer_type = ReservoirBuffer

    def __init__(self, size: int = 50):
        self.size, self.buffer = size, self.buffer_type(size)

    def start(self, model: nn.Module, stream: Stream, seed: int) -> None:
        self.buffer = self.buffer_type(self.size, seed)

    def learn(self, model: nn.Module, stream: Stream, index: int, config: TrainConfig) -> None:
        scenario, examples = stream.scenario, stream.experiences[index].train

        def loss(model: nn.Module, new: Sequence[Any]) -> Tensor:
            if not len(self.buffer):
                return scenario.loss(model, new)
            old = self.buffer.sample(len(new))
            weight = len(old) / (len(new) + len(old))
            return (1 - weight) * scenario.loss(model, new) + weight * scenario.loss(model, old)

        fit(model, scenario, examples, config, loss)
        for place, example in enumerate(examples):
            self.buffer.add(Kept(index, place, example))

    @property
    def stored_examples(self) -> int:
        return len(self.buffer)

    def state(self) -> dict[str, Any]:
        return self.buffer.state()

    def load(self, state: Mapping[str, Any], stream: Stream) -> None:
        self.buffer.load(state, stream)
