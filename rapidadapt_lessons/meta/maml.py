"""Model-agnostic meta-learning: find parameters from which a few gradient steps solve a new task.

Everything is a function of `params`, a dict from names to tensors as `dict(module.named_parameters())` gives it,
and runs over all tasks of a batch at once (`torch.func.vmap`). `params` may name a part of the module's parameters,
such as LoRA's; the others are then used as they are, neither adapted nor meta-learned.

MAML: Finn et al. 2017. First-order MAML, and Reptile: Nichol et al. 2018. ANIL: Raghu et al. 2020.
Meta-SGD: Li et al. 2017. What is refused, and why, is in `maml_guards`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import grad_and_value
from torch.optim import Optimizer
from torch.utils._pytree import tree_map

from ..training.team import Team
from .maml_guards import (
    adaptable_names,
    check_arguments,
    check_minibatches,
    check_same_shape,
    check_scalar,
    check_update,
    stateless_forward,
    vmap_tasks,
)
from .task_batch import InnerRate, Params, TaskBatch, sum_over_team

Loss = Callable[[Any, Tensor], Tensor]  # (prediction, target) -> mean loss over examples, a scalar


def mse(prediction: Tensor, target: Tensor) -> Tensor:
    """Return the mean squared error over all elements. Raises CourseError where the shapes differ."""
    check_same_shape(prediction, target)
    error = prediction - target
    return (error * error).mean()


def learned_rates(params: Params, inner_lr: float, adaptable: Iterable[str] | None = None) -> Params:
    """Return one rate for every element of every adapted parameter, to be meta-learned (Meta-SGD, Li et al. 2017).

    All start at `inner_lr`. Hand them to `meta_step` as `inner_lr`, and to its optimiser beside `params`.
    """
    return {n: torch.full_like(params[n], inner_lr).requires_grad_() for n in adaptable_names(params, adaptable)}


def inner_update(params: Params, grads: Params, inner_lr: InnerRate) -> Params:
    """Return theta* = theta - alpha * gradient (Finn et al. 2017, section 2.2); parameters without gradient stay."""
    if isinstance(inner_lr, (int, float)):
        # One operation in place of two: at this size, what counts is their number.
        return params | {name: torch.sub(params[name], g, alpha=inner_lr) for name, g in grads.items()}
    alpha = inner_lr if isinstance(inner_lr, Mapping) else dict.fromkeys(grads, inner_lr.reshape(()))
    return params | {name: params[name] - alpha[name] * g for name, g in grads.items()}


@dataclass
class _InnerLoop:
    """Finn et al. 2017, algorithm 1, for one task: adapt on its support, judge on its query. Options: `inner_loop`."""

    module: nn.Module
    params: Params
    inner_lr: InnerRate
    steps: int = 1
    loss: Loss = mse
    second_order: bool = True
    adaptable: Iterable[str] | None = None

    def __post_init__(self) -> None:
        self.names = check_arguments(self.module, self.params, self.inner_lr, self.steps, self.adaptable)

    def loss_at(self, params: Params, x: Any, y: Tensor) -> Tensor:
        return check_scalar(self.loss(stateless_forward(self.module, params, x), y))

    def gradient(self, params: Params, x: Any, y: Tensor) -> tuple[Params, Tensor]:
        """Return the gradient of the loss, and the loss."""
        base = params if self.second_order else {name: p.detach() for name, p in params.items()}
        return grad_and_value(lambda own: self.loss_at(base | own, x, y))({name: base[name] for name in self.names})

    def step(self, params: Params, x: Any, y: Tensor) -> tuple[Params, Tensor]:
        """Return the parameters after one inner step, and the loss before it."""
        grads, loss = self.gradient(params, x, y)
        return inner_update(params, grads, self.inner_lr), loss

    def adapted(self, params: Params, x: Any, y: Tensor) -> Params:
        """Return theta*, the parameters after all inner steps."""
        for _ in range(self.steps):
            params, _ = self.step(params, x, y)
        return params

    def query_loss(self, params: Params, support_x: Any, support_y: Tensor, query_x: Any, query_y: Tensor) -> Tensor:
        """Return the query's loss at theta*. Its mean over tasks is the meta-objective."""
        return self.loss_at(self.adapted(params, support_x, support_y), query_x, query_y)


class _BatchedInnerLoop(_InnerLoop):
    """The same for all tasks at once, each in its own copy of the parameters: a quarter faster, in plain autograd only.

    No copy is shared, so the gradient of the sum of the tasks' losses in these copies holds each task's own gradient.
    """

    def loss_at(self, params: Params, x: Any, y: Tensor) -> Tensor:
        one_task = super().loss_at
        return vmap_tasks(lambda own, x, y: one_task(self.params | own, x, y), (params, x, y))

    def gradient(self, params: Params, x: Any, y: Tensor) -> tuple[Params, Tensor]:
        losses = self.loss_at(params, x, y)
        options = {"create_graph": self.second_order, "allow_unused": True, "materialize_grads": True}
        return dict(zip(params, torch.autograd.grad(losses.sum(), list(params.values()), **options))), losses

    def meta_loss(self, batch: TaskBatch) -> Tensor:
        copies = {name: self.params[name].expand(len(batch), *self.params[name].shape) for name in self.names}
        return self.query_loss(copies, *batch.parts).mean()


def inner_loop(module: nn.Module, params: Params, x: Any, y: Tensor, **options: Any) -> Params:
    """Return the parameters after some gradient steps on one task's support. Nothing is changed in place.

    Args:
        x, y: support inputs and targets, [shots, ...].

    Options, here and below:
        inner_lr: alpha, a number, or a tensor for each name (see `learned_rates`). Must be given.
        steps: how many inner steps, 1 unless given.
        loss: (prediction, target) -> a scalar, `mse` unless given.
        second_order: keep the inner gradients differentiable, so that a gradient through the result has the Hessian
            term. If False they count as constants: first-order MAML.
        adaptable: names to adapt; None adapts all of `params`. ANIL names the head's.

    Raises:
        CourseError: unknown names, negative steps, a loss that is no scalar, a module that MAML cannot run (see
            `check_module`).
    """
    return _InnerLoop(module, params, **options).adapted(params, x, y)


def meta_loss(module: nn.Module, params: Params, batch: TaskBatch, **options: Any) -> Tensor:
    """Return the meta-objective: the query's loss after adapting on the support, averaged over the tasks.

    Finn et al. 2017, section 2.2, with a mean over tasks in place of the sum. A scalar, differentiable in `params`.
    Options and errors: those of `inner_loop`.
    """
    one_task = partial(_InnerLoop(module, params, **options).query_loss, params)
    return vmap_tasks(one_task, batch.parts).mean()


@dataclass(frozen=True)
class MetaGradient:
    """What one batch of tasks says about the initialisation.

    loss: mean meta-loss over the tasks, a scalar. params: its gradient, of the names and shapes of `params`.
    inner_lr: its gradient for each learned inner rate; one for all parameters goes by the name "inner_lr". Empty when
        the inner rate is a number.
    """

    loss: Tensor
    params: Params
    inner_lr: Params


def meta_gradient(
    module: nn.Module,
    params: Params,
    batch: TaskBatch,
    *,
    inner_lr: InnerRate,
    team: Team | None = None,
    **options: Any,
) -> MetaGradient:
    """Return the meta-loss and its gradient at `params`; for learned inner rates, theirs too. Changes nothing.

    Args:
        team: the processes that share the tasks (see `scaling`), all called with the same batch; None for this one
            alone. The result is the same up to rounding, and in all of them.
        options: those of `inner_loop`.

    Raises: as `meta_loss`.
    """
    theta = {name: p.detach().requires_grad_() for name, p in params.items()}
    rates = {name: rate.detach().requires_grad_() for name, rate in _learned(inner_lr).items()}
    alpha = rates if isinstance(inner_lr, Mapping) else rates.get("inner_lr", inner_lr)
    wanted = [*theta.values(), *rates.values()]

    @torch.enable_grad()
    def of_part(part: TaskBatch, share: float) -> tuple[Tensor, ...]:
        loss = _BatchedInnerLoop(module, theta, alpha, **options).meta_loss(part) * share
        return loss.detach(), *torch.autograd.grad(loss, wanted, allow_unused=True, materialize_grads=True)

    loss, *grads = sum_over_team(of_part, batch, wanted, team)
    return MetaGradient(loss, dict(zip(theta, grads)), dict(zip(rates, grads[len(theta) :])))


def reptile_gradient(
    module: nn.Module, params: Params, batch: TaskBatch, *, batch_size: int | None = None, **options: Any
) -> MetaGradient:
    """Return theta minus the mean adapted parameters: Reptile's direction (Nichol et al. 2018, algorithm 2).

    Reptile does not split a task: support and query together are its data. With one step this is joint training.
    The `loss` returned is the mean over tasks of the first inner step's, before adapting.

    Args:
        batch_size: examples in each inner step, taken in turn and from the front again at the end; None: all.
        options: those of `inner_loop`. Raises as it does.
    """
    theta = {name: p.detach() for name, p in params.items()}
    loop = _InnerLoop(module, theta, second_order=False, **options)
    shots = batch.support_y.shape[1] + batch.query_y.shape[1]
    size = shots if batch_size is None else batch_size
    check_minibatches(loop.steps, size, shots)

    def one_task(support_x: Any, support_y: Tensor, query_x: Any, query_y: Tensor) -> tuple[Params, Tensor]:
        x, y = tree_map(lambda a, b: torch.cat([a, b]), (support_x, support_y), (query_x, query_y))
        fast, losses = theta, []
        for i in range(loop.steps):
            at = [(i * size + j) % shots for j in range(size)]
            chosen = tree_map(lambda t, at=at: t[at], (x, y)) if size < shots else (x, y)
            fast, loss = loop.step(fast, *chosen)
            losses.append(loss)
        return {name: theta[name] - fast[name] for name in loop.names}, losses[0]

    with torch.no_grad():
        moved, first = vmap_tasks(one_task, batch.parts)
    zeros = {name: torch.zeros_like(p) for name, p in theta.items()}
    return MetaGradient(first.mean(), zeros | {name: d.mean(0) for name, d in moved.items()}, {})


def adaptation_curve(
    module: nn.Module,
    params: Params,
    batch: TaskBatch,
    *,
    metric: Loss | None = None,
    chunk_size: int | None = None,
    **options: Any,
) -> Tensor:
    """Return the query's loss (or metric) of every task after 0, 1, ..., `steps` inner steps on its support.

    Shape [tasks, steps + 1]; no gradient. Options and errors: those of `inner_loop`.

    Args:
        chunk_size: how many tasks to hold in memory at once; None takes all.
    """
    loop = _InnerLoop(module, params, second_order=False, **options)

    def one_task(support_x: Any, support_y: Tensor, query_x: Any, query_y: Tensor) -> Tensor:
        judged = lambda fast: (metric or loop.loss)(stateless_forward(module, fast, query_x), query_y)  # noqa: E731
        fast, values = params, [judged(params)]
        for _ in range(loop.steps):
            fast, _ = loop.step(fast, support_x, support_y)
            values.append(judged(fast))
        return torch.stack(values)

    with torch.no_grad():
        return vmap_tasks(one_task, batch.parts, chunk_size)


def meta_step(
    module: nn.Module,
    params: Params,
    batch: TaskBatch,
    optimizer: Optimizer,
    *,
    inner_lr: InnerRate,
    gradient: Callable[..., MetaGradient] = meta_gradient,
    **options: Any,
) -> Tensor:
    """Take one optimiser step on the initialisation, in place, and return the meta-loss before it.

    Args:
        params: tensors that `optimizer` holds. Learned inner rates that it holds too are updated with them.
        gradient: what computes the meta-gradient, such as a `traced.TracedMetaGradient()` for less overhead.
        options: those of `meta_gradient`.

    Raises:
        CourseError: the gradient is not finite, or the optimiser lacks a parameter. Nothing is updated then. Also
            as `meta_loss`.
    """
    found, rates = gradient(module, params, batch, inner_lr=inner_lr, **options), _learned(inner_lr)
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    check_update([name for name, p in params.items() if id(p) not in held], found.loss, found.params, found.inner_lr)
    optimizer.zero_grad()
    for name, p in params.items():
        p.grad = found.params[name]
    for name, g in found.inner_lr.items():
        if id(rates[name]) in held:
            rates[name].grad = g
    optimizer.step()
    return found.loss


def _learned(inner_lr: InnerRate) -> Params:
    """Return the inner rates that can be learned, by name."""
    if isinstance(inner_lr, Mapping):
        return dict(inner_lr)
    return {"inner_lr": inner_lr} if isinstance(inner_lr, Tensor) and inner_lr.requires_grad else {}
