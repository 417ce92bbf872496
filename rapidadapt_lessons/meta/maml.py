"""Model-agnostic meta-learning: find parameters from which a few gradient steps solve a new task.

Everything is a function of `params`, a dict from names to tensors as `dict(module.named_parameters())` gives it,
and runs over all tasks of a batch at once (`torch.func.vmap`). `params` may name a part of the module's parameters,
such as LoRA's; the others are then used as they are, neither adapted nor meta-learned.

MAML: Finn et al. 2017. First-order MAML, and Reptile: Nichol et al. 2018. ANIL: Raghu et al. 2020.
Meta-SGD: Li et al. 2017.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap
from torch.utils._pytree import tree_map

from ..errors import CourseError
from ..training.team import Team
from .task_batch import (
    RANDOMNESS_REMEDY,
    Params,
    Rates,
    TaskBatch,
    adaptable_names,
    check_arguments,
    check_module,
    check_scalar,
)

Loss = Callable[[Any, Tensor], Tensor]  # (prediction, target) -> mean loss over examples, a scalar


@dataclass(frozen=True)
class MetaGradient:
    """What one batch of tasks says about the initialisation.

    loss: mean meta-loss over the tasks, a scalar. params: its gradient, of the names and shapes of `params`.
    inner_lr: its gradient for each learned inner rate; empty when the inner rate is a number.
    """

    loss: Tensor
    params: Params
    inner_lr: Params


def mse(prediction: Tensor, target: Tensor) -> Tensor:
    """Return the mean squared error over all elements.

    Raises:
        CourseError: the shapes differ. Broadcasting [10, 1] against [10] would silently compare all pairs.
    """
    if prediction.shape != target.shape:
        raise CourseError(
            f"the prediction has shape {tuple(prediction.shape)} and the target {tuple(target.shape)}.",
            "reshape the targets to the shape of the predictions.",
        )
    error = prediction - target
    return (error * error).mean()


def learned_rates(params: Params, inner_lr: float, adaptable: Iterable[str] | None = None) -> Params:
    """Return one rate for every element of every adapted parameter, to be meta-learned (Meta-SGD, Li et al. 2017).

    All start at `inner_lr`. Hand them to `meta_step` as `inner_lr`, and to its optimiser beside `params`.
    """
    return {n: torch.full_like(params[n], inner_lr).requires_grad_() for n in adaptable_names(params, adaptable)}


def inner_update(params: Params, grads: Params, inner_lr: float | Rates) -> Params:
    """Return theta* = theta - alpha * gradient (Finn et al. 2017, section 2.2); parameters without gradient stay.

    Args:
        inner_lr: alpha, a number, or a tensor for each name in `grads`.

    Raises:
        CourseError: a gradient's name or shape is not its parameter's, or its rate is missing.
    """
    for name, g in grads.items():
        if name not in params or g.shape != params[name].shape:
            known = tuple(params[name].shape) if name in params else "absent"
            raise CourseError(
                f"the gradient {name!r} has shape {tuple(g.shape)}, its parameter is {known}.",
                "pass the gradients of these very parameters.",
            )
    if isinstance(inner_lr, Mapping):
        if missing := [name for name in grads if name not in inner_lr]:
            raise CourseError(
                f"there is no inner rate for {', '.join(missing)}.", "build the rates with `learned_rates`."
            )
        return params | {name: params[name] - inner_lr[name] * g for name, g in grads.items()}
    # One operation in place of two: at this size, what counts is their number.
    return params | {name: torch.sub(params[name], g, alpha=inner_lr) for name, g in grads.items()}


def adapt(
    module: nn.Module,
    params: Params,
    x: Any,
    y: Tensor,
    *,
    inner_lr: float | Rates,
    steps: int = 1,
    loss: Loss = mse,
    second_order: bool = True,
    adaptable: Iterable[str] | None = None,
) -> Params:
    """Return the parameters after some gradient steps on one task's support. Nothing is changed in place.

    Args:
        x, y: support inputs and targets, [shots, ...].
        second_order: keep the inner gradients differentiable, so that a gradient through the result has the Hessian
            term. Without it they count as constants: first-order MAML.
        adaptable: names to adapt; None adapts all of `params`. ANIL names the head's.

    Raises:
        CourseError: unknown names, negative steps, a module that MAML cannot run (see `check_module`).
    """
    names = check_arguments(module, params, inner_lr, steps, adaptable)
    check_module(module, "different")
    for _ in range(steps):
        params, _ = _step(module, params, x, y, inner_lr, loss, second_order, names)
    return params


def adaptation_curve(
    module: nn.Module,
    params: Params,
    batch: TaskBatch,
    *,
    inner_lr: float | Rates,
    steps: int,
    loss: Loss = mse,
    metric: Loss | None = None,
    adaptable: Iterable[str] | None = None,
    randomness: str = "error",
    chunk_size: int | None = None,
) -> Tensor:
    """Return the query's loss (or metric) of every task after 0, 1, ..., `steps` inner steps on its support.

    Shape [tasks, steps + 1]; no gradient. Raises as `meta_loss` does.
    """
    names = check_arguments(module, params, inner_lr, steps, adaptable)
    check_module(module, randomness)
    judge = metric or loss

    def one_task(support_x: Any, support_y: Tensor, query_x: Any, query_y: Tensor) -> Tensor:
        fast, values = params, [judge(_forward(module, params, query_x), query_y)]
        for _ in range(steps):
            fast, _ = _step(module, fast, support_x, support_y, inner_lr, loss, False, names)
            values.append(judge(_forward(module, fast, query_x), query_y))
        return torch.stack(values)

    with torch.no_grad():
        return _over_tasks(one_task, batch, randomness, chunk_size)


def meta_loss(
    module: nn.Module,
    params: Params,
    batch: TaskBatch,
    *,
    inner_lr: float | Rates,
    steps: int = 1,
    loss: Loss = mse,
    second_order: bool = True,
    adaptable: Iterable[str] | None = None,
    randomness: str = "error",
) -> Tensor:
    """Return the meta-objective: the query's loss after adapting on the support, averaged over the tasks.

    Finn et al. 2017, section 2.2, with a mean over tasks in place of the sum. A scalar, differentiable in `params`.

    Args:
        randomness: what dropout does: "error" refuses it, "different" draws for each task, "same" once for all.
        The others are those of `adapt`.

    Raises:
        CourseError: unknown names, negative steps, a loss that is no scalar, a module that MAML cannot run.
    """
    names = check_arguments(module, params, inner_lr, steps, adaptable)
    check_module(module, randomness)

    def one_task(support_x: Any, support_y: Tensor, query_x: Any, query_y: Tensor) -> Tensor:
        fast = params
        for _ in range(steps):
            fast, _ = _step(module, fast, support_x, support_y, inner_lr, loss, second_order, names)
        return check_scalar(loss(_forward(module, fast, query_x), query_y))

    return _over_tasks(one_task, batch, randomness, None).mean()


def meta_gradient(
    module: nn.Module,
    params: Params,
    batch: TaskBatch,
    *,
    inner_lr: float | Rates,
    chunk_size: int | None = None,
    team: Team | None = None,
    **options: Any,
) -> MetaGradient:
    """Return the meta-loss and its gradient at `params`; for learned inner rates, theirs too. Changes nothing.

    The same as differentiating `meta_loss`, and faster.

    Args:
        chunk_size: how many tasks to hold in memory at once; None takes all. The result is the same.
        team: the processes that share the tasks (see `scaling`), all called with the same batch; None for this one
            alone. The result is the same up to rounding, and in all of them.
        options: those of `meta_loss`.

    Raises: as `meta_loss`.
    """
    if chunk_size is not None and chunk_size < 1:
        raise CourseError(f"chunk_size is {chunk_size}.", "give the number of tasks to hold in memory, or None.")
    leaves = {name: p.detach().requires_grad_() for name, p in params.items()}
    rates = {n: r.detach().requires_grad_() for n, r in inner_lr.items()} if isinstance(inner_lr, Mapping) else {}
    wanted = [*leaves.values(), *rates.values()]
    total, sums = torch.zeros(()), None
    first, last = team.part(len(batch)) if team else (0, len(batch))
    for start in range(first, last, chunk_size or len(batch)):
        stop = min(last, start + (chunk_size or len(batch)))
        part = batch.tasks(start, stop) if stop - start < len(batch) else batch
        with torch.enable_grad():
            value = _leaf_meta_loss(module, leaves, part, inner_lr=rates or inner_lr, **options)
            value = value * (len(part) / len(batch)) if len(part) < len(batch) else value
            found = torch.autograd.grad(value, wanted, allow_unused=True, materialize_grads=True)
        total = total.to(value) + value.detach()
        sums = found if sums is None else [a + b for a, b in zip(sums, found)]
    if team and team.world_size > 1:
        own = [torch.zeros_like(p) for p in wanted] if sums is None else sums  # fewer tasks than processes
        total, *sums = team.all_reduce([total.to(wanted[0]), *own])
    return MetaGradient(total, dict(zip(leaves, sums)), dict(zip(rates, sums[len(leaves) :])))


def meta_step(
    module: nn.Module,
    params: Params,
    batch: TaskBatch,
    optimizer: torch.optim.Optimizer,
    *,
    inner_lr: float | Rates,
    **options: Any,
) -> Tensor:
    """Take one optimiser step on the initialisation, in place, and return the meta-loss before it.

    Args:
        params: tensors that `optimizer` holds. Learned inner rates that it holds too are updated with them.
        options: those of `meta_gradient`.

    Raises:
        CourseError: the gradient is not finite, or the optimiser lacks a parameter. Nothing is updated then. Also
            as `meta_loss`.
    """
    found = meta_gradient(module, params, batch, inner_lr=inner_lr, **options)
    return _apply(found, params, inner_lr, optimizer)


def reptile_gradient(
    module: nn.Module,
    params: Params,
    batch: TaskBatch,
    *,
    inner_lr: float | Rates,
    steps: int,
    batch_size: int | None = None,
    loss: Loss = mse,
    adaptable: Iterable[str] | None = None,
    randomness: str = "error",
    chunk_size: int | None = None,
) -> MetaGradient:
    """Return theta minus the mean adapted parameters: Reptile's direction (Nichol et al. 2018, algorithm 2).

    Reptile does not split a task: support and query together are its data. With one step this is joint training.

    Args:
        batch_size: examples in each inner step, taken in turn and from the front again at the end; None: all.

    The `loss` returned is the mean over tasks of the first inner step's, before adapting. Raises as `meta_loss`.
    """
    names = check_arguments(module, params, inner_lr, steps, adaptable)
    check_module(module, randomness)
    shots = batch.support_y.shape[1] + batch.query_y.shape[1]
    size = shots if batch_size is None else batch_size
    if steps < 1 or not 1 <= size <= shots:
        raise CourseError(
            f"Reptile was asked for {steps} steps of {size} examples, and each task has {shots}.",
            "take at least 1 step, with a batch_size between 1 and the support and query together.",
        )
    start = {name: p.detach() for name, p in params.items()}

    def one_task(support_x: Any, support_y: Tensor, query_x: Any, query_y: Tensor) -> tuple[Params, Tensor]:
        x, y = tree_map(lambda a, b: torch.cat([a, b]), (support_x, support_y), (query_x, query_y))
        fast, first = start, None
        for i in range(steps):
            at = [(i * size + j) % shots for j in range(size)]
            chosen = tree_map(lambda t, at=at: t[at], (x, y)) if size < shots else (x, y)
            fast, value = _step(module, fast, *chosen, inner_lr, loss, False, names)
            first = value if first is None else first
        return {name: start[name] - fast[name] for name in names}, first

    with torch.no_grad():
        moved, first = _over_tasks(one_task, batch, randomness, chunk_size)
    zeros = {name: torch.zeros_like(p) for name, p in start.items()}
    return MetaGradient(first.mean(), zeros | {name: d.mean(0) for name, d in moved.items()}, {})


def reptile_step(
    module: nn.Module,
    params: Params,
    batch: TaskBatch,
    optimizer: torch.optim.Optimizer,
    *,
    inner_lr: float | Rates,
    steps: int,
    **options: Any,
) -> Tensor:
    """Move the initialisation towards the adapted parameters, in place, and return `reptile_gradient`'s loss.

    Plain SGD with rate epsilon is Nichol et al.'s theta + epsilon * mean(theta* - theta).

    Raises: as `meta_step` and `reptile_gradient`.
    """
    found = reptile_gradient(module, params, batch, inner_lr=inner_lr, steps=steps, **options)
    return _apply(found, params, {}, optimizer)


def _leaf_meta_loss(
    module: nn.Module,
    params: Params,
    batch: TaskBatch,
    *,
    inner_lr: float | Rates,
    steps: int = 1,
    loss: Loss = mse,
    second_order: bool = True,
    adaptable: Iterable[str] | None = None,
    randomness: str = "error",
) -> Tensor:
    """Return `meta_loss` of parameters that require gradients, with fewer layers of `torch.func` under way.

    Every task gets its own copy of what it adapts. None is shared, so the gradient of the sum of the tasks' losses
    in these copies holds each task's own gradient, and plain autograd finds all at once.
    """
    names = check_arguments(module, params, inner_lr, steps, adaptable)
    check_module(module, randomness)

    def losses(fast: Params, x: Any, y: Tensor) -> Tensor:
        def one_task(own: Params, x: Any, y: Tensor) -> Tensor:
            return check_scalar(loss(_forward(module, params | own, x), y))

        return _vmap(one_task, (fast, x, y), randomness, None)

    fast = {name: params[name].expand(len(batch), *params[name].shape) for name in names}
    for _ in range(steps):
        total = losses(fast, batch.support_x, batch.support_y).sum()
        grads = torch.autograd.grad(
            total, list(fast.values()), create_graph=second_order, allow_unused=True, materialize_grads=True
        )
        fast = inner_update(fast, dict(zip(names, grads)), inner_lr)
    return losses(fast, batch.query_x, batch.query_y).mean()


def _step(
    module: nn.Module,
    params: Params,
    x: Any,
    y: Tensor,
    inner_lr: float | Rates,
    loss: Loss,
    second_order: bool,
    names: tuple[str, ...],
) -> tuple[Params, Tensor]:
    """Return the parameters after one inner step, and the support's loss before it."""
    base = params if second_order else {name: p.detach() for name, p in params.items()}

    def support_loss(fast: Params) -> Tensor:
        return check_scalar(loss(_forward(module, base | fast, x), y))

    grads, value = grad_and_value(support_loss)({name: base[name] for name in names})
    return inner_update(params, grads, inner_lr), value


def _forward(module: nn.Module, params: Params, x: Any) -> Any:
    """Return the module's output with these parameters and copies of its buffers, which it must not write to."""
    buffers = {name: b.clone() for name, b in module.named_buffers()}
    state = params | buffers
    output = functional_call(module, state, x)
    for name, buffer in buffers.items():
        if state[name] is not buffer or buffer._version:
            raise CourseError(
                f"the module wrote to its buffer {name!r}, which would pass from one task to the next.",
                "compute what it stores from the batch at hand, or switch it off with module.eval().",
            )
    return output


def _over_tasks(one_task: Callable, batch: TaskBatch, randomness: str, chunk_size: int | None) -> Any:
    """Run a function of one task's four tensors over all tasks at once."""
    parts = (batch.support_x, batch.support_y, batch.query_x, batch.query_y)
    return _vmap(one_task, parts, randomness, chunk_size)


def _vmap(one_task: Callable, arguments: tuple, randomness: str, chunk_size: int | None) -> Any:
    """Run a function of one task over the tasks in the arguments' first dimension, with errors made for people."""
    if chunk_size is not None and chunk_size < 1:
        raise CourseError(f"chunk_size is {chunk_size}.", "give 1 or more, or None for all tasks at once.")
    try:
        return vmap(one_task, randomness=randomness, chunk_size=chunk_size)(*arguments)
    except RuntimeError as error:
        if "random" in str(error):
            problem = "the module draws at random, and nobody said how over tasks."
            raise CourseError(problem, RANDOMNESS_REMEDY) from error
        # The last is what PyTorch says when one tensor is to take in place what differs between tasks.
        if any(sign in str(error) for sign in ("in-place", "inplace", "doesn't match the broadcast shape")):
            raise CourseError(
                f"the module changes a tensor in place, which cannot be done for all tasks at once ({error}).",
                "compute a new tensor instead, and keep no state in the module.",
            ) from error
        raise


def _apply(found: MetaGradient, params: Params, inner_lr: float | Rates, optimizer: torch.optim.Optimizer) -> Tensor:
    """Hand a finite gradient to the optimiser and let it step; refuse any other before anything is changed."""
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    if missing := [name for name, p in params.items() if id(p) not in held]:
        raise CourseError(
            f"the optimiser does not hold {', '.join(missing)}, which would never be updated.",
            "build it from these very tensors: torch.optim.Adam(params.values()).",
        )
    named = {repr(name): g for name, g in found.params.items()}
    named |= {f"the inner rate of {name!r}": g for name, g in found.inner_lr.items()}
    if not torch.cat([g.flatten() for g in named.values()]).isfinite().all():
        for what, g in named.items():
            if not torch.isfinite(g).all():
                raise CourseError(
                    f"the meta-gradient for {what} is not finite (meta-loss {found.loss:.3g}); nothing was updated.",
                    "lower inner_lr or the outer rate, take fewer inner steps, or look for NaN in the data.",
                )
    for group in optimizer.param_groups:
        for p in group["params"]:
            p.grad = None
    for name, p in params.items():
        p.grad = found.params[name]
    for name, g in found.inner_lr.items():
        if id(inner_lr[name]) in held:
            inner_lr[name].grad = g
    optimizer.step()
    return found.loss
