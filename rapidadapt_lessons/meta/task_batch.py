"""A batch of tasks, and how several processes share it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from ..errors import CourseError
from ..training.team import Team

Params = dict[str, Tensor]
Rates = Mapping[str, Tensor]  # one inner rate for each parameter, of its shape or a single number
InnerRate = float | Tensor | Rates  # for all parameters, or one for each; tensors can be learned


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
        names = ("support_x", "support_y", "query_x", "query_y")
        shapes = {name: [tuple(t.shape) for t in tree_leaves(part)] for name, part in zip(names, self.parts)}
        listed = ", ".join(f"{name} {' and '.join(map(str, found))}" for name, found in shapes.items())
        remedy = "give tensors of shape [tasks, shots, ...], one row of targets for each row of inputs."
        every = [shape for found in shapes.values() for shape in found]
        if min(len(shape) for shape in every) < 2:
            raise CourseError(f"a part of the batch lacks the dimensions of tasks and shots: {listed}.", remedy)
        if min(shape[0] * shape[1] for shape in every) == 0:
            raise CourseError(f"the batch has no tasks, or tasks without examples: {listed}.", remedy)
        if len({shape[0] for shape in every}) > 1:
            raise CourseError(f"the parts of the batch hold different numbers of tasks: {listed}.", remedy)
        for x, y in (("support_x", "support_y"), ("query_x", "query_y")):
            if {shape[1] for shape in shapes[x]} != {shapes[y][0][1]}:
                raise CourseError(f"{x} and {y} hold different numbers of shots: {listed}.", remedy)

    def __len__(self) -> int:
        return self.support_y.shape[0]

    @property
    def parts(self) -> tuple[Any, Tensor, Any, Tensor]:
        return self.support_x, self.support_y, self.query_x, self.query_y

    def tasks(self, start: int, stop: int) -> TaskBatch:
        """Return tasks start to stop - 1 as a batch of their own."""
        return TaskBatch(*tree_map(lambda t: t[start:stop], self.parts))


def sum_over_team(
    of_part: Callable[[TaskBatch, float], Sequence[Tensor]],
    batch: TaskBatch,
    wanted: Sequence[Tensor],
    team: Team | None,
) -> Sequence[Tensor]:
    """Return what `of_part` gives for the batch, computed by a team: the sum over each process's part of the tasks.

    Args:
        of_part: (part of the batch, its share of the tasks) -> a scalar, and one tensor like each of `wanted`.
        team: the processes, each called with the same batch; None for this one alone.
    """
    if team is None or team.world_size == 1:
        return of_part(batch, 1.0)
    first, last = team.part(len(batch))
    if first < last:
        return team.all_reduce(of_part(batch.tasks(first, last), (last - first) / len(batch)))
    # Fewer tasks than processes: this one has nothing to add.
    return team.all_reduce([wanted[0].new_zeros(()), *map(torch.zeros_like, wanted)])
