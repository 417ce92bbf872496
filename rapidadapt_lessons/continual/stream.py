"""Continual learning: a `Method` learns the experiences of a `Stream` in turn; after each one, all are measured.

It trains the parameters that require gradients: LoRA's matrices, or a whole model.
"""

from __future__ import annotations

import hashlib
import inspect
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
from ..guards import require_some
from ..training.checkpoint import load_checkpoint, save_checkpoint
from ..training.data import Experience
from ..training.loop import TrainConfig, train
from .metrics import average_accuracy, backward_transfer, forgetting, forward_transfer, plasticity


class Scenario(Protocol):
    """What methods need to know about one kind of examples: digits, or rows of tokens."""

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
    """Experiences to be learned in this order.

    Raises CourseError where there are none, two have one name, one has no examples to learn or to be measured on, or
    one is measured on a class that neither it nor an earlier one trains.
    """

    name: str
    experiences: tuple[Experience, ...]
    scenario: Scenario

    def __post_init__(self) -> None:
        object.__setattr__(self, "experiences", tuple(self.experiences))
        require_some(self.experiences, f"experiences in the stream {self.name!r}")
        if len(set(self.names)) < len(self.names):
            problem = f"the stream {self.name!r} has two experiences of one name ({list(self.names)})."
            raise CourseError(problem, "rename one.")
        trained = frozenset[int]()
        for experience in self.experiences:
            name, train, test = experience.name, experience.train, experience.test
            if not (train and test):
                problem = f"experience {name!r} has {len(train)} examples to learn and {len(test)} to test on."
                raise CourseError(problem, "give at least one of each.")
            trained |= self.scenario.classes(train)
            if unseen := sorted(self.scenario.classes(test) - trained):
                problem = (
                    f"experience {name!r} is measured on the class {unseen[0]}, which has not been trained by then."
                )
                remedy = f"add examples of it to {name!r} or to an earlier experience, or take it out of the test."
                raise CourseError(problem, remedy)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(experience.name for experience in self.experiences)

    def fingerprint(self) -> str:
        """Return a SHA-256 over all names and examples."""
        return hashlib.sha256(repr((self.name, self.experiences)).encode()).hexdigest()


def validation_stream(stream: Stream, share: float = 0.25) -> Stream:
    """Return the stream to choose settings on: the last share of each experience's training examples is its test.

    Raises CourseError where the share is not between 0 and 1, or an experience has a single example.
    """
    experiences = []
    for experience in stream.experiences:
        name, train = experience.name, experience.train
        if not 0 < share < 1 or len(train) < 2:
            problem = f"experience {name!r} has {len(train)} examples; a share of {share} of them cannot be held back."
            raise CourseError(problem, "give a share such as 0.25, and at least two examples in each experience.")
        cut = len(train) - max(1, int(share * len(train)))
        experiences.append(Experience(name, train[:cut], train[cut:]))
    return Stream(f"{stream.name}, validation", tuple(experiences), stream.scenario)


def trainable_state(model: nn.Module) -> dict[str, Tensor]:
    """Return a copy of the parameters that require gradients, by name; CourseError where there are none."""
    state = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
    if not state:
        raise CourseError("no parameter of this model requires a gradient.", "inject LoRA first, or unfreeze some.")
    return state


@torch.no_grad()
def set_trainable_state(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Put back what `trainable_state` returned; AdapterMismatch, and no change, where it is not this model's."""
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


def fit(
    model: nn.Module,
    scenario: Scenario,
    examples: Sequence[Any],
    config: TrainConfig,
    loss: Callable[[nn.Module, Sequence[Any]], Tensor] | None = None,
) -> list[float]:
    """Train on examples of any kind, with the scenario's loss unless you give one; return the losses."""
    return train(model, examples, config, loss=loss or scenario.loss, progress=False).losses


class Method:
    """Plain fine-tuning: learn each experience where the one before left off, and keep nothing.

    It is the method to beat, and the protocol: the others override what they change.
    """

    name = "fine-tuning"
    kept: tuple[str, ...] = ()  # the attributes that a checkpoint holds, in tensors and plain values
    stored_examples = 0  # of earlier experiences
    stored_numbers = 0  # besides the model and the examples

    def start(self, model: nn.Module, stream: Stream, seed: int) -> None:
        """Forget everything from an earlier run."""

    def learn(self, model: nn.Module, stream: Stream, index: int, config: TrainConfig) -> None:
        """Learn experience `index`, changing the model's trained parameters."""
        fit(model, stream.scenario, stream.experiences[index].train, config)

    def score(self, model: nn.Module, stream: Stream, index: int) -> float:
        """Return the score on experience `index`'s test."""
        return stream.scenario.score(model, stream.experiences[index].test)

    def state(self) -> dict[str, Any]:
        """Return what is kept, for a checkpoint."""
        return {name: getattr(self, name) for name in self.kept}

    def load(self, state: Mapping[str, Any], stream: Stream) -> None:
        """Take up what `state` returned."""
        vars(self).update(state)


class Joint(Method):
    """Start afresh at each experience and train on all so far together: experience i costs i + 1 times as much."""

    name = "joint training"
    kept = ("untrained", "stored_examples")

    def start(self, model: nn.Module, stream: Stream, seed: int) -> None:
        self.untrained, self.stored_examples = trainable_state(model), 0

    def learn(self, model: nn.Module, stream: Stream, index: int, config: TrainConfig) -> None:
        together = [example for experience in stream.experiences[: index + 1] for example in experience.train]
        set_trainable_state(model, self.untrained)
        fit(model, stream.scenario, together, replace(config, steps=config.steps * (index + 1)))
        self.stored_examples = len(together)


@dataclass(frozen=True)
class StreamResult:
    """What a run over a stream of T experiences measured."""

    method: str
    experiences: tuple[str, ...]
    matrix: Tensor  # R, [T, T] (`metrics`); NaN in rows not reached yet
    before: Tensor  # the scores before anything was learned, [T]
    seconds: tuple[float, ...]  # of processor time (all cores together) spent on learning each experience so far
    stored_examples: int
    stored_numbers: int

    acc = property(lambda self: average_accuracy(self.matrix))
    bwt = property(lambda self: backward_transfer(self.matrix))
    fwt = property(lambda self: forward_transfer(self.matrix, self.before))
    forgetting = property(lambda self: forgetting(self.matrix))
    plasticity = property(lambda self: plasticity(self.matrix))


def run_stream(
    method: Method,
    model: nn.Module,
    stream: Stream,
    config: TrainConfig,
    *,
    checkpoint: str | Path | None = None,
    on_experience: Callable[[StreamResult], None] = lambda so_far: None,
) -> StreamResult:
    """Learn a stream one experience at a time, in place, and measure every experience after each.

    Args:
        config: how each experience is trained; its seed is the run's.
        checkpoint: a file, written after each experience. Where it holds a run of the same method, stream, model
            and config, that run goes on, and ends with the same matrix as one that was never stopped.
        on_experience: called with what is known so far, before the first experience and after each.

    Raises CheckpointMismatch where the file is damaged, or of another run; and as `training.train`.
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
        stored = method.stored_examples, method.stored_numbers
        return StreamResult(method.name, stream.names, matrix.clone(), before, tuple(seconds), *stored)

    on_experience(so_far())
    for index in range(len(seconds), count):
        begun = time.process_time()
        method.learn(model, stream, index, replace(config, seed=1000 * config.seed + index))
        seconds.append(time.process_time() - begun)
        matrix[index] = _scores(method, model, stream)
        if checkpoint:
            state = {"weights": trainable_state(model), "method": method.state(), "matrix": matrix.clone()}
            save_checkpoint(checkpoint, identity, state | {"before": before, "seconds": seconds})
        on_experience(so_far())
    return so_far()


def _scores(method: Method, model: nn.Module, stream: Stream) -> Tensor:
    return torch.tensor([method.score(model, stream, j) for j in range(len(stream.experiences))], dtype=torch.float64)


def _identity(method: Method, model: nn.Module, stream: Stream, config: TrainConfig) -> dict[str, Any]:
    return {
        "method": method.name,
        "method's settings": {name: getattr(method, name) for name in inspect.signature(type(method)).parameters},
        "stream": f"{stream.name} ({stream.fingerprint()[:12]})",
        "config": asdict(config),
        "shapes": {name: list(value.shape) for name, value in trainable_state(model).items()},
    }
