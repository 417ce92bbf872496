"""Lesson 6's MAML on sinusoids, as a run that several processes can share and that goes on after a kill."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from ..guards import require_at_least, require_positive
from ..meta import maml, sinusoids
from ..meta.task_batch import Params, TaskBatch
from ..training.checkpoint import load_checkpoint, save_checkpoint
from ..training.team import Team


@dataclass(frozen=True)
class MetaRunConfig:
    """How to meta-train on sinusoids: as Finn et al. 2017, section 5.1, but for the outer rate.

    Raises CourseError for a value that makes no sense.
    """

    iterations: int  # updates of the initialisation
    meta_batch_size: int = 25  # tasks in each
    shots: int = 10  # points of each task's support, and as many of its query
    inner_lr: float = 0.01
    steps: int = 1  # inner ones, in training
    outer_lr: float = 1e-3  # Adam's
    width: int = 40  # units in each of the two hidden layers
    checkpoint_every: int = 10  # iterations, where the run is given a file
    seed: int = 0  # of the first weights and of the tasks

    def __post_init__(self) -> None:
        for name in ("iterations", "meta_batch_size", "shots", "steps", "width", "checkpoint_every"):
            require_at_least(1, name, getattr(self, name))
        require_positive("outer_lr", self.outer_lr, "give a number above 0; 1e-3 is usual.")


def tasks_of_iteration(config: MetaRunConfig, iteration: int) -> TaskBatch:
    """Return the whole meta-batch of one iteration: it follows from the seed and the iteration's number alone."""
    generator = torch.Generator().manual_seed(config.seed * 1_000_003 + iteration)
    return sinusoids.draw_waves(config.meta_batch_size, generator).batch(config.shots, config.shots, generator)


def meta_train_sinusoids(
    config: MetaRunConfig,
    *,
    team: Team | None = None,
    checkpoint: str | Path | None = None,
    goes_on: Callable[[int], None] | None = None,
) -> tuple[Params, list[float]]:
    """Meta-train one initialisation, alone or with other processes that are called with the same config.

    Args:
        checkpoint: a file. Where it holds a run of the same config, that run goes on. Process 0 alone uses it.
        goes_on: called in every process with the number of iterations done, where a checkpoint was taken up.

    Returns the initialisation, and each iteration's meta-loss before its update: the same in all processes.

    Raises CheckpointMismatch where the file is damaged, or of another run; CourseError, and updates nothing, where the
    meta-gradient is not finite.
    """
    team = team or Team()
    net = sinusoids.network(config.seed, config.width)
    params = dict(net.named_parameters())
    optimizer = torch.optim.Adam(params.values(), config.outer_lr)
    losses: list[float] = []
    identity = {"config": asdict(config)}
    if checkpoint and (state := team.broadcast_object(lambda: load_checkpoint(checkpoint, identity))):
        losses = list(state["losses"])
        optimizer.load_state_dict(state["optimizer"])
        net.load_state_dict(state["params"])
        if goes_on:
            goes_on(len(losses))
    while len(losses) < config.iterations:
        batch = tasks_of_iteration(config, len(losses))
        loss = maml.meta_step(net, params, batch, optimizer, inner_lr=config.inner_lr, steps=config.steps, team=team)
        losses.append(float(loss))
        due = len(losses) == config.iterations or len(losses) % config.checkpoint_every == 0
        if checkpoint and team.is_main and due:
            state = {"losses": losses, "optimizer": optimizer.state_dict(), "params": net.state_dict()}
            save_checkpoint(checkpoint, identity, state)
    return {name: p.detach().clone() for name, p in params.items()}, losses
