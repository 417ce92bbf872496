"""Sinusoid regression, the first test that MAML was put to (Finn et al. 2017, section 5.1).

A task is one curve y = amplitude * sin(x - phase), seen through a few points. The initialisations of several seeds
are trained side by side: every tensor of parameters has the seeds as its first dimension.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import vmap

from ..errors import CourseError, TrainingDiverged
from . import maml
from .task_batch import Params, TaskBatch

AMPLITUDES = (0.1, 5.0)
PHASES = (0.0, math.pi)  # radians
INPUTS = (-5.0, 5.0)
HEAD = ("4.weight", "4.bias")  # the last layer, which is all that ANIL adapts


@dataclass(frozen=True)
class Waves:
    """Some tasks: amplitude and phase (radians), each of shape [tasks]."""

    amplitude: Tensor
    phase: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Return the curves' values. x: [tasks, points, 1], or [points, 1] for the same points in every task."""
        return self.amplitude[:, None, None] * torch.sin(x - self.phase[:, None, None])

    def batch(self, shots: int, query_shots: int, generator: torch.Generator) -> TaskBatch:
        """Draw points of every task uniformly over INPUTS, support and query apart.

        Raises:
            CourseError: fewer than one point.
        """
        if shots < 1 or query_shots < 1:
            raise CourseError(f"{shots} support and {query_shots} query points.", "draw at least 1 of each.")
        low, high = INPUTS
        x = low + (high - low) * torch.rand(len(self.amplitude), shots + query_shots, 1, generator=generator)
        y = self(x)
        return TaskBatch(x[:, :shots], y[:, :shots], x[:, shots:], y[:, shots:])


def draw_waves(tasks: int, generator: torch.Generator) -> Waves:
    """Draw tasks with amplitudes and phases uniform over AMPLITUDES and PHASES.

    Raises:
        CourseError: fewer than one task.
    """
    if tasks < 1:
        raise CourseError(f"{tasks} tasks.", "draw at least 1.")
    ends = (AMPLITUDES, PHASES)
    return Waves(*(low + (high - low) * torch.rand(tasks, generator=generator) for low, high in ends))


def mean_wave(x: Tensor) -> Tensor:
    """Return the average of all tasks' curves at x, which is what a model of x alone does best to predict.

    Amplitude and phase are independent, so it is E[amplitude] * E[sin(x - phase)] = -2.55 * (2 / pi) * cos(x).
    """
    return -sum(AMPLITUDES) / 2 * (2 / math.pi) * torch.cos(x)


def network(seed: int = 0, width: int = 40) -> nn.Sequential:
    """Return Finn et al.'s network: one input, two hidden ReLU layers, one output. Global randomness is untouched."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = (nn.Linear(1, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))
    return nn.Sequential(*layers)


def stack(modules: Sequence[nn.Module]) -> Params:
    """Return the parameters of modules of one shape, each stacked along a new first dimension: the seeds."""
    every = [dict(module.named_parameters()) for module in modules]
    return {name: torch.stack([params[name].detach() for params in every]) for name in every[0]}


def select(params: Params, seed: int) -> Params:
    """Return the parameters of one of the stacked seeds."""
    return {name: p[seed].detach() for name, p in params.items()}


@dataclass(frozen=True)
class Method:
    """How an initialisation is trained, and what of it is adapted to a new task.

    name: as figures show it. inner_lr: alpha. steps: inner steps in training; none is training on all tasks at once.
    second_order: keep the Hessian term. adaptable: names to adapt, None for all. reptile: by Reptile's rule.
    """

    name: str
    inner_lr: float = 0.01
    steps: int = 1
    second_order: bool = True
    adaptable: tuple[str, ...] | None = None
    reptile: bool = False


MAML = Method("MAML")
FOMAML = Method("FOMAML", second_order=False)
ANIL = Method("ANIL", adaptable=HEAD)
REPTILE = Method("Reptile", inner_lr=0.02, steps=5, reptile=True)
PRETRAINED = Method("pretrained", steps=0)
METHODS = (MAML, FOMAML, ANIL, REPTILE, PRETRAINED)


def train(
    method: Method,
    seeds: Sequence[int],
    iterations: int,
    *,
    tasks: int = 25,
    shots: int = 10,
    query_shots: int = 10,
    outer_lr: float = 1e-2,
    task_seed: int = 0,
) -> tuple[Params, Tensor]:
    """Train one initialisation for each seed, all at once, with Adam and a rate that falls to 0 along a cosine.

    Every seed has its own first weights; the tasks, `tasks` for each seed and iteration, are drawn anew each time.
    Methods trained with the same arguments see the same tasks and points.

    Returns:
        The parameters, [seeds, ...] each, and the meta-loss of each iteration, [iterations, seeds].

    Raises:
        CourseError: no seeds or no iterations.
        TrainingDiverged: a loss became NaN or infinite.
    """
    if not seeds or iterations < 1:
        raise CourseError(f"{len(seeds)} seeds and {iterations} iterations.", "give at least 1 of each.")
    net = network()
    params = stack([network(seed) for seed in seeds])
    optimizer = torch.optim.Adam([p.requires_grad_() for p in params.values()], lr=outer_lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, iterations)
    generator = torch.Generator().manual_seed(task_seed)
    gradient = _reptile_gradient if method.reptile else _meta_gradient
    losses = []
    for i in range(iterations):
        batch = draw_waves(len(seeds) * tasks, generator).batch(shots, query_shots, generator)
        loss, grads = gradient(net, params, batch, method, len(seeds))
        if not torch.isfinite(loss).all():
            raise TrainingDiverged(
                f"{method.name}: the loss became {loss.tolist()} at iteration {i}.", "lower outer_lr or inner_lr."
            )
        for name, p in params.items():
            p.grad = grads[name]
        optimizer.step()
        schedule.step()
        losses.append(loss)
    return {name: p.detach() for name, p in params.items()}, torch.stack(losses)


def curve(
    method: Method, params: Params, batch: TaskBatch, *, steps: int = 10, inner_lr: float | None = None
) -> Tensor:
    """Return the query's mean squared error after 0, 1, ..., `steps` inner steps: [seeds, tasks, steps + 1].

    Every seed adapts to the same tasks. `inner_lr` is the method's own unless another is given.
    """
    rate = method.inner_lr if inner_lr is None else inner_lr
    options = {"inner_lr": rate, "steps": steps, "adaptable": method.adaptable}
    seeds = range(len(next(iter(params.values()))))
    return torch.stack([maml.adaptation_curve(network(), select(params, s), batch, **options) for s in seeds])


def best_inner_lr(
    method: Method, params: Params, batch: TaskBatch, rates: Sequence[float], *, steps: int = 10
) -> float:
    """Return the rate with the lowest error over seeds, tasks and steps 1 to `steps`. NaN counts as worst.

    Choose it on other tasks than those that are reported.

    Raises:
        CourseError: there are no rates.
    """
    if not rates:
        raise CourseError("there are no rates to choose from.", "give at least one.")
    errors = [curve(method, params, batch, steps=steps, inner_lr=rate)[:, :, 1:].mean() for rate in rates]
    return min(zip(errors, rates), key=lambda pair: float(pair[0].nan_to_num(math.inf)))[1]


def _meta_gradient(
    net: nn.Module, params: Params, batch: TaskBatch, method: Method, seeds: int
) -> tuple[Tensor, Params]:
    """Return the meta-loss, [seeds], and its gradient. Seeds do not mix, so one sum serves them all."""

    def one_seed(params: Params, *parts: Tensor) -> Tensor:
        options = {"inner_lr": method.inner_lr, "steps": method.steps, "adaptable": method.adaptable}
        return maml.meta_loss(net, params, TaskBatch(*parts), second_order=method.second_order, **options)

    loss = vmap(one_seed)(params, *_by_seed(batch, seeds))
    return loss.detach(), dict(zip(params, torch.autograd.grad(loss.sum(), list(params.values()))))


def _reptile_gradient(
    net: nn.Module, params: Params, batch: TaskBatch, method: Method, seeds: int
) -> tuple[Tensor, Params]:
    """Return the loss before adapting, [seeds], and Reptile's direction. Each inner step sees half of the points."""
    half = (batch.support_y.shape[1] + batch.query_y.shape[1]) // 2

    def one_seed(params: Params, *parts: Tensor) -> tuple[Tensor, Params]:
        options = {"inner_lr": method.inner_lr, "steps": method.steps, "batch_size": half}
        found = maml.reptile_gradient(net, params, TaskBatch(*parts), **options)
        return found.loss, found.params

    return vmap(one_seed)({name: p.detach() for name, p in params.items()}, *_by_seed(batch, seeds))


def _by_seed(batch: TaskBatch, seeds: int) -> list[Tensor]:
    """Return the batch's four tensors as [seeds, tasks of that seed, shots, 1]."""
    parts = (batch.support_x, batch.support_y, batch.query_x, batch.query_y)
    return [part.unflatten(0, (seeds, -1)) for part in parts]
