"""A batch of tasks, and what meta-learning must refuse before it computes anything."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from ..errors import CourseError

Params = dict[str, Tensor]
Rates = Mapping[str, Tensor]  # one inner rate for each parameter, of its shape or a single number
RANDOMNESS_REMEDY = "pass randomness='different' (drawn for each task) or 'same', or call module.eval()."


@dataclass(frozen=True)
class TaskBatch:
    """The examples of several tasks: each adapts on its support and is judged on its query.

    Shapes: support_x, support_y [tasks, support shots, ...]; query_x, query_y [tasks, query shots, ...].
    An x may be a tuple of such tensors when the module's forward takes several.

    Raises:
        CourseError: no tasks, no shots, or numbers of tasks or shots that do not match.
    """

    support_x: Any
    support_y: Tensor
    query_x: Any
    query_y: Tensor

    def __post_init__(self) -> None:
        parts = {name: tree_leaves(getattr(self, name)) for name in ("support_x", "support_y", "query_x", "query_y")}
        shapes = {name: [tuple(t.shape) for t in leaves] for name, leaves in parts.items()}
        told = ", ".join(f"{name} {' and '.join(map(str, found))}" for name, found in shapes.items())
        remedy = "give tensors of shape [tasks, shots, ...], one row of targets for each row of inputs."
        every = [shape for found in shapes.values() for shape in found]
        if min(len(shape) for shape in every) < 2:
            raise CourseError(f"a part of the batch lacks the dimensions of tasks and shots: {told}.", remedy)
        if min(shape[0] * shape[1] for shape in every) == 0:
            raise CourseError(f"the batch has no tasks, or tasks without examples: {told}.", remedy)
        if len({shape[0] for shape in every}) > 1:
            raise CourseError(f"the parts of the batch hold different numbers of tasks: {told}.", remedy)
        for x, y in (("support_x", "support_y"), ("query_x", "query_y")):
            if {shape[1] for shape in shapes[x]} != {shapes[y][0][1]}:
                raise CourseError(f"{x} and {y} hold different numbers of shots: {told}.", remedy)

    def __len__(self) -> int:
        return self.support_y.shape[0]

    def tasks(self, start: int, stop: int) -> TaskBatch:
        """Return tasks start to stop - 1 as a batch of their own."""
        parts = (self.support_x, self.support_y, self.query_x, self.query_y)
        return TaskBatch(*tree_map(lambda t: t[start:stop], parts))


def check_module(module: nn.Module, randomness: str = "error") -> None:
    """Refuse a module whose state or randomness would pass from one task to another.

    Raises:
        CourseError: normalisation that keeps running statistics in training mode; dropout in training mode while
            `randomness` is "error"; an unknown `randomness`.
    """
    if randomness not in ("error", "different", "same"):
        raise CourseError(f"randomness is {randomness!r}.", "choose 'error', 'different' or 'same'.")
    for name, part in module.named_modules():
        if not part.training:
            continue
        told = f"{type(part).__name__} {name!r}"
        if getattr(part, "track_running_stats", False):
            raise CourseError(
                f"{told} would carry its running statistics from one task to the next.",
                "build it with track_running_stats=False, use LayerNorm or GroupNorm, or call module.eval().",
            )
        if isinstance(part, nn.modules.dropout._DropoutNd) and part.p > 0 and randomness == "error":
            raise CourseError(f"{told} draws at random, and nobody said how over tasks.", RANDOMNESS_REMEDY)


def check_arguments(
    module: nn.Module, params: Params, inner_lr: float | Rates, steps: int, adaptable: Iterable[str] | None
) -> tuple[str, ...]:
    """Return the names to adapt, after looking at every argument that can be looked at without computing.

    Raises:
        CourseError: a name or shape that the module does not have, an unknown adaptable name, a number of steps or
            an inner rate that makes no sense.
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
                told = f"inner_lr of {name} has the shape {list(rate.shape)}, the parameter {list(params[name].shape)}."
                raise CourseError(told, "give one rate, or one for each of its numbers.")
    else:
        one = isinstance(inner_lr, (int, float)) or (isinstance(inner_lr, Tensor) and inner_lr.numel() == 1)
        if not (one and math.isfinite(inner_lr) and inner_lr >= 0):
            remedy = "give a finite number, 0 or more, or a tensor for each name."
            raise CourseError(f"inner_lr is {inner_lr!r}.", remedy)
    return adaptable_names(params, adaptable)


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


def check_scalar(value: Tensor) -> Tensor:
    """Return one task's loss as it is. Raises CourseError when it is not a single number."""
    if value.dim():
        raise CourseError(
            f"the loss returned shape {tuple(value.shape)} for one task.", "return its mean over the examples."
        )
    return value
