"""Continual learning: one thing after another, and how well all of it is still known.

A `Stream` has parts. A method learns them in turn, and after each one every part is measured: R[i, j] is
the score on part j after learning parts 0 to i. `accuracy_matrix` reads ACC, BWT, FWT and forgetting off it.
A method is a class with the few functions of `Method`; plain fine-tuning is `Method` itself. Everything
acts on the parameters that require gradients, so on LoRA's matrices or on all of a model alike.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..errors import AdapterMismatch, CourseError
from ..training.checkpoint import load_checkpoint, save_checkpoint
from ..training.data import Experience
from ..training.loop import TrainConfig, train
from .metrics import average_accuracy, backward_transfer, forgetting, forward_transfer, plasticity


class Scenario(Protocol):
    """What the methods need to know about one kind of examples. `digits` and `language_stream` have one each."""

    def loss(self, model: nn.Module, examples: Sequence[Any], reduction: str = "mean") -> Tensor:
        """Return -log P(answers | inputs) in nats, a scalar: the mean, or with reduction="sum" the sum."""

    def logits(self, model: nn.Module, examples: Sequence[Any]) -> Tensor:
        """Return the outputs before the softmax, [predictions, classes]."""

    def loss_and_logits(self, model: nn.Module, examples: Sequence[Any]) -> tuple[Tensor, Tensor]:
        """Return the mean loss and the outputs before the softmax, from one forward pass."""

    def score(self, model: nn.Module, examples: Sequence[Any]) -> float:
        """Return the mean score, from 0 to 1."""

    def classes(self, examples: Sequence[Any]) -> frozenset[int]:
        """Return the classes among the answers; an empty set where answers are open (text)."""

    def features(self, model: nn.Module, examples: Sequence[Any]) -> Tensor:
        """Return a description of each input, without its answer, [examples, features]."""

    def surprise(self, model: nn.Module, examples: Sequence[Any]) -> Tensor:
        """Return the mean -log P per token of each input, without its answer, [examples]."""


@dataclass(frozen=True)
class Stream:
    """Parts to be learned in this order.

    Raises:
        CourseError: there are no parts, two have one name, a part has nothing to learn or to be measured
            on, or a part is measured on a class that neither it nor an earlier part trains.
    """

    name: str
    experiences: tuple[Experience, ...]
    scenario: Scenario

    def __post_init__(self) -> None:
        object.__setattr__(self, "experiences", tuple(self.experiences))
        names = [part.name for part in self.experiences]
        if not names:
            raise CourseError(f"the stream {self.name!r} has no parts.", "give at least one.")
        if len(set(names)) < len(names):
            raise CourseError(f"the stream {self.name!r} has two parts of one name ({names}).", "rename one.")
        trained: frozenset[int] = frozenset()
        for part in self.experiences:
            if not (part.train and part.test):
                raise CourseError(
                    f"part {part.name!r} has {len(part.train)} examples to learn and {len(part.test)} to test on.",
                    "give at least one of each.",
                )
            trained |= self.scenario.classes(part.train)
            if unseen := sorted(self.scenario.classes(part.test) - trained):
                raise CourseError(
                    f"part {part.name!r} is measured on the class {unseen[0]}, which has not been in training by then.",
                    f"add examples of it to {part.name!r} or to a part before it, or take it out of the test.",
                )

    @property
    def names(self) -> tuple[str, ...]:
        """The parts' names, in order."""
        return tuple(part.name for part in self.experiences)

    def fingerprint(self) -> str:
        """Return a SHA-256 over all names and examples."""
        return hashlib.sha256(repr((self.name, self.experiences)).encode()).hexdigest()


def validation_stream(stream: Stream, share: float = 0.25) -> Stream:
    """Return the stream to choose settings on: each part's last training examples are what it is measured on.

    A setting chosen for its score on the test set has seen the test set; that score is then too good.

    Args:
        share: of each part's training examples, at least one, to measure on.

    Raises:
        CourseError: the share is not between 0 and 1, or a part has one example only; or as `Stream`.
    """
    parts = []
    for part in stream.experiences:
        if not 0 < share < 1 or len(part.train) < 2:
            raise CourseError(
                f"a share of {share} of part {part.name!r}'s {len(part.train)} examples cannot be held back.",
                "give a share such as 0.25, and parts of at least two examples.",
            )
        cut = len(part.train) - max(1, int(share * len(part.train)))
        parts.append(Experience(part.name, part.train[:cut], part.train[cut:]))
    return Stream(f"{stream.name}, validation", tuple(parts), stream.scenario)


# What is trained.


def trainable_state(model: nn.Module) -> dict[str, Tensor]:
    """Return a copy of the parameters that require gradients, by name.

    Raises:
        CourseError: there are none.
    """
    state = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
    if not state:
        raise CourseError("no parameter of this model requires a gradient.", "inject LoRA first, or unfreeze some.")
    return state


@torch.no_grad()
def set_trainable_state(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Put back what `trainable_state` returned.

    Raises:
        AdapterMismatch: the names or shapes are not this model's. Nothing is changed then.
    """
    own = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if {name: p.shape for name, p in own.items()} != {name: value.shape for name, value in state.items()}:
        raise AdapterMismatch("these weights are not this model's trained ones.", "load those of the same model.")
    for name, parameter in own.items():
        parameter.copy_(state[name])


@contextmanager
def swapped(model: nn.Module, state: Mapping[str, Tensor]) -> Iterator[None]:
    """Let the model compute with other trained weights inside the block; even LoRA of another rank."""
    own = {name: p for name, p in model.named_parameters() if name in state}
    kept = {name: p.data for name, p in own.items()}
    try:
        for name, parameter in own.items():
            parameter.data = state[name].to(kept[name].device)
        yield
    finally:
        for name, parameter in own.items():
            parameter.data = kept[name]


# The protocol, which is also plain fine-tuning: the method to beat.


class Method:
    """Learn each part where the one before left off, and keep nothing. The others override what they change.

    Attributes:
        name: what a figure calls it.
    """

    name = "fine-tuning"

    def settings(self) -> dict[str, Any]:
        """Return what the method was set to, in plain values: a resumed run must have the same."""
        return {}

    def start(self, model: nn.Module, stream: Stream, seed: int) -> None:
        """Forget everything from an earlier run."""

    def learn(self, model: nn.Module, stream: Stream, index: int, config: TrainConfig) -> None:
        """Learn part `index`, changing the model's trained parameters."""
        fit(model, stream.scenario, stream.experiences[index].train, config)

    def score(self, model: nn.Module, stream: Stream, index: int) -> float:
        """Return the score on part `index`'s test."""
        return stream.scenario.score(model, stream.experiences[index].test)

    def stored_examples(self) -> int:
        """Return how many examples of earlier parts are kept."""
        return 0

    def stored_numbers(self) -> int:
        """Return how many numbers are kept besides the model and the examples."""
        return 0

    def state(self) -> dict[str, Any]:
        """Return what is kept, in tensors and plain values, for a checkpoint."""
        return {}

    def load(self, state: Mapping[str, Any], stream: Stream) -> None:
        """Take up what `state` returned."""


class Joint(Method):
    """Start afresh at each part and train on all parts so far together: what is possible with all data kept.

    Each part brings its share of updates, so part i costs i + 1 times as much as with fine-tuning.

    Args:
        only_last: learn nothing before the last part; the rows of the matrix before it say so by staying low.
    """

    name = "joint training"

    def __init__(self, only_last: bool = False):
        self.only_last = only_last
        self._start: dict[str, Tensor] = {}
        self._stored = 0

    def settings(self) -> dict[str, Any]:
        return {"only_last": self.only_last}

    def start(self, model: nn.Module, stream: Stream, seed: int) -> None:
        self._start, self._stored = trainable_state(model), 0

    def learn(self, model: nn.Module, stream: Stream, index: int, config: TrainConfig) -> None:
        together = [example for part in stream.experiences[: index + 1] for example in part.train]
        self._stored = len(together)
        if self.only_last and index < len(stream.experiences) - 1:
            return
        set_trainable_state(model, self._start)
        fit(model, stream.scenario, together, replace(config, steps=config.steps * (index + 1)))

    def stored_examples(self) -> int:
        return self._stored

    def state(self) -> dict[str, Any]:
        return {"start": self._start, "stored": self._stored}

    def load(self, state: Mapping[str, Any], stream: Stream) -> None:
        self._start, self._stored = dict(state["start"]), state["stored"]


def fit(
    model: nn.Module,
    scenario: Scenario,
    examples: Sequence[Any],
    config: TrainConfig,
    loss: Callable[[nn.Module, Sequence[Any]], Tensor] | None = None,
) -> list[float]:
    """Train on examples of any kind with `training.train`; return the losses.

    Args:
        loss: in place of the setting's own, which is the mean over the batch.
    """
    return train(model, examples, config, loss=loss or scenario.loss, progress=False).losses


@dataclass(frozen=True)
class StreamResult:
    """What a run over a stream measured.

    Attributes:
        method: its name.
        experiences: the parts' names.
        matrix: R, [parts, parts]; NaN in rows not reached yet.
        before: the scores before anything was learned, [parts].
        seconds: of processor time (all cores together) spent on learning each part so far.
        stored_examples: kept at the end.
        stored_numbers: kept at the end, besides model and examples.
    """

    method: str
    experiences: tuple[str, ...]
    matrix: Tensor
    before: Tensor
    seconds: tuple[float, ...]
    stored_examples: int
    stored_numbers: int

    @property
    def acc(self) -> float:
        """See `average_accuracy`."""
        return average_accuracy(self.matrix)

    @property
    def bwt(self) -> float:
        """See `backward_transfer`."""
        return backward_transfer(self.matrix)

    @property
    def fwt(self) -> float:
        """See `forward_transfer`."""
        return forward_transfer(self.matrix, self.before)

    @property
    def forgetting(self) -> float:
        """See `forgetting`."""
        return forgetting(self.matrix)

    @property
    def plasticity(self) -> float:
        """See `plasticity`."""
        return plasticity(self.matrix)


def run_stream(
    method: Method,
    model: nn.Module,
    stream: Stream,
    config: TrainConfig,
    *,
    checkpoint: str | Path | None = None,
    on_experience: Callable[[StreamResult], None] | None = None,
) -> StreamResult:
    """Learn a stream part by part, in place, and measure every part after each.

    Args:
        config: how each part is trained; its seed is the run's.
        checkpoint: a file, written after each part. Where it holds a run of the same method, stream, model
            and config, that run goes on, and ends with the same matrix as one that was never stopped.
        on_experience: called with what is known so far, before the first part and after each.

    Raises:
        CheckpointMismatch: the file is damaged, or of another run: of another method, for example.
        TrainingDiverged, CourseError: as `training.train`.
    """
    count = len(stream.experiences)
    method.start(model, stream, config.seed)
    identity = _identity(method, model, stream, config) if checkpoint else {}
    matrix = torch.full((count, count), math.nan, dtype=torch.float64)
    seconds: list[float] = []
    if checkpoint and (saved := load_checkpoint(checkpoint, identity)):
        set_trainable_state(model, saved["weights"])
        method.load(saved["method"], stream)
        matrix, before, seconds = saved["matrix"], saved["before"], saved["seconds"]
    else:
        before = _scores(Method(), model, stream)

    def so_far() -> StreamResult:
        kept = method.stored_examples(), method.stored_numbers()
        return StreamResult(method.name, stream.names, matrix.clone(), before, tuple(seconds), *kept)

    if on_experience:
        on_experience(so_far())
    for index in range(len(seconds), count):
        begun = time.process_time()
        method.learn(model, stream, index, replace(config, seed=1000 * config.seed + index))
        seconds.append(time.process_time() - begun)
        matrix[index] = _scores(method, model, stream)
        if checkpoint:
            state = {"weights": trainable_state(model), "method": method.state(), "matrix": matrix.clone()}
            save_checkpoint(checkpoint, identity, state | {"before": before, "seconds": seconds})
        if on_experience:
            on_experience(so_far())
    return so_far()


def _scores(method: Method, model: nn.Module, stream: Stream) -> Tensor:
    return torch.tensor([method.score(model, stream, j) for j in range(len(stream.experiences))], dtype=torch.float64)


def _identity(method: Method, model: nn.Module, stream: Stream, config: TrainConfig) -> dict[str, Any]:
    return {
        "method": method.name,
        "method's settings": method.settings(),
        "stream": f"{stream.name} ({stream.fingerprint()[:12]})",
        "config": asdict(config),
        "shapes": {name: list(value.shape) for name, value in trainable_state(model).items()},
    }
