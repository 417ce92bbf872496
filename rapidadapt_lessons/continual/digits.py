"""Continual learning in milliseconds: scikit-learn's handwritten digits, split by class or permuted.

The 1797 images of 8 x 8 pixels come with scikit-learn, from the test set of Alpaydin and Kaynak's Optical
Recognition of Handwritten Digits (UCI, 1998, CC BY 4.0).
"""

from __future__ import annotations

import functools
import itertools
import random
from array import array
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import CourseError
from ..guards import require_at_least, require_one_of
from ..training.data import Experience
from .stream import Stream

PIXELS, CLASSES = 64, 10
SCENARIOS = ("task-incremental", "domain-incremental", "class-incremental")


class Digit(NamedTuple):
    """An image and its class."""

    pixels: tuple[float, ...]  # 64 numbers from 0 to 1, row by row
    label: int  # 0 to 9; where only parity is asked for, 0 for even and 1 for odd
    among: tuple[int, ...] = ()  # the classes to choose from; empty for all ten


class DigitScenario:
    """`stream.Scenario` for digits."""

    def loss(self, model: nn.Module, examples: Sequence[Digit], reduction: str = "mean") -> Tensor:
        out = self.logits(model, examples)
        return F.cross_entropy(_allowed(out, examples), _labels(examples), reduction=reduction)

    def loss_and_logits(self, model: nn.Module, examples: Sequence[Digit]) -> tuple[Tensor, Tensor]:
        out = self.logits(model, examples)
        return F.cross_entropy(_allowed(out, examples), _labels(examples)), out

    def logits(self, model: nn.Module, examples: Sequence[Digit]) -> Tensor:
        return model(_pixels(examples))

    @torch.no_grad()
    def score(self, model: nn.Module, examples: Sequence[Digit]) -> float:
        answers = _allowed(self.logits(model, examples), examples).argmax(-1)
        return float((answers == _labels(examples)).float().mean())

    def classes(self, examples: Sequence[Digit]) -> frozenset[int]:
        return frozenset(digit.label for digit in examples)

    def features(self, model: nn.Module, examples: Sequence[Digit]) -> Tensor:
        return _pixels(examples)

    def surprise(self, model: nn.Module, examples: Sequence[Digit]) -> Tensor:
        raise CourseError("a classifier of digits gives the image itself no probability.", 'use the router "centroid".')


def digit_network(seed: int = 0, hidden: int = 64, classes: int = CLASSES) -> nn.Sequential:
    """Return 64 pixels -> hidden -> classes, with one ReLU, untrained."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(PIXELS, hidden), nn.ReLU(), nn.Linear(hidden, classes))


def split_digits(scenario: str = "class-incremental", seed: int = 0, shuffled: bool = False) -> Stream:
    """Return five experiences of two classes each, an even and an odd digit: 0 and 1, then 2 and 3, and so on.

    Args:
        scenario: what is asked of an image (van de Ven et al. 2022). "task-incremental": which of the two classes of
            its experience it is; it comes with the two. "domain-incremental": whether it is even (label 0) or odd
            (label 1), the same question in every experience. "class-incremental": which of all ten it is.
        seed: of the split into training and test.
        shuffled: whether the seed also draws which even digit meets which odd one, and the order of the pairs.

    Raises CourseError for any other scenario.
    """
    require_one_of(SCENARIOS, "scenario", scenario)
    evens, odds, draw = list(range(0, CLASSES, 2)), list(range(1, CLASSES, 2)), random.Random(f"pairs:{seed}")
    if shuffled:
        draw.shuffle(evens)
        draw.shuffle(odds)

    def asked(digit: Digit, pair: tuple[int, int]) -> Digit:
        if scenario == "task-incremental":
            return digit._replace(among=pair)
        return digit._replace(label=digit.label % 2) if scenario == "domain-incremental" else digit

    experiences, split = [], _split(seed)
    for pair in zip(evens, odds):
        sides = (tuple(asked(digit, pair) for digit in side if digit.label in pair) for side in split)
        experiences.append(Experience(f"{pair[0]}, {pair[1]}", *sides))
    return Stream(f"split digits, {scenario}", tuple(experiences), DigitScenario())


def permuted_digits(count: int = 5, seed: int = 0) -> Stream:
    """Return experiences that all have ten classes, each with its pixels in another order; the first as they are."""
    require_at_least(1, "the number of experiences", count)
    train, test = _split(seed)
    orders = [permutation(index, seed) for index in range(count)]
    experiences = (Experience(f"order {i}", permute(train, o), permute(test, o)) for i, o in enumerate(orders, start=1))
    return Stream("permuted digits", tuple(experiences), DigitScenario())


def permutation(number: int, seed: int = 0) -> tuple[int, ...]:
    """Return an order of the 64 pixels; number 0 is the usual one."""
    order = list(range(PIXELS))
    if number:
        random.Random(f"permutation:{seed}:{number}").shuffle(order)
    return tuple(order)


def permute(digits: Sequence[Digit], order: Sequence[int]) -> tuple[Digit, ...]:
    """Return the digits with pixel i taken from place order[i]."""
    return tuple(digit._replace(pixels=tuple(digit.pixels[i] for i in order)) for digit in digits)


def drifting_digits(drift_at: Sequence[int], seed: int = 0) -> Iterator[Digit]:
    """Yield digits without end, drawn with replacement; pixels change their order at each place in `drift_at`."""
    draw, images = random.Random(f"drifting digits:{seed}"), _digits()
    changes = {place: permutation(number, seed) for number, place in enumerate(sorted(drift_at), start=1)}
    order = permutation(0)
    for place in itertools.count():
        order = changes.get(place, order)
        yield from permute([images[draw.randrange(len(images))]], order)


@functools.cache
def _digits() -> tuple[Digit, ...]:
    from sklearn.datasets import load_digits

    data: Any = load_digits()
    return tuple(Digit(tuple(x), int(y)) for x, y in zip((data.data / 16).tolist(), data.target))


def _split(seed: int) -> tuple[list[Digit], list[Digit]]:
    """Return three quarters to train on and one quarter to test on, of each class."""
    train, test = [], []
    for label in range(CLASSES):
        own = [digit for digit in _digits() if digit.label == label]
        random.Random(f"split:{seed}:{label}").shuffle(own)
        cut = len(own) // 4
        test += own[:cut]
        train += own[cut:]
    random.Random(f"split:{seed}").shuffle(train)  # so that the first few are of all classes
    return train, test


def _labels(examples: Sequence[Digit]) -> Tensor:
    return torch.tensor([digit.label for digit in examples])


def _allowed(out: Tensor, examples: Sequence[Digit]) -> Tensor:
    """Return the outputs with -inf for the classes that are not among an example's."""
    if not any(digit.among for digit in examples):
        return out
    shut = torch.zeros_like(out, dtype=torch.bool)
    for row, digit in enumerate(examples):
        if digit.among:
            shut[row] = True
            shut[row, list(digit.among)] = False
    return out.masked_fill(shut, -torch.inf)


def _pixels(examples: Sequence[Digit]) -> Tensor:
    pixels = array("f", itertools.chain.from_iterable(d.pixels for d in examples))  # much faster than torch.tensor
    return torch.frombuffer(pixels, dtype=torch.float32).view(-1, PIXELS)
