"""When a second task arrives: what learning it in the same adapter costs the first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import NotEnoughExamples
from ..lm.tasks import Example, Task
from ..lm.types import Model, Tokenizer
from ..lora import layers as lora
from ..meta.meta_lora import State
from ..prompting.answers import answered_right
from ..training.loop import TrainConfig
from ..training.rows import task_rows
from .methods import FULL, fresh_adapter, train_adapter


@dataclass(frozen=True)
class SecondTask:
    """The share of a task's queries that an adapter answers right, before and after it has learned a second task."""

    first_before: float
    first_after: float
    second_after: float

    @property
    def lost(self) -> float:
        """What the first task lost; negative where it gained."""
        return self.first_before - self.first_after


def learn_second(
    model: Model, tokenizer: Tokenizer, first: Task, second: Task, support: Sequence[Example],
    *, start: State, replay: Sequence[Example] = (), config: TrainConfig = FULL, n_query: int = 48,
) -> SecondTask:  # fmt: skip
    """Train an adapter that knows the first task on the second one, and measure both. The model ends without it.

    Args:
        support: the second task's examples.
        start: the adapter's matrices, as trained on the first task.
        replay: examples of the first task that are trained on again, mixed among the second's.

    Raises NotEnoughExamples without support, AdapterMismatch where `start` is of another shape; as `training.train`.
    """
    if not support:
        raise NotEnoughExamples("0 examples of the second task.", "give at least one.")

    def share_right(task: Task) -> float:
        queries = task.episode(0, n_query=n_query).query
        return sum(answered_right(model, tokenizer, task, queries)) / len(queries)

    rows = task_rows(tokenizer, second, support) + (task_rows(tokenizer, first, replay) if replay else [])
    try:
        fresh_adapter(model, start)
        before = share_right(first)
        train_adapter(model, rows, config, start=start)
        return SecondTask(before, share_right(first), share_right(second))
    finally:
        lora.remove(model)
