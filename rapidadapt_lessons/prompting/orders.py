"""All orders of a few examples, and what calibration repairs in each (lessons 2.1 and 2.2).

Lu et al. 2022, "Fantastically ordered prompts", figure 1; Zhao et al. 2021, "Calibrate before use".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import permutations

import torch

from ..errors import CourseError
from ..lm.tasks import Example, Task
from ..lm.types import Model, Tokenizer
from ..show.plots import strips
from .calibration import batch_calibration, content_free_prior, contextual_calibration
from .prompts import build_prompts, template_of
from .scoring import label_logprobs

MOST_ORDERED = 4  # 24 orders; five examples would have 120


@dataclass(frozen=True)
class Ordered:
    """What the model says to the same queries behind one order of the examples.

    Attributes:
        support: the examples in this order.
        logprobs: log P(label | prompt), [queries, labels], in nats.
        prior: the label probabilities that the examples alone suggest, [labels].
    """

    support: tuple[Example, ...]
    logprobs: torch.Tensor
    prior: torch.Tensor

    def repaired(self) -> dict[str, torch.Tensor]:
        """Return the label probabilities, [queries, labels], uncalibrated and by each repair."""
        plain = self.logprobs.softmax(-1)
        return {
            "uncalibrated": plain,
            "contextual": contextual_calibration(plain, self.prior),
            "batch": batch_calibration(self.logprobs),
        }


def in_every_order(
    model: Model, tokenizer: Tokenizer, task: Task, support: Sequence[Example], queries: Sequence[Example]
) -> list[Ordered]:
    """Ask the queries behind every order of the examples, each written as the task's own sentence.

    Raises CourseError where there are more than four examples, or the task has no labels.
    """
    if len(support) > MOST_ORDERED or not task.labels:
        raise CourseError(
            f"{len(support)} examples of {task.name!r} were to be put in every order.",
            f"take at most {MOST_ORDERED}, of a task with labels.",
        )
    template, found = template_of(task), []
    for order in permutations(support):
        scores = label_logprobs(model, tokenizer, build_prompts(queries, order, template), task.labels)
        prior = content_free_prior(model, tokenizer, order, task.labels, template)
        found.append(Ordered(order, scores, prior))
    return found


def order_view(task: Task, queries: Sequence[Example], ordered: Ordered) -> str:
    """Show, for a task with two labels, where each query falls in one order before and after each repair. No model
    is asked. Raises CourseError where the task does not have exactly two labels.
    """
    if len(task.labels) != 2:
        raise CourseError(f"{task.name!r} has {len(task.labels)} labels.", "choose a task with exactly two.")
    groups, accuracies = {}, []
    for name, table in ordered.repaired().items():
        found = list(zip(queries, table[:, 1].tolist()))
        groups[name] = {f"really {label}": [p for q, p in found if q.y == label] for label in task.labels}
        right = sum(task.labels[p > 0.5] == q.y for q, p in found) / len(found)
        accuracies.append(f"{name} {right:.0%}")
    picture = strips(
        groups,
        title="Correct: " + ", ".join(accuracies),
        xlabel=f"probability of {task.labels[1]} (between the two labels)",
        line=0.5,
        line_label="decision",
    )
    shown = escape(", ".join(f"{x} → {y}" for x, y in ordered.support))
    return f"<p>Examples, in this order: {shown}</p>{picture.html()}"
