"""Replay: keep a few old examples and mix them into every batch (Chaudhry et al. 2019, arXiv 1902.10486).

The buffer has room for a fixed number, and the stream for any number. `ReservoirBuffer` keeps a uniform
sample of all that went by; `BalancedBuffer` keeps equally many of each group, however rare it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..errors import CourseError
from ..training.loop import TrainConfig
from .stream import Method, Stream, fit


class Kept(NamedTuple):
    """An example in a buffer, and where in its stream it came from."""

    part: int
    place: int
    group: int
    example: Any


class ReservoirBuffer:
    """A uniform sample of everything added so far, in fixed memory (Vitter 1985, algorithm R).

    After n additions every one of the n is in the buffer with the same probability, size / n.

    Args:
        size: how many to keep.
        seed: of all its choices.

    Raises:
        CourseError: size is less than 1.
    """

    def __init__(self, size: int, seed: int = 0):
        if size < 1:
            raise CourseError(
                f"a replay buffer of size {size} holds nothing to replay.",
                "give room for at least 1 example, or use plain fine-tuning.",
            )
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
        elif (place := self._below(self.seen)) < self.size:
            self.items[place] = item

    def sample(self, count: int) -> list[Any]:
        """Draw up to `count` different examples.

        Raises:
            CourseError: the buffer is empty.
        """
        if not self.items:
            raise CourseError("the replay buffer is empty.", "add examples before drawing from it.")
        order = torch.randperm(len(self.items), generator=self.generator)[:count]
        return [self.items[i].example for i in order.tolist()]

    def state(self) -> dict[str, Any]:
        """Return where the items came from, and not the items themselves."""
        kept = [(item.part, item.place, item.group) for item in self.items]
        return {"kept": kept, "seen": self.seen, "generator": self.generator.get_state()}

    def load(self, state: Mapping[str, Any], stream: Stream) -> None:
        """Fetch the items of `state` from their stream again."""
        self.items = [Kept(part, at, group, stream.experiences[part].train[at]) for part, at, group in state["kept"]]
        self.seen = state["seen"]
        self.generator.set_state(state["generator"])

    def _below(self, bound: int) -> int:
        return int(torch.randint(bound, (), generator=self.generator))


class BalancedBuffer(ReservoirBuffer):
    """Equally many of each group, and a uniform sample inside each (Chrysakis and Moens 2020, algorithm 1).

    A full buffer makes room for a group that is still small by dropping one of the largest. A group that
    has been the largest goes on as a reservoir of its own.
    """

    def __init__(self, size: int, seed: int = 0):
        super().__init__(size, seed)
        self.seen_of: dict[int, int] = {}
        self.once_largest: set[int] = set()

    def add(self, item: Kept) -> None:
        self.seen += 1
        self.seen_of[item.group] = self.seen_of.get(item.group, 0) + 1
        if len(self.items) < self.size:
            self.items.append(item)
            return
        places: dict[int, list[int]] = {}
        for place, kept in enumerate(self.items):
            places.setdefault(kept.group, []).append(place)
        most = max(map(len, places.values()))
        self.once_largest |= {group for group, where in places.items() if len(where) == most}
        if item.group in self.once_largest:
            own = places.get(item.group, [])  # none where there are fewer places than groups, and it lost its last
            if (drawn := self._below(self.seen_of[item.group])) < len(own):
                self.items[own[drawn]] = item
            if own or drawn:
                return
        crowded = [place for where in places.values() if len(where) == most for place in where]
        self.items[crowded[self._below(len(crowded))]] = item

    def state(self) -> dict[str, Any]:
        return super().state() | {"seen_of": self.seen_of, "once_largest": sorted(self.once_largest)}

    def load(self, state: Mapping[str, Any], stream: Stream) -> None:
        super().load(state, stream)
        self.seen_of, self.once_largest = dict(state["seen_of"]), set(state["once_largest"])


class Replay(Method):
    """Fine-tuning with as many old examples in each batch as new ones.

    Args:
        size: the buffer's room, in examples of all parts together.
        balanced: keep equally many of each class (of each part where answers are open) instead of a
            uniform sample of all.

    Raises:
        CourseError: size is less than 1.
    """

    def __init__(self, size: int = 50, balanced: bool = False):
        self.name = "balanced replay" if balanced else "replay"
        self.size, self.balanced = size, balanced
        self.buffer = self._new(0)

    def settings(self) -> dict[str, Any]:
        return {"size": self.size, "balanced": self.balanced}

    def start(self, model: nn.Module, stream: Stream, seed: int) -> None:
        self.buffer = self._new(seed)

    def learn(self, model: nn.Module, stream: Stream, index: int, config: TrainConfig) -> None:
        scenario, part = stream.scenario, stream.experiences[index]

        def loss(model: nn.Module, new: Sequence[Any]) -> Tensor:
            if not len(self.buffer):
                return scenario.loss(model, new)
            old = self.buffer.sample(len(new))
            weight = len(old) / (len(new) + len(old))
            return (1 - weight) * scenario.loss(model, new) + weight * scenario.loss(model, old)

        fit(model, scenario, part.train, config, loss)
        for place, example in enumerate(part.train):
            group = next(iter(scenario.classes([example])), index)
            self.buffer.add(Kept(index, place, group, example))

    def stored_examples(self) -> int:
        return len(self.buffer)

    def state(self) -> dict[str, Any]:
        return self.buffer.state()

    def load(self, state: Mapping[str, Any], stream: Stream) -> None:
        self.buffer.load(state, stream)

    def _new(self, seed: int) -> ReservoirBuffer:
        return (BalancedBuffer if self.balanced else ReservoirBuffer)(self.size, seed)
