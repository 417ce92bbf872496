"""The processes that train one model together, as each of them sees it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from ..errors import CourseError

T = TypeVar("T")


@dataclass
class Team:
    """The processes that train together, as one of them sees it; by default one alone, which talks to nobody.

    Raises CourseError where there is no process of that rank.
    """

    rank: int = 0  # this process's number, from 0
    world_size: int = 1  # how many processes there are
    bytes_sent: int = field(default=0, init=False)  # that this process has given to `all_reduce` so far
    messages: int = field(default=0, init=False)  # in how many calls

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world_size:
            problem = f"process {self.rank} of {self.world_size}."
            raise CourseError(problem, "count processes from 0, below their number.")

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes files and shows progress."""
        return self.rank == 0

    def part(self, n: int) -> tuple[int, int]:
        """Return the start and the end of this process's part of n things. Parts differ by one at most."""
        return self.rank * n // self.world_size, (self.rank + 1) * n // self.world_size

    def share(self, things: Sequence[T]) -> Sequence[T]:
        """Return this process's part of a list."""
        start, end = self.part(len(things))
        return things[start:end]

    def all_reduce(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Return the sums over all processes, in float32, the same bits in each of them. It is one message for all."""
        if self.world_size == 1:
            return list(tensors)
        flat = torch.cat([t.detach().reshape(-1).float() for t in tensors])
        self.bytes_sent, self.messages = self.bytes_sent + flat.nbytes, self.messages + 1
        dist.all_reduce(flat)
        pieces = flat.split([t.numel() for t in tensors])
        return [piece.view(t.shape).to(t.dtype) for piece, t in zip(pieces, tensors)]

    def all_reduce_gradients(self, parameters: Sequence[torch.nn.Parameter], loss: float) -> float:
        """Replace every gradient by its sum over the processes, and return the sum of the losses.

        A process that had nothing to compute, and so has no gradient, adds zeros.
        """
        if self.world_size == 1:
            return loss
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        *sums, total = self.all_reduce([*grads, torch.tensor([loss], device=grads[0].device)])
        for parameter, total_gradient in zip(parameters, sums):
            parameter.grad = total_gradient
        return float(total)

    def broadcast(self, tensors: Sequence[Tensor]) -> None:
        """Overwrite the tensors by process 0's, in place, so that all begin with the same bits."""
        if self.world_size > 1:
            with torch.no_grad():
                for tensor in tensors:
                    dist.broadcast(tensor.detach(), src=0)

    def broadcast_object(self, work: Callable[[], T]) -> T:
        """Let process 0 do the work, and return its result in all; an error made for people is raised in all."""
        if self.world_size == 1:
            return work()
        outcome: list[Any] = [None]
        if self.is_main:
            try:
                outcome = [(work(), None)]
            except CourseError as error:
                outcome = [(None, error)]
        dist.broadcast_object_list(outcome, src=0, device=torch.device("cpu"))
        result, error = outcome[0]
        if error is not None:
            raise error
        return result
