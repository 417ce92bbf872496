"""When a second task arrives: what learning it in the same adapter costs the first."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..errors import NotEnoughExamples
from ..lm.tasks import Example, Task
from ..lora import layers as lora
from ..prompting.answers import answered_right
from ..training.loop import TrainConfig, train
from ..training.rows import task_rows
from .methods import FULL, State, fresh_adapter

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Moved:
    """An adapter that has learned a second task on top of a first.

    Attributes:
        first_before, first_after: the share of the first task's queries answered right, before and after.
        second_after: the share of the second task's queries answered right, after.
        seconds: that learning the second task took.
    """

    first_before: float
    first_after: float
    second_after: float
    seconds: float

    @property
    def lost(self) -> float:
        """What the first task lost; negative where it gained."""
        return self.first_before - self.first_after


def learn_second(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    first: Task,
    second: Task,
    support: Sequence[Example],
    *,
    start: State,
    replay: Sequence[Example] = (),
    config: TrainConfig = FULL,
    n_query: int = 48,
) -> Moved:
    """Train an adapter that knows the first task on the second one, and measure both. The model ends without it.

    Args:
        support: the second task's examples.
        start: the adapter's matrices, as trained on the first task.
        replay: examples of the first task that are trained on again, mixed among the second's.

    Raises:
        NotEnoughExamples: there is no support.
        AdapterMismatch: `start` is of another shape.
        TrainingDiverged: as `training.train`.
    """
    if not support:
        raise NotEnoughExamples("0 examples of the second task.", "give at least one.")
    first_queries = first.episode(0, n_query=n_query).query
    second_queries = second.episode(0, n_query=n_query).query
    share = lambda task, queries: sum(answered_right(model, tokenizer, task, queries)) / len(queries)  # noqa: E731
    try:
        fresh_adapter(model, start)
        before = share(first, first_queries)
        rows = task_rows(tokenizer, second, support) + (task_rows(tokenizer, first, replay) if replay else [])
        begin = time.perf_counter()
        train(model, rows, replace(config, batch_size=min(config.batch_size, len(rows))), progress=False)
        seconds = time.perf_counter() - begin
        return Moved(before, share(first, first_queries), share(second, second_queries), seconds)
    finally:
        lora.remove(model)
