"""What meta-learning refuses, and why: arguments that make no sense, and modules that mix up their tasks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from ..errors import CourseError
from ..guards import require_at_least
from .task_batch import InnerRate, Params

RANDOM = ", which leaves open whether all tasks share a draw."
RANDOM_REMEDY = "call module.eval(), or take the dropout out."


def check_arguments(
    module: nn.Module, params: Params, inner_lr: InnerRate, steps: int, adaptable: Iterable[str] | None
) -> tuple[str, ...]:
    """Return the names to adapt, after looking at every argument that can be looked at without computing.

    Raises:
        CourseError: a name or shape that the module does not have, an unknown adaptable name, a number of steps or
            an inner rate that makes no sense, or as `check_module`.
    """
    shapes = {name: p.shape for name, p in module.named_parameters()}
    if wrong := [name for name, p in params.items() if shapes.get(name) != p.shape]:
        raise CourseError(
            f"{', '.join(wrong)}: no parameter of the module has that name and shape.",
            "take them from dict(module.named_parameters()).",
        )
    if not isinstance(steps, int) or steps < 0:
        raise CourseError(f"{steps!r} inner steps.", "give a whole number, 0 or more.")
    if isinstance(inner_lr, Mapping):
        for name, rate in inner_lr.items():
            if name in params and isinstance(rate, Tensor) and not _fits(rate.shape, params[name].shape):
                raise CourseError(
                    f"inner_lr of {name} has the shape {list(rate.shape)}, the parameter {list(params[name].shape)}.",
                    "give one rate, or one for each of its numbers.",
                )
    elif not _is_rate(inner_lr):
        raise CourseError(f"inner_lr is {inner_lr!r}.", "give a finite number, 0 or more, or a tensor for each name.")
    names = adaptable_names(params, adaptable)
    if isinstance(inner_lr, Mapping) and (missing := [name for name in names if name not in inner_lr]):
        raise CourseError(f"there is no inner rate for {', '.join(missing)}.", "build them with `learned_rates`.")
    check_module(module)
    return names


def check_module(module: nn.Module) -> None:
    """Refuse a module whose state or randomness would pass from one task to another.

    Raises:
        CourseError: normalisation that keeps running statistics, or dropout, in training mode.
    """
    for name, part in module.named_modules():
        if not part.training:
            continue
        if getattr(part, "track_running_stats", False):
            raise CourseError(
                f"{type(part).__name__} {name!r} would carry its running statistics from one task to the next.",
                "build it with track_running_stats=False, use LayerNorm or GroupNorm, or call module.eval().",
            )
        if isinstance(part, nn.modules.dropout._DropoutNd) and part.p > 0:
            raise CourseError(f"{type(part).__name__} {name!r} draws at random{RANDOM}", RANDOM_REMEDY)


def _is_rate(inner_lr: Any) -> bool:
    """Return whether this is one finite number, 0 or more; one that is being learned may fall below."""
    learned = isinstance(inner_lr, Tensor) and inner_lr.requires_grad
    number = inner_lr.item() if isinstance(inner_lr, Tensor) and inner_lr.numel() == 1 else inner_lr
    return isinstance(number, (int, float)) and math.isfinite(number) and (learned or number >= 0)


def _fits(shape: torch.Size, into: torch.Size) -> bool:
    """Return whether a tensor of this shape spreads over one of the other, and makes it no larger."""
    try:
        return torch.broadcast_shapes(shape, into) == into
    except RuntimeError:
        return False


def adaptable_names(params: Params, adaptable: Iterable[str] | None) -> tuple[str, ...]:
    """Return the names to adapt: all when `adaptable` is None. Raises CourseError for none, or any not in `params`."""
    if adaptable is None:
        return tuple(params)
    names = (adaptable,) if isinstance(adaptable, str) else tuple(adaptable)
    if not names:
        raise CourseError("adaptable names no parameter at all.", "name some, or take 0 inner steps.")
    if unknown := [name for name in names if name not in params]:
        raise CourseError(
            f"adaptable names {', '.join(map(repr, unknown))}, not among the parameters.",
            f"choose from {', '.join(params)}.",
        )
    return names


def check_same_shape(prediction: Tensor, target: Tensor) -> None:
    """Raise CourseError where the shapes differ. [10, 1] against [10] would silently compare all pairs."""
    if prediction.shape != target.shape:
        raise CourseError(
            f"the prediction has shape {tuple(prediction.shape)} and the target {tuple(target.shape)}.",
            "reshape the targets to the shape of the predictions.",
        )


def check_scalar(value: Tensor) -> Tensor:
    """Return one task's loss as it is. Raises CourseError when it is not a single number."""
    if value.dim():
        raise CourseError(
            f"the loss returned shape {tuple(value.shape)} for one task.", "return its mean over the examples."
        )
    return value


def check_minibatches(steps: int, size: int, shots: int) -> None:
    """Raise CourseError unless Reptile takes a step, of at least one and at most all of a task's examples."""
    if steps < 1 or not 1 <= size <= shots:
        raise CourseError(
            f"Reptile was asked for {steps} steps of {size} examples, and each task has {shots}.",
            "take at least 1 step, with a batch_size between 1 and the support and query together.",
        )


def check_update(missing: list[str], loss: Tensor, grads: Params, rate_grads: Params) -> None:
    """Raise CourseError before an outer step where the optimiser misses parameters, or a gradient is not finite."""
    if missing:
        raise CourseError(
            f"the optimiser does not hold {', '.join(missing)}, which would never be updated.",
            "build it from these very tensors: torch.optim.Adam(params.values()).",
        )
    named = {repr(name): g for name, g in grads.items()}
    named |= {f"the inner rate of {name!r}": g for name, g in rate_grads.items()}
    if not torch.cat([g.flatten() for g in named.values()]).isfinite().all():
        first = next(name for name, g in named.items() if not g.isfinite().all())
        raise CourseError(
            f"the meta-gradient for {first} is not finite (meta-loss {loss:.3g}); nothing was updated.",
            "lower inner_lr or the outer rate, take fewer inner steps, or look for NaN in the data.",
        )


def stateless_forward(module: nn.Module, params: Params, x: Any) -> Any:
    """Return the module's output with these parameters and copies of its buffers.

    Raises:
        CourseError: the module wrote to a buffer.
    """
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


def vmap_tasks(one_task: Callable, arguments: tuple, chunk_size: int | None = None) -> Any:
    """Run a function of one task over the tasks in the arguments' first dimension.

    Raises:
        CourseError: a chunk_size below 1, or a module that draws at random or changes a tensor in place.
    """
    if chunk_size is not None:
        require_at_least(1, "chunk_size", chunk_size, "give 1 or more, or None for all tasks at once.")
    try:
        return vmap(one_task, chunk_size=chunk_size)(*arguments)
    except RuntimeError as error:
        if "random" in str(error):
            raise CourseError(f"the module draws at random{RANDOM}", RANDOM_REMEDY) from error
        # The last is what PyTorch says when one tensor is to take in place what differs between tasks.
        if any(sign in str(error) for sign in ("in-place", "inplace", "doesn't match the broadcast shape")):
            raise CourseError(
                f"the module changes a tensor in place, which cannot be done for all tasks at once ({error}).",
                "compute a new tensor instead, and keep no state in the module.",
            ) from error
        raise
