"""Sinusoid regression: a task is one curve y = amplitude * sin(x - phase) (Finn et al. 2017, section 5.1).

The initialisations of several seeds are trained side by side: the seeds are every parameter's first dimension.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import stack_module_state, vmap

from ..errors import TrainingDiverged
from ..guards import require_at_least, require_some
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
        """Draw points of every task uniformly over INPUTS, support and query apart: at least 1 of each."""
        require_at_least(1, "shots", shots)
        low, high = INPUTS
        x = low + (high - low) * torch.rand(len(self.amplitude), shots + query_shots, 1, generator=generator)
        y = self(x)
        return TaskBatch(x[:, :shots], y[:, :shots], x[:, shots:], y[:, shots:])


def draw_waves(tasks: int, generator: torch.Generator) -> Waves:
    """Draw 1 task or more, with amplitudes and phases uniform over AMPLITUDES and PHASES."""
    require_at_least(1, "tasks", tasks)
    return Waves(*(low + (high - low) * torch.rand(tasks, generator=generator) for low, high in (AMPLITUDES, PHASES)))


def mean_wave(x: Tensor) -> Tensor:
    """Return the average of all tasks' curves at x, the best prediction of a model of x alone.

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
    return {name: p.detach() for name, p in stack_module_state(list(modules))[0].items()}


def select(params: Params, seed: int) -> Params:
    """Return the parameters of one of the stacked seeds."""
    return {name: p[seed].detach() for name, p in params.items()}


def each_seed(params: Params) -> list[Params]:
    """Return the parameters of every stacked seed."""
    return [select(params, seed) for seed in range(len(next(iter(params.values()))))]


@dataclass(frozen=True)
class MetaMethod:
    """How an initialisation is trained, and what of it is adapted to a new task."""

    name: str  # as figures show it
    inner_lr: float = 0.01  # alpha
    steps: int = 1  # inner steps in training; none is training on all tasks at once
    second_order: bool = True  # keep the Hessian term
    adaptable: tuple[str, ...] | None = None  # names to adapt, None for all
    reptile: bool = False  # train by Reptile's rule


MAML = MetaMethod("MAML")
FOMAML = MetaMethod("FOMAML", second_order=False)
ANIL = MetaMethod("ANIL", adaptable=HEAD)
REPTILE = MetaMethod("Reptile", inner_lr=0.02, steps=5, reptile=True)
PRETRAINED = MetaMethod("pretrained", steps=0)


def train_starts(
    method: MetaMethod, seeds: Sequence[int], iterations: int, *, tasks: int = 25, task_seed: int = 0
) -> tuple[Params, Tensor]:
    """Train one initialisation for each seed, all at once, with Adam and a rate that falls from 0.01 along a cosine.

    Every seed and iteration has new tasks, `tasks` of them, with 10 points to adapt to and 10 to be judged on; methods
    trained with the same arguments see the same. Returns the parameters, [seeds, ...] each, and the meta-losses,
    [iterations, seeds]. Raises CourseError for no seeds or iterations, TrainingDiverged where a loss is not finite.
    """
    require_some(seeds, "seeds")
    require_at_least(1, "iterations", iterations)
    net = network()
    params = stack([network(seed) for seed in seeds])
    optimizer = torch.optim.Adam([p.requires_grad_() for p in params.values()], lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, iterations)
    generator, losses = torch.Generator().manual_seed(task_seed), []
    for i in range(iterations):
        batch = draw_waves(len(seeds) * tasks, generator).batch(10, 10, generator)
        loss, grads = _gradient(net, params, batch, method, len(seeds))
        if not torch.isfinite(loss).all():
            told = f"{method.name}: the loss became {loss.tolist()} at iteration {i}."
            raise TrainingDiverged(told, "lower inner_lr.")
        for name, p in params.items():
            p.grad = grads[name]
        optimizer.step()
        schedule.step()
        losses.append(loss)
    return {name: p.detach() for name, p in params.items()}, torch.stack(losses)


def curve(
    method: MetaMethod, params: Params, batch: TaskBatch, *, steps: int = 10, inner_lr: float | None = None
) -> Tensor:
    """Return the query's mean squared error after 0, 1, ..., `steps` inner steps: [seeds, tasks, steps + 1]."""
    rate = method.inner_lr if inner_lr is None else inner_lr
    options = {"inner_lr": rate, "steps": steps, "adaptable": method.adaptable}
    return torch.stack([maml.adaptation_curve(network(), one, batch, **options) for one in each_seed(params)])


def best_inner_lr(method: MetaMethod, params: Params, batch: TaskBatch, rates: Sequence[float], steps: int) -> float:
    """Return the rate with the lowest error after some steps, over seeds and tasks; one that diverges is the worst."""
    require_some(rates, "rates to choose from")
    errors = [curve(method, params, batch, inner_lr=rate, steps=steps)[:, :, -1].mean() for rate in rates]
    return min(zip(errors, rates), key=lambda pair: float(pair[0].nan_to_num(math.inf)))[1]


def _gradient(
    net: nn.Module, params: Params, batch: TaskBatch, method: MetaMethod, seeds: int
) -> tuple[Tensor, Params]:
    """Return each seed's loss, [seeds], and its gradient, or Reptile's direction with the loss before adapting."""
    options = {"inner_lr": method.inner_lr, "steps": method.steps}
    how = {"second_order": method.second_order, "adaptable": method.adaptable}
    if seeds == 1 and not method.reptile:  # the faster of the package's two ways to the same gradient
        found = maml.meta_gradient(net, {name: p[0] for name, p in params.items()}, batch, **how, **options)
        return found.loss[None], {name: g[None] for name, g in found.params.items()}
    by_seed = [part.unflatten(0, (seeds, -1)) for part in batch.parts]  # [seeds, tasks of that seed, shots, 1]
    half = (batch.support_y.shape[1] + batch.query_y.shape[1]) // 2  # the points that each of Reptile's steps sees

    def reptile(params: Params, *parts: Tensor) -> tuple[Tensor, Params]:
        found = maml.reptile_gradient(net, params, TaskBatch(*parts), batch_size=half, **options)
        return found.loss, found.params

    def meta_loss(params: Params, *parts: Tensor) -> Tensor:
        return maml.meta_loss(net, params, TaskBatch(*parts), **how, **options)

    if method.reptile:
        return vmap(reptile)(params, *by_seed)
    loss = vmap(meta_loss)(params, *by_seed)
    # Seeds do not mix, so the gradient of their sum holds each seed's own.
    return loss.detach(), dict(zip(params, torch.autograd.grad(loss.sum(), list(params.values()))))
